//! AVX-512 VNNI for weights in blocks.
//!
//! A *panel* holds some pixels, shifted to unsigned, as `[quad][pixel][4]`: each block is one `vpdpbusd` of 16 pixels with
//! its four weights everywhere. Sums of 16 channels are transposed, and finished as those of a dense layer are.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::epilogue512::Epilogue;
use crate::arch::x86::Avx512Vnni;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, QUAD, WIDTH};
use crate::ops::sparse::kernel::{FEW, STACK};
use crate::ops::sparse::{Blocks, portable};

/// Pixels of a tile: the lanes.
const LANES: usize = 16;
/// Bytes of a quad of a tile.
const LINE: usize = LANES * QUAD;
/// Most tiles of a panel, beside half a one.
const TILES: usize = 8;
/// Most tiles whose blocks are taken two at a time into sums of their own, so that enough products are under way at once.
const IN_PAIRS: usize = 4;
/// A panel stays below this many bytes, so that the first-level cache holds it.
const PANEL: usize = 28 << 10;
/// Memory that stands in for scratch that is smaller; it is not initialised.
#[repr(align(64))]
struct Stack([MaybeUninit<u8>; STACK]);

/// Computes the call's pixels.
pub(crate) fn sparse_i8(_: Avx512Vnni, mut call: CallI8<'_, '_>, blocks: &Blocks<'_>) {
    let quads = call.packed.quads();
    let mut stack = Stack([MaybeUninit::uninit(); STACK]);
    // Vectors that straddle lines of the cache would take twice as long.
    let padding = call.scratch.as_ptr().align_offset(LINE);
    let scratch = call.scratch.get_mut(padding..).unwrap_or_default();
    let (memory, len) = if scratch.len() > stack.0.len() {
        (scratch.as_mut_ptr(), scratch.len())
    } else {
        (stack.0.as_mut_ptr().cast(), stack.0.len())
    };
    // Whole tiles, and whether half a tile fits behind them.
    let fitting = len / (quads * LINE);
    let tiles = fitting
        .min(TILES)
        .min((PANEL / (quads * LINE)).max(FEW / LANES));
    if tiles == 0 {
        return portable::sparse_i8(call, blocks);
    }
    let half = if len >= quads * (tiles * LINE + LINE / 2) {
        LANES / 2
    } else {
        0
    };
    // SAFETY: the token proves the features.
    let epilogue = unsafe { Epilogue::new(&mut call) };
    let kernel = Kernel {
        conv: call.conv,
        blocks,
        epilogue,
        quads,
    };
    let depth = call.conv.depth();
    let mut start = 0;
    while start < call.pixels {
        let rest = call.pixels - start;
        let most = tiles * LANES;
        let count = if rest <= most + half { rest } else { most };
        let x = &call.x[(call.first + start) * depth..][..count * depth];
        let short = (1..=LANES / 2).contains(&(count % LANES));
        let whole = if short {
            count / LANES
        } else {
            count.div_ceil(LANES)
        };
        // SAFETY: the memory holds a panel of `whole` tiles, and of half a one where it is `short`. The pixels lie in
        // the call's output. The token proves the features.
        unsafe { dispatch!(kernel, x, memory, start, whole, short; 0 1 2 3 4 5 6 7 8) };
        start += count;
    }
}

/// Expands to the call of the panel of as many tiles as are asked for.
macro_rules! dispatch {
    ($self:ident, $x:ident, $memory:ident, $start:ident, $whole:ident, $short:ident; $($tiles:literal)*) => {
        match $whole {
            $($tiles if $short => $self.panel::<$tiles, true>($x, $memory, $start),
            $tiles => $self.panel::<$tiles, false>($x, $memory, $start),)*
            _ => unreachable!(),
        }
    };
}
use dispatch;

struct Kernel<'a, 'c> {
    conv: &'a ConvI8<'c>,
    blocks: &'a Blocks<'c>,
    epilogue: Epilogue,
    quads: usize,
}

