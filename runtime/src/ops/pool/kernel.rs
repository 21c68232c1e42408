//! Entry points.

use super::portable::{Fold, Windows};
use super::{AveragePoolI8, Pool};
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::round_to_code;
use crate::ops::vectorize::run;

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn max_pool_i8(
    cap: Capability,
    pool: &Pool,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> Result<(), Error> {
    pool.check(x.len(), first_row, y.len())?;
    run(
        cap,
        Windows {
            pool,
            fold: MaxI8,
            x,
            first_row,
            y,
        },
    );
    Ok(())
}

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn max_pool_f32(
    cap: Capability,
    pool: &Pool,
    x: &[f32],
    first_row: usize,
    y: &mut [f32],
) -> Result<(), Error> {
    pool.check(x.len(), first_row, y.len())?;
    run(
        cap,
        Windows {
            pool,
            fold: MaxF32,
            x,
            first_row,
            y,
        },
    );
    Ok(())
}

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn average_pool_i8(
    cap: Capability,
    op: &AveragePoolI8,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> Result<(), Error> {
    op.pool.check(x.len(), first_row, y.len())?;
    run(
        cap,
        Windows {
            pool: &op.pool,
            fold: MeanI8(op),
            x,
            first_row,
            y,
        },
    );
    Ok(())
}

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn average_pool_f32(
    cap: Capability,
    pool: &Pool,
    x: &[f32],
    first_row: usize,
    y: &mut [f32],
) -> Result<(), Error> {
    pool.check(x.len(), first_row, y.len())?;
    run(
        cap,
        Windows {
            pool,
            fold: MeanF32(pool),
            x,
            first_row,
            y,
        },
    );
    Ok(())
}

#[derive(Clone, Copy)]
struct MaxI8;

impl Fold for MaxI8 {
    type Value = i8;
    type Sum = i8;

    #[inline(always)]
    fn start(self) -> i8 {
        i8::MIN
    }

    #[inline(always)]
    fn add(self, sum: i8, value: i8) -> i8 {
        sum.max(value)
    }

    #[inline(always)]
    fn finish(self, sum: i8, _: usize) -> i8 {
        sum
    }
}

#[derive(Clone, Copy)]
struct MaxF32;

impl Fold for MaxF32 {
    type Value = f32;
    type Sum = f32;

    #[inline(always)]
    fn start(self) -> f32 {
        f32::NEG_INFINITY
    }

    #[inline(always)]
    fn add(self, sum: f32, value: f32) -> f32 {
        if value > sum { value } else { sum }
    }

    #[inline(always)]
    fn finish(self, sum: f32, _: usize) -> f32 {
        sum
    }
}

#[derive(Clone, Copy)]
struct MeanI8<'a>(&'a AveragePoolI8);

impl Fold for MeanI8<'_> {
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
    fn finish(self, sum: i32, inside: usize) -> i8 {
        let op = self.0;
        let centred = sum.wrapping_sub((inside as i32).wrapping_mul(op.x_zero));
        let t = centred as f32 * (op.multiplier / op.pool.divisor(inside) as f32);
        round_to_code(t, op.zero, i32::from(op.lo), i32::from(op.hi)) as i8
    }
}

#[derive(Clone, Copy)]
struct MeanF32<'a>(&'a Pool);

impl Fold for MeanF32<'_> {
    type Value = f32;
    type Sum = f32;

    #[inline(always)]
    fn start(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn add(self, sum: f32, value: f32) -> f32 {
        sum + value
    }

    #[inline(always)]
    fn finish(self, sum: f32, inside: usize) -> f32 {
        sum / self.0.divisor(inside) as f32
    }
}
