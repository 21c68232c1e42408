//! Integer entry points.

use super::portable::zip;
use super::{BinaryI8, BinaryI16, BinaryKindInt, Broadcast};
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::{requantize, round_to_code};
use crate::ops::unary::table_i8_in_place;

/// Computes `y = op(a, b)`; the lengths are those of the shapes that `layout` pairs.
pub fn binary_i8(
    cap: Capability,
    op: &BinaryI8<'_>,
    layout: &Broadcast,
    a: &[i8],
    b: &[i8],
    y: &mut [i8],
) -> Result<(), Error> {
    layout.check(a.len(), b.len(), y.len())?;
    apply_i8(cap, op, layout, (Some(a), b), y)
}

/// Computes `y = op(y, b)`; `y` holds the first operand, which must have the output's shape.
pub fn binary_i8_in_place(
    cap: Capability,
    op: &BinaryI8<'_>,
    layout: &Broadcast,
    y: &mut [i8],
    b: &[i8],
) -> Result<(), Error> {
    layout.check(y.len(), b.len(), y.len())?;
    apply_i8(cap, op, layout, (None, b), y)
}

/// Computes `y = op(a, b)`; the lengths are those of the shapes that `layout` pairs.
pub fn binary_i16(
    cap: Capability,
    op: &BinaryI16,
    layout: &Broadcast,
    a: &[i16],
    b: &[i16],
    y: &mut [i16],
) -> Result<(), Error> {
    layout.check(a.len(), b.len(), y.len())?;
    apply_i16(cap, op, layout, (Some(a), b), y);
    Ok(())
}

/// Computes `y = op(y, b)`; `y` holds the first operand, which must have the output's shape.
pub fn binary_i16_in_place(
    cap: Capability,
    op: &BinaryI16,
    layout: &Broadcast,
    y: &mut [i16],
    b: &[i16],
) -> Result<(), Error> {
    layout.check(y.len(), b.len(), y.len())?;
    apply_i16(cap, op, layout, (None, b), y);
    Ok(())
}

/// The first operand is in `y` where it is `None`.
fn apply_i8(
    cap: Capability,
    op: &BinaryI8<'_>,
    layout: &Broadcast,
    operands: (Option<&[i8]>, &[i8]),
    y: &mut [i8],
) -> Result<(), Error> {
    if !vectors(cap, op, layout, operands, y) {
        match op.kind {
            BinaryKindInt::Add => zip(cap, layout, operands, y, sum(*op, 1.0)),
            BinaryKindInt::Sub => zip(cap, layout, operands, y, sum(*op, -1.0)),
            BinaryKindInt::Mul => zip(cap, layout, operands, y, product(*op)),
        }
    }
    op.table
        .map_or(Ok(()), |table| table_i8_in_place(cap, table, y))
}

/// Runs the instruction set's kernel; `false` when it has none for this operator.
#[cfg(target_arch = "x86_64")]
fn vectors(
    cap: Capability,
    op: &BinaryI8<'_>,
    layout: &Broadcast,
    (a, b): (Option<&[i8]>, &[i8]),
    y: &mut [i8],
) -> bool {
    use crate::arch::x86::elementwise::{Operands, binary_avx2, binary_avx512};
    // Products of codes less their zero points are exact in single precision up to 2²⁴.
    let exact = |zero: i32| zero.unsigned_abs() <= 2048;
    if op.kind == BinaryKindInt::Mul && !(exact(op.a_zero) && exact(op.b_zero)) {
        return false;
    }
    let operands = Operands {
        op,
        layout,
        a,
        b,
        y,
    };
    match cap {
        Capability::Portable => return false,
        Capability::Avx2(token) => binary_avx2(token, operands),
        Capability::AvxVnni(token) => binary_avx2(token.avx2(), operands),
        Capability::Avx512Vnni(token) => binary_avx512(token, operands),
        Capability::Amx(token) => binary_avx512(token.avx512vnni(), operands),
    }
    true
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors(
    _: Capability,
    _: &BinaryI8<'_>,
    _: &Broadcast,
    _: (Option<&[i8]>, &[i8]),
    _: &mut [i8],
) -> bool {
    false
}

/// The first operand is in `y` where it is `None`.
fn apply_i16(
    cap: Capability,
    op: &BinaryI16,
    layout: &Broadcast,
    operands: (Option<&[i16]>, &[i16]),
    y: &mut [i16],
) {
    match op.kind {
        BinaryKindInt::Add => zip(cap, layout, operands, y, sum_i16(*op, 1.0)),
        BinaryKindInt::Sub => zip(cap, layout, operands, y, sum_i16(*op, -1.0)),
        BinaryKindInt::Mul => zip(cap, layout, operands, y, product_i16(*op)),
    }
}

/// Sum or, with a sign of −1, difference. Negating a multiplier is exact, so `a − b` is `a + (−b)`.
#[inline(always)]
fn sum(op: BinaryI8<'_>, sign: f32) -> impl Fn(i8, i8) -> i8 {
    let (lo, hi) = (i32::from(op.lo), i32::from(op.hi));
    let b_multiplier = sign * op.b_multiplier;
    move |a, b| {
        let ta = i32::from(a).wrapping_sub(op.a_zero) as f32 * op.a_multiplier;
        let tb = i32::from(b).wrapping_sub(op.b_zero) as f32 * b_multiplier;
        round_to_code(ta + tb, op.zero, lo, hi) as i8
    }
}

#[inline(always)]
fn product(op: BinaryI8<'_>) -> impl Fn(i8, i8) -> i8 {
    let (lo, hi) = (i32::from(op.lo), i32::from(op.hi));
    move |a, b| {
        let acc = i32::from(a)
            .wrapping_sub(op.a_zero)
            .wrapping_mul(i32::from(b).wrapping_sub(op.b_zero));
        requantize(acc, op.multiplier, op.zero, lo, hi) as i8
    }
}

#[inline(always)]
fn sum_i16(op: BinaryI16, sign: f32) -> impl Fn(i16, i16) -> i16 {
    let b_multiplier = sign * op.b_multiplier;
    move |a, b| {
        let t = f32::from(a) * op.a_multiplier + f32::from(b) * b_multiplier;
        round_to_code(t, 0, -32767, 32767) as i16
    }
}

#[inline(always)]
fn product_i16(op: BinaryI16) -> impl Fn(i16, i16) -> i16 {
    move |a, b| requantize(i32::from(a) * i32::from(b), op.multiplier, 0, -32767, 32767) as i16
}
