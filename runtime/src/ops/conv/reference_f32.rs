//! The scalar truth for floats, accumulated in double precision and rounded once.

use half::f16;

use super::{ConvF32, WIDTH, WeightsF32};

/// Computes output pixels `first..first + y.len() / channels` into `y`.
pub fn conv_f32(conv: &ConvF32<'_>, x: &[f32], first: usize, y: &mut [f32]) {
    let [_, out_w, channels] = conv.output;
    for (i, pixel) in y.chunks_exact_mut(channels).enumerate() {
        let p = first + i;
        for (n, out) in pixel.iter_mut().enumerate() {
            let residual = conv.residual.map_or(0.0, |r| r[p * channels + n]);
            let sum = f64::from(conv.bias[n])
                + f64::from(residual)
                + dot(conv, x, p / out_w, p % out_w, n);
            *out = (sum as f32).max(conv.lo).min(conv.hi);
        }
    }
}

/// Inner product of the patch at an output position with the weights of channel `n`.
fn dot(conv: &ConvF32<'_>, x: &[f32], oy: usize, ox: usize, n: usize) -> f64 {
    let [in_h, in_w, c] = conv.input;
    let w = &conv.window;
    let (kh, kw) = (w.kernel[0] as usize, w.kernel[1] as usize);
    let mut sum = 0.0;
    for ky in 0..kh {
        for kx in 0..kw {
            let iy = (oy * w.stride[0] as usize + ky * w.dilation[0] as usize)
                .wrapping_sub(w.pad[0] as usize);
            let ix = (ox * w.stride[1] as usize + kx * w.dilation[1] as usize)
                .wrapping_sub(w.pad[1] as usize);
            if iy >= in_h || ix >= in_w {
                continue;
            }
            for ci in 0..c {
                let value = f64::from(x[(iy * in_w + ix) * c + ci]);
                sum += value * f64::from(weight(conv, n, (ky * kw + kx) * c + ci));
            }
        }
    }
    sum
}

/// Weight of channel `n` at patch position `k`.
fn weight(conv: &ConvF32<'_>, n: usize, k: usize) -> f32 {
    let block = n / WIDTH * WIDTH;
    let width = (conv.output[2] - block).next_multiple_of(4).min(WIDTH);
    let at = block * conv.depth() + k * width + n % WIDTH;
    match conv.weights {
        WeightsF32::F32(w) => w[at],
        WeightsF32::F16(w) => f16::from_bits(w[at]).to_f32(),
    }
}

impl ConvF32<'_> {
    /// Length of a patch: kernel height × kernel width × input channels.
    pub fn depth(&self) -> usize {
        self.window.taps() * self.input[2]
    }
}
