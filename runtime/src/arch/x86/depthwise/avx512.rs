//! 64 channels at a time, four rows per `vpdpbusd`.

use core::arch::x86_64::*;

use super::Job;
use super::driver;
use super::engine::Engine;
use crate::arch::x86::Avx512Vnni;
use crate::numerics::MAGIC;

/// Runs the job compiled for AVX-512 VNNI; `false` when the window is beyond the kernel.
pub(crate) fn depthwise_avx512vnni(token: Avx512Vnni, job: Job<'_, '_>) -> bool {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma")]
    fn inner(engine: Avx512Vnni, job: Job<'_, '_>) -> bool {
        driver::run(engine, job)
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, job) }
}

impl Engine for Avx512Vnni {
    type Int = __m512i;
    type Float = __m512;

    const BYTES: usize = 64;
    const TAPS: usize = 4;
    const SIDE: usize = 4;

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn splat_i8(self, value: i8) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_set1_epi8(value) }
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn int_from(self, f: impl Fn(usize) -> i32) -> __m512i {
        let values: [i32; 16] = core::array::from_fn(f);
        // SAFETY: `self` proves AVX-512; the array has 64 bytes.
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    }

    #[inline(always)]
    fn float_from(self, f: impl Fn(usize) -> f32) -> __m512 {
        let values: [f32; 16] = core::array::from_fn(f);
        // SAFETY: `self` proves AVX-512; the array has 64 bytes.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load(self, lanes: usize, at: impl Fn(usize) -> *const i8) -> __m512i {
        // SAFETY: `self` proves AVX-512; the caller vouches for 64 / lanes bytes at each address.
        unsafe {
            match lanes {
                1 => _mm512_loadu_si512(at(0).cast()),
                2 => {
                    let low = _mm256_loadu_si256(at(0).cast());
                    let high = _mm256_loadu_si256(at(1).cast());
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                }
                _ => {
                    let v = _mm512_castsi128_si512(_mm_loadu_si128(at(0).cast()));
                    let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(at(1).cast()));
                    let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(at(2).cast()));
                    _mm512_inserti32x4::<3>(v, _mm_loadu_si128(at(3).cast()))
                }
            }
        }
    }

    #[inline(always)]
    fn store(self, v: __m512i, lanes: usize, lane: usize, out: &mut [i8]) {
        let mask = u64::MAX
            .checked_shr(64 - out.len().min(64 / lanes) as u32)
            .unwrap_or(0);
        let to = out.as_mut_ptr();
        // SAFETY: `self` proves AVX-512; the mask admits no more bytes than the slice has.
        unsafe {
            match (lanes, lane) {
                (1, _) => _mm512_mask_storeu_epi8(to, mask, v),
                (_, 0) => {
                    _mm256_mask_storeu_epi8(to, mask as u32, _mm512_castsi512_si256(v));
                }
                (2, _) => {
                    let part = _mm512_extracti64x4_epi64::<1>(v);
                    _mm256_mask_storeu_epi8(to, mask as u32, part);
                }
                (_, 1) => {
                    let part = _mm512_extracti32x4_epi32::<1>(v);
                    _mm_mask_storeu_epi8(to, mask as u16, part);
                }
                (_, 2) => {
                    let part = _mm512_extracti32x4_epi32::<2>(v);
                    _mm_mask_storeu_epi8(to, mask as u16, part);
                }
                _ => {
                    let part = _mm512_extracti32x4_epi32::<3>(v);
                    _mm_mask_storeu_epi8(to, mask as u16, part);
                }
            }
        }
    }

    #[inline(always)]
    fn to_unsigned(self, v: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_xor_si512(v, self.splat_i8(-128)) }
    }

    #[inline(always)]
    fn interleave(self, rows: &[__m512i]) -> [__m512i; 4] {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let (low_a, high_a) = (
                _mm512_unpacklo_epi8(rows[0], rows[1]),
                _mm512_unpackhi_epi8(rows[0], rows[1]),
            );
            let (low_b, high_b) = (
                _mm512_unpacklo_epi8(rows[2], rows[3]),
                _mm512_unpackhi_epi8(rows[2], rows[3]),
            );
            [
                _mm512_unpacklo_epi16(low_a, low_b),
                _mm512_unpackhi_epi16(low_a, low_b),
                _mm512_unpacklo_epi16(high_a, high_b),
                _mm512_unpackhi_epi16(high_a, high_b),
            ]
        }
    }

    #[inline(always)]
    fn interleave_weights(self, rows: &[__m512i]) -> [__m512i; 4] {
        self.interleave(rows)
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, values: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, values, weights) }
    }

    #[inline(always)]
    fn widen(self, bytes: __m512i) -> [__m512i; 4] {
        let zero = self.zero();
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let low = _mm512_unpacklo_epi8(bytes, zero);
            let high = _mm512_unpackhi_epi8(bytes, zero);
            [
                _mm512_unpacklo_epi16(low, zero),
                _mm512_unpackhi_epi16(low, zero),
                _mm512_unpacklo_epi16(high, zero),
                _mm512_unpackhi_epi16(high, zero),
            ]
        }
    }

    #[inline(always)]
    fn scale(self, acc: __m512i, multiplier: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn integers(self, sums: __m512) -> __m512i {
        let magic = self.splat_i32(MAGIC.to_bits() as i32);
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_sub_epi32(_mm512_castps_si512(sums), magic) }
    }

    #[inline(always)]
    fn pack(self, [a, b, c, d]: [__m512i; 4], lo: __m512i, hi: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            _mm512_min_epi8(_mm512_max_epi8(bytes, lo), hi)
        }
    }
}
