//! AVX-512 VNNI: one register is 16 lanes.

use core::arch::x86_64::*;

use crate::arch::x86::Avx512Vnni;
use crate::ops::attention::lanes::Lanes;

/// An expression of intrinsics whose features `self` proves and that touch no memory.
macro_rules! proven {
    ($e:expr) => {
        // SAFETY: the token proves the features; only values are involved.
        unsafe { $e }
    };
}

impl Lanes for Avx512Vnni {
    type Int = __m512i;
    type Float = __m512;
    const WIDE: bool = true;

    #[inline(always)]
    fn products<const R: usize, const B: usize>(
        self,
        x: &[u8],
        stride: usize,
        w: &[i8],
        quads: usize,
        start: [__m512i; B],
    ) -> [[__m512i; B]; R] {
        assert!(x.len() >= (R - 1) * stride + quads * 4 && w.len() >= B * quads * 64);
        let (x, w) = (x.as_ptr(), w.as_ptr());
        let mut sums = [start; R];
        for quad in 0..quads {
            // SAFETY: the token proves the features. Rows hold `quads` quads of 4 bytes, blocks of 64,
            // as asserted.
            unsafe {
                let mut block = [_mm512_setzero_si512(); B];
                for b in 0..B {
                    block[b] = _mm512_loadu_si512(w.add((b * quads + quad) * 64).cast());
                }
                for r in 0..R {
                    let x = x.add(r * stride + quad * 4).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(x);
                    for b in 0..B {
                        sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], x, block[b]);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 16]) -> __m512i {
        // SAFETY: the token proves the features; 64 bytes are read of 64.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: the token proves the features; 64 bytes are read of 64.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; 16]) {
        // SAFETY: the token proves the features; 64 bytes are written to 64.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn splat_i32(self, v: i32) -> __m512i {
        proven!(_mm512_set1_epi32(v))
    }

    #[inline(always)]
    fn splat(self, v: f32) -> __m512 {
        proven!(_mm512_set1_ps(v))
    }

    #[inline(always)]
    fn convert(self, v: __m512i) -> __m512 {
        proven!(_mm512_cvtepi32_ps(v))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn bits(self, v: __m512) -> __m512i {
        proven!(_mm512_castps_si512(v))
    }

    #[inline(always)]
    fn floats_of(self, v: __m512i) -> __m512 {
        proven!(_mm512_castsi512_ps(v))
    }

    #[inline(always)]
    fn to_exponent(self, v: __m512i) -> __m512i {
        proven!(_mm512_slli_epi32::<23>(v))
    }

    #[inline(always)]
    fn low_bytes(self, v: __m512i) -> [u8; 16] {
        let mut out = [0; 16];
        // SAFETY: the token proves the features; 16 bytes are written to 16.
        unsafe {
            // One shuffle where a narrowing move takes two and more to memory.
            let low = _mm_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
            let bytes = _mm512_permutexvar_epi8(_mm512_castsi128_si512(low), v);
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_castsi512_si128(bytes));
        }
        out
    }

    #[inline(always)]
    fn pack(self, v: [__m512i; 4], to: &mut [u8; 64]) {
        // Every fourth byte of two vectors, to the low and to the high half.
        const LOW: [u8; 64] = every_fourth(0);
        const HIGH: [u8; 64] = every_fourth(32);
        let [a, b, c, d] = v;
        // SAFETY: the token proves the features; 64 bytes are read of 64 and written to 64.
        unsafe {
            let low = _mm512_loadu_si512(LOW.as_ptr().cast());
            let high = _mm512_loadu_si512(HIGH.as_ptr().cast());
            let ab = _mm512_permutex2var_epi8(a, low, b);
            let cd = _mm512_permutex2var_epi8(c, high, d);
            let bytes = _mm512_mask_blend_epi32(0xff00, ab, cd);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn store_ints(self, v: __m512i, to: &mut [i32; 16]) {
        // SAFETY: the token proves the features; 64 bytes are written to 64.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn interleave(self, rows: [[i8; 16]; 4], to: &mut [i8; 64]) {
        super::interleave(self.avx2(), rows, to);
    }

    #[inline(always)]
    fn transpose(self, rows: [[i8; 16]; 4]) -> [[i8; 16]; 4] {
        super::transpose(self.avx2(), rows)
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        proven!(_mm512_reduce_max_ps(v))
    }

    #[inline(always)]
    fn sum(self, v: __m512i) -> i32 {
        proven!(_mm512_reduce_add_epi32(v))
    }
}

/// Indices of every fourth byte of two vectors, at 32 places from `place` on.
const fn every_fourth(place: usize) -> [u8; 64] {
    let mut at = [0; 64];
    let mut i = 0;
    while i < 32 {
        at[place + i] = 4 * i as u8;
        i += 1;
    }
    at
}
