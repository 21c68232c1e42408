//! The scalar truth, of one element.

use super::Rescale;
use crate::numerics::round_to_code;

/// The code of a value.
pub fn quantize(inverse_scale: f32, zero: i32, lo: i32, hi: i32, x: f32) -> i32 {
    let t = x * inverse_scale;
    round_to_code(if t.is_nan() { 0.0 } else { t }, zero, lo, hi)
}

/// The value of a code.
pub fn dequantize(scale: f32, zero: i32, q: i32) -> f32 {
    q.wrapping_sub(zero) as f32 * scale
}

/// The code of a code.
pub fn rescale(op: &Rescale, q: i32) -> i32 {
    let t = q.wrapping_sub(op.x_zero) as f32 * op.multiplier;
    round_to_code(t, op.zero, i32::from(op.lo), i32::from(op.hi))
}
