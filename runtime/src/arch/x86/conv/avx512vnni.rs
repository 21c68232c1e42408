//! AVX-512 VNNI: 512-bit `vpdpbusd`, activations shifted to unsigned.

use core::arch::x86_64::*;
use core::ops::Range;

use super::epilogue512::Epilogue;
use super::panel::{self, Rows};
use super::parts;
use crate::arch::x86::Avx512Vnni;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH, portable};

/// Most blocks of a tile.
const BLOCKS: usize = 3;
/// Most rows of a tile of 1, 2 and 3 blocks: 16 to 24 accumulators, which leave registers for the
/// weights, and are enough products under way at once to hide their latency.
const ROWS: [usize; BLOCKS] = [16, 12, 8];

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes that are fetched ahead at the end of a layer, if it has not more in a column.
const BEYOND: usize = 24 << 10;

/// Computes the call's pixels.
pub(crate) fn conv_i8(_: Avx512Vnni, mut call: CallI8<'_, '_>) {
    if !panel::fits_shifted(&call) {
        return portable::conv_i8(call);
    }
    // SAFETY: the token proves the features.
    let epilogue = unsafe { Epilogue::new(&mut call) };
    let kernel = Kernel {
        conv: call.conv,
        packed: call.packed,
        epilogue,
    };
    let height = height(call.pixels, ROWS[call.packed.blocks().min(BLOCKS) - 1]);
    // SAFETY: `shift` keeps to what it is given. The rows are those of the pixels, which lie in the
    // call's output. The token proves the features.
    unsafe {
        panel::drive_shifted(
            call,
            height,
            |values, len, to| shift(values, len, to),
            |rows, pixels| kernel.tiles(rows, pixels),
        );
    }
}

struct Kernel<'a, 'c> {
    conv: &'a ConvI8<'c>,
    packed: PackedShape,
    epilogue: Epilogue,
}

/// Expands to the call of the column of tiles with as many rows and blocks as are asked for.
macro_rules! dispatch {
    ($self:ident, $rows:ident, $pixels:ident, $block:ident, $height:ident, $blocks:ident;
     $(($r:literal, $b:literal, $u:literal))*) => {
        match ($height, $blocks) {
            $(($r, $b) if $self.epilogue.is_plain() => {
                $self.column::<$r, $b, $u, true>($rows, $pixels, $block)
            }
            ($r, $b) => $self.column::<$r, $b, $u, false>($rows, $pixels, $block),)*
            _ => unreachable!(),
        }
    };
}

