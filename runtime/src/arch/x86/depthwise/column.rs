//! Phase one: the rows of the input under a window are interleaved, column by column.

use core::mem::MaybeUninit;

use super::engine::{Engine, LANES};

/// Most input rows that are interleaved.
pub(super) const ROWS: usize = 8;
/// Columns that the ring holds. A power of two.
pub(super) const RING: usize = 32;

/// A column of pixels, interleaved `[group of rows][vector]`.
pub(super) type Column<E, const Q: usize> = [[<E as Engine>::Int; 4]; Q];

/// Interleaved columns. They are numbered from the left padding on; column `v` is at `v % RING`.
pub(super) type Ring<E, const Q: usize> = [MaybeUninit<Column<E, Q>>; RING];

/// In [`Rows::starts`], a row of padding.
pub(super) const PADDING: usize = usize::MAX;

/// The rows under a window.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The input from the block's first channel on, and whatever follows.
    pub data: &'a [i8],
    /// Where each row of each lane starts in the data, `[row][lane]`, or [`PADDING`].
    pub starts: [[usize; LANES]; ROWS],
    /// Rows that are interleaved.
    pub count: usize,
    /// Lanes in use.
    pub lanes: usize,
    /// Elements from one pixel to the next.
    pub step: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Padding before a row.
    pub pad: usize,
    /// A pixel of padding.
    pub padding: &'a [i8; 64],
}

/// Copies of one pixel in all rows and lanes.
type Edge = [[[i8; 64]; LANES]; ROWS];

impl Rows<'_> {
    /// Interleaves columns `from..to`.
    #[inline(always)]
    pub fn fill<E: Engine, const Q: usize>(
        &self,
        engine: E,
        ring: &mut Ring<E, Q>,
        [from, to]: [usize; 2],
    ) {
        let inside = [from.max(self.pad), to.min(self.pad + self.width)];
        let code = engine.to_unsigned(engine.splat_i8(self.padding[0]));
        let padding = engine.interleave(&[code; 4]);
        for v in (from..to.min(inside[0])).chain(inside[1].max(from)..to) {
            ring[v % RING].write([padding; Q]);
        }
        let whole = self.pad + self.whole(E::BYTES / self.lanes);
        let mut edge: MaybeUninit<Edge> = MaybeUninit::uninit();
        let mut copies;
        let mut rows = self;
        let [mut v, to] = inside;
        while v < to {
            let mut end = to.min(whole);
            if v >= whole {
                copies = self.edge(v - self.pad, edge.write([[[0; 64]; LANES]; ROWS]));
                rows = &copies;
                end = v + 1;
            }
            // SAFETY: pixels below `whole` can be read in all rows and lanes, and the copies have
            // 64 bytes each.
            unsafe {
                match self.lanes {
                    1 => rows.interleave::<E, Q, 1>(engine, ring, [v, end]),
                    2 => rows.interleave::<E, Q, 2>(engine, ring, [v, end]),
                    _ => rows.interleave::<E, Q, 4>(engine, ring, [v, end]),
                }
            }
            v = end;
        }
    }

    /// # Safety
    ///
    /// At all pixels `from − pad..to − pad`, the bytes of a part must be readable in all rows and
    /// in the first `G` lanes.
    #[inline(always)]
    unsafe fn interleave<E: Engine, const Q: usize, const G: usize>(
        &self,
        engine: E,
        ring: &mut Ring<E, Q>,
        [from, to]: [usize; 2],
    ) {
        // Addresses, and the bits of a pixel's offset that count there: all or none.
        let mut places = [[(self.padding.as_ptr(), 0); G]; ROWS];
        for i in 0..Q * E::TAPS {
            for g in 0..G {
                if let Some(row) = self.data.get(self.starts[i][g]..) {
                    places[i][g] = (row.as_ptr(), usize::MAX);
                }
            }
        }
        let mut offset = from.wrapping_sub(self.pad).wrapping_mul(self.step);
        for v in from..to {
            let mut column = [[engine.zero(); 4]; Q];
            for q in 0..Q {
                let mut rows = [engine.zero(); 4];
                for t in 0..E::TAPS {
                    let lanes = &places[q * E::TAPS + t];
                    let at = |g: usize| lanes[g].0.wrapping_add(offset & lanes[g].1);
                    // SAFETY: the caller vouches for the bytes at these addresses.
                    rows[t] = engine.to_unsigned(unsafe { engine.load::<G>(at) });
                }
                column[q] = engine.interleave(&rows);
            }
            ring[v % RING].write(column);
            offset = offset.wrapping_add(self.step);
        }
    }

    /// Pixels from the first one on that `bytes` can be read of in all rows and lanes.
    #[inline(always)]
    fn whole(&self, bytes: usize) -> usize {
        let mut last = 0;
        for row in &self.starts[..self.count] {
            for &start in &row[..self.lanes] {
                last = if start == PADDING {
                    last
                } else {
                    start.max(last)
                };
            }
        }
        match self.data.len().checked_sub(last + bytes) {
            Some(rest) if rest >= (self.width - 1) * self.step => self.width,
            Some(rest) => rest / self.step + 1,
            None => 0,
        }
    }

    /// Copies pixel `ix`, which has less than a vector's bytes behind it, filled up with zeros.
    #[cold]
    #[inline(never)]
    fn edge<'a>(&'a self, ix: usize, copies: &'a mut Edge) -> Rows<'a> {
        let mut starts = self.starts;
        for i in 0..self.count {
            for g in 0..self.lanes {
                if starts[i][g] != PADDING {
                    let rest = self
                        .data
                        .get(starts[i][g] + ix * self.step..)
                        .unwrap_or_default();
                    let n = rest.len().min(64);
                    copies[i][g][..n].copy_from_slice(&rest[..n]);
                    starts[i][g] = (i * LANES + g) * 64;
                }
            }
        }
        Rows {
            data: copies.as_flattened().as_flattened(),
            starts,
            step: 0,
            ..*self
        }
    }
}
