//! Compiles a [`Loop`] for each instruction set.

use crate::arch::x86::{Avx2, Avx512Vnni};
use crate::ops::vectorize::Loop;

/// Runs `body` compiled for AVX2.
#[inline]
pub(crate) fn run_avx2<L: Loop>(_: Avx2, body: L) -> L::Output {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<L: Loop>(body: L) -> L::Output {
        body.run()
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(body) }
}

/// Runs `body` compiled for AVX-512.
#[inline]
pub(crate) fn run_avx512<L: Loop>(_: Avx512Vnni, body: L) -> L::Output {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    fn inner<L: Loop>(body: L) -> L::Output {
        body.run()
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(body) }
}

/// The square root, rounded to nearest.
#[inline(always)]
pub(crate) fn root(v: f32) -> f32 {
    use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};
    // SAFETY: SSE is part of x86-64; only values are involved.
    unsafe { _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v))) }
}
