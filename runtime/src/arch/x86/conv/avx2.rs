//! AVX2: `vpmaddwd` on sign-extended operands.
//!
//! Panels of many rows use each weight often enough that a strip of [`STRIP`] channels is widened
//! beforehand, to pairs: a vector holds two patch values' weights of 8 channels. Few rows widen the
//! weights as they go: a vector then holds a quad's weights of 4 channels, whose products are two
//! sums for each channel, which are added up at the end.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::epilogue256::{Epilogue, LANES};
use super::panel::Rows;
use super::panel256::{self, MEMORY, ROWS, Tiles, Values, drive, fits, load_part, tiles};
use super::parts;
use crate::arch::x86::Avx2;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH, portable};

/// Most rows of a tile of one vector of channels.
const TALL: usize = 2 * ROWS;
/// Fewest rows for which widening the weights pays.
const MANY: usize = 24;
/// Most quads that are widened at a time: half of a first-level cache.
const QUADS: usize = 128;

/// Widened weights of some quads of a block, `[pair of patch values][channel][2]`.
#[repr(align(64))]
struct Strip([i16; QUADS * QUAD * WIDTH]);

/// Sums of a panel in a block, `[row][channel]`, on their way from one strip to the next.
#[repr(align(64))]
struct Sums([i32; MEMORY / (2 * QUADS * QUAD) * WIDTH]);

/// What a tile of a block multiplies.
#[derive(Clone, Copy)]
struct Part {
    weights: *const i16,
    quads: usize,
    /// First channel of the block.
    n: usize,
    /// Whether no quads of the block were before these, and none come after.
    first: bool,
    last: bool,
    /// Weights that are widened next, and how many are asked for with each row: they come while those
    /// of this part are multiplied.
    next: *const i8,
    ahead: usize,
}

/// Computes the call's pixels.
pub(crate) fn conv_i8<'a>(_: Avx2, mut call: CallI8<'a, 'a>) {
    if !fits::<Kernel<'_>>(&call) {
        return portable::conv_i8(call);
    }
    // SAFETY: the token proves the features.
    let epilogue = unsafe { Epilogue::new(&mut call) };
    drive(
        &Kernel {
            conv: call.conv,
            packed: call.packed,
            epilogue,
        },
        &call,
    );
}

struct Kernel<'a> {
    conv: &'a ConvI8<'a>,
    packed: PackedShape,
    epilogue: Epilogue<'a>,
}

impl panel256::Kernel for Kernel<'_> {
    const VALUE: usize = 2;

    unsafe fn convert(&self, from: Values, to: *mut u8, step: usize) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe { widen(from, to, step) };
    }

    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe {
            if pixels.len() < MANY {
                self.direct(rows, pixels);
            } else {
                self.widened(rows, pixels);
            }
        }
    }
}

