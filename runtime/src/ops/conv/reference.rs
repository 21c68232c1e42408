//! The scalar truth.

use super::{ConvI8, PackedShape};
use crate::numerics::{requantize, requantize_add};

/// Computes output pixels `first..first + y.len() / channels` into `y`.
pub fn conv_i8(conv: &ConvI8<'_>, x: &[i8], first: usize, y: &mut [i8]) {
    let [_, out_w, channels] = conv.output;
    let packed = PackedShape::new(channels, conv.depth());
    for (i, pixel) in y.chunks_exact_mut(channels).enumerate() {
        let p = first + i;
        for (n, out) in pixel.iter_mut().enumerate() {
            let mut acc = conv.bias[n];
            visit_patch(conv, p / out_w, p % out_w, |k, at| {
                let value = at.map_or(conv.input_zero, |at| x[at]);
                let weight = conv.weights[packed.index(n, k)];
                acc = acc.wrapping_add(i32::from(value) * i32::from(weight));
            });
            *out = finish(conv, acc, n, p * channels + n);
        }
    }
}

/// Calls `f(k, index)` for each patch position, with the input index or `None` in the padding.
fn visit_patch(conv: &ConvI8<'_>, oy: usize, ox: usize, mut f: impl FnMut(usize, Option<usize>)) {
    let [in_h, in_w, c] = conv.input;
    let w = &conv.window;
    for ky in 0..w.kernel[0] as usize {
        for kx in 0..w.kernel[1] as usize {
            let iy = (oy * w.stride[0] as usize + ky * w.dilation[0] as usize)
                .wrapping_sub(w.pad[0] as usize);
            let ix = (ox * w.stride[1] as usize + kx * w.dilation[1] as usize)
                .wrapping_sub(w.pad[1] as usize);
            let inside = iy < in_h && ix < in_w;
            for ci in 0..c {
                let k = (ky * w.kernel[1] as usize + kx) * c + ci;
                f(k, inside.then(|| (iy * in_w + ix) * c + ci));
            }
        }
    }
}

fn finish(conv: &ConvI8<'_>, acc: i32, n: usize, index: usize) -> i8 {
    let e = &conv.epilogue;
    let (lo, hi) = (i32::from(e.lo), i32::from(e.hi));
    let code = match e.residual {
        None => requantize(acc, conv.multipliers[n], e.zero, lo, hi),
        Some(r) => {
            let addend = i32::from(r.data[index]) - r.zero;
            requantize_add(
                acc,
                conv.multipliers[n],
                addend,
                r.multiplier,
                e.zero,
                lo,
                hi,
            )
        }
    } as i8;
    e.table.map_or(code, |t| t[code as u8 as usize])
}
