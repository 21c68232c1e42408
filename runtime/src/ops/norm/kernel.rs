//! Integer rows.

use super::{LayerNorm, MAX_CHANNELS};
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::MAGIC;
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
        let batches = self.x.chunks(BATCH * c);
        for (x, y) in batches.zip(self.y.chunks_mut(BATCH * c)) {
            let rows = statistics(self.op, x);
            for (r, (x, y)) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)).enumerate() {
                // Products and differences are integers below 2²⁴: exact.
                let (count, (sum, inverse)) = (c as f32, rows.of(r));
                finish(self.op, inverse, y, |i, _| f32::from(x[i]) * count - sum);
            }
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
        for y in self.y.chunks_mut(BATCH * c) {
            let rows = statistics(self.op, y);
            for (r, y) in y.chunks_exact_mut(c).enumerate() {
                let (count, (sum, inverse)) = (c as f32, rows.of(r));
                finish(self.op, inverse, y, |_, x| f32::from(x) * count - sum);
            }
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

/// Rows whose roots and quotients, which take long, are formed side by side.
const BATCH: usize = 16;

/// The sum of each row, and [`inverse`].
struct Statistics {
    sums: [i32; BATCH],
    inverses: [f32; BATCH],
}

impl Statistics {
    /// Those of row `r`.
    #[inline(always)]
    fn of(&self, r: usize) -> (f32, f32) {
        (self.sums[r] as f32, self.inverses[r])
    }
}

/// Statistics of up to [`BATCH`] rows.
#[inline(always)]
fn statistics(op: &LayerNorm<'_>, x: &[i8]) -> Statistics {
    let c = op.gain.len();
    let (mut sums, mut squares) = ([0i32; BATCH], [0i32; BATCH]);
    for (r, x) in x.chunks_exact(c).enumerate().take(BATCH) {
        for &x in x {
            let x = i32::from(x);
            sums[r] += x;
            squares[r] += x * x;
        }
    }
    let mut inverses = [0.0; BATCH];
    for r in 0..BATCH {
        inverses[r] = inverse(op, c, sums[r], i64::from(squares[r]));
    }
    Statistics { sums, inverses }
}

/// `1 / sqrt(f32(C·Q − S²) + e)`.
#[inline(always)]
fn inverse(op: &LayerNorm<'_>, c: usize, sum: i32, squares: i64) -> f32 {
    let v = c as i64 * squares - i64::from(sum) * i64::from(sum);
    1.0 / root(v as f32 + op.epsilon)
}

/// The square root, rounded to nearest: the processor's where it can be had without a call.
#[inline(always)]
fn root(v: f32) -> f32 {
    #[cfg(target_arch = "x86_64")]
    return crate::arch::x86::elementwise::root(v);
    #[cfg(target_arch = "aarch64")]
    return crate::arch::aarch64::root(v);
    #[cfg(wasm_simd128)]
    return crate::arch::wasm32::root(v);
    #[cfg(not(any(target_arch = "x86_64", simd128)))]
    libm::sqrtf(v)
}

/// Codes from the centred values `a(c, y[c])`.
#[inline(always)]
fn finish(op: &LayerNorm<'_>, r: f32, y: &mut [i8], a: impl Fn(usize, i8) -> f32) {
    let n = y.len();
    let (gain, offset) = (&op.gain[..n], &op.offset[..n]);
    let base = MAGIC + op.zero as f32;
    // `round_to_code`, clamped as integers, which floats above 0 are ordered like: no sum is NaN.
    let (lo, hi) = (
        (MAGIC - 128.0).to_bits() as i32,
        (MAGIC + 127.0).to_bits() as i32,
    );
    for i in 0..n {
        let t = (a(i, y[i]) * r) * gain[i] + offset[i];
        y[i] = ((t + base).to_bits() as i32).max(lo).min(hi) as i8;
    }
}