impl Kernel<'_, '_> {
    /// Computes the pixels of `x`, `T` tiles and up to `HALF` a tile, of which the first is `pixel`, counted from the call's.
    ///
    /// # Safety
    ///
    /// `memory` holds a panel of so many tiles; the pixels lie in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    #[inline(never)]
    unsafe fn panel<const T: usize, const HALF: bool>(
        &self,
        x: &[i8],
        memory: *mut u8,
        pixel: usize,
    ) {
        let (depth, channels) = (self.conv.depth(), self.conv.output[2]);
        let count = x.len() / depth;
        let step = step::<T, HALF>();
        for (tile, x) in x.chunks(LANES * depth).enumerate() {
            // SAFETY: the panel has a place for each quad of each tile.
            unsafe {
                let to = memory.add(tile * LINE);
                if tile < T {
                    pack::<false>(x, depth, to, step);
                } else {
                    pack::<true>(x, depth, to, step);
                }
            }
        }
        let mut sums = [[_mm512_setzero_si512(); WIDTH]; TILES + 1];
        for n in (0..channels).step_by(WIDTH) {
            let width = (channels - n).min(WIDTH);
            for c in 0..width {
                // SAFETY: the panel has been filled.
                let (whole, half) = unsafe { self.channel::<T, HALF>(memory, n + c) };
                for t in 0..T {
                    sums[t][c] = whole[t];
                }
                if HALF {
                    sums[T][c] = _mm512_zextsi256_si512(half);
                }
            }
            for (t, sums) in sums.iter().enumerate().take(count.div_ceil(LANES)) {
                let at = self.epilogue.position(pixel + t * LANES, n);
                let present = (count - t * LANES).min(LANES);
                // SAFETY: the block and the pixels are the output's.
                unsafe {
                    if self.epilogue.adds() {
                        let rows = transpose(*sums).map(|row| [row]);
                        let multipliers = self.epilogue.multipliers::<1>(n);
                        self.epilogue
                            .finish_rows(&rows[..present], multipliers, at, width);
                    } else {
                        let multipliers = &*self.conv.multipliers.as_ptr().add(n).cast();
                        self.epilogue
                            .finish_columns(sums, multipliers, at, present, width);
                    }
                }
            }
        }
    }

    /// Sums of an output channel for `T` tiles and `HALF` a tile.
    ///
    /// # Safety
    ///
    /// `panel` holds so many tiles of all quads.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    #[inline]
    unsafe fn channel<const T: usize, const HALF: bool>(
        &self,
        panel: *const u8,
        n: usize,
    ) -> ([__m512i; T], __m256i) {
        // What the shift of the activations adds is taken off.
        let start = self.conv.bias[n].wrapping_sub(self.conv.weight_sums[n] << 7);
        let (quads, weights) = self.blocks.of(n);
        let last = self.quads - 1;
        let start = ([_mm512_set1_epi32(start); T], _mm256_set1_epi32(start));
        let zero = ([_mm512_setzero_si512(); T], _mm256_setzero_si256());
        let mut sums = [start, zero];
        let (pairs, rest) = quads.as_chunks::<2>();
        let (weight_pairs, weight_rest) = weights.as_chunks::<2>();
        for (quads, weights) in pairs.iter().zip(weight_pairs) {
            for (i, (quad, weights)) in quads.iter().zip(weights).enumerate() {
                let sums = &mut sums[if T <= IN_PAIRS { i } else { 0 }];
                // SAFETY: no quad is beyond the last one.
                unsafe {
                    multiply::<T, HALF>(sums, panel, usize::from(*quad).min(last), *weights);
                }
            }
        }
        for (quad, weights) in rest.iter().zip(weight_rest) {
            // SAFETY: as above.
            unsafe {
                multiply::<T, HALF>(&mut sums[0], panel, usize::from(*quad).min(last), *weights);
            }
        }
        let [mut total, other] = sums;
        for t in 0..T {
            total.0[t] = _mm512_add_epi32(total.0[t], other.0[t]);
        }
        (total.0, _mm256_add_epi32(total.1, other.1))
    }
}

