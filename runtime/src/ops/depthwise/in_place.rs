//! Depthwise convolution into the memory of its own input, a band of rows at a time.
//!
//! An output row reads input rows that earlier outputs have overwritten, so the originals of as many
//! rows as a window spans move through the working memory. Kernels see a map of a few rows there and
//! write into the large one; they know nothing of it.

use super::{DepthwiseF32, DepthwiseI8};
use crate::error::Error;
use crate::exec::{Exec, MAX_PARTS, share_of};
use crate::ops::Window;
use crate::ops::length::{at_least, expect};

/// Rows that a step keeps, and how long each is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InPlace {
    window: Window,
    height: usize,
    width: usize,
    channels: usize,
    /// Rows above and below an output's own that it reads.
    above: usize,
    below: usize,
}

/// Bytes of working memory with which a depthwise convolution of a map `[height, width, channels]` of
/// elements of `size` bytes works in place on `threads` threads; `None` when the result has another shape
/// than the input. With less it uses fewer threads, down to one.
///
/// ```
/// use ampoule_runtime::ops::{Window, depthwise::in_place_bytes};
/// let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1; 4] };
/// // A band of two rows, the two around it, and the one below the thread's part of the map.
/// assert_eq!(in_place_bytes(&window, [56, 56, 256], 1, 1), Some(5 * 56 * 256));
/// assert_eq!(in_place_bytes(&Window { stride: [2, 2], ..window }, [56, 56, 256], 1, 1), None);
/// ```
pub fn in_place_bytes(
    window: &Window,
    input: [usize; 3],
    size: usize,
    threads: usize,
) -> Option<usize> {
    let map = InPlace::new(window, input)?;
    let rows = map.rows_held() + map.reach().max(1) - 1;
    let bytes = rows.checked_mul(map.row())?.checked_mul(size)?;
    bytes
        .checked_next_multiple_of(crate::ARENA_ALIGN)?
        .checked_mul(threads)
}

impl InPlace {
    /// `None` when the output has another shape than the input, or a row is too long to count.
    pub fn new(window: &Window, input: [usize; 3]) -> Option<Self> {
        let [height, width, channels] = input;
        let same = window.stride == [1, 1]
            && window.output(0, height) == Some(height)
            && window.output(1, width) == Some(width);
        let reach = (usize::from(window.kernel[0]).checked_sub(1)?)
            .checked_mul(window.dilation[0].into())?;
        let above = usize::from(window.pad[0]);
        width.checked_mul(channels)?;
        same.then_some(InPlace {
            window: *window,
            height,
            width,
            channels,
            above,
            // Same height: what is padded is what the window reaches.
            below: reach.checked_sub(above)?,
        })
    }

    /// Elements of working memory without which nothing goes.
    pub fn least(&self) -> Option<usize> {
        self.rows_held().checked_mul(self.row())
    }

