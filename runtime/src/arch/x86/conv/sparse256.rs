//! AVX2 for weights in blocks.
//!
//! A *panel* holds some pixels as 16-bit integers, `[quad][pixel][4]`: a block is one `vpmaddwd` of four pixels with its
//! four weights, which leaves two sums for each pixel. Sums of 8 channels are added up and transposed, and finished as
//! those of a dense layer are.

use core::arch::x86_64::*;

use super::epilogue256::{Epilogue, LANES};
use crate::arch::parts;
use crate::arch::x86::Avx2;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, QUAD};
use crate::ops::sparse::kernel::STACK;
use crate::ops::sparse::{Blocks, portable};

/// Pixels of a tile.
const PIXELS: usize = 4;
/// Most tiles of a panel: sums of so many stay in registers.
const TILES: usize = 8;

/// A quad of a tile.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Line([[i16; QUAD]; PIXELS]);

/// Lines of a panel.
const LINES: usize = STACK / size_of::<Line>();

/// Computes the call's pixels.
pub(crate) fn sparse_i8<'a>(_: Avx2, mut call: CallI8<'a, 'a>, blocks: &Blocks<'a>) {
    let quads = call.packed.quads();
    let tiles = (LINES / quads).min(TILES);
    if tiles == 0 {
        return portable::sparse_i8(call, blocks);
    }
    let mut panel = [Line([[0; QUAD]; PIXELS]); LINES];
    let (x, depth, pixels) = (call.x, call.conv.depth(), call.pixels);
    let start = call.first;
    // SAFETY: the token proves the features.
    let epilogue = unsafe { Epilogue::new(&mut call) };
    let conv = call.conv;
    for (first, tiles) in parts(pixels.div_ceil(PIXELS), tiles) {
        let pixel = first * PIXELS;
        let count = (tiles * PIXELS).min(pixels - pixel);
        let x = &x[(start + pixel) * depth..][..count * depth];
        for (t, x) in x.chunks(PIXELS * depth).enumerate() {
            pack(x, depth, t, tiles, &mut panel);
        }
        let part = Part {
            conv,
            blocks,
            epilogue: &epilogue,
            panel: &panel[..quads * tiles],
            pixel,
            count,
        };
        // SAFETY: the pixels are the call's. The token proves the features.
        unsafe {
            match tiles {
                1 => part.compute::<1>(),
                2 => part.compute::<2>(),
                3 => part.compute::<3>(),
                4 => part.compute::<4>(),
                5 => part.compute::<5>(),
                6 => part.compute::<6>(),
                7 => part.compute::<7>(),
                _ => part.compute::<8>(),
            }
        }
    }
}

/// A panel's share of a call.
struct Part<'p, 'a> {
    conv: &'a ConvI8<'a>,
    blocks: &'p Blocks<'a>,
    epilogue: &'p Epilogue<'a>,
    panel: &'p [Line],
    /// The first pixel, counted from the call's.
    pixel: usize,
    /// Pixels.
    count: usize,
}

impl Part<'_, '_> {
    /// Computes the pixels, which are `T` tiles.
    ///
    /// # Safety
    ///
    /// The pixels lie in the call's output.
    #[target_feature(enable = "avx2")]
    unsafe fn compute<const T: usize>(&self) {
        let channels = self.conv.output[2];
        let mut sums = [[_mm256_setzero_si256(); LANES]; T];
        for n in (0..channels).step_by(LANES) {
            for c in 0..(channels - n).min(LANES) {
                let of_channel = self.channel::<T>(n + c);
                for t in 0..T {
                    sums[t][c] = of_channel[t];
                }
            }
            // SAFETY: the bias is padded to whole blocks of 16.
            let bias = unsafe { _mm256_loadu_si256(self.conv.bias.as_ptr().add(n).cast()) };
            for (t, sums) in sums.iter().enumerate() {
                let [a, b, c, d] = pixels_of(sums).map(|row| [_mm256_add_epi32(row, bias)]);
                let pixel = self.pixel + t * PIXELS;
                // SAFETY: as the caller; no more rows are taken than there are pixels.
                unsafe {
                    match self.count - t * PIXELS {
                        1 => self.epilogue.finish_tile([a], pixel, n),
                        2 => self.epilogue.finish_tile([a, b], pixel, n),
                        3 => self.epilogue.finish_tile([a, b, c], pixel, n),
                        _ => self.epilogue.finish_tile([a, b, c, d], pixel, n),
                    }
                }
            }
        }
    }

    /// Sums of an output channel without its bias, two for each pixel.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn channel<const T: usize>(&self, n: usize) -> [__m256i; T] {
        let mut sums = [_mm256_setzero_si256(); T];
        let (quads, weights) = self.blocks.of(n);
        for (&quad, weights) in quads.iter().zip(weights) {
            let lines = self.panel.get(usize::from(quad) * T..);
            let Some(lines) = lines.and_then(|lines| lines.first_chunk::<T>()) else {
                continue;
            };
            let weights = i32::from_ne_bytes(weights.map(|w| w as u8));
            let w = _mm256_cvtepi8_epi16(_mm_set1_epi32(weights));
            for t in 0..T {
                // SAFETY: a line has 32 bytes, aligned.
                let x = unsafe { _mm256_load_si256((&raw const lines[t]).cast()) };
                sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(x, w));
            }
        }
        sums
    }
}

/// Packs up to four rows of `depth` values as tile `t` of `tiles`. What rows that end early leave in a line is multiplied by 0,
/// or not stored.
fn pack(x: &[i8], depth: usize, t: usize, tiles: usize, panel: &mut [Line]) {
    for (p, row) in x.chunks_exact(depth).enumerate() {
        let lines = panel[t..].iter_mut().step_by(tiles);
        for (line, values) in lines.zip(row.chunks(QUAD)) {
            for (to, &value) in line.0[p].iter_mut().zip(values) {
                *to = i16::from(value);
            }
        }
    }
}

/// From channels with pairs of sums of four pixels to pixels with channels in the lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn pixels_of(channels: &[__m256i; LANES]) -> [__m256i; PIXELS] {
    // Halves of a vector: channels 2 i and 2 i + 1 of two pixels each.
    let pair =
        |i: usize| _mm256_castsi256_ps(_mm256_hadd_epi32(channels[2 * i], channels[2 * i + 1]));
    let (a, b, c, d) = (pair(0), pair(1), pair(2), pair(3));
    let even = [
        _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(a, b)),
        _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(c, d)),
    ];
    let odd = [
        _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b)),
        _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(c, d)),
    ];
    [
        _mm256_permute2x128_si256::<0x20>(even[0], even[1]),
        _mm256_permute2x128_si256::<0x20>(odd[0], odd[1]),
        _mm256_permute2x128_si256::<0x31>(even[0], even[1]),
        _mm256_permute2x128_si256::<0x31>(odd[0], odd[1]),
    ]
}
