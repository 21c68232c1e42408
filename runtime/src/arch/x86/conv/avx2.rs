//! AVX2: `vpmaddwd` on sign-extended operands.
//!
//! A vector of weights holds 4 channels of a quad as 16-bit values, and the product with the quad of
//! a row two sums for each channel, which are added up at the end.

use core::arch::x86_64::*;
use core::ops::Range;

use super::epilogue256::{Epilogue, LANES};
use super::panel::{Rows, VectorKernel, drive, fits};
use super::parts;
use crate::arch::x86::Avx2;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH, portable};

/// Most rows of a tile: 12 accumulators, 2 weights, 1 activation and 1 product fill the registers.
const ROWS: usize = 6;
/// Vectors of a tile of [`LANES`] channels.
const PAIR: usize = 2;

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
        call,
    );
}

struct Kernel<'a> {
    conv: &'a ConvI8<'a>,
    packed: PackedShape,
    epilogue: Epilogue<'a>,
}

impl VectorKernel for Kernel<'_> {
    const VALUE: usize = 2;

    unsafe fn convert(&self, patch: *const i8, length: usize, row: *mut u8) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe { widen(patch, length, row.cast()) };
    }

    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for n in (0..self.conv.output[2]).step_by(LANES) {
            for (row, count) in parts(pixels.len(), ROWS) {
                // SAFETY: the rows are among those of the caller, the channels are the output's, and a
                // kernel exists only where a token proved the features.
                unsafe {
                    let rows = Rows {
                        base: rows.base.add(row * rows.stride),
                        ..rows
                    };
                    self.tile(rows, count, pixels.start + row, n);
                }
            }
        }
    }
}

impl Kernel<'_> {
    /// Computes `count` pixels from `pixel` on, in [`LANES`] channels from `n` on.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; pixels and `n`, a multiple of [`LANES`], lie in the call's
    /// output; `count` is 1 to [`ROWS`].
    #[target_feature(enable = "avx2")]
    unsafe fn tile(&self, rows: Rows, count: usize, pixel: usize, n: usize) {
        // SAFETY: as the caller.
        unsafe {
            match count {
                1 => self.tile_of::<1>(rows, pixel, n),
                2 => self.tile_of::<2>(rows, pixel, n),
                3 => self.tile_of::<3>(rows, pixel, n),
                4 => self.tile_of::<4>(rows, pixel, n),
                5 => self.tile_of::<5>(rows, pixel, n),
                _ => self.tile_of::<ROWS>(rows, pixel, n),
            }
        }
    }

    /// A tile of `R` pixels.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`].
    #[target_feature(enable = "avx2")]
    unsafe fn tile_of<const R: usize>(&self, rows: Rows, pixel: usize, n: usize) {
        let (block, lane) = (n / WIDTH, n % WIDTH);
        let step = self.packed.block_width(block) * QUAD;
        let mut sums = [[_mm256_setzero_si256(); PAIR]; R];
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
                x = x.add(QUAD * Self::VALUE);
                weights = weights.add(step);
            }
        }
        // SAFETY: the bias is padded to whole blocks.
        let bias = unsafe { _mm256_loadu_si256(self.conv.bias.as_ptr().add(n).cast()) };
        for (r, sums) in sums.into_iter().enumerate() {
            let sums =
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(sums[0], sums[1]));
            // SAFETY: pixel and channels lie in the call's output.
            unsafe {
                self.epilogue
                    .finish(_mm256_add_epi32(sums, bias), pixel + r, n)
            };
        }
    }
}

/// Extends the sign of each value to 16 bits.
///
/// # Safety
///
/// As for [`VectorKernel::convert`].
#[target_feature(enable = "avx2")]
unsafe fn widen(patch: *const i8, length: usize, row: *mut i16) {
    let whole = length - length % 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: the vector lies in the patch and in the row, and is read before it is written: a
        // patch at the end of the row is overtaken at its end only.
        unsafe {
            let values = _mm256_cvtepi8_epi16(_mm_loadu_si128(patch.add(at).cast()));
            _mm256_storeu_si256(row.add(at).cast(), values);
        }
    }
    for at in whole..length {
        // SAFETY: the value lies in the patch and in the row.
        unsafe { row.add(at).write_unaligned(i16::from(*patch.add(at))) };
    }
}
