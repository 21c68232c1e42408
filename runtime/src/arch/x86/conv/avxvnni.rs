//! AVX-VNNI: 256-bit `vpdpbusd`, activations shifted to unsigned.

use core::arch::x86_64::*;
use core::ops::Range;

use super::epilogue256::{Epilogue, LANES};
use super::panel::Rows;
use super::panel256::{self, ROWS, Tiles, Values, drive, fits, load_part, tiles};
use crate::arch::x86::AvxVnni;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH, portable};

/// Most rows of a tile of one vector of channels.
const TALL: usize = 2 * ROWS;

/// Fewer rows than this do not ask for weights in advance.
const FEW: usize = 24;

/// Computes the call's pixels.
pub(crate) fn conv_i8<'a>(_: AvxVnni, mut call: CallI8<'a, 'a>) {
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

/// What a tile multiplies.
#[derive(Clone, Copy)]
struct Part {
    block: usize,
    /// Weights of the next block that are asked for with each row: they come while those of this one
    /// are multiplied.
    ahead: usize,
}

struct Kernel<'a> {
    conv: &'a ConvI8<'a>,
    packed: PackedShape,
    epilogue: Epilogue<'a>,
}

impl panel256::Kernel for Kernel<'_> {
    const VALUE: usize = 1;

    unsafe fn convert(&self, from: Values, to: *mut u8, step: usize) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe { shift(from, to, step) };
    }

    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for block in 0..self.packed.blocks() {
            let pair = self.packed.block_width(block) > LANES;
            // A few rows take the weights as fast as they come.
            let ahead = if pixels.len() < FEW {
                0
            } else {
                self.packed.block_offset(1).div_ceil(pixels.len())
            };
            let part = Part { block, ahead };
            for tiles in tiles(pixels.len(), if pair { ROWS } else { TALL }) {
                // SAFETY: the rows are among those of the caller, the block is the output's, and a
                // kernel exists only where a token proved the features.
                unsafe { self.tiles(rows, tiles, pixels.start, part, pair) };
            }
        }
    }
}

