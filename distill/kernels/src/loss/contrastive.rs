//! CLIP's contrastive loss (Radford et al., "Learning Transferable Visual Models From Natural Language
//! Supervision", 2021) on normalised embeddings.

use crate::gemm::{self, Packed, Panels, Start};
use crate::loss::{Target, cross_entropy};

/// `y = x / ‖x‖` for each row of `d` values.
pub fn normalize(d: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let share = 1.0 / norm(x);
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * share);
    }
}

/// Gradient of [`normalize`] with respect to `x`, from `dy`, that with respect to its result `y`.
pub fn normalize_gradient(d: usize, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for (at, dx) in dx.chunks_exact_mut(d).enumerate() {
        let [x, y, dy] = [x, y, dy].map(|of| &of[at * d..][..d]);
        let share = 1.0 / norm(x);
        let along: f32 = y.iter().zip(dy).map(|(y, g)| y * g).sum();
        for i in 0..d {
            dx[i] = share * (dy[i] - along * y[i]);
        }
    }
}

fn norm(x: &[f32]) -> f32 {
    let squares: f64 = x.iter().map(|&x| x as f64 * x as f64).sum();
    (squares.sqrt() as f32).max(1e-12)
}

/// Mean of the cross-entropies of the rows and of the columns of `exp(log scale) · a·bᵀ`, whose diagonal
/// is right, for normalised `a[n, d]` and `b[n, d]`. `gradients` get the derivatives with respect to `a`
/// and `b`; returned are the loss and its derivative with respect to `log_scale`.
pub fn info_nce(
    d: usize,
    a: &[f32],
    b: &[f32],
    log_scale: f32,
    gradients: [&mut [f32]; 2],
) -> [f64; 2] {
    let n = a.len() / d.max(1);
    let scale = log_scale.exp();
    let mut logits = vec![0.0; n * n];
    let mut packed = Packed::default();
    packed.pack(b, [d, n], [1, d]);
    gemm::product(n, a, d, &packed, Start::Zero, &mut logits, n);
    logits.iter_mut().for_each(|x| *x *= scale);
    let labels: Vec<u32> = (0..n as u32).collect();
    let target = Target::Labels {
        labels: &labels,
        smoothing: 0.0,
    };
    let transposed = transpose(n, &logits);
    let (mut rows, mut columns) = (vec![0.0; n * n], vec![0.0; n * n]);
    let of_rows = cross_entropy(&logits, n, target, &mut rows);
    let of_columns = cross_entropy(&transposed, n, target, &mut columns);
    let columns = transpose(n, &columns);
    rows.iter_mut()
        .zip(&columns)
        .for_each(|(r, c)| *r = 0.5 * (*r + c));
    let along: f64 = rows
        .iter()
        .zip(&logits)
        .map(|(g, x)| *g as f64 * *x as f64)
        .sum();
    rows.iter_mut().for_each(|g| *g *= scale);
    let [of_a, of_b] = gradients;
    packed.pack(b, [n, d], [d, 1]);
    gemm::product(n, &rows, n, &packed, Start::Zero, of_a, d);
    of_b.fill(0.0);
    gemm::accumulate_transposed(n, &rows, [n, n], a, [d, d], of_b, &mut Panels::default());
    [0.5 * (of_rows + of_columns), along]
}

fn transpose(n: usize, x: &[f32]) -> Vec<f32> {
    (0..n * n).map(|i| x[i % n * n + i / n]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss of embeddings before normalisation, computed plainly in double precision.
    fn plain(d: usize, a: &[f32], b: &[f32], log_scale: f64) -> f64 {
        let n = a.len() / d;
        let unit = |x: &[f32]| -> Vec<f64> {
            let norm = x.iter().map(|&x| (x as f64).powi(2)).sum::<f64>().sqrt();
            x.iter().map(|&x| x as f64 / norm).collect()
        };
        let [a, b]: [Vec<Vec<f64>>; 2] = [a, b].map(|x| x.chunks_exact(d).map(unit).collect());
        let logit = |i: usize, j: usize| {
            log_scale.exp() * a[i].iter().zip(&b[j]).map(|(x, y)| x * y).sum::<f64>()
        };
        let mut total = 0.0;
        for i in 0..n {
            let row: f64 = (0..n).map(|j| logit(i, j).exp()).sum();
            let column: f64 = (0..n).map(|j| logit(j, i).exp()).sum();
            total += row.ln() + column.ln() - 2.0 * logit(i, i);
        }
        total / (2 * n) as f64
    }

    #[test]
    fn equals_the_plain_loss_and_its_differences() {
        let (n, d, log_scale) = (5, 7, 1.3f32);
        let values = |salt: u32| -> Vec<f32> {
            (0..n as u32 * d as u32)
                .map(|i| ((i * 37 + salt) % 23) as f32 / 11.0 - 1.0)
                .collect()
        };
        let x = [values(3), values(11)];
        let mut unit = [vec![0.0; n * d], vec![0.0; n * d]];
        let mut gradients = unit.clone();
        for (x, u) in x.iter().zip(&mut unit) {
            normalize(d, x, u);
        }
        let [ga, gb] = &mut gradients;
        let [loss, of_scale] = info_nce(d, &unit[0], &unit[1], log_scale, [ga, gb]);
        let exact = plain(d, &x[0], &x[1], log_scale as f64);
        assert!((loss - exact).abs() < 1e-6, "{loss} {exact}");
        let at = |h: f64| plain(d, &x[0], &x[1], log_scale as f64 + h);
        assert!((of_scale - (at(1e-4) - at(-1e-4)) / 2e-4).abs() < 1e-6);
        for side in 0..2 {
            let mut dx = vec![0.0; n * d];
            normalize_gradient(d, &x[side], &unit[side], &gradients[side], &mut dx);
            for i in 0..n * d {
                let at = |h: f32| {
                    let mut moved = x.clone();
                    moved[side][i] += h;
                    plain(d, &moved[0], &moved[1], log_scale as f64)
                };
                let difference = (at(1e-2) - at(-1e-2)) / (2.0 * 1e-2);
                assert!(
                    (dx[i] as f64 - difference).abs() < 2e-4,
                    "{side} {i}: {} {difference}",
                    dx[i]
                );
            }
        }
    }
}
