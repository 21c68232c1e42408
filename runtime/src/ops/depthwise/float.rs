//! Float depthwise convolution.

use super::portable::tap;
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::Window;
use crate::ops::length::{at_least, expect};
use crate::ops::vectorize::{Loop, run};

/// Channels that are accumulated side by side.
const TILE: usize = 64;

/// Everything about a float depthwise convolution but the data that changes with each run:
/// `y[p, c] = clamp(bias[c] + Σ_taps x[p + tap, c] · w[tap, c], lo, hi)`. Padding reads as 0.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseF32<'a> {
    /// Window geometry.
    pub window: Window,
    /// Input height, width, channels.
    pub input: [usize; 3],
    /// Output height and width; channels are the input's.
    pub output: [usize; 2],
    /// Weights `[tap][channel]`.
    pub weights: &'a [f32],
    /// Bias per channel.
    pub bias: &'a [f32],
    /// Lower clamp; `-inf` for none.
    pub lo: f32,
    /// Upper clamp; `+inf` for none.
    pub hi: f32,
}

/// Computes whole output rows `first_row..` (as many as `y` holds) into `y`.
pub fn depthwise_f32(
    cap: Capability,
    dw: &DepthwiseF32<'_>,
    x: &[f32],
    first_row: usize,
    y: &mut [f32],
) -> Result<(), Error> {
    let [in_h, in_w, c] = dw.input;
    let [out_h, out_w] = dw.output;
    expect(in_h * in_w * c, x.len())?;
    at_least(dw.window.taps() * c, dw.weights.len())?;
    at_least(c, dw.bias.len())?;
    let rows = y.len().checked_div(out_w * c).unwrap_or(0);
    expect(rows * out_w * c, y.len())?;
    at_least(first_row + rows, out_h)?;
    if !y.is_empty() {
        run(
            cap,
            Rows {
                dw,
                x,
                first_row,
                y,
            },
        );
    }
    Ok(())
}

struct Rows<'a, 'b> {
    dw: &'a DepthwiseF32<'b>,
    x: &'a [f32],
    first_row: usize,
    y: &'a mut [f32],
}

impl Loop for Rows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Rows {
            dw,
            x,
            first_row,
            y,
        } = self;
        let c = dw.input[2];
        let out_w = dw.output[1];
        for (i, pixel) in y.chunks_exact_mut(c).enumerate() {
            let at = [first_row + i / out_w, i % out_w];
            let (tiles, rest) = pixel.as_chunks_mut::<TILE>();
            let done = tiles.len() * TILE;
            for (tile, out) in tiles.iter_mut().enumerate() {
                pixel_tile(dw, x, at, tile * TILE, out);
            }
            let (tiles, rest) = rest.as_chunks_mut::<16>();
            let done_small = done + tiles.len() * 16;
            for (tile, out) in tiles.iter_mut().enumerate() {
                pixel_tile(dw, x, at, done + tile * 16, out);
            }
            for (ch, out) in rest.iter_mut().enumerate() {
                pixel_tile(dw, x, at, done_small + ch, core::array::from_mut(out));
            }
        }
    }
}

/// Channels `c0..c0 + N` of the output pixel at `[oy, ox]`.
#[inline(always)]
fn pixel_tile<const N: usize>(
    dw: &DepthwiseF32<'_>,
    x: &[f32],
    [oy, ox]: [usize; 2],
    c0: usize,
    out: &mut [f32; N],
) {
    let [in_h, in_w, c] = dw.input;
    let [kh, kw] = dw.window.kernel.map(usize::from);
    let mut acc = [0f32; N];
    acc.copy_from_slice(&dw.bias[c0..c0 + N]);
    for ky in 0..kh {
        let Some(iy) = tap(&dw.window, 0, oy, ky).filter(|&iy| iy < in_h) else {
            continue;
        };
        for kx in 0..kw {
            let Some(ix) = tap(&dw.window, 1, ox, kx).filter(|&ix| ix < in_w) else {
                continue;
            };
            let values = &x[(iy * in_w + ix) * c + c0..][..N];
            let weights = &dw.weights[(ky * kw + kx) * c + c0..][..N];
            for i in 0..N {
                acc[i] += values[i] * weights[i];
            }
        }
    }
    for i in 0..N {
        let v = if acc[i] < dw.lo { dw.lo } else { acc[i] };
        out[i] = if v > dw.hi { dw.hi } else { v };
    }
}