impl Kernel<'_> {
    /// Computes some tiles of the pixels from `pixel` on, in a block: a `pair` of vectors or one.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; pixels and block lie in the call's output; the tiles' height
    /// is 1 to [`ROWS`], or to [`TALL`] without a pair.
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn tiles(&self, rows: Rows, tiles: Tiles, pixel: usize, part: Part, pair: bool) {
        // SAFETY: as the caller.
        unsafe {
            match (tiles.height, pair) {
                (1, true) => self.tiles_of::<1, 2, 6>(rows, tiles, pixel, part),
                (2, true) => self.tiles_of::<2, 2, 3>(rows, tiles, pixel, part),
                (3, true) => self.tiles_of::<3, 2, 2>(rows, tiles, pixel, part),
                (4, true) => self.tiles_of::<4, 2, 1>(rows, tiles, pixel, part),
                (5, true) => self.tiles_of::<5, 2, 1>(rows, tiles, pixel, part),
                (_, true) => self.tiles_of::<ROWS, 2, 1>(rows, tiles, pixel, part),
                (1, _) => self.tiles_of::<1, 1, 8>(rows, tiles, pixel, part),
                (2, _) => self.tiles_of::<2, 1, 4>(rows, tiles, pixel, part),
                (3, _) => self.tiles_of::<3, 1, 4>(rows, tiles, pixel, part),
                (4, _) => self.tiles_of::<4, 1, 2>(rows, tiles, pixel, part),
                (5, _) => self.tiles_of::<5, 1, 2>(rows, tiles, pixel, part),
                (6, _) => self.tiles_of::<6, 1, 2>(rows, tiles, pixel, part),
                (7, _) => self.tiles_of::<7, 1, 1>(rows, tiles, pixel, part),
                (8, _) => self.tiles_of::<8, 1, 1>(rows, tiles, pixel, part),
                (9, _) => self.tiles_of::<9, 1, 1>(rows, tiles, pixel, part),
                (10, _) => self.tiles_of::<10, 1, 1>(rows, tiles, pixel, part),
                (11, _) => self.tiles_of::<11, 1, 1>(rows, tiles, pixel, part),
                _ => self.tiles_of::<TALL, 1, 1>(rows, tiles, pixel, part),
            }
        }
    }

    /// Tiles of `R` pixels by `V` vectors. Small tiles take `U` quads at a time into sums of their own,
    /// so that enough products are under way at once.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tiles`].
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn tiles_of<const R: usize, const V: usize, const U: usize>(
        &self,
        rows: Rows,
        tiles: Tiles,
        pixel: usize,
        part: Part,
    ) {
        let weights = self.conv.weights.as_ptr();
        let next = weights.wrapping_add(self.packed.block_offset(part.block + 1));
        for i in 0..tiles.count {
            let row = tiles.row + i * R;
            // SAFETY: as the caller; any address may be prefetched.
            unsafe {
                for at in (row * part.ahead..(row + R) * part.ahead).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(at));
                }
                let base = rows.base.add(row * rows.stride);
                self.tile::<R, V, U>(Rows { base, ..rows }, pixel + row, part.block);
            }
        }
    }

    /// One of [`Kernel::tiles_of`].
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tiles`].
    #[target_feature(enable = "avx2,avxvnni")]
    #[inline]
    unsafe fn tile<const R: usize, const V: usize, const U: usize>(
        &self,
        rows: Rows,
        pixel: usize,
        block: usize,
    ) {
        let quads = self.packed.quads();
        let n = block * WIDTH;
        // SAFETY: the bias is padded to whole blocks. The rows hold `quads` quads. The weights of the
        // block hold as many steps, the last of which may extend into the slack.
        let sums = unsafe {
            let mut weights = self
                .conv
                .weights
                .as_ptr()
                .add(self.packed.block_offset(block));
            let step = self.packed.block_width(block) * QUAD;
            let mut sums = [[[_mm256_setzero_si256(); V]; R]; U];
            sums[0] = [core::array::from_fn(|v| self.bias(n + v * LANES)); R];
            let mut x = rows.base;
            let mut quad = 0;
            while quad + U <= quads {
                for sums in &mut sums {
                    multiply(sums, x, rows.stride, weights);
                    x = x.add(QUAD);
                    weights = weights.add(step);
                }
                quad += U;
            }
            while quad < quads {
                multiply(&mut sums[0], x, rows.stride, weights);
                x = x.add(QUAD);
                weights = weights.add(step);
                quad += 1;
            }
            sums
        };
        let mut total = sums[0];
        for sums in &sums[1..] {
            for (total, sums) in total.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                *total = _mm256_add_epi32(*total, *sums);
            }
        }
        // SAFETY: the pixels and the block lie in the call's output.
        unsafe { self.epilogue.finish_tile(total, pixel, n) };
    }

    /// Bias of 8 channels from `n` on, less what the shift of the activations adds.
    ///
    /// # Safety
    ///
    /// The channels are half of a block of the output.
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn bias(&self, n: usize) -> __m256i {
        // SAFETY: both vectors are padded to whole blocks.
        unsafe {
            let sums = _mm256_loadu_si256(self.conv.weight_sums.as_ptr().add(n).cast());
            let bias = _mm256_loadu_si256(self.conv.bias.as_ptr().add(n).cast());
            _mm256_sub_epi32(bias, _mm256_slli_epi32::<7>(sums))
        }
    }
}

/// Multiplies one quad of `R` rows with `V` vectors of weights.
///
/// # Safety
///
/// A quad is readable in each row, and 32 bytes of weights per vector.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
unsafe fn multiply<const R: usize, const V: usize>(
    sums: &mut [[__m256i; V]; R],
    x: *const u8,
    stride: usize,
    weights: *const i8,
) {
    // SAFETY: as the caller.
    unsafe {
        let weights: [__m256i; V] =
            core::array::from_fn(|v| _mm256_loadu_si256(weights.add(v * 32).cast()));
        for r in 0..R {
            let x = _mm256_set1_epi32(x.add(r * stride).cast::<i32>().read_unaligned());
            for v in 0..V {
                sums[r][v] = _mm256_dpbusd_avx_epi32(sums[r][v], x, weights[v]);
            }
        }
    }
}

/// Adds 128 to each value.
///
/// # Safety
///
/// As for [`panel256::Kernel::convert`].
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn shift(from: Values, to: *mut u8, step: usize) {
    let sign = _mm256_set1_epi8(i8::MIN);
    let half_sign = _mm_set1_epi8(i8::MIN);
    for r in 0..from.rows {
        let (values, readable) = from.row(r);
        let to = to.wrapping_add(r * step);
        let mut at = 0;
        // SAFETY: the vectors lie in what is readable and writable, and are read before they are
        // written. Less than a vector is readable only at the end of the last row.
        unsafe {
            while at + 32 <= readable {
                let v = _mm256_loadu_si256(values.add(at).cast());
                _mm256_storeu_si256(to.add(at).cast(), _mm256_xor_si256(v, sign));
                at += 32;
            }
            if at + 16 <= readable {
                let v = _mm_loadu_si128(values.add(at).cast());
                _mm_storeu_si128(to.add(at).cast(), _mm_xor_si128(v, half_sign));
                at += 16;
            }
            if at < readable {
                let v = load_part(values.add(at), readable - at);
                _mm_storeu_si128(to.add(at).cast(), _mm_xor_si128(v, half_sign));
            }
        }
    }
}
