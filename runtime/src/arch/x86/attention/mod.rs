//! Attention: vector operations for the kernel in [`crate::ops::attention`].

mod avx2;
mod avx512;
mod floats;

pub(crate) use floats::{Floats256, Floats512};

use core::arch::x86_64::*;

use super::{Avx2, Avx512Vnni, AvxVnni};
use crate::ops::attention::kernel::Call;

/// Runs a call with AVX2.
pub(crate) fn avx2(token: Avx2, call: Call<'_, '_>) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner(token: Avx2, call: Call<'_, '_>) {
        call.run(avx2::Narrow::<avx2::Pairs>::new(token));
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, call) }
}

/// Runs a call with AVX-VNNI.
pub(crate) fn avxvnni(token: AvxVnni, call: Call<'_, '_>) {
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    fn inner(token: AvxVnni, call: Call<'_, '_>) {
        call.run(avx2::Narrow::<avx2::Quads>::new(token));
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, call) }
}

/// Runs a call with AVX-512 VNNI.
pub(crate) fn avx512vnni(token: Avx512Vnni, call: Call<'_, '_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma")]
    fn inner(token: Avx512Vnni, call: Call<'_, '_>) {
        call.run(token);
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, call) }
}

/// `to[4·i + r] = rows[r][i]`.
#[inline(always)]
fn interleave(_: Avx2, rows: [[i8; 16]; 4], to: &mut [i8; 64]) {
    // SAFETY: the token proves more than SSE2; 16 bytes are read of 16, and written at 0, 16, 32 and 48 of
    // 64.
    unsafe {
        let a = _mm_loadu_si128(rows[0].as_ptr().cast());
        let b = _mm_loadu_si128(rows[1].as_ptr().cast());
        let c = _mm_loadu_si128(rows[2].as_ptr().cast());
        let d = _mm_loadu_si128(rows[3].as_ptr().cast());
        let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
        let to: *mut __m128i = to.as_mut_ptr().cast();
        _mm_storeu_si128(to, _mm_unpacklo_epi16(ab, cd));
        _mm_storeu_si128(to.add(1), _mm_unpackhi_epi16(ab, cd));
        let (ab, cd) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
        _mm_storeu_si128(to.add(2), _mm_unpacklo_epi16(ab, cd));
        _mm_storeu_si128(to.add(3), _mm_unpackhi_epi16(ab, cd));
    }
}

/// Quad `r` of row `i` becomes quad `i` of row `r`.
#[inline(always)]
fn transpose(_: Avx2, rows: [[i8; 16]; 4]) -> [[i8; 16]; 4] {
    // SAFETY: the token proves more than SSE2; arrays and vectors of 16 bytes hold any bits.
    unsafe {
        let [a, b, c, d] = rows.map(|row| core::mem::transmute::<[i8; 16], __m128i>(row));
        let (low, high) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (next_low, next_high) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
        [
            _mm_unpacklo_epi64(low, next_low),
            _mm_unpackhi_epi64(low, next_low),
            _mm_unpacklo_epi64(high, next_high),
            _mm_unpackhi_epi64(high, next_high),
        ]
        .map(|row| core::mem::transmute::<__m128i, [i8; 16]>(row))
    }
}
