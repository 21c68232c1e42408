//! Marks around code whose instructions are counted: hints that every processor ignores and the QEMU
//! plugin in `targets/icount` knows.

use core::arch::asm;

/// Runs `f` between the marks.
#[inline(always)]
pub fn counted<T>(f: impl FnOnce() -> T) -> T {
    // QEMU 7.2 does not tell its plugins of an instruction behind a conditional one that is skipped: hence the NOP.
    // SAFETY: both are unallocated hints, which execute as NOP.
    unsafe { asm!("nop", ".inst.n 0xbfe0", options(nostack)) };
    let result = f();
    // SAFETY: as above.
    unsafe { asm!(".inst.n 0xbff0", options(nostack)) };
    result
}
