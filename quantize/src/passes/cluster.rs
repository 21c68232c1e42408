//! Weights that share few values, for files that pack well.
//!
//! Each layer's weights, over the largest of their output channel, are rounded to a code book of `k` of the 255
//! int8 codes, which k-means finds (Han et al., "Deep Compression", 2016). The largest weight of a channel keeps its
//! code, so the codes survive quantisation with min-max scales.

use crate::graph::{Graph, Op, ValueId};

/// Largest code of a weight.
const LARGEST: i32 = 127;
/// Rounds of k-means.
const ROUNDS: usize = 50;

/// Rounds the weights of linear layers and of convolutions without groups to `k` codes each, at least 3. Gives the number of
/// layers that it changed.
pub fn run(graph: &mut Graph, k: usize) -> usize {
    let layers = graph.nodes.iter().filter_map(|n| match n.op {
        // Depthwise filters are few bytes, and average nothing out.
        Op::Conv { groups: 1, .. } | Op::Linear { .. } => n.inputs.get(1).copied(),
        _ => None,
    });
    let mut weights: Vec<ValueId> = layers.collect();
    weights.sort_unstable();
    weights.dedup();
    let mut changed = 0;
    for w in weights {
        let rows = graph.shape(w).first().copied().unwrap_or(1).max(1);
        let Some(data) = graph.constant(w) else {
            continue;
        };
        let row = data.len() / rows;
        if row == 0 || data.iter().any(|v| !v.is_finite()) {
            continue;
        }
        let mut out = data.to_vec();
        cluster(&mut out, row, k.max(3));
        graph.value_mut(w).data = Some(out.into());
        changed += 1;
    }
    changed
}

/// Rounds rows to one code book.
fn cluster(weights: &mut [f32], row: usize, k: usize) {
    let largest = |row: &[f32]| row.iter().fold(0f32, |m, v| m.max(v.abs()));
    let code = |v: f32, largest: f32| match largest > 0.0 {
        true => (v / largest * LARGEST as f32).round() as i32,
        false => 0,
    };
    // What an error of one code costs is the square of its channel's step.
    let mut histogram = [0f64; 2 * LARGEST as usize + 1];
    for row in weights.chunks(row) {
        let largest = largest(row);
        for &v in row {
            histogram[(code(v, largest) + LARGEST) as usize] += f64::from(largest).powi(2);
        }
    }
    let book = book(&histogram, k);
    for row in weights.chunks_mut(row) {
        let largest = largest(row);
        for v in row {
            let code = code(*v, largest);
            let nearest = book.iter().copied().min_by_key(|b| (b - code).abs());
            *v = nearest.unwrap_or(code) as f32 * largest / LARGEST as f32;
        }
    }
}

/// `k` codes, both ends among them, with the least sum of squared distances that k-means finds.
fn book(histogram: &[f64], k: usize) -> Vec<i32> {
    let codes = || (-LARGEST..=LARGEST).zip(histogram);
    let total: f64 = histogram.iter().sum();
    // Begins with equal shares of the roots of counts, which leaves the tails enough.
    let spread: f64 = histogram.iter().map(|h| h.cbrt()).sum();
    if total <= 0.0 || spread <= 0.0 {
        return vec![0];
    }
    let mut means: Vec<f64> = Vec::new();
    let (mut sum, inner) = (0.0, k - 2);
    for (code, h) in codes() {
        sum += h.cbrt() / spread;
        if sum > (means.len() as f64 + 0.5) / inner as f64 && means.len() < inner {
            means.push(f64::from(code));
        }
    }
    means.insert(0, f64::from(-LARGEST));
    means.push(f64::from(LARGEST));
    for _ in 0..ROUNDS {
        let mut sums = vec![(0.0, 0.0); means.len()];
        for (code, &h) in codes() {
            let distance = |m: f64| (m - f64::from(code)).abs();
            let nearest =
                (0..means.len()).min_by(|&a, &b| distance(means[a]).total_cmp(&distance(means[b])));
            let sum = &mut sums[nearest.unwrap_or(0)];
            (sum.0, sum.1) = (sum.0 + h * f64::from(code), sum.1 + h);
        }
        // The ends stay where they are.
        let last = means.len() - 1;
        for (mean, sum) in means[1..last].iter_mut().zip(&sums[1..last]) {
            if sum.1 > 0.0 {
                *mean = sum.0 / sum.1;
            }
        }
    }
    let mut book: Vec<i32> = means.iter().map(|m| m.round() as i32).collect();
    book.dedup();
    book
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::{WeightMethod, quantize_weights};
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_few_after_quantisation_and_near() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let weights: Vec<f32> = (0..64 * 72)
            .map(|i| (random() + random() + random()) * (1.0 + (i / 72) as f32))
            .collect();
        let mut errors = Vec::new();
        for k in [4, 16, 32, 64] {
            let mut clustered = weights.clone();
            cluster(&mut clustered, 72, k);
            let q = quantize_weights(&clustered, 64, WeightMethod::MinMax).unwrap();
            let codes: BTreeSet<i8> = q.codes.iter().copied().collect();
            assert!(codes.len() <= k, "{k}: {}", codes.len());
            let pairs = weights.iter().zip(&clustered);
            let error: f32 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
            errors.push(error / weights.iter().map(|w| w * w).sum::<f32>());
        }
        assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
        // A uniform grid of 16 steps has 1/12 of a step squared; a fitted one is better.
        assert!(errors[1] < 0.02 && errors[2] < 0.005, "{errors:?}");
        let mut zeros = vec![0.0; 8];
        cluster(&mut zeros, 4, 16);
        assert_eq!(zeros, [0.0; 8]);
    }
}
