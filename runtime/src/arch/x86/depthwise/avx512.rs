//! 64 channels at a time, four rows per `vpdpbusd`.

use core::arch::x86_64::*;

use super::Job;
use super::driver;
use super::engine::Engine;
use super::pixels::Line;
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
    const SUMS: usize = 16;
    const PAIRS: bool = true;

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
    fn load_i32(self, from: &[i32]) -> __m512i {
        // SAFETY: `self` proves AVX-512; the array has 64 bytes.
        from.first_chunk::<16>().map_or(self.zero(), |from| unsafe {
            _mm512_loadu_si512(from.as_ptr().cast())
        })
    }

    #[inline(always)]
    fn load_f32(self, from: &[f32]) -> __m512 {
        // SAFETY: `self` proves AVX-512; the array has 64 bytes.
        from.first_chunk::<16>()
            .map_or(self.splat_f32(0.0), |from| unsafe {
                _mm512_loadu_ps(from.as_ptr())
            })
    }

    #[inline(always)]
    fn deal_int(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            // A transposition of 4 × 4 quarters.
            let ab_low = _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b);
            let ab_high = _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b);
            let cd_low = _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d);
            let cd_high = _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d);
            [
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_low, cd_low),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_low, cd_low),
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    fn deal_float(self, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let [a, b, c, d] = self.deal_int([
                _mm512_castps_si512(a),
                _mm512_castps_si512(b),
                _mm512_castps_si512(c),
                _mm512_castps_si512(d),
            ]);
            [
                _mm512_castsi512_ps(a),
                _mm512_castsi512_ps(b),
                _mm512_castsi512_ps(c),
                _mm512_castsi512_ps(d),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load<const G: usize>(self, at: impl Fn(usize) -> *const i8) -> __m512i {
        // SAFETY: `self` proves AVX-512; the caller vouches for 64 / G bytes at each address.
        unsafe {
            match G {
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
    fn prefetch(self, at: *const i8) {
        // SAFETY: a prefetch has no effect but on time, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }

    #[inline(always)]
    fn load_line(self, line: &Line) -> __m512i {
        // SAFETY: `self` proves AVX-512; a line has 64 aligned bytes.
        unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_line(self, v: __m512i, line: &mut Line) {
        // SAFETY: `self` proves AVX-512; a line has 64 aligned bytes.
        unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), v) }
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
    fn times_128(self, v: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_slli_epi32::<7>(v) }
    }

    #[inline(always)]
    fn integers(self, sums: __m512) -> __m512i {
        let magic = self.splat_i32(MAGIC.to_bits() as i32);
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_sub_epi32(_mm512_castps_si512(sums), magic) }
    }

    #[inline(always)]
    fn pack(self, [a, b, c, d]: [__m512i; 4], [lo, hi]: [__m512i; 2]) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            _mm512_min_epi8(_mm512_max_epi8(bytes, lo), hi)
        }
    }
}
