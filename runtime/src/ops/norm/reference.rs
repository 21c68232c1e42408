//! The scalar truth.

use super::LayerNorm;
use crate::numerics::round_to_code;

/// Normalises rows of codes (i8 or i16), by definition.
pub fn layer_norm<T: Copy + Into<i64>>(op: &LayerNorm<'_>, x: &[T], y: &mut [i8]) {
    let c = op.gain.len();
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        let sum: i64 = x.iter().map(|&x| x.into()).sum();
        let squares: i64 = x.iter().map(|&x| x.into() * x.into()).sum();
        let v = c as i64 * squares - sum * sum;
        let r = 1.0 / libm::sqrtf(v as f32 + op.epsilon);
        for (i, (&x, y)) in x.iter().zip(y).enumerate() {
            let a = c as i64 * x.into() - sum;
            let t = (a as f32 * r) * op.gain[i] + op.offset[i];
            *y = round_to_code(t, op.zero, -128, 127) as i8;
        }
    }
}
