//! The integer semantics: one definition that every kernel reproduces bit for bit.
//!
//! The full text is `docs/numerics.md`. Two functions carry it:
//!
//! * [`requantize`]: an i32 accumulator becomes an 8-bit code through exactly three IEEE-754
//!   single operations (convert, multiply, add), each rounded to nearest even and never contracted,
//!   followed by a clamp.
//! * [`round_half_even`]: the same rounding for values that are single precision already.
//!
//! Both rest on one fact: adding `1.5 · 2²³ + z` to a single `t` with `|t + z| < 2²²` rounds
//! `t + z` to the nearest integer, ties to even, and leaves that integer in the low bits of the sum.
//! Values outside that range stay outside under the (monotone) addition, so a clamp repairs them.

/// `1.5 · 2²³`: adding it to a small single leaves its nearest integer in the low mantissa bits.
pub const MAGIC: f32 = 12_582_912.0;

/// Largest magnitude of a zero point plus clamp bound for which [`requantize`] is exact.
pub const MAX_CODE: i32 = 1 << 20;

/// Requantises an accumulator: `clamp(rne(f32(acc) · multiplier) + zero)`.
///
/// `f32(acc)` rounds to nearest even (matters from 2²⁴ up), the product rounds once, and the sum
/// with `MAGIC + zero` rounds to an integer, ties to even. `lo..=hi` are output codes.
///
/// ```
/// use ampoule_runtime::numerics::requantize;
/// assert_eq!(requantize(5, 0.5, 0, -128, 127), 2); // 2.5 ties to even
/// assert_eq!(requantize(7, 0.5, 0, -128, 127), 4); // 3.5 ties to even
/// assert_eq!(requantize(-1_000_000, 0.5, 3, -128, 127), -128);
/// ```
#[inline(always)]
pub fn requantize(acc: i32, multiplier: f32, zero: i32, lo: i32, hi: i32) -> i32 {
    finite_to_code(acc as f32 * multiplier, zero, lo, hi)
}

/// [`requantize`] with a residual added in single precision before the rounding:
/// `t = f32(acc)·m + f32(residual)·r`, each of the three operations rounded on its own.
#[inline(always)]
pub fn requantize_add(
    acc: i32,
    multiplier: f32,
    residual: i32,
    residual_multiplier: f32,
    zero: i32,
    lo: i32,
    hi: i32,
) -> i32 {
    let t = acc as f32 * multiplier + residual as f32 * residual_multiplier;
    finite_to_code(t, zero, lo, hi)
}

/// [`round_to_code`] of a number.
///
/// Sums order as their bits do, negative ones below all others: an integer clamp serves processors that have
/// no instruction for the larger of two floats.
#[inline(always)]
fn finite_to_code(t: f32, zero: i32, lo: i32, hi: i32) -> i32 {
    if cfg!(any(target_arch = "arm", target_arch = "riscv32")) {
        let magic = MAGIC.to_bits() as i32;
        let bits = (t + (MAGIC + zero as f32)).to_bits() as i32;
        bits.clamp(magic + lo, magic + hi) - magic
    } else {
        round_to_code(t, zero, lo, hi)
    }
}

/// Rounds `t + zero` to the nearest integer, ties to even, and clamps it to `lo..=hi`.
#[inline(always)]
pub fn round_to_code(t: f32, zero: i32, lo: i32, hi: i32) -> i32 {
    let base = MAGIC + zero as f32;
    let y = (t + base).max(MAGIC + lo as f32).min(MAGIC + hi as f32);
    (y.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// Rounds to the nearest integer, ties to even; saturates to ±2²² and maps NaN to 0's code.
#[inline(always)]
pub fn round_half_even(t: f32) -> i32 {
    const LIMIT: i32 = (1 << 22) - 1;
    round_to_code(t, 0, -LIMIT, LIMIT)
}

/// Quantises a real value to a code: `clamp(rne(value · inverse_scale) + zero)`.
#[inline(always)]
pub fn quantize(value: f32, inverse_scale: f32, zero: i32, lo: i32, hi: i32) -> i32 {
    round_to_code(value * inverse_scale, zero, lo, hi)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in exact arithmetic: the product rounded to single, then an integer rounding.
    fn by_definition(acc: i32, m: f32, zero: i32, lo: i32, hi: i32) -> i32 {
        let product = (f64::from(acc as f32) * f64::from(m)) as f32; // exact product, one rounding
        let sum = f64::from(product) + f64::from(zero);
        (sum.round_ties_even() as i64).clamp(i64::from(lo), i64::from(hi)) as i32
    }

    #[test]
    fn requantize_follows_its_definition() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        for _ in 0..200_000 {
            let acc = (next() as i32) >> (next() % 24);
            let m = f32::from_bits(0x3000_0000 + next() % 0x0fff_ffff);
            let zero = (next() % 256) as i32 - 128;
            assert_eq!(
                requantize(acc, m, zero, -128, 127),
                by_definition(acc, m, zero, -128, 127),
                "acc {acc} m {m} zero {zero}"
            );
        }
    }

    #[test]
    fn extremes_saturate() {
        for acc in [i32::MIN, i32::MAX] {
            for m in [1e-30, 1.0, 1e30] {
                for zero in [-128, 0, 127] {
                    assert_eq!(
                        requantize(acc, m, zero, -128, 127),
                        by_definition(acc, m, zero, -128, 127)
                    );
                }
            }
        }
    }
}
