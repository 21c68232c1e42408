//! Entry points.

use super::layout::Layout;
use super::portable::{Fold, Reduction};
use super::{MeanI8, Reduce, ReduceKind};
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::round_to_code;
use crate::ops::length::expect;
use crate::ops::vectorize::run;

/// Reduces `x` to `y`, which lists the kept axes.
pub fn reduce_f32(
    cap: Capability,
    kind: ReduceKind,
    reduce: &Reduce,
    x: &[f32],
    y: &mut [f32],
) -> Result<(), Error> {
    check(reduce, x.len(), y.len())?;
    let layout = Layout::new(reduce);
    match kind {
        ReduceKind::Mean => {
            let fold = SumF32 {
                divisor: reduce.count() as f64,
            };
            run(cap, Reduction { layout, fold, x, y });
        }
        ReduceKind::Sum => run(
            cap,
            Reduction {
                layout,
                fold: SumF32 { divisor: 1.0 },
                x,
                y,
            },
        ),
        ReduceKind::Max => run(
            cap,
            Reduction {
                layout,
                fold: Extreme { sign: 1.0 },
                x,
                y,
            },
        ),
        ReduceKind::Min => run(
            cap,
            Reduction {
                layout,
                fold: Extreme { sign: -1.0 },
                x,
                y,
            },
        ),
    }
    Ok(())
}

/// Reduces `x` to `y`, which lists the kept axes.
pub fn mean_i8(cap: Capability, op: &MeanI8, x: &[i8], y: &mut [i8]) -> Result<(), Error> {
    check(&op.reduce, x.len(), y.len())?;
    let layout = Layout::new(&op.reduce);
    let count = op.reduce.count();
    let fold = MeanOfCodes {
        op,
        zeros: (count as i32).wrapping_mul(op.x_zero),
        multiplier: op.multiplier / count as f32,
    };
    run(cap, Reduction { layout, fold, x, y });
    Ok(())
}

fn check(reduce: &Reduce, x: usize, y: usize) -> Result<(), Error> {
    expect(reduce.shape.elements(), x)?;
    expect(reduce.output_len(), y)
}

#[derive(Clone, Copy)]
struct SumF32 {
    divisor: f64,
}

impl Fold for SumF32 {
    type Value = f32;
    type Sum = f64;

    #[inline(always)]
    fn start(self) -> f64 {
        0.0
    }

    #[inline(always)]
    fn add(self, sum: f64, value: f32) -> f64 {
        sum + f64::from(value)
    }

    #[inline(always)]
    fn merge(self, a: f64, b: f64) -> f64 {
        a + b
    }

    #[inline(always)]
    fn finish(self, sum: f64) -> f32 {
        (sum / self.divisor) as f32
    }
}

/// The largest value times the sign: a maximum for 1, a minimum for −1.
#[derive(Clone, Copy)]
struct Extreme {
    sign: f32,
}

impl Fold for Extreme {
    type Value = f32;
    type Sum = f32;

    #[inline(always)]
    fn start(self) -> f32 {
        f32::NEG_INFINITY
    }

    #[inline(always)]
    fn add(self, sum: f32, value: f32) -> f32 {
        self.merge(sum, value * self.sign)
    }

    #[inline(always)]
    fn merge(self, a: f32, b: f32) -> f32 {
        if b > a { b } else { a }
    }

    #[inline(always)]
    fn finish(self, sum: f32) -> f32 {
        sum * self.sign
    }
}

#[derive(Clone, Copy)]
struct MeanOfCodes<'a> {
    op: &'a MeanI8,
    zeros: i32,
    multiplier: f32,
}

impl Fold for MeanOfCodes<'_> {
    type Value = i8;
    type Sum = i32;

    #[inline(always)]
    fn start(self) -> i32 {
        0
    }

    #[inline(always)]
    fn add(self, sum: i32, value: i8) -> i32 {
        sum.wrapping_add(i32::from(value))
    }

    #[inline(always)]
    fn merge(self, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    #[inline(always)]
    fn finish(self, sum: i32) -> i8 {
        let t = sum.wrapping_sub(self.zeros) as f32 * self.multiplier;
        round_to_code(
            t,
            self.op.zero,
            i32::from(self.op.lo),
            i32::from(self.op.hi),
        ) as i8
    }
}
