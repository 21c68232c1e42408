//! The scalar truth.

use super::DepthwiseI8;
use crate::numerics::{requantize, requantize_add};

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn depthwise_i8(dw: &DepthwiseI8<'_>, x: &[i8], first_row: usize, y: &mut [i8]) {
    let [in_h, in_w, c] = dw.input;
    let [_, out_w] = dw.output;
    let w = &dw.window;
    let (kh, kw) = (w.kernel[0] as usize, w.kernel[1] as usize);
    for (i, pixel) in y.chunks_exact_mut(c).enumerate() {
        let (oy, ox) = (first_row + i / out_w, i % out_w);
        for (ch, out) in pixel.iter_mut().enumerate() {
            let mut acc = dw.bias[ch];
            for ky in 0..kh {
                for kx in 0..kw {
                    let iy = (oy * w.stride[0] as usize + ky * w.dilation[0] as usize)
                        .wrapping_sub(w.pad[0] as usize);
                    let ix = (ox * w.stride[1] as usize + kx * w.dilation[1] as usize)
                        .wrapping_sub(w.pad[1] as usize);
                    let inside = iy < in_h && ix < in_w;
                    let value = if inside {
                        x[(iy * in_w + ix) * c + ch]
                    } else {
                        dw.input_zero
                    };
                    acc += i32::from(value) * i32::from(dw.weights[(ky * kw + kx) * c + ch]);
                }
            }
            let e = &dw.epilogue;
            let (lo, hi) = (i32::from(e.lo), i32::from(e.hi));
            let code = match e.residual {
                None => requantize(acc, dw.multipliers[ch], e.zero, lo, hi),
                Some(r) => {
                    let addend = i32::from(r.data[(first_row * out_w + i) * c + ch]) - r.zero;
                    requantize_add(
                        acc,
                        dw.multipliers[ch],
                        addend,
                        r.multiplier,
                        e.zero,
                        lo,
                        hi,
                    )
                }
            } as i8;
            *out = e.table.map_or(code, |t| t[code as u8 as usize]);
        }
    }
}
