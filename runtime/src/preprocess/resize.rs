//! Separable resizing of the cropped window, streamed row by row.
//!
//! Rows of the source are resampled horizontally into a ring that holds just the rows one vertical
//! window reads, so that scratch grows with the model's input and the shrinking factor, never with
//! the picture. Both passes round to 8 bits, as Pillow's do.

use super::filter::{HALF, NearestSteps, Span, Weights, Word, clip8};
use super::{Channels, Filter, ImageView, PixelFormat, PreprocessError};

/// One axis: a source resized to `resized` pixels, of which `len` from `start` on are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) source: u32,
    pub(super) resized: u32,
    pub(super) start: u32,
    pub(super) len: u16,
}

/// How one source size becomes the model's input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) horizontal: Axis,
    pub(super) vertical: Axis,
    pub(super) filter: Filter,
    pub(super) antialias: bool,
    pub(super) channels: Channels,
}

impl Plan {
    /// Bytes of scratch that [`Plan::run`] needs; `None` beyond the address space.
    pub(super) fn scratch_bytes(&self) -> Option<usize> {
        self.column_bytes()?
            .checked_add(self.row_weight_bytes()?)?
            .checked_add(self.ring_rows()?.checked_mul(self.pitch()?)?)
    }

    /// Writes the resized and cropped pixels to `out`, interleaved and without padding.
    ///
    /// `image` has the plan's source size; `out` holds `height · width · channels` bytes.
    pub(super) fn run(
        &self,
        image: &ImageView<'_>,
        scratch: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), PreprocessError> {
        let sizes = || {
            Some((
                self.column_bytes()?,
                self.row_weight_bytes()?,
                self.scratch_bytes()?,
            ))
        };
        let (columns, row_weights, need) = sizes().ok_or(PreprocessError::ImageTooLarge)?;
        if scratch.len() < need {
            return Err(PreprocessError::ScratchTooShort { need });
        }
        let (columns, rest) = scratch.split_at_mut(columns);
        let (row_weights, ring) = rest.split_at_mut(row_weights);
        let columns = self.prepare_columns(columns);
        let (row_weights, _) = row_weights.as_chunks_mut();

        let width = usize::from(self.horizontal.len);
        let model_channels = self.channels.count();
        // Grey pixels stay single until a row is finished: one third of the work.
        let channels = match image.format() {
            PixelFormat::Gray8 => 1,
            _ => model_channels,
        };
        let rows = out.chunks_exact_mut(width * model_channels);

        match self.vertical.method(self.filter, self.antialias) {
            Method::Copy => {
                for (y, row) in (self.vertical.start..).zip(rows) {
                    sample(
                        image,
                        y,
                        &columns,
                        self.channels,
                        &mut row[..width * channels],
                    );
                    replicate(row, channels, model_channels);
                }
            }
            Method::Nearest(steps) => {
                for (y, row) in steps.zip(rows) {
                    sample(
                        image,
                        y,
                        &columns,
                        self.channels,
                        &mut row[..width * channels],
                    );
                    replicate(row, channels, model_channels);
                }
            }
            Method::Weighted(weights) => {
                let capacity = weights.max_taps();
                let pitch = width * channels;
                let mut next = 0;
                for (y, row) in (self.vertical.start..).zip(rows) {
                    let span = weights.write(y, row_weights);
                    let end = span.first + span.count;
                    // Rows that no window reads, as when shrinking without antialiasing, are skipped.
                    for source in span.first.max(next)..end {
                        let slot = (source % capacity) as usize * pitch;
                        let slot = &mut ring[slot..slot + pitch];
                        sample(image, source, &columns, self.channels, slot);
                    }
                    next = next.max(end);
                    blend(ring, capacity, span, row_weights, &mut row[..pitch]);
                    replicate(row, channels, model_channels);
                }
            }
        }
        Ok(())
    }

