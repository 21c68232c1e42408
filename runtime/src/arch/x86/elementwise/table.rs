//! Code-to-code tables.

use core::arch::x86_64::*;

use super::lanes::mask;
use crate::arch::x86::Avx512Vnni;

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