impl Kernel<'_> {
    /// Tiles with weights that are widened, strip by strip.
    ///
    /// # Safety
    ///
    /// As for [`panel256::Kernel::tiles`].
    #[target_feature(enable = "avx2")]
    unsafe fn widened(&self, rows: Rows, pixels: Range<usize>) {
        let mut strip = MaybeUninit::<Strip>::uninit();
        let mut sums = MaybeUninit::<Sums>::uninit();
        // SAFETY: these places are the variables'.
        let (strip, sums) = unsafe {
            let (strip, sums) = (strip.as_mut_ptr(), sums.as_mut_ptr());
            ((&raw mut (*strip).0).cast(), (&raw mut (*sums).0).cast())
        };
        let quads = self.packed.quads();
        for block in 0..self.packed.blocks() {
            let step = self.packed.block_width(block) * QUAD;
            let offset = self.packed.block_offset(block);
            let pair = step > LANES * QUAD;
            for (start, length) in parts(quads, QUADS) {
                let weights = self
                    .conv
                    .weights
                    .as_ptr()
                    .wrapping_add(offset + start * step);
                let part = Part {
                    weights: strip,
                    quads: length,
                    n: block * WIDTH,
                    first: start == 0,
                    last: start + length == quads,
                    next: weights.wrapping_add(length * step),
                    ahead: (length * step).div_ceil(pixels.len()),
                };
                // SAFETY: the strip has room for the quads, which are the block's. The rows are among
                // those of the caller. There is more than one strip where patches are longer than
                // `QUADS` quads, of which the panel has no more than there are sums.
                unsafe {
                    if pair {
                        widen_weights::<2>(weights, step, length, strip);
                    } else {
                        widen_weights::<1>(weights, step, length, strip);
                    }
                    for tiles in tiles(pixels.len(), if pair { ROWS } else { TALL }) {
                        let base = rows.base.add(start * QUAD * 2);
                        let rows = Rows { base, ..rows };
                        self.tiles(rows, tiles, pixels.start, part, pair, sums);
                    }
                }
            }
        }
    }

    /// Computes some tiles of the pixels from `pixel` on in a `pair` of vectors of channels or one.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels from the part's first quad on; pixels and channels lie in
    /// the call's output; the tiles' height is 1 to [`ROWS`], or to [`TALL`] without a pair. Unless the
    /// part is both first and last, `sums` has room for a block's sums of all rows, and unless it is the
    /// first it holds those of the parts before.
    #[target_feature(enable = "avx2")]
    unsafe fn tiles(
        &self,
        rows: Rows,
        tiles: Tiles,
        pixel: usize,
        part: Part,
        pair: bool,
        sums: *mut i32,
    ) {
        // SAFETY: as the caller.
        unsafe {
            match (tiles.height, pair) {
                (1, true) => self.tiles_of::<1, 2>(rows, tiles, pixel, part, sums),
                (2, true) => self.tiles_of::<2, 2>(rows, tiles, pixel, part, sums),
                (3, true) => self.tiles_of::<3, 2>(rows, tiles, pixel, part, sums),
                (4, true) => self.tiles_of::<4, 2>(rows, tiles, pixel, part, sums),
                (5, true) => self.tiles_of::<5, 2>(rows, tiles, pixel, part, sums),
                (_, true) => self.tiles_of::<ROWS, 2>(rows, tiles, pixel, part, sums),
                (1, _) => self.tiles_of::<1, 1>(rows, tiles, pixel, part, sums),
                (2, _) => self.tiles_of::<2, 1>(rows, tiles, pixel, part, sums),
                (3, _) => self.tiles_of::<3, 1>(rows, tiles, pixel, part, sums),
                (4, _) => self.tiles_of::<4, 1>(rows, tiles, pixel, part, sums),
                (5, _) => self.tiles_of::<5, 1>(rows, tiles, pixel, part, sums),
                (6, _) => self.tiles_of::<6, 1>(rows, tiles, pixel, part, sums),
                (7, _) => self.tiles_of::<7, 1>(rows, tiles, pixel, part, sums),
                (8, _) => self.tiles_of::<8, 1>(rows, tiles, pixel, part, sums),
                (9, _) => self.tiles_of::<9, 1>(rows, tiles, pixel, part, sums),
                (10, _) => self.tiles_of::<10, 1>(rows, tiles, pixel, part, sums),
                (11, _) => self.tiles_of::<11, 1>(rows, tiles, pixel, part, sums),
                _ => self.tiles_of::<TALL, 1>(rows, tiles, pixel, part, sums),
            }
        }
    }

    /// Tiles of `R` pixels by `V` vectors.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tiles`].
    #[target_feature(enable = "avx2")]
    unsafe fn tiles_of<const R: usize, const V: usize>(
        &self,
        rows: Rows,
        tiles: Tiles,
        pixel: usize,
        part: Part,
        sums: *mut i32,
    ) {
        for i in 0..tiles.count {
            let row = tiles.row + i * R;
            // SAFETY: as the caller; any address may be prefetched.
            unsafe {
                for at in (row * part.ahead..(row + R) * part.ahead).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(part.next.wrapping_add(at));
                }
                let base = rows.base.add(row * rows.stride);
                let sums = sums.wrapping_add(row * WIDTH);
                self.tile::<R, V>(Rows { base, ..rows }, pixel + row, part, sums);
            }
        }
    }

    /// One of [`Kernel::tiles_of`].
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tiles`].
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn tile<const R: usize, const V: usize>(
        &self,
        rows: Rows,
        pixel: usize,
        part: Part,
        kept: *mut i32,
    ) {
        let kept = |r: usize, v: usize| kept.wrapping_add(r * WIDTH + v * LANES).cast::<__m256i>();
        let mut weights = part.weights;
        let mut x = rows.base;
        // SAFETY: the bias is padded to whole blocks. Rows and weights hold as many pairs.
        let sums = unsafe {
            let mut sums = [[_mm256_setzero_si256(); V]; R];
            for v in 0..V {
                let bias = self.conv.bias.as_ptr().add(part.n + v * LANES);
                let bias = _mm256_loadu_si256(bias.cast());
                for r in 0..R {
                    sums[r][v] = if part.first { bias } else { *kept(r, v) };
                }
            }
            for _ in 0..part.quads * 2 {
                let w: [__m256i; V] =
                    core::array::from_fn(|v| _mm256_load_si256(weights.add(v * 16).cast()));
                for r in 0..R {
                    let x = x.add(r * rows.stride).cast::<i32>().read_unaligned();
                    let x = _mm256_set1_epi32(x);
                    for v in 0..V {
                        sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(x, w[v]));
                    }
                }
                x = x.add(2 * 2);
                weights = weights.add(V * 16);
            }
            sums
        };
        // SAFETY: the pixels and the channels lie in the call's output, or there is room for sums.
        unsafe {
            if part.last {
                return self.epilogue.finish_tile(sums, pixel, part.n);
            }
            for r in 0..R {
                for v in 0..V {
                    *kept(r, v) = sums[r][v];
                }
            }
        }
    }

    /// Tiles with weights that are widened as they are multiplied.
    ///
    /// # Safety
    ///
    /// As for [`panel256::Kernel::tiles`].
    #[target_feature(enable = "avx2")]
    unsafe fn direct(&self, rows: Rows, pixels: Range<usize>) {
        for n in (0..self.conv.output[2]).step_by(LANES) {
            for (row, count) in parts(pixels.len(), ROWS) {
                let pixel = pixels.start + row;
                // SAFETY: the rows are among those of the caller, the channels are the output's.
                unsafe {
                    let base = rows.base.add(row * rows.stride);
                    let rows = Rows { base, ..rows };
                    match count {
                        1 => self.direct_tile::<1>(rows, pixel, n),
                        2 => self.direct_tile::<2>(rows, pixel, n),
                        3 => self.direct_tile::<3>(rows, pixel, n),
                        4 => self.direct_tile::<4>(rows, pixel, n),
                        5 => self.direct_tile::<5>(rows, pixel, n),
                        _ => self.direct_tile::<ROWS>(rows, pixel, n),
                    }
                }
            }
        }
    }

    /// A tile of `R` pixels by [`LANES`] channels from `n` on.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; pixels and `n`, a multiple of [`LANES`], lie in the call's
    /// output.
    #[target_feature(enable = "avx2")]
    unsafe fn direct_tile<const R: usize>(&self, rows: Rows, pixel: usize, n: usize) {
        let (block, lane) = (n / WIDTH, n % WIDTH);
        let step = self.packed.block_width(block) * QUAD;
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        // SAFETY: the rows hold whole quads of 16-bit values. The weights of the block hold as many
        // steps, the last of which may extend into the slack.
        unsafe {
            let start = self.packed.block_offset(block) + lane * QUAD;
            let mut weights = self.conv.weights.as_ptr().add(start);
            let mut x = rows.base;
            for _ in 0..self.packed.quads() {
                let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.cast()));
                let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(16).cast()));
                for r in 0..R {
                    let x = x.add(r * rows.stride).cast::<i64>().read_unaligned();
                    let x = _mm256_set1_epi64x(x);
                    sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(x, low));
                    sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(x, high));
                }
                x = x.add(QUAD * 2);
                weights = weights.add(step);
            }
        }
        // SAFETY: the bias is padded to whole blocks.
        let bias = unsafe { _mm256_loadu_si256(self.conv.bias.as_ptr().add(n).cast()) };
        let sums = sums.map(|[low, high]| {
            let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
            [_mm256_add_epi32(sums, bias)]
        });
        // SAFETY: the pixels and the channels lie in the call's output.
        unsafe { self.epilogue.finish_tile(sums, pixel, n) };
    }
}

/// Widens `V` vectors of channels of `quads` quads, which are `step` values apart.
///
/// # Safety
///
/// 32 values per vector are readable in each quad, if only because of the slack, and writable at `to`,
/// which is aligned to vectors.
#[target_feature(enable = "avx2")]
unsafe fn widen_weights<const V: usize>(
    mut from: *const i8,
    step: usize,
    quads: usize,
    mut to: *mut i16,
) {
    for _ in 0..quads {
        for v in 0..V {
            // SAFETY: as the caller.
            unsafe {
                let quads = _mm256_loadu_si256(from.add(v * 32).cast());
                // Channels 0 1 4 5 and 2 3 6 7, as the shuffles below take them from both halves.
                let quads = _mm256_permute4x64_epi64::<0b11_01_10_00>(quads);
                let a = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(quads));
                let b = _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(quads));
                let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
                let to = to.add(v * 16).cast::<f32>();
                _mm256_store_ps(to, _mm256_shuffle_ps::<0b10_00_10_00>(a, b));
                let odd = _mm256_shuffle_ps::<0b11_01_11_01>(a, b);
                _mm256_store_ps(to.add(V * LANES), odd);
            }
        }
        from = from.wrapping_add(step);
        to = to.wrapping_add(V * LANES * QUAD);
    }
}

/// Extends the sign of each value to 16 bits.
///
/// # Safety
///
/// As for [`panel256::Kernel::convert`].
#[target_feature(enable = "avx2")]
unsafe fn widen(from: Values, to: *mut u8, step: usize) {
    for r in 0..from.rows {
        let (values, readable) = from.row(r);
        let to = to.wrapping_add(r * step);
        let mut at = 0;
        // SAFETY: the vectors lie in what is readable and writable. They are read before they are
        // written: values at the end of their place are overtaken at its end only. Less than a vector
        // is readable only at the end of the last row.
        unsafe {
            while at + 16 <= readable {
                let v = _mm256_cvtepi8_epi16(_mm_loadu_si128(values.add(at).cast()));
                _mm256_storeu_si256(to.add(2 * at).cast(), v);
                at += 16;
            }
            if at < readable {
                let v = _mm256_cvtepi8_epi16(load_part(values.add(at), readable - at));
                _mm256_storeu_si256(to.add(2 * at).cast(), v);
            }
        }
    }
}
