//! Branch-free single-precision functions that vectorise.
//!
//! Errors are of the order of one unit in the last place of 1; see the tests for the bounds.

/// `eˣ`: reduction to `|r| ≤ ln 2 / 2`, a polynomial of degree 6, and two exact powers of two (one
/// alone could not reach the largest results). Below −104 the result is 0, above 89 it is infinite.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_375;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let n = nearest(x * core::f32::consts::LOG2_E);
    let r = x - n * LN2_HI - n * LN2_LO;
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_66;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    let half = nearest(n * 0.5);
    y * power_of_two(half) * power_of_two(n - half)
}

/// Nearest integer of a value below 2²² in magnitude, ties to even.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    (x + crate::numerics::MAGIC) - crate::numerics::MAGIC
}

/// `2ⁿ` for an integer `n` in −126..=127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    let bits = (n + crate::numerics::MAGIC).to_bits();
    f32::from_bits((bits.wrapping_add(127)) << 23)
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x · sigmoid(k·x)`, with an argument of the exponential that can't make it infinite.
#[inline(always)]
pub(crate) fn gated(x: f32, argument: f32) -> f32 {
    let argument = if argument < -88.0 { -88.0 } else { argument };
    x / (1.0 + exp(-argument))
}

/// Hyperbolic tangent, as an odd rational function up to where it rounds to ±1.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let x = if x < -7.905_311 { -7.905_311 } else { x };
    let x = if x > 7.905_311 { 7.905_311 } else { x };
    let s = x * x;
    let p = -2.760_768_4e-16;
    let p = p * s + 2.000_187_9e-13;
    let p = p * s - 8.604_671_5e-11;
    let p = p * s + 5.122_297e-8;
    let p = p * s + 1.485_722_4e-5;
    let p = p * s + 6.372_619_3e-4;
    let p = p * s + 4.893_524_6e-3;
    let q = 1.198_258_4e-6;
    let q = q * s + 1.185_347_1e-4;
    let q = q * s + 2.268_434_6e-3;
    let q = q * s + 4.893_525e-3;
    x * p / q
}

/// Error function, as an odd rational function up to where it rounds to ±1.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = if x < -4.0 { -4.0 } else { x };
    let x = if x > 4.0 { 4.0 } else { x };
    let s = x * x;
    let p = -2.726_142_3e-10;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024e-6;
    let p = p * s - 5.692_506_4e-5;
    let p = p * s - 7.349_906_3e-4;
    let p = p * s - 2.954_6e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827e-3;
    let q = q * s - 7.373_329e-3;
    let q = q * s - 1.426_473_9e-2;
    x * p / q
}

/// `x · Φ(x)` with the normal distribution `Φ`, as `max(x, 0) − |x| · Φ(−|x|)`: the tail is small
/// where `x` is large, so its error does not grow with `x`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let magnitude = if x.abs() > 20.0 { 20.0 } else { x.abs() };
    let tail = magnitude * 0.5 * erfc(magnitude * core::f32::consts::FRAC_1_SQRT_2);
    (if x < 0.0 { 0.0 } else { x }) - tail
}

/// `1 − erf(z)` for `z ≥ 0`, with a relative error of 1.2e-7 beside the rounding: the exponential of
/// a Chebyshev approximation (Numerical Recipes, section 6.2).
#[inline(always)]
fn erfc(z: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = 0.170_872_77;
    let p = p * t - 0.822_152_23;
    let p = p * t + 1.488_515_9;
    let p = p * t - 1.135_204;
    let p = p * t + 0.278_868_07;
    let p = p * t - 0.186_288_06;
    let p = p * t + 0.096_784_18;
    let p = p * t + 0.374_091_96;
    let p = p * t + 1.000_023_7;
    let p = p * t - 1.265_512_2;
    t * exp(p - z * z)
}
