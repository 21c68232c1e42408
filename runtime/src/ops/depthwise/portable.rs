//! Plain loops with the channels innermost, in tiles that fit the registers.

use super::DepthwiseI8;
use crate::numerics::{requantize, requantize_add};
use crate::ops::Window;
use crate::ops::vectorize::Loop;

/// Channels that are accumulated side by side.
const TILE: usize = 32;

/// Whole output rows `first_row..` of `y`, before the table; the lengths are checked.
pub(super) struct Rows<'a, 'b> {
    pub dw: &'a DepthwiseI8<'b>,
    pub x: &'a [i8],
    pub first_row: usize,
    pub y: &'a mut [i8],
}

impl Loop for Rows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Rows {
            dw,
            x,
            first_row,
            y,
        } = self;
        let c = dw.input[2];
        let out_w = dw.output[1];
        for (i, pixel) in y.chunks_exact_mut(c).enumerate() {
            let (oy, ox) = (first_row + i / out_w, i % out_w);
            for (tile, out) in pixel.chunks_mut(TILE).enumerate() {
                let c0 = tile * TILE;
                let mut acc = [0i32; TILE];
                acc[..out.len()].copy_from_slice(&dw.bias[c0..c0 + out.len()]);
                accumulate(dw, x, [oy, ox], c0, &mut acc, out.len());
                finish(dw, (oy * out_w + ox) * c + c0, c0, &acc, out);
            }
        }
    }
}

/// Adds the products of all taps to the accumulators of channels `c0..c0 + len`.
#[inline(always)]
fn accumulate(
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    [oy, ox]: [usize; 2],
    c0: usize,
    acc: &mut [i32; TILE],
    len: usize,
) {
    let [in_h, in_w, c] = dw.input;
    let padding = [dw.input_zero; TILE];
    let [kh, kw] = dw.window.kernel.map(usize::from);
    for ky in 0..kh {
        let iy = tap(&dw.window, 0, oy, ky).filter(|&iy| iy < in_h);
        for kx in 0..kw {
            let ix = tap(&dw.window, 1, ox, kx).filter(|&ix| ix < in_w);
            let values = match (iy, ix) {
                (Some(iy), Some(ix)) => &x[(iy * in_w + ix) * c + c0..][..len],
                _ => &padding[..len],
            };
            let weights = &dw.weights[(ky * kw + kx) * c + c0..][..len];
            for ((acc, &value), &weight) in acc.iter_mut().zip(values).zip(weights) {
                *acc = acc.wrapping_add(i32::from(i16::from(value) * i16::from(weight)));
            }
        }
    }
}

/// Input position of tap `k` for output position `o` along `axis`, `None` before the map.
#[inline(always)]
pub(crate) fn tap(w: &Window, axis: usize, o: usize, k: usize) -> Option<usize> {
    let at = o * usize::from(w.stride[axis]) + k * usize::from(w.dilation[axis]);
    at.checked_sub(usize::from(w.pad[axis]))
}

/// Requantises the accumulators of the channels from `c0` on, which start at `index` of the output.
#[inline(always)]
fn finish(dw: &DepthwiseI8<'_>, index: usize, c0: usize, acc: &[i32; TILE], out: &mut [i8]) {
    let e = &dw.epilogue;
    let (lo, hi) = (i32::from(e.lo), i32::from(e.hi));
    let multipliers = &dw.multipliers[c0..c0 + out.len()];
    match e.residual {
        None => {
            for ((y, &acc), &m) in out.iter_mut().zip(acc).zip(multipliers) {
                *y = requantize(acc, m, e.zero, lo, hi) as i8;
            }
        }
        Some(r) => {
            let addends = &r.data[index..index + out.len()];
            for (((y, &acc), &m), &q) in out.iter_mut().zip(acc).zip(multipliers).zip(addends) {
                let addend = i32::from(q).wrapping_sub(r.zero);
                *y = requantize_add(acc, m, addend, r.multiplier, e.zero, lo, hi) as i8;
            }
        }
    }
}