    /// Fills the table of columns and wraps it.
    fn prepare_columns<'a>(&self, table: &'a mut [u8]) -> Columns<'a> {
        let axis = &self.horizontal;
        let (table, _) = table.as_chunks_mut::<4>();
        match axis.method(self.filter, self.antialias) {
            Method::Copy => Columns::Copy { start: axis.start },
            Method::Nearest(steps) => {
                for (word, index) in table.iter_mut().zip(steps) {
                    *word = index.to_ne_bytes();
                }
                Columns::Nearest { indices: table }
            }
            Method::Weighted(weights) => {
                let record = SPAN_WORDS + weights.max_taps() as usize;
                for (x, record) in (axis.start..).zip(table.chunks_exact_mut(record)) {
                    let (span, words) = record.split_at_mut(SPAN_WORDS);
                    let Span { first, count } = weights.write(x, words);
                    span.copy_from_slice(&[first.to_ne_bytes(), count.to_ne_bytes()]);
                }
                Columns::Weighted { table, record }
            }
        }
    }

    fn column_bytes(&self) -> Option<usize> {
        let words = match self.horizontal.method(self.filter, self.antialias) {
            Method::Copy => 0,
            Method::Nearest(_) => 1,
            Method::Weighted(weights) => {
                SPAN_WORDS.checked_add(usize::try_from(weights.max_taps()).ok()?)?
            }
        };
        words
            .checked_mul(usize::from(self.horizontal.len))?
            .checked_mul(size_of::<Word>())
    }

    fn row_weight_bytes(&self) -> Option<usize> {
        self.ring_rows()?.checked_mul(size_of::<Word>())
    }

    fn ring_rows(&self) -> Option<usize> {
        match self.vertical.method(self.filter, self.antialias) {
            Method::Copy | Method::Nearest(_) => Some(0),
            Method::Weighted(weights) => usize::try_from(weights.max_taps()).ok(),
        }
    }

    /// Bytes of a finished row; an upper bound for one of a grey source.
    fn pitch(&self) -> Option<usize> {
        usize::from(self.horizontal.len).checked_mul(self.channels.count())
    }
}

/// How an axis is resampled.
enum Method {
    /// The size stays, and so do the pixels.
    Copy,
    Nearest(NearestSteps),
    Weighted(Weights),
}

impl Axis {
    fn method(&self, filter: Filter, antialias: bool) -> Method {
        let Self {
            source,
            resized,
            start,
            ..
        } = *self;
        if source == resized {
            Method::Copy
        } else if filter == Filter::Nearest {
            Method::Nearest(NearestSteps::new(source, resized, start))
        } else {
            Method::Weighted(Weights::new(filter, antialias, source, resized))
        }
    }
}

/// Words before the weights in a column's record: first source pixel, number of taps.
const SPAN_WORDS: usize = 2;

/// Where the pixels of a row come from.
enum Columns<'a> {
    Copy {
        start: u32,
    },
    Nearest {
        indices: &'a [Word],
    },
    /// One record of `record` words a column: first source pixel, number of taps, weights.
    Weighted {
        table: &'a [Word],
        record: usize,
    },
}

/// Resamples row `y` of `image` into `out`, converting to the model's channels on the way.
///
/// The conversion comes before the filter, as when a picture is converted and then resized.
fn sample(
    image: &ImageView<'_>,
    y: u32,
    columns: &Columns<'_>,
    channels: Channels,
    out: &mut [u8],
) {
    let row = image.row(y).unwrap_or_default();
    match (image.format(), channels) {
        (PixelFormat::Gray8, _) => sample_as(row, columns, out, |p: &[u8; 1]| *p),
        (PixelFormat::Rgb8, Channels::Rgb) | (PixelFormat::Bgr8, Channels::Bgr) => {
            sample_as(row, columns, out, |p: &[u8; 3]| *p)
        }
        (PixelFormat::Rgb8, Channels::Bgr) | (PixelFormat::Bgr8, Channels::Rgb) => {
            sample_as(row, columns, out, |&[a, b, c]: &[u8; 3]| [c, b, a])
        }
        (PixelFormat::Rgba8, Channels::Rgb) => {
            sample_as(row, columns, out, |&[r, g, b, _]: &[u8; 4]| [r, g, b])
        }
        (PixelFormat::Rgba8, Channels::Bgr) => {
            sample_as(row, columns, out, |&[r, g, b, _]: &[u8; 4]| [b, g, r])
        }
        (PixelFormat::Rgb8, Channels::Gray) => {
            sample_as(row, columns, out, |&[r, g, b]: &[u8; 3]| {
                [luminance(r, g, b)]
            })
        }
        (PixelFormat::Bgr8, Channels::Gray) => {
            sample_as(row, columns, out, |&[b, g, r]: &[u8; 3]| {
                [luminance(r, g, b)]
            })
        }
        (PixelFormat::Rgba8, Channels::Gray) => {
            sample_as(row, columns, out, |&[r, g, b, _]: &[u8; 4]| {
                [luminance(r, g, b)]
            })
        }
    }
}

