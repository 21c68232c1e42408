//! The capability token.

/// Proof that the module was compiled for `simd128`. A module has these instructions or it hasn't: one that
/// is compiled without them has no kernels either.
#[derive(Debug, Clone, Copy)]
pub struct Simd128(());

impl Simd128 {
    /// This module is only part of programs that have the feature.
    pub fn detect() -> Option<Self> {
        Some(Simd128(()))
    }
}
