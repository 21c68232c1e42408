//! The instruction sets of x86.

use std::arch::x86_64::*;

use crate::isa::{Loop, Simd};

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof that the processor has AVX-512 F, BW, VL and DQ besides AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx2 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Avx2(()))
    }
}

impl Avx512 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        has.then_some(Avx512(()))
    }
}

macro_rules! simd {
    ($token:ty, $lanes:literal, $vector:ty, $splat:ident, $load:ident, $store:ident, $fused:ident, $add:ident, $max:ident) => {
        impl Simd for $token {
            const LANES: usize = $lanes;
            type Vector = $vector;

            #[inline(always)]
            fn splat(self, x: f32) -> $vector {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            fn load(self, x: &[f32]) -> $vector {
                let x = &x[..$lanes];
                // SAFETY: `self` proves the instruction; `x` has as many values as it reads, and the
                // instruction takes any alignment.
                unsafe { $load(x.as_ptr()) }
            }

            #[inline(always)]
            fn store(self, v: $vector, x: &mut [f32]) {
                let x = &mut x[..$lanes];
                // SAFETY: `self` proves the instruction; `x` has as many values as it writes, and the
                // instruction takes any alignment.
                unsafe { $store(x.as_mut_ptr(), v) }
            }

            #[inline(always)]
            fn fused(self, a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $fused(a, b, c) }
            }

            #[inline(always)]
            fn add(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            fn max(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $max(a, b) }
            }

            #[inline(always)]
            fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }
        }
    };
}

simd!(
    Avx2,
    8,
    __m256,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_max_ps
);
simd!(
    Avx512,
    16,
    __m512,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_max_ps
);

/// Runs `body` compiled for AVX2.
pub(crate) fn run_avx2<L: Loop>(token: Avx2, body: L) -> L::Output {
    #[target_feature(enable = "avx2,fma")]
    fn inner<L: Loop>(token: Avx2, body: L) -> L::Output {
        body.run(token)
    }
    // SAFETY: the token exists only where `Avx2::detect` found the enabled features.
    unsafe { inner(token, body) }
}

/// Runs `body` compiled for AVX-512.
pub(crate) fn run_avx512<L: Loop>(token: Avx512, body: L) -> L::Output {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    fn inner<L: Loop>(token: Avx512, body: L) -> L::Output {
        body.run(token)
    }
    // SAFETY: the token exists only where `Avx512::detect` found the enabled features.
    unsafe { inner(token, body) }
}
