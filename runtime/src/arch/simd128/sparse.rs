//! Linear layers with weights in blocks.
//!
//! A *panel* holds some pixels as `[quad][pixel][4]`: each block is a product of vectors of four pixels with its four
//! weights everywhere. Sums of 16 channels are transposed, and finished as those of a dense layer are.

use super::conv::Kernel;
use super::{Ints, Multiply, Simd};
use crate::arch::parts;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{QUAD, WIDTH};
use crate::ops::sparse::{Blocks, portable};

/// Pixels of a tile: the lanes.
const LANES: usize = 4;
/// Most tiles of a panel.
const TILES: usize = 8;
/// A quad of a tile.
type Line = [i8; LANES * QUAD];
/// Lines of a panel.
const LINES: usize = (16 << 10) / size_of::<Line>();

/// Computes the call's pixels.
pub(crate) fn sparse_i8<'a, M: Multiply>(
    multiply: M,
    mut call: CallI8<'a, 'a>,
    blocks: &Blocks<'a>,
) {
    let quads = call.packed.quads();
    let tiles = (LINES / quads).min(TILES);
    if tiles == 0 {
        return portable::sparse_i8(call, blocks);
    }
    let mut panel = [[0; LANES * QUAD]; LINES];
    let (depth, start) = (call.conv.depth(), call.first);
    let (x, pixels) = (call.x, call.pixels);
    let kernel = Kernel::new(multiply, &mut call);
    for (first, tiles) in parts(pixels.div_ceil(LANES), tiles) {
        let pixel = first * LANES;
        let count = (tiles * LANES).min(pixels - pixel);
        let x = &x[(start + pixel) * depth..][..count * depth];
        for (t, x) in x.chunks(LANES * depth).enumerate() {
            pack(multiply.simd(), x, depth, t, tiles, &mut panel);
        }
        let part = Part {
            kernel: &kernel,
            blocks,
            panel: &panel[..quads * tiles],
            pixel,
            count,
        };
        // SAFETY: the pixels are the call's.
        unsafe {
            match tiles {
                1 => multiply.sparse::<1>(&part),
                2 => multiply.sparse::<2>(&part),
                3 => multiply.sparse::<3>(&part),
                4 => multiply.sparse::<4>(&part),
                5 => multiply.sparse::<5>(&part),
                6 => multiply.sparse::<6>(&part),
                7 => multiply.sparse::<7>(&part),
                _ => multiply.sparse::<8>(&part),
            }
        }
    }
}

/// A panel's share of a call.
pub(crate) struct Part<'p, 'a, M: Multiply> {
    kernel: &'p Kernel<'a, M>,
    blocks: &'p Blocks<'a>,
    panel: &'p [Line],
    /// The first pixel, counted from the call's.
    pixel: usize,
    /// Pixels.
    count: usize,
}

impl<M: Multiply> Part<'_, '_, M> {
    /// Computes the pixels, which are `T` tiles.
    ///
    /// # Safety
    ///
    /// The pixels lie in the call's output.
    #[inline(always)]
    pub(crate) unsafe fn compute<const T: usize>(&self) {
        let simd = self.kernel.multiply.simd();
        let channels = self.kernel.conv.output[2];
        let mut sums = [[simd.splat_i32(0); WIDTH]; T];
        for n in (0..channels).step_by(WIDTH) {
            for c in 0..(channels - n).min(WIDTH) {
                let of_channel = self.channel::<T>(n + c);
                for t in 0..T {
                    sums[t][c] = of_channel[t];
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                let rows = transpose::<M>(simd, sums);
                let pixel = self.pixel + t * LANES;
                // SAFETY: as the caller; no more rows are taken than there are pixels.
                unsafe {
                    match self.count - t * LANES {
                        1 => self.kernel.finish_rows::<1, 4>(&[rows[0]], pixel, n),
                        2 => self
                            .kernel
                            .finish_rows::<2, 4>(&[rows[0], rows[1]], pixel, n),
                        3 => {
                            let rows = [rows[0], rows[1], rows[2]];
                            self.kernel.finish_rows::<3, 4>(&rows, pixel, n);
                        }
                        _ => self.kernel.finish_rows::<4, 4>(&rows, pixel, n),
                    }
                }
            }
        }
    }

    /// Sums of an output channel.
    #[inline(always)]
    fn channel<const T: usize>(&self, n: usize) -> [Ints<M>; T] {
        let simd = self.kernel.multiply.simd();
        let mut sums = [simd.splat_i32(self.kernel.conv.bias[n]); T];
        let (quads, weights) = self.blocks.of(n);
        for (&quad, weights) in quads.iter().zip(weights) {
            let lines = self.panel.get(usize::from(quad) * T..);
            let Some(lines) = lines.and_then(|lines| lines.first_chunk::<T>()) else {
                continue;
            };
            let weights = i32::from_ne_bytes(weights.map(|w| w as u8));
            let w = simd.as_bytes(simd.splat_i32(weights));
            for t in 0..T {
                sums[t] = self.kernel.multiply.dot(sums[t], simd.bytes(&lines[t]), w);
            }
        }
        sums
    }
}

/// Packs up to four rows of `depth` values as tile `t` of `tiles`.
fn pack<S: Simd>(simd: S, x: &[i8], depth: usize, t: usize, tiles: usize, panel: &mut [Line]) {
    let width = LANES * QUAD;
    for at in (0..depth).step_by(width) {
        let mut rows = [[0; LANES * QUAD]; LANES];
        for (row, x) in rows.iter_mut().zip(x.chunks_exact(depth)) {
            let len = (depth - at).min(width);
            row[..len].copy_from_slice(&x[at..at + len]);
        }
        let quads = simd.transpose(rows.map(|row| simd.bytes(&row)));
        let lines = panel[at / QUAD * tiles + t..].iter_mut().step_by(tiles);
        for (line, quad) in lines.zip(quads) {
            simd.store(quad, line);
        }
    }
}

/// From channels with pixels in the lanes to pixels with channels in the lanes.
#[inline(always)]
fn transpose<M: Multiply>(
    simd: M::Simd,
    channels: &[Ints<M>; WIDTH],
) -> [[Ints<M>; WIDTH / LANES]; LANES] {
    let mut rows = [[simd.splat_i32(0); WIDTH / LANES]; LANES];
    for (v, four) in channels.as_chunks::<LANES>().0.iter().enumerate() {
        let turned = simd.transpose(four.map(|sums| simd.as_bytes(sums)));
        for r in 0..LANES {
            rows[r][v] = simd.as_ints(turned[r]);
        }
    }
    rows
}
