//! Which input positions a window covers.

use super::Pool;
use crate::error::Error;
use crate::ops::length::{at_least, expect};

/// Input positions `first, first + step, …` (`count` of them) along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub first: usize,
    pub step: usize,
    pub count: usize,
}

impl Pool {
    /// Checks the slices: the whole input, and whole output rows from `first_row` on.
    pub(super) fn check(&self, x: usize, first_row: usize, y: usize) -> Result<(), Error> {
        let [in_h, in_w, c] = self.input;
        let [out_h, out_w] = self.output;
        expect(in_h * in_w * c, x)?;
        let row = out_w * c;
        if row == 0 {
            return expect(0, y);
        }
        expect(y / row * row, y)?;
        at_least((first_row + y / row) * row, out_h * row)
    }

    /// The positions inside the map that output position `o` covers along `axis` (0 = height).
    pub(super) fn span(&self, axis: usize, o: usize) -> Span {
        let w = &self.window;
        let step = usize::from(w.dilation[axis]).max(1);
        let start = o * usize::from(w.stride[axis]);
        let pad = usize::from(w.pad[axis]);
        let skipped = pad.saturating_sub(start).div_ceil(step);
        let first = (start + skipped * step).saturating_sub(pad);
        let fitting = self.input[axis].saturating_sub(first).div_ceil(step);
        let count = usize::from(w.kernel[axis])
            .saturating_sub(skipped)
            .min(fitting);
        Span { first, step, count }
    }

    /// What an average over `inside` positions of the map divides by.
    pub(super) fn divisor(&self, inside: usize) -> usize {
        if self.include_pad {
            self.window.taps()
        } else {
            inside
        }
        .max(1)
    }
}

impl Span {
    /// The positions.
    #[inline(always)]
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |i| self.first + i * self.step)
    }
}
