//! Layer normalisation over the last axis.
//!
//! Float: `y = (x − mean) / sqrt(var + ε) · gain + offset`, biased variance, sums in f64.
//!
//! The integer contract, for a row of `C` codes: with the exact integers `S = Σ x`, `Q = Σ x²`,
//! `V = C·Q − S²` and `a[c] = C·x[c] − S`, in which scale and zero point of `x` cancel,
//!
//! ```text
//! r = 1 / sqrt(f32(V) + e)                 e = C²·ε / s_x²; addition, root, quotient rounded each
//! t[c] = (f32(a[c]) · r) · gain[c] + offset[c]      gain and offset over s_y; each rounded
//! y[c] = round_to_code(t[c], z_y, −128, 127)
//! ```
//!
//! IEEE-754 defines all of it, the square root included.

mod float;
mod kernel;
mod reference;
#[cfg(test)]
mod tests;

pub use float::layer_norm_in_place;
pub use kernel::{layer_norm_i8, layer_norm_i8_in_place, layer_norm_i16};
pub use reference::layer_norm as layer_norm_reference;

/// Most channels of an integer normalisation: its sums stay below 2³¹ and 2⁶³.
pub const MAX_CHANNELS: usize = 1 << 14;

/// Everything about an integer normalisation but the data.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Gain over the scale of the result, per channel.
    pub gain: &'a [f32],
    /// Offset over the scale of the result, per channel.
    pub offset: &'a [f32],
    /// `C²·ε / s_x²`; positive.
    pub epsilon: f32,
    /// Zero point of the result.
    pub zero: i32,
}
