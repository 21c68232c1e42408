//! Code-to-code tables.

use core::arch::x86_64::*;

use super::lanes::mask;
use crate::arch::x86::{Avx2, Avx512Vnni};

/// `y[i] = table[x[i] as u8]`, where `x` is `None` for `y` itself.
pub(crate) fn table_avx512(token: Avx512Vnni, table: &[i8; 256], x: Option<&[i8]>, y: &mut [i8]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn inner(_: Avx512Vnni, table: &[i8; 256], x: Option<&[i8]>, y: &mut [i8]) {
        let quarters = table.as_chunks::<64>().0;
        // SAFETY: a quarter has 64 bytes.
        let quarter = |i: usize| unsafe { _mm512_loadu_si512(quarters[i].as_ptr().cast()) };
        let (a, b, c, d) = (quarter(0), quarter(1), quarter(2), quarter(3));
        let look_up = |v: __m512i| {
            let low = _mm512_permutex2var_epi8(a, v, b);
            let high = _mm512_permutex2var_epi8(c, v, d);
            _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high)
        };
        for i in (0..y.len()).step_by(64) {
            let out = &mut y[i..];
            let from = x.map_or(out.as_ptr(), |x| x[i..].as_ptr());
            // SAFETY: `x` has the length of `y`; the masks admit no more bytes than are left.
            unsafe {
                if out.len() >= 64 {
                    let v = look_up(_mm512_loadu_si512(from.cast()));
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), v);
                } else {
                    let v = look_up(_mm512_maskz_loadu_epi8(mask(out.len()), from));
                    _mm512_mask_storeu_epi8(out.as_mut_ptr(), mask(out.len()), v);
                }
            }
        }
    }
    assert!(x.is_none_or(|x| x.len() == y.len()));
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, table, x, y) }
}

/// [`table_avx512`] with AVX2.
pub(crate) fn table_avx2(token: Avx2, table: &[i8; 256], x: Option<&[i8]>, y: &mut [i8]) {
    #[target_feature(enable = "avx2")]
    fn inner(_: Avx2, table: &[i8; 256], x: Option<&[i8]>, y: &mut [i8]) {
        let steps = table_steps(table);
        let whole = y.len() - y.len() % 32;
        for i in (0..whole).step_by(32) {
            let out = &mut y[i..i + 32];
            let from = x.map_or(out.as_ptr(), |x| x[i..i + 32].as_ptr());
            // SAFETY: 32 bytes each are read and written of 32.
            unsafe {
                let v = look_up_avx2(&steps, _mm256_loadu_si256(from.cast()));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), v);
            }
        }
        for i in whole..y.len() {
            y[i] = table[usize::from(x.map_or(y[i], |x| x[i]) as u8)];
        }
    }
    assert!(x.is_none_or(|x| x.len() == y.len()));
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, table, x, y) }
}

/// A table as [`look_up_avx2`] wants it: sixteenths of 16 values, of which each but the first of a half is
/// XORed with the one before.
pub(crate) fn table_steps(table: &[i8; 256]) -> [[i8; 16]; 16] {
    let sixteenths = table.as_chunks::<16>().0;
    core::array::from_fn(|k| {
        core::array::from_fn(|i| match k % 8 {
            0 => sixteenths[k][i],
            _ => sixteenths[k][i] ^ sixteenths[k - 1][i],
        })
    })
}

/// `table[code as u8]` of 32 codes.
///
/// A byte shuffle looks 16 values up by the low four bits, and gives 0 where the sign bit is set. Less
/// `16 · k`, saturated, a code is below 0 from the sixteenth after its own on: the XOR of the results
/// telescopes to the value of its own. The negative half is the same with the sign bit turned over.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn look_up_avx2(steps: &[[i8; 16]; 16], codes: __m256i) -> __m256i {
    let (halves, sixteen) = (steps.as_chunks::<8>().0, _mm256_set1_epi8(16));
    let mut at = [codes, _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN))];
    let mut sums = [_mm256_setzero_si256(); 2];
    for k in 0..8 {
        for h in 0..2 {
            // SAFETY: 16 bytes are read of 16.
            let step = unsafe { _mm_loadu_si128(halves[h][k].as_ptr().cast()) };
            let step = _mm256_broadcastsi128_si256(step);
            sums[h] = _mm256_xor_si256(sums[h], _mm256_shuffle_epi8(step, at[h]));
            at[h] = _mm256_subs_epi8(at[h], sixteen);
        }
    }
    _mm256_xor_si256(sums[0], sums[1])
}
