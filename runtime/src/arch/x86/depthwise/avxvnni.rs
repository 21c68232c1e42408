//! 32 channels at a time, four rows per `vpdpbusd`.

use core::arch::x86_64::*;

use super::Job;
use super::driver;
use super::engine::Engine;
use super::pixels::Line;
use super::ymm::ymm_methods;
use crate::arch::x86::AvxVnni;
use crate::numerics::MAGIC;

/// Runs the job compiled for AVX-VNNI; `false` when its window is beyond the kernels.
pub(crate) fn depthwise_avxvnni(token: AvxVnni, job: Job<'_, '_>) -> bool {
    #[target_feature(enable = "avxvnni,avx2,fma")]
    fn inner(engine: AvxVnni, job: Job<'_, '_>) -> bool {
        driver::run(engine, job)
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, job) }
}

impl Engine for AvxVnni {
    type Int = __m256i;
    type Float = __m256;

    const BYTES: usize = 32;
    const TAPS: usize = 4;
    const SUMS: usize = 8;
    const PAIRS: bool = true;

    ymm_methods!();

    #[inline(always)]
    fn interleave(self, rows: &[__m256i]) -> [__m256i; 4] {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let low_a = _mm256_unpacklo_epi8(rows[0], rows[1]);
            let high_a = _mm256_unpackhi_epi8(rows[0], rows[1]);
            let low_b = _mm256_unpacklo_epi8(rows[2], rows[3]);
            let high_b = _mm256_unpackhi_epi8(rows[2], rows[3]);
            [
                _mm256_unpacklo_epi16(low_a, low_b),
                _mm256_unpackhi_epi16(low_a, low_b),
                _mm256_unpacklo_epi16(high_a, high_b),
                _mm256_unpackhi_epi16(high_a, high_b),
            ]
        }
    }

    #[inline(always)]
    fn interleave_weights(self, rows: &[__m256i]) -> [__m256i; 4] {
        self.interleave(rows)
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, values: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(acc, values, weights) }
    }
}
