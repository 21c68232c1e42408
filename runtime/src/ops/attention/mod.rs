//! Attention: `softmax(q · kᵀ · scale + bias) · v` per window and head, on strided views.
//!
//! Queries, keys, values and result are tensors that the operator addresses itself ([`View`]): the
//! packings of q, k and v in one tensor, heads, and the windows of a map are strides, not copies.
//!
//! The int8 contract, for query `i` and key `j` of one window and head (`docs/numerics.md`):
//!
//! ```text
//! s[j] = Σ_d (q[i,d] − z_q) · k[j,d]                         exact
//! t[j] = f32(s[j]) · m + b[i,j]                              octaves: m and b include log2 e
//! w[j] = exp2_code(t[j] − max t)                             0..=255, 255 at the maximum
//! a[d] = Σ_j w[j] · (v[j,d] − z_v)                           exact
//! y[d] = round_to_code(f32(a[d]) · (s_v/s_y / f32(Σ w)), z_y, −128, 127)
//! ```
//!
//! Where keys stand for several tokens ([`super::merge`]), `b[i,j]` is log2 of the `sizes[j]`.
//!
//! The zero point of `k` adds the same to all scores of a query and is left out, which softmax does
//! not see. Weights relative to the largest keep 8 bits for it however many keys there are, and
//! their exact sum normalises.

mod bias;
pub(crate) mod float;
mod geometry;
pub(crate) mod kernel;
pub(crate) mod lanes;
mod reference;
mod scratch;
#[cfg(test)]
mod tests;

pub use bias::{BARRED, Bias, BiasLayout, MAX_BIAS};
pub use float::{attention_f32, scratch_bytes as scratch_bytes_f32};
pub use geometry::{Geometry, View};
pub use kernel::attention_i8;
pub use reference::{
    attention_f32 as attention_f32_reference, attention_i8 as attention_i8_reference,
};
pub use scratch::scratch_bytes;

use crate::numerics::MAGIC;

/// Everything about an int8 attention but the data.
#[derive(Debug, Clone, Copy)]
pub struct AttentionI8<'a> {
    /// Sizes and views.
    pub geometry: Geometry,
    /// Octaves per unit of a score: `s_q · s_k · scale · log2 e`.
    pub multiplier: f32,
    /// Added to the scores, in octaves.
    pub bias: Option<Bias<'a>>,
    /// Tokens that each key stands for, where there is no bias.
    pub sizes: Option<&'a [i32]>,
    /// Zero point of the queries.
    pub q_zero: i8,
    /// Zero point of the values.
    pub v_zero: i8,
    /// Scale of the values over the scale of the result.
    pub ratio: f32,
    /// Zero point of the result.
    pub y_zero: i32,
}

/// Whether there is one size per key and no bias beside them.
pub(crate) fn sizes_fit(sizes: Option<&[i32]>, bias: Option<Bias<'_>>, g: &Geometry) -> bool {
    sizes.is_none_or(|sizes| sizes.len() == g.key_count() && bias.is_none())
}

/// What is added to the scores of a key that stands for `size` tokens, in octaves.
pub(crate) fn size_bias(size: i32) -> f32 {
    libm::log2f(size.max(1) as f32)
}

/// Exponents below this give weight 0.
pub(crate) const LOWEST: f32 = -16.0;
/// `255 · 2^f` for `|f| ≤ ½`, relative error 1.1e-4: coefficients of `f³`, `f²`, `f` and 1.
pub(crate) const EXP2: [f32; 4] = [
    14.027_282_714_843_75,
    61.763_809_204_101_56,
    176.787_139_892_578_12,
    255.0,
];

/// `rne(255 · 2^d)` for `d ≤ 0` as six operations that every processor rounds alike.
///
/// ```
/// use ampoule_runtime::ops::attention::exp2_code;
/// assert_eq!([0.0, -1.0, -2.0, -8.0, -100.0].map(exp2_code), [255, 128, 64, 1, 0]);
/// ```
#[inline(always)]
pub fn exp2_code(d: f32) -> u8 {
    let d = d.max(LOWEST);
    let whole = d + MAGIC;
    let f = d - (whole - MAGIC);
    let p = ((EXP2[0] * f + EXP2[1]) * f + EXP2[2]) * f + EXP2[3];
    // The low bits of `whole` are the integer part; added to the exponent they scale by 2ⁿ.
    let e = f32::from_bits(p.to_bits().wrapping_add(whole.to_bits() << 23));
    (e + MAGIC).to_bits() as u8
}
