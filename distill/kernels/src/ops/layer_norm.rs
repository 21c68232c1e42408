//! Layer norm over the channels of each row.

use crate::isa::{self, Simd, kernel};

kernel! {
    /// `y = (x − mean)/√(variance + epsilon) · weight + bias` for each row of `x[rows, channels]`.
    pub fn forward<'a, S, simd>(
        weight: &'a [f32],
        bias: &'a [f32],
        epsilon: f32,
        x: &'a [f32],
        y: &'a mut [f32],
    ) {
        let c = weight.len();
        let bias = &bias[..c];
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let [mean, r] = moments(simd, x, epsilon);
            for i in 0..c {
                y[i] = simd.mul_add((x[i] - mean) * r, weight[i], bias[i]);
            }
        }
    }
}

kernel! {
    /// From the gradient `d` with respect to the result: that with respect to `x`, written or added to
    /// `gradient`, and those of weight and bias, added to `sums`.
    pub fn backward<'a, S, simd>(
        weight: &'a [f32],
        epsilon: f32,
        x: &'a [f32],
        d: &'a [f32],
        accumulate: bool,
        gradient: &'a mut [f32],
        sums: [&'a mut [f32]; 2],
    ) {
        let c = weight.len();
        let [of_weight, of_bias] = sums.map(|s| &mut s[..c]);
        for (at, gradient) in gradient.chunks_exact_mut(c).enumerate() {
            let (x, d) = (&x[at * c..][..c], &d[at * c..][..c]);
            let [mean, r] = moments(simd, x, epsilon);
            let (mut along, mut total) = (simd.splat(0.0), simd.splat(0.0));
            let whole = c - c % S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                let g = simd.fused(simd.load(&d[i..]), simd.load(&weight[i..]), simd.splat(0.0));
                total = simd.fused(g, simd.splat(1.0), total);
                let distance = simd.fused(simd.splat(-mean), simd.splat(1.0), simd.load(&x[i..]));
                along = simd.fused(g, distance, along);
            }
            let mut lanes = [[0.0; 16]; 2];
            simd.store(total, &mut lanes[0]);
            simd.store(along, &mut lanes[1]);
            let [mut total, mut along] = lanes.map(|l| l.iter().sum::<f32>());
            for i in whole..c {
                total += d[i] * weight[i];
                along += d[i] * weight[i] * (x[i] - mean);
            }
            let (total, along) = (total / c as f32, along * r * r / c as f32);
            for i in 0..c {
                let distance = x[i] - mean;
                of_weight[i] = simd.mul_add(d[i], distance * r, of_weight[i]);
                of_bias[i] += d[i];
            }
            if accumulate {
                for i in 0..c {
                    gradient[i] += r * (d[i] * weight[i] - total - (x[i] - mean) * along);
                }
            } else {
                for i in 0..c {
                    gradient[i] = r * (d[i] * weight[i] - total - (x[i] - mean) * along);
                }
            }
        }
    }
}

/// Mean and reciprocal deviation.
#[inline(always)]
fn moments<S: Simd>(simd: S, x: &[f32], epsilon: f32) -> [f32; 2] {
    let n = x.len() as f32;
    let mean = isa::sum(simd, x) / n;
    let mut squares = simd.splat(0.0);
    let mut chunks = x.chunks_exact(S::LANES);
    for chunk in chunks.by_ref() {
        let d = simd.fused(simd.splat(-mean), simd.splat(1.0), simd.load(chunk));
        squares = simd.fused(d, d, squares);
    }
    let mut lanes = [0.0; 16];
    simd.store(squares, &mut lanes);
    let rest: f32 = chunks
        .remainder()
        .iter()
        .map(|x| (x - mean) * (x - mean))
        .sum();
    let variance = (lanes.iter().sum::<f32>() + rest) / n;
    [mean, 1.0 / (variance + epsilon).sqrt()]
}
