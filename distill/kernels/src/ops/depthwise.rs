//! Depthwise convolution of one sample, `[height, width, channels]`, with weights `[taps, channels]`.

use super::Window;
use crate::isa::{Simd, kernel};

/// Most places of a window.
pub const MAX_TAPS: usize = 121;

kernel! {
    /// `y = conv(x, weight) + bias`.
    pub fn forward<'a, S, simd>(
        window: &'a Window,
        map: [usize; 3],
        x: &'a [f32],
        weight: &'a [f32],
        bias: Option<&'a [f32]>,
        y: &'a mut [f32],
    ) {
        let [height, width, c] = map;
        let Some([rows, columns]) = window.output([height, width]) else { return };
        let source = |at: [usize; 2], tap: [usize; 2]| {
            let from = [window.source(0, at[0], tap[0], height)?, window.source(1, at[1], tap[1], width)?];
            Some(from[0] * width + from[1])
        };
        gather(simd, window, [rows, columns, c], source, x, weight, bias, y);
    }
}

kernel! {
    /// Gradient with respect to `x` from `d`, that with respect to `y`.
    pub fn input_gradient<'a, S, simd>(
        window: &'a Window,
        map: [usize; 3],
        d: &'a [f32],
        weight: &'a [f32],
        gradient: &'a mut [f32],
    ) {
        let Some([rows, columns]) = window.output([map[0], map[1]]) else { return };
        let source = |at: [usize; 2], tap: [usize; 2]| {
            let from = [window.result(0, at[0], tap[0], rows)?, window.result(1, at[1], tap[1], columns)?];
            Some(from[0] * columns + from[1])
        };
        gather(simd, window, map, source, d, weight, None, gradient);
    }
}

/// For each pixel of `y[height, width, c]` the sum over the places of a window of the pixel of `x` that
/// `source` names, times the weight of the place.
#[inline(always)]
fn gather<S: Simd>(
    simd: S,
    window: &Window,
    [height, width, c]: [usize; 3],
    source: impl Fn([usize; 2], [usize; 2]) -> Option<usize>,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let mut taps = [[0usize; 2]; MAX_TAPS];
    let wide = 4 * S::LANES;
    for row in 0..height {
        for column in 0..width {
            let mut count = 0;
            for ky in 0..window.kernel[0] {
                for kx in 0..window.kernel[1] {
                    if let Some(pixel) = source([row, column], [ky, kx]) {
                        taps[count] = [pixel * c, (ky * window.kernel[1] + kx) * c];
                        count += 1;
                    }
                }
            }
            let taps = &taps[..count];
            let y = &mut y[(row * width + column) * c..][..c];
            let mut at = 0;
            while at + wide <= c {
                block::<S, 4>(simd, taps, at, x, weight, bias, y);
                at += wide;
            }
            while at + S::LANES <= c {
                block::<S, 1>(simd, taps, at, x, weight, bias, y);
                at += S::LANES;
            }
            for i in at..c {
                let start = bias.map_or(0.0, |b| b[i]);
                y[i] = taps.iter().fold(start, |sum, &[pixel, tap]| {
                    simd.mul_add(x[pixel + i], weight[tap + i], sum)
                });
            }
        }
    }
}

/// `N` vectors of channels of one pixel.
#[inline(always)]
fn block<S: Simd, const N: usize>(
    simd: S,
    taps: &[[usize; 2]],
    at: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let size = N * S::LANES;
    let mut sums = [simd.splat(0.0); N];
    if let Some(bias) = bias {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = simd.load(&bias[at + n * S::LANES..]);
        }
    }
    for &[pixel, tap] in taps {
        let (x, w) = (&x[pixel + at..][..size], &weight[tap + at..][..size]);
        for (n, sum) in sums.iter_mut().enumerate() {
            let n = n * S::LANES;
            *sum = simd.fused(simd.load(&x[n..]), simd.load(&w[n..]), *sum);
        }
    }
    for (n, sum) in sums.iter().enumerate() {
        simd.store(*sum, &mut y[at + n * S::LANES..]);
    }
}

kernel! {
    /// Adds the gradient with respect to the weights, from `d`, that with respect to `y`.
    pub fn weight_gradient<'a, S, simd>(
        window: &'a Window,
        map: [usize; 3],
        x: &'a [f32],
        d: &'a [f32],
        gradient: &'a mut [f32],
    ) {
        let [height, width, c] = map;
        let Some([rows, columns]) = window.output([height, width]) else { return };
        for row in 0..rows {
            for ky in 0..window.kernel[0] {
                let Some(from_y) = window.source(0, row, ky, height) else { continue };
                for kx in 0..window.kernel[1] {
                    let on_map = |&column: &usize| window.source(1, column, kx, width).is_some();
                    let Some(first) = (0..columns).find(on_map) else { continue };
                    let count = (first..columns).take_while(on_map).count();
                    let from_x = window.source(1, first, kx, width).unwrap_or(0);
                    let x = &x[(from_y * width + from_x) * c..];
                    let d = &d[(row * columns + first) * c..];
                    let gradient = &mut gradient[(ky * window.kernel[1] + kx) * c..][..c];
                    correlate(simd, [c, count, window.stride[1] * c], x, d, gradient);
                }
            }
        }
    }
}

/// Adds `Σ x · d` over `count` pixels of `c` channels, those of `x` being `step` values apart.
#[inline(always)]
fn correlate<S: Simd>(
    simd: S,
    [c, count, step]: [usize; 3],
    x: &[f32],
    d: &[f32],
    gradient: &mut [f32],
) {
    let mut at = 0;
    while at + 4 * S::LANES <= c {
        correlate_block::<S, 4>(simd, [c, count, step], at, x, d, gradient);
        at += 4 * S::LANES;
    }
    while at + S::LANES <= c {
        correlate_block::<S, 1>(simd, [c, count, step], at, x, d, gradient);
        at += S::LANES;
    }
    for i in at..c {
        for pixel in 0..count {
            gradient[i] = simd.mul_add(x[pixel * step + i], d[pixel * c + i], gradient[i]);
        }
    }
}

#[inline(always)]
fn correlate_block<S: Simd, const N: usize>(
    simd: S,
    [c, count, step]: [usize; 3],
    at: usize,
    x: &[f32],
    d: &[f32],
    gradient: &mut [f32],
) {
    let size = N * S::LANES;
    let mut sums = [simd.splat(0.0); N];
    for (n, sum) in sums.iter_mut().enumerate() {
        *sum = simd.load(&gradient[at + n * S::LANES..]);
    }
    for pixel in 0..count {
        let (x, d) = (
            &x[pixel * step + at..][..size],
            &d[pixel * c + at..][..size],
        );
        for (n, sum) in sums.iter_mut().enumerate() {
            let n = n * S::LANES;
            *sum = simd.fused(simd.load(&x[n..]), simd.load(&d[n..]), *sum);
        }
    }
    for (n, sum) in sums.iter().enumerate() {
        simd.store(*sum, &mut gradient[at + n * S::LANES..]);
    }
}
