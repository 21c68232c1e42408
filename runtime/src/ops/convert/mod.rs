//! Changes of element type and of scale.
//!
//! Contract, with the rounding of [`crate::numerics::round_to_code`]:
//!
//! * float to code: `t = x · inverse_scale`; NaN becomes the zero point;
//! * code to float: `f32(q − zero) · scale`;
//! * code to code: `t = f32(q − x_zero) · multiplier`.
//!
//! 16-bit codes have the zero point 0 and stay within ±32767.

mod kernel;
mod reference;
#[cfg(test)]
mod tests;

pub use kernel::{
    dequantize_i8, dequantize_i16, narrow_i16_i8, quantize_i8, quantize_i16, rescale_i8,
    rescale_i8_in_place, widen_i8_i16,
};
pub use reference::{
    dequantize as dequantize_reference, quantize as quantize_reference,
    rescale as rescale_reference,
};

/// From one set of codes to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rescale {
    /// Zero point of the input; 0 for 16-bit codes.
    pub x_zero: i32,
    /// Scale of the input over the scale of the output.
    pub multiplier: f32,
    /// Zero point of the output; 0 for 16-bit codes.
    pub zero: i32,
    /// Smallest code.
    pub lo: i16,
    /// Largest code.
    pub hi: i16,
}
