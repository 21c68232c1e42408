//! Lanes of the float kernel: one AVX-512 register, or two of AVX2.

use core::arch::x86_64::*;

use crate::arch::x86::elementwise::{run_avx2, run_avx512};
use crate::arch::x86::{Avx2, Avx512Vnni};
use crate::ops::attention::float::lanes::{EXP2, FloatLanes, LOWEST};
use crate::ops::vectorize::Loop;

/// An expression of intrinsics whose features `self` proves and that touch no memory.
macro_rules! proven {
    ($e:expr) => {
        // SAFETY: the token proves the features; only values are involved.
        unsafe { $e }
    };
}

/// AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Floats512(pub(crate) Avx512Vnni);

impl FloatLanes for Floats512 {
    type Vector = __m512;
    const WIDE: bool = true;

    #[inline(always)]
    fn call<B: Loop>(self, body: B) -> B::Output {
        run_avx512(self.0, body)
    }

    #[inline(always)]
    fn products<const R: usize, const B: usize>(
        self,
        x: &[f32],
        stride: usize,
        w: &[f32],
        steps: usize,
        mut sums: [[__m512; B]; R],
    ) -> [[__m512; B]; R] {
        assert!(x.len() >= (R - 1) * stride + steps && w.len() >= B * steps * 16);
        let (x, w) = (x.as_ptr(), w.as_ptr());
        for k in 0..steps {
            // SAFETY: the token proves the features. Rows hold `steps` values, blocks `steps` vectors, as
            // asserted.
            unsafe {
                let mut block = [_mm512_setzero_ps(); B];
                for b in 0..B {
                    block[b] = _mm512_loadu_ps(w.add((b * steps + k) * 16));
                }
                for r in 0..R {
                    let x = _mm512_set1_ps(*x.add(r * stride + k));
                    for b in 0..B {
                        sums[r][b] = _mm512_fmadd_ps(x, block[b], sums[r][b]);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: the token proves the features; 64 bytes are read of 64.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; 16]) {
        // SAFETY: the token proves the features; 64 bytes are written to 64.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn splat(self, v: f32) -> __m512 {
        proven!(_mm512_set1_ps(v))
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
    fn exp2(self, d: __m512) -> __m512 {
        proven!({
            let whole = _mm512_roundscale_ps::<0>(d);
            let f = _mm512_sub_ps(d, whole);
            let mut p = _mm512_set1_ps(EXP2[0]);
            for c in &EXP2[1..] {
                p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(*c));
            }
            _mm512_scalef_ps(p, whole)
        })
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        proven!(_mm512_reduce_max_ps(v))
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        proven!(_mm512_reduce_add_ps(v))
    }
}

/// AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Floats256(pub(crate) Avx2);

/// The same operation on both halves.
macro_rules! both {
    ($f:ident, $a:expr, $b:expr) => {
        proven!([$f($a[0], $b[0]), $f($a[1], $b[1])])
    };
}

impl FloatLanes for Floats256 {
    type Vector = [__m256; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn call<B: Loop>(self, body: B) -> B::Output {
        run_avx2(self.0, body)
    }

    #[inline(always)]
    fn products<const R: usize, const B: usize>(
        self,
        x: &[f32],
        stride: usize,
        w: &[f32],
        steps: usize,
        mut sums: [[[__m256; 2]; B]; R],
    ) -> [[[__m256; 2]; B]; R] {
        assert!(x.len() >= (R - 1) * stride + steps && w.len() >= B * steps * 16);
        let (x, w) = (x.as_ptr(), w.as_ptr());
        for k in 0..steps {
            // SAFETY: the token proves the features. Rows hold `steps` values, blocks `steps` times 16, as
            // asserted.
            unsafe {
                for b in 0..B {
                    let w = w.add((b * steps + k) * 16);
                    let (low, high) = (_mm256_loadu_ps(w), _mm256_loadu_ps(w.add(8)));
                    for r in 0..R {
                        let x = _mm256_set1_ps(*x.add(r * stride + k));
                        let sum = &mut sums[r][b];
                        sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256; 2] {
        let from = from.as_ptr();
        // SAFETY: the token proves the features; 64 bytes are read of 64.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    fn store(self, v: [__m256; 2], to: &mut [f32; 16]) {
        let to = to.as_mut_ptr();
        // SAFETY: the token proves the features; 64 bytes are written to 64.
        unsafe {
            _mm256_storeu_ps(to, v[0]);
            _mm256_storeu_ps(to.add(8), v[1]);
        }
    }

    #[inline(always)]
    fn splat(self, v: f32) -> [__m256; 2] {
        [proven!(_mm256_set1_ps(v)); 2]
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn exp2(self, d: [__m256; 2]) -> [__m256; 2] {
        [exp2(self.0, d[0]), exp2(self.0, d[1])]
    }

    #[inline(always)]
    fn largest(self, v: [__m256; 2]) -> f32 {
        proven!({
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn sum(self, v: [__m256; 2]) -> f32 {
        proven!({
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
}

/// `2^d` for `d ≤ 0`.
#[inline(always)]
fn exp2(_: Avx2, d: __m256) -> __m256 {
    proven!({
        // In this order NaN stays.
        let d = _mm256_max_ps(_mm256_set1_ps(LOWEST), d);
        let whole = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(d);
        let f = _mm256_sub_ps(d, whole);
        let mut p = _mm256_set1_ps(EXP2[0]);
        for c in &EXP2[1..] {
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(*c));
        }
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
        _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    })
}
