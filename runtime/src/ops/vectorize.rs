//! Plain loops, compiled once per instruction set.
//!
//! A [`Loop`] is written without intrinsics; [`run`] inlines it into a function that has the
//! instruction set's features enabled, where the compiler vectorises it to that width. Rust never
//! contracts a multiplication and an addition, so the results are the same everywhere.

use crate::isa::Capability;

/// A loop over slices that the compiler can vectorise. `run` must be `#[inline(always)]`.
pub(crate) trait Loop {
    /// What the loop leaves behind.
    type Output;

    /// Executes the loop.
    fn run(self) -> Self::Output;
}

/// Runs `body` with the widest vectors that `cap` proves.
pub(crate) fn run<L: Loop>(cap: Capability, body: L) -> L::Output {
    match cap {
        #[cfg(target_arch = "x86_64")]
        Capability::Avx2(t) => crate::arch::x86::elementwise::run_avx2(t, body),
        #[cfg(target_arch = "x86_64")]
        Capability::AvxVnni(t) => crate::arch::x86::elementwise::run_avx2(t.avx2(), body),
        #[cfg(target_arch = "x86_64")]
        Capability::Avx512Vnni(t) => crate::arch::x86::elementwise::run_avx512(t, body),
        #[cfg(target_arch = "x86_64")]
        Capability::Amx(t) => crate::arch::x86::elementwise::run_avx512(t.avx512vnni(), body),
        _ => body.run(),
    }
}
