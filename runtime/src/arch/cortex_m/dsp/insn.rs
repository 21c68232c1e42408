//! The instructions.

use core::arch::asm;

use crate::arch::cortex_m::Dsp;

impl Dsp {
    /// Bytes 0 and 2 as signed halfwords.
    #[inline(always)]
    pub(super) fn even(self, bytes: u32) -> u32 {
        let halves;
        // SAFETY: SXTB16 is of the DSP extension, which the token proves; registers only.
        unsafe {
            asm!("sxtb16 {}, {}", lateout(reg) halves, in(reg) bytes,
                options(pure, nomem, nostack, preserves_flags));
        }
        halves
    }

    /// Bytes 1 and 3 as signed halfwords.
    #[inline(always)]
    pub(super) fn odd(self, bytes: u32) -> u32 {
        let halves;
        // SAFETY: as `even`.
        unsafe {
            asm!("sxtb16 {}, {}, ror #8", lateout(reg) halves, in(reg) bytes,
                options(pure, nomem, nostack, preserves_flags));
        }
        halves
    }

    /// `a - b` in both halves.
    #[inline(always)]
    pub(super) fn subtract(self, a: u32, b: u32) -> u32 {
        let result;
        // SAFETY: SSUB16 is of the DSP extension, which the token proves; registers and the GE flags only.
        unsafe {
            asm!("ssub16 {}, {}, {}", lateout(reg) result, in(reg) a, in(reg) b,
                options(pure, nomem, nostack));
        }
        result
    }

    /// `sum` plus the product of the low halves.
    #[inline(always)]
    pub(super) fn low(self, a: u32, b: u32, sum: i32) -> i32 {
        let result;
        // SAFETY: SMLABB is of the DSP extension, which the token proves; registers and the Q flag only.
        unsafe {
            asm!("smlabb {}, {}, {}, {}", lateout(reg) result, in(reg) a, in(reg) b, in(reg) sum,
                options(pure, nomem, nostack));
        }
        result
    }

    /// `sum` plus the product of the high halves.
    #[inline(always)]
    pub(super) fn high(self, a: u32, b: u32, sum: i32) -> i32 {
        let result;
        // SAFETY: SMLATT is of the DSP extension, which the token proves; registers and the Q flag only.
        unsafe {
            asm!("smlatt {}, {}, {}, {}", lateout(reg) result, in(reg) a, in(reg) b, in(reg) sum,
                options(pure, nomem, nostack));
        }
        result
    }

    /// `a - b`, saturated to 32 bits and then to 8.
    #[inline(always)]
    pub(super) fn narrow(self, a: i32, b: i32) -> i32 {
        let result;
        // SAFETY: QSUB and SSAT are of the DSP extension and of Armv7, which the token proves; registers and
        // the Q flag only.
        unsafe {
            asm!("qsub {0}, {1}, {2}", "ssat {0}, #8, {0}", lateout(reg) result, in(reg) a, in(reg) b,
                options(pure, nomem, nostack));
        }
        result
    }

    /// Largest of each pair of signed bytes.
    #[inline(always)]
    pub(super) fn max(self, a: u32, b: u32) -> u32 {
        let result;
        // SAFETY: SSUB8 and SEL are of the DSP extension, which the token proves; registers and the GE flags
        // only.
        unsafe {
            asm!("ssub8 {0}, {1}, {2}", "sel {0}, {1}, {2}", out(reg) result, in(reg) a, in(reg) b,
                options(pure, nomem, nostack));
        }
        result
    }

    /// Smallest of each pair of signed bytes.
    #[inline(always)]
    pub(super) fn min(self, a: u32, b: u32) -> u32 {
        let result;
        // SAFETY: as `max`.
        unsafe {
            asm!("ssub8 {0}, {1}, {2}", "sel {0}, {2}, {1}", out(reg) result, in(reg) a, in(reg) b,
                options(pure, nomem, nostack));
        }
        result
    }
}
