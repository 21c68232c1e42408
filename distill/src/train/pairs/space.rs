//! A teacher's space of embeddings, cut down to a student's width.

/// The first principal components of embeddings: an affine map into fewer dimensions that keeps cosines of
/// distances from the mean as well as any can. Embeddings of sentences share a large mean, which says
/// nothing about any of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    /// `[from]`
    mean: Vec<f64>,
    /// `[to][from]`, orthonormal rows.
    axes: Vec<Vec<f64>>,
}

/// Rounds of subspace iteration.
const ROUNDS: usize = 60;

impl Space {
    /// Of `embeddings[n, from]`, with `to` dimensions, at most `from`. Lengths do not count.
    pub fn of(embeddings: &[f32], from: usize, to: usize) -> Self {
        let rows: Vec<Vec<f64>> = embeddings.chunks_exact(from.max(1)).map(unit).collect();
        let count = rows.len().max(1) as f64;
        let mut mean = vec![0.0; from];
        for row in &rows {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / count);
        }
        let mut covariance = vec![vec![0.0; from]; from];
        for row in &rows {
            let centred: Vec<f64> = row.iter().zip(&mean).map(|(x, m)| x - m).collect();
            for (x, line) in centred.iter().zip(&mut covariance) {
                line.iter_mut().zip(&centred).for_each(|(c, y)| *c += x * y);
            }
        }
        let axis = |i: usize| (0..from).map(|j| f64::from(u8::from(i == j))).collect();
        let mut axes: Vec<Vec<f64>> = (0..to.min(from)).map(axis).collect();
        if to < from {
            for _ in 0..ROUNDS {
                for axis in &mut axes {
                    *axis = covariance.iter().map(|line| dot(line, axis)).collect();
                }
                orthonormalize(&mut axes);
            }
        }
        Space { mean, axes }
    }

    /// Dimensions.
    pub fn width(&self) -> usize {
        self.axes.len()
    }

    /// An embedding in this space, with length 1.
    pub fn project(&self, embedding: &[f32]) -> Vec<f32> {
        let centred: Vec<f64> = unit(embedding)
            .iter()
            .zip(&self.mean)
            .map(|(x, m)| x - m)
            .collect();
        let projected: Vec<f64> = self.axes.iter().map(|a| dot(a, &centred)).collect();
        let length = dot(&projected, &projected).sqrt().max(1e-12);
        projected.iter().map(|x| (x / length) as f32).collect()
    }
}

/// Gram–Schmidt. A vector that has nothing of its own becomes 0.
fn orthonormalize(axes: &mut [Vec<f64>]) {
    for i in 0..axes.len() {
        let (before, rest) = axes.split_at_mut(i);
        let axis = &mut rest[0];
        let whole = dot(axis, axis).sqrt();
        for other in before {
            let along = dot(axis, other);
            axis.iter_mut()
                .zip(other)
                .for_each(|(a, o)| *a -= along * *o);
        }
        let length = dot(axis, axis).sqrt();
        let share = if length > 1e-9 * whole {
            1.0 / length
        } else {
            0.0
        };
        axis.iter_mut().for_each(|a| *a *= share);
    }
}

fn unit(vector: &[f32]) -> Vec<f64> {
    let vector: Vec<f64> = vector.iter().map(|&v| f64::from(v)).collect();
    let length = dot(&vector, &vector).sqrt().max(1e-12);
    vector.iter().map(|v| v / length).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
