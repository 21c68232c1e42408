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

/// Rounds of subspace iteration, each with the fourth power of the covariance.
const ROUNDS: usize = 15;
/// Embeddings whose channels fit into a cache.
const PART: usize = 256;

impl Space {
    /// Of `embeddings[n, from]`, with `to` dimensions, at most `from`. Lengths do not count.
    pub fn of(embeddings: &[f32], from: usize, to: usize) -> Self {
        let rows: Vec<Vec<f64>> = embeddings.chunks_exact(from.max(1)).map(unit).collect();
        let count = rows.len().max(1) as f64;
        let mut mean = vec![0.0; from];
        for row in &rows {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / count);
        }
        let axis = |i: usize| (0..from).map(|j| f64::from(u8::from(i == j))).collect();
        let mut axes: Vec<Vec<f64>> = (0..to.min(from)).map(axis).collect();
        if to < from {
            let power = square(&square(&covariance(rows, &mean)));
            for _ in 0..ROUNDS {
                for axis in &mut axes {
                    *axis = power.iter().map(|line| dot(line, axis)).collect();
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

/// Of rows, up to a factor.
fn covariance(mut rows: Vec<Vec<f64>>, mean: &[f64]) -> Vec<Vec<f64>> {
    for row in &mut rows {
        row.iter_mut().zip(mean).for_each(|(x, m)| *x -= m);
    }
    let mut all = vec![vec![0.0; mean.len()]; mean.len()];
    for part in rows.chunks(PART) {
        // Channels as rows, so that each entry is one product.
        let channel = |c: usize| part.iter().map(|row| row[c]).collect();
        let channels: Vec<Vec<f64>> = (0..mean.len()).map(channel).collect();
        add_products(&channels, &mut all);
    }
    all
}

/// The square of a symmetric matrix, whose rows are its columns, up to a factor that keeps it from growing.
fn square(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let trace: f64 = matrix.iter().enumerate().map(|(i, line)| line[i]).sum();
    let share = 1.0 / trace.max(f64::MIN_POSITIVE);
    let scale = |line: &Vec<f64>| line.iter().map(|x| x * share).collect();
    let scaled: Vec<Vec<f64>> = matrix.iter().map(scale).collect();
    let mut all = vec![vec![0.0; matrix.len()]; matrix.len()];
    add_products(&scaled, &mut all);
    all
}

/// Adds the inner products of all pairs of rows.
fn add_products(rows: &[Vec<f64>], all: &mut [Vec<f64>]) {
    for i in 0..rows.len() {
        for j in 0..=i {
            all[i][j] += dot(&rows[i], &rows[j]);
            all[j][i] = all[i][j];
        }
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

/// In eight sums, which vectorise.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.into_iter().chain(rest).sum()
}
