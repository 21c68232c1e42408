//! AVX-512 VNNI: 512-bit `vpdpbusd`, activations shifted to unsigned.

use core::arch::x86_64::*;
use core::ops::Range;

use super::epilogue512::Epilogue;
use super::panel::{Rows, VectorKernel, drive, fits};
use super::parts;
use crate::arch::x86::Avx512Vnni;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH, portable};

/// Most rows and blocks of a tile: 24 accumulators, 3 weights and 1 activation fill the registers.
const ROWS: usize = 8;
const BLOCKS: usize = 3;

/// Computes the call's pixels.
pub(crate) fn conv_i8(_: Avx512Vnni, mut call: CallI8<'_, '_>) {
    if !fits::<Kernel<'_, '_>>(&call) {
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

struct Kernel<'a, 'c> {
    conv: &'a ConvI8<'c>,
    packed: PackedShape,
    epilogue: Epilogue,
}

impl VectorKernel for Kernel<'_, '_> {
    const VALUE: usize = 1;

    unsafe fn convert(&self, patch: *const i8, length: usize, row: *mut u8) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe { shift(patch, length, row) };
    }

    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for (block, blocks) in parts(self.packed.blocks(), BLOCKS) {
            for (row, count) in parts(pixels.len(), ROWS) {
                // SAFETY: the rows are among those of the caller, the blocks are the output's, and a
                // kernel exists only where a token proved the features.
                unsafe {
                    let rows = Rows {
                        base: rows.base.add(row * rows.stride),
                        ..rows
                    };
                    self.tile(rows, count, pixels.start + row, block, blocks);
                }
            }
        }
    }
}

/// Expands to the call of the tile with as many rows and blocks as are asked for.
macro_rules! dispatch {
    ($self:ident, $rows:ident, $count:ident, $pixel:ident, $block:ident, $blocks:ident;
     $(($r:literal, $b:literal, $u:literal))*) => {
        match ($count, $blocks) {
            $(($r, $b) => $self.tile_of::<$r, $b, $u>($rows, $pixel, $block),)*
            _ => unreachable!(),
        }
    };
}

