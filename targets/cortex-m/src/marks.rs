//! Marks around code whose instructions are counted: hints that every processor ignores and the QEMU
//! plugin in `targets/icount` knows.

use core::arch::asm;

/// Runs `f` between the marks.
#[inline(always)]
pub fn counted<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: both are unallocated hints, which execute as NOP.
    unsafe { asm!(".inst.n 0xbfe0", options(nostack)) };
    let result = f();
    // SAFETY: as above.
    unsafe { asm!(".inst.n 0xbff0", options(nostack)) };
    result
}
