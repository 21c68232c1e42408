//! AVX-VNNI: 256-bit `vpdpbusd`, activations shifted to unsigned.

use core::arch::x86_64::*;
use core::ops::Range;

use super::epilogue256::{Epilogue, LANES};
use super::panel::{Rows, VectorKernel, drive, fits};
use super::parts;
use crate::arch::x86::AvxVnni;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH, portable};

/// Most rows of a tile: 12 accumulators, 2 weights and 1 activation fill the registers.
const ROWS: usize = 6;
/// Vectors of a block.
const PAIR: usize = 2;

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
        call,
    );
}

struct Kernel<'a> {
    conv: &'a ConvI8<'a>,
    packed: PackedShape,
    epilogue: Epilogue<'a>,
}

impl VectorKernel for Kernel<'_> {
    const VALUE: usize = 1;

    unsafe fn convert(&self, patch: *const i8, length: usize, row: *mut u8) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe { shift(patch, length, row) };
    }

    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for block in 0..self.packed.blocks() {
            for (row, count) in parts(pixels.len(), ROWS) {
                // SAFETY: the rows are among those of the caller, the block is the output's, and a
                // kernel exists only where a token proved the features.
                unsafe {
                    let rows = Rows {
                        base: rows.base.add(row * rows.stride),
                        ..rows
                    };
                    self.tile(rows, count, pixels.start + row, block);
                }
            }
        }
    }
}

impl Kernel<'_> {
    /// Computes `count` pixels from `pixel` on, in block `block`.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; pixels and block lie in the call's output; `count` is 1 to
    /// [`ROWS`].
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn tile(&self, rows: Rows, count: usize, pixel: usize, block: usize) {
        // SAFETY: as the caller.
        unsafe {
            match count {
                1 => self.tile_of::<1, 6>(rows, pixel, block),
                2 => self.tile_of::<2, 3>(rows, pixel, block),
                3 => self.tile_of::<3, 2>(rows, pixel, block),
                4 => self.tile_of::<4, 1>(rows, pixel, block),
                5 => self.tile_of::<5, 1>(rows, pixel, block),
                _ => self.tile_of::<ROWS, 1>(rows, pixel, block),
            }
        }
    }

    /// A tile of `R` pixels. Small tiles take `U` quads at a time into sums of their own, so that
    /// enough products are under way at once.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`].
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn tile_of<const R: usize, const U: usize>(
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
            let mut sums = [[[_mm256_setzero_si256(); PAIR]; R]; U];
            sums[0] = [[self.bias(n), self.bias(n + LANES)]; R];
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
        for r in 0..R {
            for half in 0..PAIR {
                if n + half * LANES >= self.conv.output[2] {
                    continue;
                }
                let mut sum = sums[0][r][half];
                for more in &sums[1..] {
                    sum = _mm256_add_epi32(sum, more[r][half]);
                }
                // SAFETY: the pixel and this half of the block lie in the call's output.
                unsafe { self.epilogue.finish(sum, pixel + r, n + half * LANES) };
            }
        }
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

/// Multiplies one quad of `R` rows with a block.
///
/// # Safety
///
/// A quad is readable in each row, and 64 bytes of weights.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
unsafe fn multiply<const R: usize>(
    sums: &mut [[__m256i; PAIR]; R],
    x: *const u8,
    stride: usize,
    weights: *const i8,
) {
    // SAFETY: as the caller.
    unsafe {
        let low = _mm256_loadu_si256(weights.cast());
        let high = _mm256_loadu_si256(weights.add(32).cast());
        for r in 0..R {
            let x = _mm256_set1_epi32(x.add(r * stride).cast::<i32>().read_unaligned());
            sums[r][0] = _mm256_dpbusd_avx_epi32(sums[r][0], x, low);
            sums[r][1] = _mm256_dpbusd_avx_epi32(sums[r][1], x, high);
        }
    }
}

/// Adds 128 to each value.
///
/// # Safety
///
/// As for [`VectorKernel::convert`].
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn shift(patch: *const i8, length: usize, row: *mut u8) {
    let sign = _mm256_set1_epi8(i8::MIN);
    let whole = length - length % 32;
    for at in (0..whole).step_by(32) {
        // SAFETY: the vector lies in the patch and in the row, and is read before it is written.
        unsafe {
            let values = _mm256_loadu_si256(patch.add(at).cast());
            _mm256_storeu_si256(row.add(at).cast(), _mm256_xor_si256(values, sign));
        }
    }
    for at in whole..length {
        // SAFETY: the value lies in the patch and in the row.
        unsafe { row.add(at).write(*patch.add(at) as u8 ^ 0x80) };
    }
}