    /// Runs `f` over the map: it gets a band, the input rows that the band reads, and the output rows,
    /// which it replaces.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] when `y` is not the map or `scratch` is too short, [`Error::Internal`] when `f` refuses a band.
    pub fn run<T: Copy + Send + Sync>(
        &self,
        exec: Exec<'_>,
        cost: usize,
        y: &mut [T],
        scratch: &mut [T],
        f: impl Fn(Band, &[T], &mut [T]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let row = self.row();
        expect(self.height * row, y.len())?;
        let least = self.least().unwrap_or(usize::MAX);
        at_least(least, scratch.len())?;
        let runs = exec
            .threads(cost)
            .min(scratch.len() / least.max(1))
            .min(self.height)
            .max(1);
        let share = scratch.len() / runs;
        let mut parts = [const { None }; MAX_PARTS];
        let bounds = |i: usize| share_of(i, runs, self.height);
        // What lies around a run is saved before its neighbours overwrite it.
        for (i, scratch) in scratch.chunks_exact_mut(share).take(runs).enumerate() {
            let (first, end) = (bounds(i), bounds(i + 1));
            let lo = first.saturating_sub(self.above);
            let hi = (end + self.below).min(self.height);
            let (after, held) = scratch.split_at_mut(self.below * row);
            copy_rows(row, held, 0, y, lo, first - lo).ok_or(FAULT)?;
            copy_rows(row, after, 0, y, end, hi - end).ok_or(FAULT)?;
            parts[i] = Some(Run {
                first,
                lo,
                y: [].as_mut_slice(),
                held,
                after: &after[..(hi - end) * row],
            });
        }
        let mut rest = y;
        for (i, part) in parts.iter_mut().flatten().enumerate() {
            let (mine, tail) = rest.split_at_mut((bounds(i + 1) - bounds(i)) * row);
            (part.y, rest) = (mine, tail);
        }
        exec.each(&mut parts, &|run| self.bands(run, &f).ok_or(FAULT))
    }

    fn bands<T: Copy>(
        &self,
        run: Run<'_, T>,
        f: &impl Fn(Band, &[T], &mut [T]) -> Result<(), Error>,
    ) -> Option<()> {
        let Run {
            first,
            mut lo,
            y,
            held,
            after,
        } = run;
        let row = self.row();
        let end = first + y.len() / row;
        let limit = end + after.len() / row;
        let most = held.len() / row - self.reach();
        // The rows `lo..hi` of the map are held.
        let (mut hi, mut at) = (first, first);
        while at < end {
            let keep = at.saturating_sub(self.above).max(lo);
            // Row by row, since `copy_within` takes a kilobyte and a half of flash.
            for kept in 0..if keep > lo { hi - keep } else { 0 } {
                let (to, from) = held.split_at_mut_checked((keep - lo + kept) * row)?;
                copy_rows(row, to, kept, from, 0, 1)?;
            }
            lo = keep;
            let rows = most.min(end - at);
            let need = (at + rows + self.below).min(limit);
            while hi < need {
                let (from, i) = if hi < end {
                    (&*y, hi - first)
                } else {
                    (after, hi - end)
                };
                copy_rows(row, held, hi - lo, from, i, 1)?;
                hi += 1;
            }
            let top = self.above - (at - lo);
            let bottom = rows + self.reach() - top - (hi - lo);
            let [_, left, _, right] = self.window.pad;
            let band = Band {
                // The new paddings are at most the window's own.
                window: Window {
                    pad: [top as u16, left, bottom as u16, right],
                    ..self.window
                },
                input: [hi - lo, self.width, self.channels],
                output: [rows, self.width],
                start: at * row,
            };
            let out = y.get_mut((at - first) * row..)?.get_mut(..rows * row)?;
            f(band, held.get(..(hi - lo) * row)?, out).ok()?;
            at += rows;
        }
        Some(())
    }

    fn row(&self) -> usize {
        self.width * self.channels
    }

    fn reach(&self) -> usize {
        self.above + self.below
    }

    /// Rows of a band of one, and the rows below a run.
    fn rows_held(&self) -> usize {
        self.reach() + 1 + self.below
    }
}

/// A few output rows as a convolution of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Band {
    pub window: Window,
    /// Height, width and channels of the rows read.
    pub input: [usize; 3],
    /// Height and width of the rows written.
    pub output: [usize; 2],
    /// First element written, in the whole map.
    pub start: usize,
}

impl<'a> DepthwiseI8<'a> {
    /// The convolution of one band, which has `len` elements.
    pub(crate) fn band(&self, band: &Band, len: usize) -> Result<Self, Error> {
        let mut epilogue = self.epilogue;
        if let Some(residual) = &mut epilogue.residual {
            let data = residual.data.get(band.start..).and_then(|d| d.get(..len));
            residual.data = data.ok_or(Error::Internal(0))?;
        }
        Ok(DepthwiseI8 {
            window: band.window,
            input: band.input,
            output: band.output,
            epilogue,
            ..*self
        })
    }
}

impl DepthwiseF32<'_> {
    /// The convolution of one band.
    pub(crate) fn band(&self, band: &Band) -> Self {
        DepthwiseF32 {
            window: band.window,
            input: band.input,
            output: band.output,
            ..*self
        }
    }
}

/// Consecutive rows for one thread.
struct Run<'y, T> {
    first: usize,
    /// First row held.
    lo: usize,
    y: &'y mut [T],
    held: &'y mut [T],
    /// Rows below the run's own.
    after: &'y [T],
}

/// What the plan of rows rules out.
const FAULT: Error = Error::Internal(0);

/// Copies `count` rows of `row` elements, from row `from_row` of one map to row `to_row` of another; `None` when they
/// are not there.
fn copy_rows<T: Copy>(
    row: usize,
    to: &mut [T],
    to_row: usize,
    from: &[T],
    from_row: usize,
    count: usize,
) -> Option<()> {
    let to = to.get_mut(to_row * row..)?.get_mut(..count * row)?;
    to.copy_from_slice(from.get(from_row * row..)?.get(..count * row)?);
    Some(())
}
