//! Integer rows.

use super::{LayerNorm, MAX_CHANNELS};
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::round_to_code;
use crate::ops::length::{at_least, expect};
use crate::ops::vectorize::{Loop, run};

/// Normalises rows of int8 codes.
///
/// # Errors
///
/// [`Error::Length`] when rows are not whole, or have more than [`MAX_CHANNELS`] channels.
pub fn layer_norm_i8(
    cap: Capability,
    op: &LayerNorm<'_>,
    x: &[i8],
    y: &mut [i8],
) -> Result<(), Error> {
    check(op, x.len(), y.len())?;
    run(cap, Rows { op, x, y });
    Ok(())
}

/// Normalises rows of int8 codes in place.
///
/// # Errors
///
/// As [`layer_norm_i8`].
pub fn layer_norm_i8_in_place(
    cap: Capability,
    op: &LayerNorm<'_>,
    y: &mut [i8],
) -> Result<(), Error> {
    check(op, y.len(), y.len())?;
    run(cap, InPlace { op, y });
    Ok(())
}

/// Normalises rows of 16-bit codes to int8 codes.
///
/// # Errors
///
/// As [`layer_norm_i8`].
pub fn layer_norm_i16(
    cap: Capability,
    op: &LayerNorm<'_>,
    x: &[i16],
    y: &mut [i8],
) -> Result<(), Error> {
    check(op, x.len(), y.len())?;
    run(cap, Rows { op, x, y });
    Ok(())
}

fn check(op: &LayerNorm<'_>, x: usize, y: usize) -> Result<(), Error> {
    let c = op.gain.len();
    expect(c, op.offset.len())?;
    at_least(c, MAX_CHANNELS)?;
    expect(x, y)?;
    expect(x.checked_div(c).unwrap_or(0) * c, x)
}

struct Rows<'a, T> {
    op: &'a LayerNorm<'a>,
    x: &'a [T],
    y: &'a mut [i8],
}

impl Loop for Rows<'_, i8> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let c = self.op.gain.len();
        if c == 0 {
            return;
        }
        for (x, y) in self.x.chunks_exact(c).zip(self.y.chunks_exact_mut(c)) {
            let (sum, r) = sums(self.op, x);
            // Products and differences are integers below 2²⁴: exact.
            let (count, sum) = (c as f32, sum as f32);
            finish(self.op, r, y, |i, _| f32::from(x[i]) * count - sum);
        }
    }
}

struct InPlace<'a> {
    op: &'a LayerNorm<'a>,
    y: &'a mut [i8],
}

impl Loop for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let c = self.op.gain.len();
        if c == 0 {
            return;
        }
        for y in self.y.chunks_exact_mut(c) {
            let (sum, r) = sums(self.op, y);
            let (count, sum) = (c as f32, sum as f32);
            finish(self.op, r, y, |_, x| f32::from(x) * count - sum);
        }
    }
}

impl Loop for Rows<'_, i16> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let c = self.op.gain.len();
        if c == 0 {
            return;
        }
        for (x, y) in self.x.chunks_exact(c).zip(self.y.chunks_exact_mut(c)) {
            let (mut sum, mut squares) = (0i32, 0i64);
            for &x in x {
                let x = i32::from(x);
                sum += x;
                squares += i64::from(x * x);
            }
            let r = inverse(self.op, c, sum, squares);
            finish(self.op, r, y, |i, _| {
                (i32::from(x[i]) * c as i32 - sum) as f32
            });
        }
    }
}

/// The sum of a row and [`inverse`].
#[inline(always)]
fn sums(op: &LayerNorm<'_>, x: &[i8]) -> (i32, f32) {
    let (mut sum, mut squares) = (0i32, 0i32);
    for &x in x {
        let x = i32::from(x);
        sum += x;
        squares += x * x;
    }
    (sum, inverse(op, x.len(), sum, i64::from(squares)))
}

/// `1 / sqrt(f32(C·Q − S²) + e)`.
#[inline(always)]
fn inverse(op: &LayerNorm<'_>, c: usize, sum: i32, squares: i64) -> f32 {
    let v = c as i64 * squares - i64::from(sum) * i64::from(sum);
    1.0 / libm::sqrtf(v as f32 + op.epsilon)
}

/// Codes from the centred values `a(c, y[c])`.
#[inline(always)]
fn finish(op: &LayerNorm<'_>, r: f32, y: &mut [i8], a: impl Fn(usize, i8) -> f32) {
    let n = y.len();
    let (gain, offset) = (&op.gain[..n], &op.offset[..n]);
    for i in 0..n {
        let t = (a(i, y[i]) * r) * gain[i] + offset[i];
        y[i] = round_to_code(t, op.zero, -128, 127) as i8;
    }
}