/// Bytes from a quad of a panel to the next.
const fn step<const T: usize, const HALF: bool>() -> usize {
    T * LINE + if HALF { LINE / 2 } else { 0 }
}

/// Adds the products of a block.
///
/// # Safety
///
/// `panel` holds the quad.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
#[inline]
unsafe fn multiply<const T: usize, const HALF: bool>(
    sums: &mut ([__m512i; T], __m256i),
    panel: *const u8,
    quad: usize,
    weights: [i8; QUAD],
) {
    let w = _mm512_set1_epi32(i32::from_ne_bytes(weights.map(|w| w as u8)));
    // SAFETY: as the caller.
    unsafe {
        let x = panel.add(quad * step::<T, HALF>());
        for t in 0..T {
            let x = _mm512_loadu_si512(x.add(t * LINE).cast());
            sums.0[t] = _mm512_dpbusd_epi32(sums.0[t], x, w);
        }
        if HALF {
            let x = _mm256_loadu_si256(x.add(T * LINE).cast());
            sums.1 = _mm256_dpbusd_epi32(sums.1, x, _mm512_castsi512_si256(w));
        }
    }
}

/// Packs up to 16 rows of `depth` values, or up to 8 for `HALF` a tile: quad `q` goes to `to + q · step`.
///
/// # Safety
///
/// A line, or `HALF` of it, can be written there for each quad.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
#[inline]
unsafe fn pack<const HALF: bool>(x: &[i8], depth: usize, to: *mut u8, step: usize) {
    let sign = _mm512_set1_epi8(i8::MIN);
    for at in (0..depth).step_by(LINE) {
        let len = (depth - at).min(LINE);
        let mask = u64::MAX >> (LINE - len);
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, x) in rows.iter_mut().zip(x.chunks_exact(depth)) {
            // SAFETY: the mask covers no more than the rest of the row.
            let values = unsafe { _mm512_maskz_loadu_epi8(mask, x.as_ptr().add(at)) };
            *row = _mm512_xor_si512(values, sign);
        }
        let quads = transpose(rows);
        for (q, quad) in quads.iter().enumerate().take(len.div_ceil(QUAD)) {
            // SAFETY: as the caller.
            unsafe {
                let to = to.add((at / QUAD + q) * step);
                if HALF {
                    _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(*quad));
                } else {
                    _mm512_storeu_si512(to.cast(), *quad);
                }
            }
        }
    }
}

/// Lane `r` of vector `i` becomes lane `i` of vector `r`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
#[inline]
fn transpose(v: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut a = v;
    for i in (0..LANES).step_by(4) {
        let low = [
            _mm512_unpacklo_epi32(v[i], v[i + 1]),
            _mm512_unpacklo_epi32(v[i + 2], v[i + 3]),
        ];
        let high = [
            _mm512_unpackhi_epi32(v[i], v[i + 1]),
            _mm512_unpackhi_epi32(v[i + 2], v[i + 3]),
        ];
        a[i] = _mm512_unpacklo_epi64(low[0], low[1]);
        a[i + 1] = _mm512_unpackhi_epi64(low[0], low[1]);
        a[i + 2] = _mm512_unpacklo_epi64(high[0], high[1]);
        a[i + 3] = _mm512_unpackhi_epi64(high[0], high[1]);
    }
    // Quarter `q` of vector `4 i + r` now has lane `4 q + r` of vectors `4 i` to `4 i + 3`.
    let mut out = a;
    for r in 0..4 {
        let (a, b, c, d) = (a[r], a[r + 4], a[r + 8], a[r + 12]);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
        );
        out[r] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd);
        out[8 + r] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        );
        out[4 + r] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd);
        out[12 + r] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd);
    }
    out
}
