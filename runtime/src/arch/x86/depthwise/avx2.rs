//! 32 channels at a time, two rows per `vpmaddwd`.

use core::arch::x86_64::*;

use super::Job;
use super::driver;
use super::engine::Engine;
use super::pixels::Line;
use super::ymm::ymm_methods;
use crate::arch::x86::Avx2;
use crate::numerics::MAGIC;

/// Runs the job compiled for AVX2; `false` when its window is beyond the kernels.
pub(crate) fn depthwise_avx2(token: Avx2, job: Job<'_, '_>) -> bool {
    #[target_feature(enable = "avx2,fma")]
    fn inner(engine: Avx2, job: Job<'_, '_>) -> bool {
        driver::run(engine, job)
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, job) }
}

impl Engine for Avx2 {
    type Int = __m256i;
    type Float = __m256;

    const BYTES: usize = 32;
    const TAPS: usize = 2;
    const SUMS: usize = 8;
    const PAIRS: bool = true;

    ymm_methods!();

    #[inline(always)]
    fn interleave(self, rows: &[__m256i]) -> [__m256i; 4] {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let low = _mm256_unpacklo_epi8(rows[0], rows[1]);
            let high = _mm256_unpackhi_epi8(rows[0], rows[1]);
            let zero = _mm256_setzero_si256();
            [
                _mm256_unpacklo_epi8(low, zero),
                _mm256_unpackhi_epi8(low, zero),
                _mm256_unpacklo_epi8(high, zero),
                _mm256_unpackhi_epi8(high, zero),
            ]
        }
    }

    #[inline(always)]
    fn interleave_weights(self, rows: &[__m256i]) -> [__m256i; 4] {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let low = _mm256_unpacklo_epi8(rows[0], rows[1]);
            let high = _mm256_unpackhi_epi8(rows[0], rows[1]);
            let zero = _mm256_setzero_si256();
            let low_sign = _mm256_cmpgt_epi8(zero, low);
            let high_sign = _mm256_cmpgt_epi8(zero, high);
            [
                _mm256_unpacklo_epi8(low, low_sign),
                _mm256_unpackhi_epi8(low, low_sign),
                _mm256_unpacklo_epi8(high, high_sign),
                _mm256_unpackhi_epi8(high, high_sign),
            ]
        }
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, values: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(values, weights)) }
    }
}
