//! The scalar truth.

use super::{QUAD, SparseI8};
use crate::numerics::{requantize, requantize_add};

/// Computes output pixels `first..first + y.len() / channels` into `y`.
pub fn sparse_i8(op: &SparseI8<'_>, x: &[i8], first: usize, y: &mut [i8]) {
    let (depth, channels) = (op.conv.input[2], op.conv.output[2]);
    let e = &op.conv.epilogue;
    let (lo, hi) = (i32::from(e.lo), i32::from(e.hi));
    for (i, y) in y.iter_mut().enumerate() {
        let (pixel, n) = (first + i / channels, i % channels);
        let row = &x[pixel * depth..][..depth];
        let mut acc = op.conv.bias[n];
        let (quads, weights) = op.blocks.of(n);
        for (&quad, weights) in quads.iter().zip(weights) {
            for (&x, &w) in row[usize::from(quad) * QUAD..].iter().zip(weights) {
                acc = acc.wrapping_add(i32::from(x) * i32::from(w));
            }
        }
        let m = op.conv.multipliers[n];
        let code = match e.residual {
            None => requantize(acc, m, e.zero, lo, hi),
            Some(r) => {
                let addend = i32::from(r.data[pixel * channels + n]) - r.zero;
                requantize_add(acc, m, addend, r.multiplier, e.zero, lo, hi)
            }
        } as i8;
        *y = e.table.map_or(code, |t| t[code as u8 as usize]);
    }
}
