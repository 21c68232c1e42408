//! From accumulators to codes.

use crate::arch::cortex_m::Dsp;
use crate::numerics::MAGIC;
use crate::ops::conv::{EpilogueI8, Residual};

/// What every output of a call needs.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub token: Dsp,
    /// `MAGIC` plus the zero point.
    pub base: f32,
    pub residual: Option<Residual<'a>>,
}

impl<'a> Finish<'a> {
    pub fn new(token: Dsp, e: &EpilogueI8<'a>) -> Self {
        Finish {
            token,
            base: MAGIC + e.zero as f32,
            residual: e.residual,
        }
    }

    /// Codes of four channels of one pixel before clamp and table, the first of which is output `index`.
    #[inline(always)]
    pub fn row(&self, sums: [i32; 4], multipliers: &[f32; 4], index: usize) -> [i8; 4] {
        match &self.residual {
            None => self.quad(sums, multipliers),
            Some(r) => self.with_residual(r, &sums, multipliers, [index, index + 2]),
        }
    }

    /// Codes of two channels of two pixels, likewise; `index` for each pixel.
    #[cfg(not(target_abi = "eabihf"))]
    pub fn square(&self, sums: [i32; 4], &[m0, m1]: &[f32; 2], index: [usize; 2]) -> [i8; 4] {
        let multipliers = [m0, m1, m0, m1];
        match &self.residual {
            None => self.quad(sums, &multipliers),
            Some(r) => self.with_residual(r, &sums, &multipliers, index),
        }
    }

    #[inline(never)]
    fn with_residual(
        &self,
        r: &Residual<'_>,
        sums: &[i32; 4],
        multipliers: &[f32; 4],
        index: [usize; 2],
    ) -> [i8; 4] {
        let mut codes = [0; 4];
        for (i, code) in codes.iter_mut().enumerate() {
            // Behind the last channel there may be none; the code is not used then.
            let at = if i < 2 {
                index[0] + i
            } else {
                index[1] + i - 2
            };
            let addend = r.data.get(at).copied().unwrap_or(0);
            let t = sums[i] as f32 * multipliers[i]
                + (i32::from(addend) - r.zero) as f32 * r.multiplier;
            *code = self.code(t);
        }
        codes
    }

    /// Sums order as their bits do, negative ones below all others, so the difference of the bits to those
    /// of [`MAGIC`] saturates to the side on which the sum lies.
    #[inline(always)]
    fn code(&self, t: f32) -> i8 {
        self.token
            .narrow((t + self.base).to_bits() as i32, MAGIC.to_bits() as i32) as i8
    }
}

#[cfg(target_abi = "eabihf")]
impl Finish<'_> {
    /// The codes of four sums without a residual, as [`Finish::code`], in assembly: compiled for size plain code
    /// would take twice the instructions.
    #[inline(always)]
    fn quad(&self, sums: [i32; 4], multipliers: &[f32; 4]) -> [i8; 4] {
        let [mut codes, s1, s2, s3] = sums;
        // SAFETY: QSUB, SSAT and BFI are of the DSP extension and of Armv7, which the token proves, the others of
        // the floating-point unit that the target has. Four multipliers are loaded.
        unsafe {
            core::arch::asm!(
                "vldmia {m}, {{s4-s7}}",
                "vmov s0, {s0}",
                "vmov s1, {s1}",
                "vmov s2, {s2}",
                "vmov s3, {s3}",
                "vmov s8, {base}",
                "vcvt.f32.s32 s0, s0",
                "vcvt.f32.s32 s1, s1",
                "vcvt.f32.s32 s2, s2",
                "vcvt.f32.s32 s3, s3",
                "vmul.f32 s0, s0, s4",
                "vmul.f32 s1, s1, s5",
                "vmul.f32 s2, s2, s6",
                "vmul.f32 s3, s3, s7",
                "vadd.f32 s0, s0, s8",
                "vadd.f32 s1, s1, s8",
                "vadd.f32 s2, s2, s8",
                "vadd.f32 s3, s3, s8",
                "vmov {s0}, s0",
                "vmov {s1}, s1",
                "vmov {s2}, s2",
                "vmov {s3}, s3",
                "qsub {s0}, {s0}, {magic}",
                "qsub {s1}, {s1}, {magic}",
                "qsub {s2}, {s2}, {magic}",
                "qsub {s3}, {s3}, {magic}",
                "ssat {s0}, #8, {s0}",
                "ssat {s1}, #8, {s1}",
                "ssat {s2}, #8, {s2}",
                "ssat {s3}, #8, {s3}",
                "bfi {s0}, {s1}, #8, #8",
                "bfi {s0}, {s2}, #16, #8",
                "bfi {s0}, {s3}, #24, #8",
                s0 = inout(reg) codes, s1 = inout(reg) s1 => _,
                s2 = inout(reg) s2 => _, s3 = inout(reg) s3 => _,
                m = in(reg) multipliers.as_ptr(),
                base = in(reg) self.base.to_bits(), magic = in(reg) MAGIC.to_bits(),
                out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _,
                out("s6") _, out("s7") _, out("s8") _,
                options(pure, readonly, nostack),
            );
        }
        let [a, b, c, d] = codes.to_le_bytes();
        [a as i8, b as i8, c as i8, d as i8]
    }
}

/// Where floats are in software.
#[cfg(not(target_abi = "eabihf"))]
impl Finish<'_> {
    fn quad(&self, sums: [i32; 4], multipliers: &[f32; 4]) -> [i8; 4] {
        core::array::from_fn(|i| self.code(sums[i] as f32 * multipliers[i]))
    }
}

/// Clamps finished codes where the epilogue asks for it.
pub(super) fn clamp(token: Dsp, e: &EpilogueI8<'_>, y: &mut [i8]) {
    if (e.lo, e.hi) != (i8::MIN, i8::MAX) {
        let (lo, hi) = (splat(e.lo), splat(e.hi));
        let (words, rest) = y.as_chunks_mut::<4>();
        for word in words {
            let [a, b, c, d] = *word;
            let codes = u32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8]);
            let [a, b, c, d] = token.min(token.max(codes, lo), hi).to_ne_bytes();
            *word = [a as i8, b as i8, c as i8, d as i8];
        }
        for code in rest {
            *code = (*code).max(e.lo).min(e.hi);
        }
    }
}

fn splat(code: i8) -> u32 {
    u32::from_ne_bytes([code as u8; 4])
}
