//! Short copies.

use core::arch::asm;

use crate::arch::cortex_m::Mve;

/// Copies a slice into another of its length, sixteen bytes a step: less than a call of `memcpy` takes for a
/// few pixels.
#[inline(always)]
pub(crate) fn copy<T: Copy>(_: Mve, from: &[T], to: &mut [T]) {
    assert_eq!(from.len(), to.len());
    // SAFETY: the token proves Helium. The loop is predicated: as many bytes are read and written as both slices
    // have, and the bytes of a `Copy` value are one.
    unsafe {
        asm!(
            "wlstp.8 lr, {n}, 3f",
            "2:",
            "vldrb.u8 q0, [{from}], #16",
            "vstrb.u8 q0, [{to}], #16",
            "letp lr, 2b",
            "3:",
            n = in(reg) size_of_val(from),
            from = inout(reg) from.as_ptr() => _, to = inout(reg) to.as_mut_ptr() => _,
            out("lr") _, out("d0") _, out("d1") _,
            options(nostack, preserves_flags),
        );
    }
}
