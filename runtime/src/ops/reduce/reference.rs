//! The scalar truth: one pass over the outputs, each with all inputs that belong to it.

use super::{MeanI8, Reduce, ReduceKind};
use crate::numerics::round_to_code;
use crate::tensor::MAX_RANK;

/// Reduces `x` to `y`, in double precision.
pub fn reduce_f32(kind: ReduceKind, reduce: &Reduce, x: &[f32], y: &mut [f32]) {
    for (o, out) in y.iter_mut().enumerate() {
        let mut values = x
            .iter()
            .enumerate()
            .filter(|&(i, _)| output_of(reduce, i) == o);
        *out = match kind {
            ReduceKind::Sum => values.map(|(_, &v)| f64::from(v)).sum::<f64>() as f32,
            ReduceKind::Mean => {
                let sum: f64 = values.map(|(_, &v)| f64::from(v)).sum();
                (sum / reduce.count() as f64) as f32
            }
            ReduceKind::Max => values
                .by_ref()
                .fold(f32::NEG_INFINITY, |m, (_, &v)| if v > m { v } else { m }),
            ReduceKind::Min => values
                .by_ref()
                .fold(f32::INFINITY, |m, (_, &v)| if v < m { v } else { m }),
        };
    }
}

/// Reduces `x` to `y`.
pub fn mean_i8(op: &MeanI8, x: &[i8], y: &mut [i8]) {
    for (o, out) in y.iter_mut().enumerate() {
        let values = x
            .iter()
            .enumerate()
            .filter(|&(i, _)| output_of(&op.reduce, i) == o);
        let sum: i32 = values.map(|(_, &v)| i32::from(v) - op.x_zero).sum();
        let t = sum as f32 * (op.multiplier / op.reduce.count() as f32);
        *out = round_to_code(t, op.zero, i32::from(op.lo), i32::from(op.hi)) as i8;
    }
}

/// The output that input element `i` belongs to.
fn output_of(reduce: &Reduce, i: usize) -> usize {
    let mut rest = i;
    let mut at = [0usize; MAX_RANK];
    for d in (0..reduce.shape.rank()).rev() {
        at[d] = rest % reduce.shape.dim(d);
        rest /= reduce.shape.dim(d);
    }
    let kept = (0..reduce.shape.rank()).filter(|&d| !reduce.is_reduced(d));
    kept.fold(0, |o, d| o * reduce.shape.dim(d) + at[d])
}
