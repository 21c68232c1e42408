//! Vectors of codes, for loops that are written once for AVX2 and AVX-512.

use core::arch::x86_64::*;

use crate::arch::x86::{Avx2, Avx512Vnni};
use crate::numerics::MAGIC;

/// Vectors of one instruction set. A value of an implementing type proves that the processor has
/// its instructions, so all methods are safe.
///
/// [`Lanes::CODES`] codes are four vectors of 32-bit integers, in their natural order.
pub(super) trait Lanes: Copy {
    /// Integer vector.
    type Int: Copy;
    /// Float vector.
    type Float: Copy;

    /// Codes that are worked on at a time.
    const CODES: usize;

    /// Sign-extends at most [`Lanes::CODES`] codes; the others are 0.
    fn load(self, from: &[i8]) -> [Self::Int; 4];
    /// Writes the low bytes of as many elements as the slice has, at most [`Lanes::CODES`]. The
    /// elements must be codes already.
    fn store(self, codes: [Self::Int; 4], to: &mut [i8]);
    /// The same number in every element.
    fn splat_i32(self, value: i32) -> Self::Int;
    /// The same number in every element.
    fn splat_f32(self, value: f32) -> Self::Float;
    /// Integers to floats.
    fn to_f32(self, v: Self::Int) -> Self::Float;
    /// `a − b`.
    fn sub_i32(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a + b`.
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a · b`.
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The larger one; `b` when the two are unordered.
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The smaller one; `b` when the two are unordered.
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The bits.
    fn bits(self, v: Self::Float) -> Self::Int;
}

/// The constants of [`crate::numerics::round_to_code`].
#[derive(Clone, Copy)]
pub(super) struct Rounding<L: Lanes> {
    base: L::Float,
    lo: L::Float,
    hi: L::Float,
    magic: L::Int,
}

impl<L: Lanes> Rounding<L> {
    /// Rounding to codes with the given zero point and bounds.
    #[inline(always)]
    pub fn new(lanes: L, zero: i32, lo: i8, hi: i8) -> Self {
        Rounding {
            base: lanes.splat_f32(MAGIC + zero as f32),
            lo: lanes.splat_f32(MAGIC + f32::from(lo)),
            hi: lanes.splat_f32(MAGIC + f32::from(hi)),
            magic: lanes.splat_i32(MAGIC.to_bits() as i32),
        }
    }

    /// The codes of `t`.
    #[inline(always)]
    pub fn codes(&self, lanes: L, t: L::Float) -> L::Int {
        let sum = lanes.add(t, self.base);
        let sum = lanes.min(lanes.max(sum, self.lo), self.hi);
        lanes.sub_i32(lanes.bits(sum), self.magic)
    }
}

impl Lanes for Avx2 {
    type Int = __m256i;
    type Float = __m256;

    const CODES: usize = 32;

    #[inline(always)]
    fn load(self, from: &[i8]) -> [__m256i; 4] {
        let mut part = [0i8; 32];
        let from = from.first_chunk::<32>().unwrap_or_else(|| {
            let n = from.len().min(32);
            part[..n].copy_from_slice(&from[..n]);
            &part
        });
        let at = from.as_ptr();
        // SAFETY: `self` proves AVX2; 8 bytes each are read at 0, 8, 16 and 24 of 32.
        unsafe {
            [
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast())),
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(8).cast())),
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(16).cast())),
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(24).cast())),
            ]
        }
    }

    #[inline(always)]
    fn store(self, [a, b, c, d]: [__m256i; 4], to: &mut [i8]) {
        let mut bytes = [0i8; 32];
        let full = to.len() >= 32;
        let at = if full {
            to.as_mut_ptr()
        } else {
            bytes.as_mut_ptr()
        };
        // SAFETY: `self` proves AVX2; 32 bytes are written to one of two places that have them.
        unsafe {
            // The packs work in 16-byte halves, which leaves groups of four codes in the order
            // a₀ b₀ c₀ d₀ a₁ b₁ c₁ d₁.
            let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            _mm256_storeu_si256(at.cast(), _mm256_permutevar8x32_epi32(packed, order));
        }
        if !full {
            to.copy_from_slice(&bytes[..to.len()]);
        }
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn to_f32(self, v: __m256i) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_cvtepi32_ps(v) }
    }

    #[inline(always)]
    fn sub_i32(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn bits(self, v: __m256) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_castps_si256(v) }
    }
}

impl Lanes for Avx512Vnni {
    type Int = __m512i;
    type Float = __m512;

    const CODES: usize = 64;

    #[inline(always)]
    fn load(self, from: &[i8]) -> [__m512i; 4] {
        let mut part = [0i8; 64];
        let from = from.first_chunk::<64>().unwrap_or_else(|| {
            // SAFETY: `self` proves AVX-512; the mask admits no more bytes than the slice has.
            unsafe {
                let v = _mm512_maskz_loadu_epi8(mask(from.len()), from.as_ptr());
                _mm512_storeu_si512(part.as_mut_ptr().cast(), v);
            }
            &part
        });
        let at = from.as_ptr();
        // SAFETY: `self` proves AVX-512; 16 bytes each are read at 0, 16, 32 and 48 of 64.
        unsafe {
            [
                _mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())),
                _mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(16).cast())),
                _mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(32).cast())),
                _mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(48).cast())),
            ]
        }
    }

    #[inline(always)]
    fn store(self, [a, b, c, d]: [__m512i; 4], to: &mut [i8]) {
        // SAFETY: `self` proves AVX-512; 64 bytes are written where the slice has them, and no more
        // than it has otherwise.
        unsafe {
            // The packs work in 16-byte quarters, which leaves groups of four codes in the order
            // a₀ b₀ c₀ d₀ a₁ b₁ …
            let packed = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = _mm512_permutexvar_epi32(order, packed);
            if to.len() >= 64 {
                _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes);
            } else {
                _mm512_mask_storeu_epi8(to.as_mut_ptr(), mask(to.len()), bytes);
            }
        }
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
    fn to_f32(self, v: __m512i) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_cvtepi32_ps(v) }
    }

    #[inline(always)]
    fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn bits(self, v: __m512) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_castps_si512(v) }
    }
}

/// The lowest `n` of 64 bits.
#[inline(always)]
pub(super) fn mask(n: usize) -> u64 {
    if n < 64 { (1 << n) - 1 } else { u64::MAX }
}
