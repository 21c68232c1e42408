//! Attention: vector operations for the kernel in [`crate::ops::attention`].

mod avx2;
mod avx512;

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
