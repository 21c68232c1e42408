//! aarch64: NEON, its dot products (Armv8.2), and its products of matrices (Armv8.6).
//!
//! Intrinsics of the latter two are unstable, so they are written as assembly.

mod multiply;
mod neon;
mod token;

pub use token::{Dotprod, I8mm, Neon};

use super::simd128::attention::Wide;
use crate::ops::attention::kernel::Call;

/// Runs an attention with NEON.
pub(crate) fn attention_neon(token: Neon, call: Call<'_, '_>) {
    call.run(Wide(token));
}

/// Runs an attention with dot products.
pub(crate) fn attention_dotprod(token: Dotprod, call: Call<'_, '_>) {
    #[target_feature(enable = "neon,dotprod")]
    fn inner(token: Dotprod, call: Call<'_, '_>) {
        call.run(Wide(token));
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, call) }
}

/// The square root, rounded to nearest.
#[inline(always)]
pub(crate) fn root(v: f32) -> f32 {
    let root;
    // SAFETY: every aarch64 processor with hardware floats has the instruction; only values are involved.
    unsafe {
        core::arch::asm!("fsqrt {0:s}, {1:s}", lateout(vreg) root, in(vreg) v,
            options(pure, nomem, nostack, preserves_flags));
    }
    root
}
