//! The rows of the input under a window, and their interleaved columns.

use super::engine::{Engine, LANES};

/// Most input rows that are interleaved.
pub(super) const ROWS: usize = 8;

/// Where one row of one lane is read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// The row from its first pixel and the block's first channel on, and whatever follows.
    pub data: &'a [i8],
    /// Elements from one pixel to the next.
    pub step: usize,
}

/// The rows under a window.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// `[row][lane]`; only the lanes in use are read.
    pub sources: [[Source<'a>; LANES]; ROWS],
    /// Lanes in use.
    pub lanes: usize,
    /// Bytes that are read of a lane.
    pub bytes: usize,
}

/// Copies of the pixels that have less than a vector's bytes behind them.
pub(super) type Edge = [[[i8; 64]; LANES]; ROWS];

impl<'a> Rows<'a> {
    /// Pixels from the first one on that all rows and lanes have, with the bytes that are read.
    pub fn whole(&self) -> usize {
        let lanes = self.sources.iter().flat_map(|row| &row[..self.lanes]);
        let whole = |source: &Source<'_>| match source.data.len().checked_sub(self.bytes) {
            Some(rest) => rest.checked_div(source.step).map_or(usize::MAX, |n| n + 1),
            None => 0,
        };
        lanes.map(whole).min().unwrap_or(0)
    }

    /// Copies pixel `ix` to `edge`, filled up with zeros, and reads it from there.
    #[cold]
    #[inline(never)]
    pub fn at_the_edge<'e>(&self, ix: usize, edge: &'e mut Edge) -> Rows<'e>
    where
        'a: 'e,
    {
        let mut sources: [[Source<'e>; LANES]; ROWS] = self.sources;
        for ((sources, row), copies) in sources.iter_mut().zip(&self.sources).zip(edge) {
            for ((target, source), copy) in sources.iter_mut().zip(row).zip(copies) {
                let rest = source.data.get(ix * source.step..).unwrap_or_default();
                let n = rest.len().min(copy.len());
                copy[..n].copy_from_slice(&rest[..n]);
                copy[n..].fill(0);
                *target = Source {
                    data: copy,
                    step: 0,
                };
            }
        }
        Rows { sources, ..*self }
    }

    /// Reads pixel `ix` of a row.
    ///
    /// # Safety
    ///
    /// `ix` must be less than [`Rows::whole`], and `bytes` be the engine's over `lanes`.
    #[inline(always)]
    pub unsafe fn load<E: Engine>(&self, engine: E, row: usize, ix: usize) -> E::Int {
        let at = |g: usize| {
            let source = &self.sources[row][g];
            source
                .data
                .as_ptr()
                .wrapping_add(ix.wrapping_mul(source.step))
        };
        // SAFETY: in the lanes in use, `bytes` bytes follow each of the addresses.
        unsafe { engine.load(self.lanes, at) }
    }
}
