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
/// where `x` is large, so its error does not grow with `x`; from 5.5 on it is 0.
///
/// `Φ(−m)` on 0..5.5 is a polynomial in `t = m/2.75 − 1`, fitted for the least error of `m · Φ(−m)`
/// (4.4e-8), whose constant makes the value at 5.5 exactly 0. Even and odd powers are summed apart, which
/// halves the chain of operations that wait for each other.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    const EVEN: [f32; 9] = [
        0.002_017_729_5,
        -0.001_113_652_1,
        -0.035_434_887,
        0.128_182_83,
        -0.161_449_18,
        -0.051_643_964,
        0.271_903_57,
        0.094_557_926,
        0.002_979_774,
    ];
    const ODD: [f32; 8] = [
        -0.007_706_992,
        0.037_023_734,
        -0.057_906_72,
        -0.029_241_862,
        0.216_508_09,
        -0.176_836_62,
        -0.206_832_2,
        -0.025_007_565,
    ];
    let m = if x.abs() > 5.5 { 5.5 } else { x.abs() };
    let t = m * (1.0 / 2.75) - 1.0;
    let s = t * t;
    let (mut even, mut odd) = (EVEN[0], ODD[0]);
    for c in &EVEN[1..] {
        even = even * s + c;
    }
    for c in &ODD[1..] {
        odd = odd * s + c;
    }
    (if x < 0.0 { 0.0 } else { x }) - m * (even + odd * t)
}
