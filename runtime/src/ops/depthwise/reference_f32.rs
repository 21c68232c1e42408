//! The scalar truth of the float operator, in double precision.

use super::DepthwiseF32;

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn depthwise_f32(dw: &DepthwiseF32<'_>, x: &[f32], first_row: usize, y: &mut [f32]) {
    let [in_h, in_w, c] = dw.input;
    let [_, out_w] = dw.output;
    let w = &dw.window;
    let [kh, kw] = w.kernel.map(usize::from);
    for (i, pixel) in y.chunks_exact_mut(c).enumerate() {
        let (oy, ox) = (first_row + i / out_w, i % out_w);
        for (ch, out) in pixel.iter_mut().enumerate() {
            let mut acc = f64::from(dw.bias[ch]);
            for ky in 0..kh {
                for kx in 0..kw {
                    let iy = (oy * usize::from(w.stride[0]) + ky * usize::from(w.dilation[0]))
                        .wrapping_sub(usize::from(w.pad[0]));
                    let ix = (ox * usize::from(w.stride[1]) + kx * usize::from(w.dilation[1]))
                        .wrapping_sub(usize::from(w.pad[1]));
                    if iy < in_h && ix < in_w {
                        let value = f64::from(x[(iy * in_w + ix) * c + ch]);
                        acc += value * f64::from(dw.weights[(ky * kw + kx) * c + ch]);
                    }
                }
            }
            *out = (acc as f32).max(dw.lo).min(dw.hi);
        }
    }
}
