//! From accumulators to codes.

use crate::arch::cortex_m::Dsp;
use crate::numerics::MAGIC;
use crate::ops::conv::{EpilogueI8, Residual};

/// What every output of a call needs.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    token: Dsp,
    /// `MAGIC` plus the zero point.
    base: f32,
    residual: Option<Residual<'a>>,
}

impl<'a> Finish<'a> {
    pub fn new(token: Dsp, e: &EpilogueI8<'a>) -> Self {
        Finish {
            token,
            base: MAGIC + e.zero as f32,
            residual: e.residual,
        }
    }

    /// Codes before clamp and table; the first two are outputs from `index[0]` on, the others from
    /// `index[1]` on.
    ///
    /// Sums order as their bits do, negative ones below all others, so the difference of the bits to those
    /// of [`MAGIC`] saturates to the side on which the sum lies.
    #[inline(always)]
    pub fn codes(&self, sums: [i32; 4], multipliers: [f32; 4], index: [usize; 2]) -> [i8; 4] {
        let mut t: [f32; 4] = core::array::from_fn(|i| sums[i] as f32 * multipliers[i]);
        if let Some(r) = self.residual {
            for (i, t) in t.iter_mut().enumerate() {
                // Behind the last channel there may be none; the code is not used then.
                let code = r.data.get(index[i / 2] + i % 2).copied().unwrap_or(0);
                *t += (i32::from(code) - r.zero) as f32 * r.multiplier;
            }
        }
        t.map(|t| {
            self.token
                .narrow((t + self.base).to_bits() as i32, MAGIC.to_bits() as i32) as i8
        })
    }
}

/// Clamps finished codes where the epilogue asks for it.
pub(super) fn clamp(token: Dsp, e: &EpilogueI8<'_>, y: &mut [i8]) {
    if (e.lo, e.hi) != (i8::MIN, i8::MAX) {
        let (lo, hi) = (splat(e.lo), splat(e.hi));
        let (words, rest) = y.as_chunks_mut::<4>();
        for word in words {
            let codes = u32::from_ne_bytes(word.map(|c| c as u8));
            let codes = token.min(token.max(codes, lo), hi);
            *word = codes.to_ne_bytes().map(|c| c as i8);
        }
        for code in rest {
            *code = (*code).max(e.lo).min(e.hi);
        }
    }
}

fn splat(code: i8) -> u32 {
    u32::from_ne_bytes([code as u8; 4])
}