impl Kernel<'_, '_> {
    /// Computes output pixels `pixels`, counted from the call's first.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels, which lie in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for (block, blocks) in parts(self.packed.blocks(), BLOCKS) {
            let height = height(pixels.len(), ROWS[blocks - 1]);
            let pixels = pixels.clone();
            // SAFETY: as the caller; the blocks are the output's, and a tile is no higher than there
            // are pixels.
            unsafe {
                dispatch!(self, rows, pixels, block, height, blocks;
                    (1, 1, 8) (2, 1, 4) (3, 1, 2) (4, 1, 2) (5, 1, 2) (6, 1, 2) (7, 1, 1) (8, 1, 1) (12, 1, 1) (16, 1, 1)
                    (1, 2, 4) (2, 2, 2) (3, 2, 2) (4, 2, 1) (5, 2, 1) (6, 2, 1) (7, 2, 1) (8, 2, 1) (12, 2, 1)
                    (1, 3, 4) (2, 3, 2) (3, 3, 1) (4, 3, 1) (5, 3, 1) (6, 3, 1) (7, 3, 1) (8, 3, 1));
            }
        }
    }

    /// Computes `pixels` in tiles of `R` rows by the `B` blocks from `block` on. The last tile ends
    /// with the last pixel and repeats some of the tile before.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tiles`]; there are at least `R` pixels, and the blocks are the output's.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    #[inline(never)]
    unsafe fn column<const R: usize, const B: usize, const U: usize, const PLAIN: bool>(
        &self,
        rows: Rows,
        pixels: Range<usize>,
        block: usize,
    ) {
        let quads = self.packed.quads();
        // The next column's weights are fetched meanwhile, a line with each quad; after the last column
        // what follows, the next layers' constants.
        let bytes = B * quads * WIDTH * QUAD;
        let weights = self.conv.weights.as_ptr();
        let next = weights.wrapping_add(self.packed.block_offset(block) + bytes);
        let last = block + B == self.packed.blocks();
        let ahead = if last { bytes.max(BEYOND) } else { bytes };
        for (i, at) in (0..pixels.len()).step_by(R).enumerate() {
            let start = (i * quads * LINE).min(ahead);
            let ahead = Ahead {
                at: next.wrapping_add(start),
                step: if start < ahead { LINE } else { 0 },
            };
            let row = at.min(pixels.len() - R);
            // SAFETY: as the caller; the tile's rows are among those given.
            unsafe {
                let rows = Rows {
                    base: rows.base.add(row * rows.stride),
                    ..rows
                };
                self.tile::<R, B, U, PLAIN>(rows, pixels.start + row, block, ahead);
            }
        }
    }

    /// A tile of `R` pixels by `B` blocks. Small tiles take `U` quads at a time into sums of their
    /// own, so that enough products are under way at once.
    ///
    /// # Safety
    ///
    /// `rows` starts with the rows of the `R` pixels from `pixel` on; these and the blocks from `block`
    /// on lie in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    #[inline]
    unsafe fn tile<const R: usize, const B: usize, const U: usize, const PLAIN: bool>(
        &self,
        rows: Rows,
        pixel: usize,
        block: usize,
        mut ahead: Ahead,
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
                    ahead.fetch();
                    x = x.add(QUAD);
                }
                quad += U;
            }
            while quad < quads {
                multiply(&mut sums[0], x, rows.stride, &mut weights, last);
                ahead.fetch();
                x = x.add(QUAD);
                quad += 1;
            }
            sums
        };
        // SAFETY: pixels and blocks lie in the call's output.
        unsafe { self.finish::<R, B, U, PLAIN>(sums, pixel, n) };
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
            let at = self.epilogue.position(pixel, n);
            let mut rows = sums[0];
            for more in &sums[1..] {
                for r in 0..R {
                    for b in 0..B {
                        rows[r][b] = _mm512_add_epi32(rows[r][b], more[r][b]);
                    }
                }
            }
            if PLAIN {
                self.epilogue.finish_plain(rows, multipliers, at, count);
            } else {
                self.epilogue.finish_rows(&rows, multipliers, at, count);
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

/// Memory that is fetched ahead, line by line.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const i8,
    step: usize,
}

impl Ahead {
    /// Has the next line fetched.
    #[inline(always)]
    fn fetch(&mut self) {
        // SAFETY: a prefetch has no effect but on time, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at) };
        self.at = self.at.wrapping_add(self.step);
    }
}

/// Height of the tiles, at most `most`, that cover `pixels` with few rows computed twice. Above 8,
/// tiles of 12 and 16 are compiled.
fn height(pixels: usize, most: usize) -> usize {
    let even = pixels.div_ceil(pixels.div_ceil(most));
    match even {
        ..=8 => even,
        9..12 if pixels < 12 => even.div_ceil(2),
        9..=12 => 12,
        _ if pixels < 16 => 12,
        _ => 16,
    }
}

/// Writes `values + 128` to `to`, which may be the same place.
///
/// # Safety
///
/// `len` bytes are readable at `values` and writable at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn shift(values: *const i8, len: usize, to: *mut u8) {
    let sign = _mm512_set1_epi8(i8::MIN);
    let whole = len - len % 64;
    for at in (0..whole).step_by(64) {
        // SAFETY: as the caller; each vector is read before it is written.
        unsafe {
            let v = _mm512_loadu_si512(values.add(at).cast());
            _mm512_storeu_si512(to.add(at).cast(), _mm512_xor_si512(v, sign));
        }
    }
    let mask = (1 << (len % 64)) - 1;
    // SAFETY: the mask covers no more than the rest.
    unsafe {
        let v = _mm512_maskz_loadu_epi8(mask, values.add(whole));
        _mm512_mask_storeu_epi8(to.add(whole).cast(), mask, _mm512_xor_si512(v, sign));
    }
}
