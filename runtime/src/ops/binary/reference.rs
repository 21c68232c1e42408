//! The scalar truth: one output element at a time, straight from its coordinates.

use super::{BinaryF32, BinaryI8, BinaryI16, BinaryKind, BinaryKindInt, Broadcast};
use crate::numerics::{requantize, round_to_code};
use crate::tensor::{MAX_RANK, Shape};

/// Computes `y` from operands of the given shapes.
pub fn binary_i8(op: &BinaryI8<'_>, a: (&Shape, &[i8]), b: (&Shape, &[i8]), y: &mut [i8]) {
    apply(a, b, y, |a, b| {
        let (lo, hi) = (i32::from(op.lo), i32::from(op.hi));
        let (a, b) = (
            i32::from(a).wrapping_sub(op.a_zero),
            i32::from(b).wrapping_sub(op.b_zero),
        );
        let (ta, tb) = (a as f32 * op.a_multiplier, b as f32 * op.b_multiplier);
        let code = match op.kind {
            BinaryKindInt::Add => round_to_code(ta + tb, op.zero, lo, hi),
            BinaryKindInt::Sub => round_to_code(ta - tb, op.zero, lo, hi),
            BinaryKindInt::Mul => requantize(a.wrapping_mul(b), op.multiplier, op.zero, lo, hi),
        } as i8;
        op.table.map_or(code, |t| t[code as u8 as usize])
    });
}

/// Computes `y` from operands of the given shapes.
pub fn binary_i16(op: &BinaryI16, a: (&Shape, &[i16]), b: (&Shape, &[i16]), y: &mut [i16]) {
    apply(a, b, y, |a, b| {
        let (a, b) = (i32::from(a), i32::from(b));
        let (ta, tb) = (a as f32 * op.a_multiplier, b as f32 * op.b_multiplier);
        let t = match op.kind {
            BinaryKindInt::Add => ta + tb,
            BinaryKindInt::Sub => ta - tb,
            BinaryKindInt::Mul => (a * b) as f32 * op.multiplier,
        };
        round_to_code(t, 0, -32767, 32767) as i16
    });
}

/// Computes `y` from operands of the given shapes.
pub fn binary_f32(op: &BinaryF32, a: (&Shape, &[f32]), b: (&Shape, &[f32]), y: &mut [f32]) {
    apply(a, b, y, |a, b| {
        let v = match op.kind {
            BinaryKind::Add => a + b,
            BinaryKind::Sub => a - b,
            BinaryKind::Mul => a * b,
            BinaryKind::Div => a / b,
            BinaryKind::Max if a > b => a,
            BinaryKind::Min if a < b => a,
            BinaryKind::Max | BinaryKind::Min => b,
            BinaryKind::Pow => libm::powf(a, b),
        };
        if v < op.lo {
            op.lo
        } else if v > op.hi {
            op.hi
        } else {
            v
        }
    });
}

fn apply<T: Copy>(
    (a_shape, a): (&Shape, &[T]),
    (b_shape, b): (&Shape, &[T]),
    y: &mut [T],
    f: impl Fn(T, T) -> T,
) {
    let Some(out) = Broadcast::new(a_shape, b_shape).map(|b| b.output()) else {
        return;
    };
    for (i, slot) in y.iter_mut().enumerate() {
        let mut rest = i;
        let mut at = [0usize; MAX_RANK];
        for d in (0..out.rank()).rev() {
            at[d] = rest % out.dim(d);
            rest /= out.dim(d);
        }
        *slot = f(a[index(a_shape, &out, &at)], b[index(b_shape, &out, &at)]);
    }
}

/// Where an operand has the element that belongs to output coordinates `at`.
fn index(shape: &Shape, out: &Shape, at: &[usize; MAX_RANK]) -> usize {
    let skip = out.rank() - shape.rank();
    (0..shape.rank()).fold(0, |i, d| {
        i * shape.dim(d) + if shape.dim(d) == 1 { 0 } else { at[skip + d] }
    })
}
