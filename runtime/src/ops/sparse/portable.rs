//! Plain Rust, for every processor without a kernel of its own.

use super::{Blocks, QUAD};
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::portable::finish;

/// Pixels that share a walk over the blocks.
const PIXELS: usize = 4;

/// Computes the call's pixels.
pub(crate) fn sparse_i8(call: CallI8<'_, '_>, blocks: &Blocks<'_>) {
    let CallI8 {
        conv, x, first, y, ..
    } = call;
    let (depth, channels) = (conv.input[2], conv.output[2]);
    let rows = x[first * depth..].chunks(PIXELS * depth);
    for (i, (y, x)) in y.chunks_mut(PIXELS * channels).zip(rows).enumerate() {
        let index = (first + i * PIXELS) * channels;
        for n in 0..channels {
            let mut acc = [conv.bias[n]; PIXELS];
            let (quads, weights) = blocks.of(n);
            for (&quad, w) in quads.iter().zip(weights) {
                let w = w.map(i32::from);
                for (acc, row) in acc.iter_mut().zip(x.chunks_exact(depth)) {
                    *acc = acc.wrapping_add(product(row, usize::from(quad) * QUAD, w));
                }
            }
            for (p, (y, acc)) in y.chunks_exact_mut(channels).zip(acc).enumerate() {
                let at = index + p * channels + n;
                y[n] = finish(&conv.epilogue, acc, conv.multipliers[n], at);
            }
        }
    }
}

/// Product of the four values from `at` on; those that do not exist count as 0.
#[inline(always)]
fn product(row: &[i8], at: usize, w: [i32; QUAD]) -> i32 {
    let rest = row.get(at..).unwrap_or_default();
    match rest.first_chunk::<QUAD>() {
        Some(x) => (0..QUAD).map(|i| i32::from(x[i]) * w[i]).sum(),
        None => rest.iter().zip(w).map(|(&x, w)| i32::from(x) * w).sum(),
    }
}