#[inline(always)]
fn sample_as<const BYTES: usize, const CHANNELS: usize>(
    row: &[u8],
    columns: &Columns<'_>,
    out: &mut [u8],
    convert: impl Fn(&[u8; BYTES]) -> [u8; CHANNELS],
) {
    let (pixels, _) = row.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<CHANNELS>();
    match columns {
        Columns::Copy { start } => {
            let kept = pixels.get(*start as usize..).unwrap_or_default();
            for (out, pixel) in out.iter_mut().zip(kept) {
                *out = convert(pixel);
            }
        }
        Columns::Nearest { indices } => {
            for (out, index) in out.iter_mut().zip(*indices) {
                if let Some(pixel) = pixels.get(u32::from_ne_bytes(*index) as usize) {
                    *out = convert(pixel);
                }
            }
        }
        Columns::Weighted { table, record } => {
            for (out, record) in out.iter_mut().zip(table.chunks_exact(*record)) {
                let [first, count, weights @ ..] = record else {
                    continue;
                };
                let tail = pixels
                    .get(u32::from_ne_bytes(*first) as usize..)
                    .unwrap_or_default();
                let count = u32::from_ne_bytes(*count) as usize;
                let mut sums = [HALF; CHANNELS];
                for (pixel, weight) in tail.iter().zip(weights).take(count) {
                    let weight = i32::from_ne_bytes(*weight);
                    for (sum, value) in sums.iter_mut().zip(convert(pixel)) {
                        *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
                    }
                }
                *out = sums.map(clip8);
            }
        }
    }
}

/// Blends the rows of `span`, each in ring slot `row mod capacity`, into `out`.
fn blend(ring: &[u8], capacity: u32, span: Span, weights: &[Word], out: &mut [u8]) {
    /// Sums kept in registers or on the stack at a time.
    const BLOCK: usize = 64;
    let pitch = out.len();
    let first = (span.first % capacity) as usize;
    // Slots wrap at most once: a span is never longer than the ring.
    let slots = (first..capacity as usize).chain(0..first);
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [HALF; BLOCK];
        for (slot, weight) in slots.clone().zip(weights).take(span.count as usize) {
            let start = slot * pitch + block * BLOCK;
            let weight = i32::from_ne_bytes(*weight);
            for (sum, value) in sums.iter_mut().zip(&ring[start..start + out.len()]) {
                *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(weight));
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = clip8(sum);
        }
    }
}

/// Spreads a row of single values at the front of `row` over all channels.
fn replicate(row: &mut [u8], channels: usize, model_channels: usize) {
    if channels == model_channels {
        return;
    }
    // From the back: a pixel is written at or after the place its value is read from.
    for x in (0..row.len() / model_channels).rev() {
        let value = row[x];
        row[x * model_channels..][..model_channels].fill(value);
    }
}

/// Pillow's conversion to mode `L`: ITU-R 601-2 luma in 16-bit fixed point.
#[inline(always)]
fn luminance(r: u8, g: u8, b: u8) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luminance_spans_the_range() {
        assert_eq!(luminance(0, 0, 0), 0);
        assert_eq!(luminance(255, 255, 255), 255);
        assert_eq!(luminance(255, 0, 0), 76);
        assert_eq!(luminance(0, 255, 0), 150);
        assert_eq!(luminance(0, 0, 255), 29);
    }

    #[test]
    fn replicate_spreads_in_place() {
        let mut row = [1, 2, 3, 0, 0, 0, 0, 0, 0];
        replicate(&mut row, 1, 3);
        assert_eq!(row, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
    }
}