impl Kernel<'_, '_> {
    /// Computes `count` pixels from `pixel` on, in `blocks` blocks from `block` on.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; pixels and blocks lie in the call's output; `count` and
    /// `blocks` are 1 to [`ROWS`] and [`BLOCKS`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn tile(&self, rows: Rows, count: usize, pixel: usize, block: usize, blocks: usize) {
        // SAFETY: as the caller.
        unsafe {
            dispatch!(self, rows, count, pixel, block, blocks;
                (1, 1, 8) (2, 1, 4) (3, 1, 2) (4, 1, 2) (5, 1, 2) (6, 1, 1) (7, 1, 1) (8, 1, 1)
                (1, 2, 4) (2, 2, 2) (3, 2, 1) (4, 2, 1) (5, 2, 1) (6, 2, 1) (7, 2, 1) (8, 2, 1)
                (1, 3, 4) (2, 3, 2) (3, 3, 1) (4, 3, 1) (5, 3, 1) (6, 3, 1) (7, 3, 1) (8, 3, 1));
        }
    }

    /// A tile of `R` pixels by `B` blocks. Small tiles take `U` quads at a time into sums of their
    /// own, so that enough products are under way at once.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn tile_of<const R: usize, const B: usize, const U: usize>(
        &self,
        rows: Rows,
        pixel: usize,
        block: usize,
    ) {
        let quads = self.packed.quads();
        let n = block * WIDTH;
        // SAFETY: the bias is padded to whole blocks. The rows hold `quads` quads. The weights of the
        // blocks hold as many steps, the last of which may extend into the slack.
        let sums = unsafe {
            let mut weights: [*const i8; B] = core::array::from_fn(|b| {
                self.conv
                    .weights
                    .as_ptr()
                    .add(self.packed.block_offset(block + b))
            });
            let last = self.packed.block_width(block + B - 1) * QUAD;
            let mut sums = [[[_mm512_setzero_si512(); B]; R]; U];
            sums[0] = [core::array::from_fn(|b| self.bias(n + b * WIDTH)); R];
            let mut x = rows.base;
            let mut quad = 0;
            while quad + U <= quads {
                for sums in &mut sums {
                    multiply(sums, x, rows.stride, &mut weights, last);
                    x = x.add(QUAD);
                }
                quad += U;
            }
            while quad < quads {
                multiply(&mut sums[0], x, rows.stride, &mut weights, last);
                x = x.add(QUAD);
                quad += 1;
            }
            sums
        };
        // SAFETY: pixels and blocks lie in the call's output.
        unsafe {
            if self.epilogue.is_plain() {
                self.finish::<R, B, U, true>(sums, pixel, n);
            } else {
                self.finish::<R, B, U, false>(sums, pixel, n);
            }
        }
    }

    /// Bias of the block at channel `n`, less what the shift of the activations adds.
    ///
    /// # Safety
    ///
    /// The block is one of the output's.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn bias(&self, n: usize) -> __m512i {
        // SAFETY: both vectors are padded to whole blocks.
        unsafe {
            let sums = _mm512_loadu_si512(self.conv.weight_sums.as_ptr().add(n).cast());
            let bias = _mm512_loadu_si512(self.conv.bias.as_ptr().add(n).cast());
            _mm512_sub_epi32(bias, _mm512_slli_epi32::<7>(sums))
        }
    }

    /// Stores a tile.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    #[inline]
    unsafe fn finish<const R: usize, const B: usize, const U: usize, const PLAIN: bool>(
        &self,
        sums: [[[__m512i; B]; R]; U],
        pixel: usize,
        n: usize,
    ) {
        // SAFETY: as the caller.
        unsafe {
            let multipliers = self.epilogue.multipliers::<B>(n);
            let count = (self.conv.output[2] - n).min(B * WIDTH);
            for r in 0..R {
                let mut row = sums[0][r];
                for more in &sums[1..] {
                    for b in 0..B {
                        row[b] = _mm512_add_epi32(row[b], more[r][b]);
                    }
                }
                let at = self.epilogue.position(pixel + r, n);
                self.epilogue
                    .finish::<B, PLAIN>(row, multipliers, at, count);
            }
        }
    }
}

/// Multiplies one quad of `R` rows with `B` blocks and moves the weights on.
///
/// # Safety
///
/// A quad is readable in each row, and 64 bytes at each pointer to weights.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
#[inline]
unsafe fn multiply<const R: usize, const B: usize>(
    sums: &mut [[__m512i; B]; R],
    x: *const u8,
    stride: usize,
    weights: &mut [*const i8; B],
    last: usize,
) {
    // SAFETY: as the caller.
    unsafe {
        let mut w = [_mm512_setzero_si512(); B];
        for b in 0..B {
            w[b] = _mm512_loadu_si512(weights[b].cast());
        }
        for r in 0..R {
            let x = _mm512_set1_epi32(x.add(r * stride).cast::<i32>().read_unaligned());
            for b in 0..B {
                sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], x, w[b]);
            }
        }
        for (b, weights) in weights.iter_mut().enumerate() {
            *weights = weights.add(if b + 1 == B { last } else { WIDTH * QUAD });
        }
    }
}

/// Adds 128 to each value.
///
/// # Safety
///
/// As for [`VectorKernel::convert`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn shift(patch: *const i8, length: usize, row: *mut u8) {
    let sign = _mm512_set1_epi8(i8::MIN);
    for at in (0..length).step_by(64) {
        let mask = u64::MAX >> (64 - (length - at).min(64));
        // SAFETY: the mask covers no more than the rest of the patch; the row has room for whole
        // vectors, and each vector is read before it is written.
        unsafe {
            let values = _mm512_maskz_loadu_epi8(mask, patch.add(at));
            _mm512_storeu_si512(row.add(at).cast(), _mm512_xor_si512(values, sign));
        }
    }
}
