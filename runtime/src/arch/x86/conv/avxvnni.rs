//! AVX-VNNI: 256-bit `vpdpbusd`, activations shifted to unsigned.

use core::arch::x86_64::*;
use core::ops::Range;

use super::epilogue256::{Epilogue, LANES};
use super::panel::Rows;
use super::panel256::{self, ROWS, drive, fits};
use super::parts;
use crate::arch::x86::AvxVnni;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH, portable};

/// Most rows of a tile of one vector of channels.
const TALL: usize = 2 * ROWS;

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

struct Kernel<'a> {
    conv: &'a ConvI8<'a>,
    packed: PackedShape,
    epilogue: Epilogue<'a>,
}

impl panel256::Kernel for Kernel<'_> {
    const VALUE: usize = 1;

    unsafe fn convert(&self, from: *const i8, readable: usize, length: usize, to: *mut u8) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe { shift(from, readable, length, to) };
    }

    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for block in 0..self.packed.blocks() {
            let pair = self.packed.block_width(block) > LANES;
            for (row, count) in parts(pixels.len(), if pair { ROWS } else { TALL }) {
                // SAFETY: the rows are among those of the caller, the block is the output's, and a
                // kernel exists only where a token proved the features.
                unsafe {
                    let rows = Rows {
                        base: rows.base.add(row * rows.stride),
                        ..rows
                    };
                    self.tile(rows, count, pixels.start + row, block, pair);
                }
            }
        }
    }
}

impl Kernel<'_> {
    /// Computes `count` pixels from `pixel` on, in block `block`: a `pair` of vectors or one.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; pixels and block lie in the call's output; `count` is 1 to
    /// [`ROWS`], or to [`TALL`] without a pair.
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn tile(&self, rows: Rows, count: usize, pixel: usize, block: usize, pair: bool) {
        // SAFETY: as the caller.
        unsafe {
            match (count, pair) {
                (1, true) => self.tile_of::<1, 2, 6>(rows, pixel, block),
                (2, true) => self.tile_of::<2, 2, 3>(rows, pixel, block),
                (3, true) => self.tile_of::<3, 2, 2>(rows, pixel, block),
                (4, true) => self.tile_of::<4, 2, 1>(rows, pixel, block),
                (5, true) => self.tile_of::<5, 2, 1>(rows, pixel, block),
                (_, true) => self.tile_of::<ROWS, 2, 1>(rows, pixel, block),
                (1, _) => self.tile_of::<1, 1, 8>(rows, pixel, block),
                (2, _) => self.tile_of::<2, 1, 4>(rows, pixel, block),
                (3, _) => self.tile_of::<3, 1, 4>(rows, pixel, block),
                (4, _) => self.tile_of::<4, 1, 2>(rows, pixel, block),
                (5, _) => self.tile_of::<5, 1, 2>(rows, pixel, block),
                (6, _) => self.tile_of::<6, 1, 2>(rows, pixel, block),
                (7, _) => self.tile_of::<7, 1, 1>(rows, pixel, block),
                (8, _) => self.tile_of::<8, 1, 1>(rows, pixel, block),
                (9, _) => self.tile_of::<9, 1, 1>(rows, pixel, block),
                (10, _) => self.tile_of::<10, 1, 1>(rows, pixel, block),
                (11, _) => self.tile_of::<11, 1, 1>(rows, pixel, block),
                _ => self.tile_of::<TALL, 1, 1>(rows, pixel, block),
            }
        }
    }

    /// A tile of `R` pixels by `V` vectors. Small tiles take `U` quads at a time into sums of their
    /// own, so that enough products are under way at once.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`].
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn tile_of<const R: usize, const V: usize, const U: usize>(
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
unsafe fn shift(from: *const i8, readable: usize, length: usize, to: *mut u8) {
    let sign = _mm256_set1_epi8(i8::MIN);
    let half_sign = _mm_set1_epi8(i8::MIN);
    let length = length.next_multiple_of(16);
    let whole = length.min(readable);
    let mut at = 0;
    // SAFETY: the vectors lie in what is readable and writable, and are read before they are written.
    unsafe {
        while at + 32 <= whole {
            let values = _mm256_loadu_si256(from.add(at).cast());
            _mm256_storeu_si256(to.add(at).cast(), _mm256_xor_si256(values, sign));
            at += 32;
        }
        while at + 16 <= whole {
            let values = _mm_loadu_si128(from.add(at).cast());
            _mm_storeu_si128(to.add(at).cast(), _mm_xor_si128(values, half_sign));
            at += 16;
        }
        if at < length {
            let mut values = [0i8; 16];
            values
                .as_mut_ptr()
                .copy_from_nonoverlapping(from.add(at), whole - at);
            let values = _mm_loadu_si128(values.as_ptr().cast());
            _mm_storeu_si128(to.add(at).cast(), _mm_xor_si128(values, half_sign));
        }
    }
}
