//! Float rows.

use super::check_rows;
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::expect;
use crate::ops::unary::fast::exp;
use crate::ops::vectorize::{Loop, run};

/// Partial results of a row.
const LANES: usize = 16;

/// Softmax of each row of `row` values.
pub fn softmax_f32(cap: Capability, row: usize, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    check_rows(x.len(), row)?;
    expect(x.len(), y.len())?;
    run(cap, Rows::<false> { row, x, y });
    Ok(())
}

/// Logarithm of the softmax of each row of `row` values.
pub fn log_softmax_f32(cap: Capability, row: usize, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    check_rows(x.len(), row)?;
    expect(x.len(), y.len())?;
    run(cap, Rows::<true> { row, x, y });
    Ok(())
}

struct Rows<'a, const LOG: bool> {
    row: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl<const LOG: bool> Loop for Rows<'_, LOG> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if self.row == 0 {
            return;
        }
        for (x, y) in self
            .x
            .chunks_exact(self.row)
            .zip(self.y.chunks_exact_mut(self.row))
        {
            let max = fold(x, f32::NEG_INFINITY, |m, v| if v > m { v } else { m });
            for (y, &v) in y.iter_mut().zip(x) {
                *y = exp(v - max);
            }
            let sum = fold(y, 0.0, |a, b| a + b);
            if LOG {
                let log = libm::logf(sum);
                for (y, &v) in y.iter_mut().zip(x) {
                    *y = (v - max) - log;
                }
            } else {
                let r = 1.0 / sum;
                for y in y {
                    *y *= r;
                }
            }
        }
    }
}

/// Folds a row in interleaved lanes, then the lanes.
#[inline(always)]
fn fold(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], chunk[i]);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, v);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}
