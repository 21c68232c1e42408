//! WebAssembly with vectors of 128 bits.

mod simd128;
mod token;

pub use token::Simd128;

use super::simd128::attention::Wide;
use crate::ops::attention::kernel::Call;

/// Runs an attention.
pub(crate) fn attention(token: Simd128, call: Call<'_, '_>) {
    call.run(Wide(token));
}

/// The square root, rounded to nearest.
#[inline(always)]
pub(crate) fn root(v: f32) -> f32 {
    use core::arch::wasm32::{f32x4_extract_lane, f32x4_splat, f32x4_sqrt};
    f32x4_extract_lane::<0>(f32x4_sqrt(f32x4_splat(v)))
}
