//! Batch norm in the form for training: statistics of a batch, and gradients through them.
//!
//! The normalised map is never stored: whoever reads it applies `scale · x + shift` to the map before
//! the norm ([`super::activation`]), and the gradient is kept with respect to the norm's result until
//! its two sums over the batch are known.

use crate::isa::{Simd, kernel};

/// Count, mean and sum of squared distances from the mean, per channel.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
    /// Of the chunk that is added.
    chunk: [Vec<f32>; 2],
}

impl Moments {
    /// Nothing seen.
    pub fn reset(&mut self, channels: usize) {
        self.count = 0.0;
        for of in [&mut self.mean, &mut self.squares] {
            of.clear();
            of.resize(channels, 0.0);
        }
        for of in &mut self.chunk {
            of.resize(channels, 0.0);
        }
    }

    /// Adds the rows of `x[rows, channels]`, few enough for sums in single precision.
    pub fn add(&mut self, x: &[f32]) {
        let c = self.mean.len();
        let rows = x.len() / c.max(1);
        if rows == 0 {
            return;
        }
        let [mean, squares] = &mut self.chunk;
        column_means(x, mean);
        squared_distances(x, mean, squares);
        let [mean, squares] = std::mem::take(&mut self.chunk);
        let wide = |x: &[f32], i: usize| x[i] as f64;
        self.merge_with(rows as f64, |i| (wide(&mean, i), wide(&squares, i)));
        self.chunk = [mean, squares];
    }

    /// Adds what `other` has seen.
    pub fn merge(&mut self, other: &Moments) {
        self.merge_with(other.count, |i| (other.mean[i], other.squares[i]));
    }

    /// Chan's update.
    fn merge_with(&mut self, count: f64, of: impl Fn(usize) -> (f64, f64)) {
        let total = self.count + count;
        if count == 0.0 {
            return;
        }
        for i in 0..self.mean.len() {
            let (mean, squares) = of(i);
            let delta = mean - self.mean[i];
            self.mean[i] += delta * count / total;
            self.squares[i] += squares + delta * delta * self.count * count / total;
        }
        self.count = total;
    }

    /// Number of rows.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Mean of a channel.
    pub fn mean(&self, channel: usize) -> f64 {
        self.mean[channel]
    }

    /// Variance of a channel, of the rows themselves (divided by their number).
    pub fn variance(&self, channel: usize) -> f64 {
        self.squares[channel] / self.count.max(1.0)
    }
}

kernel! {
    /// Mean of each column.
    fn column_means<'a, S, simd>(x: &'a [f32], means: &'a mut [f32]) {
        let c = means.len();
        means.fill(0.0);
        add_rows(x, means);
        let factor = c as f32 / x.len() as f32;
        means.iter_mut().for_each(|m| *m *= factor);
    }
}

kernel! {
    /// Adds the sum of each column.
    pub fn add_column_sums<'a, S, simd>(x: &'a [f32], sums: &'a mut [f32]) {
        add_rows(x, sums);
    }
}

/// Adds rows, four at a time.
#[inline(always)]
fn add_rows(x: &[f32], sums: &mut [f32]) {
    let c = sums.len();
    let mut fours = x.chunks_exact(4 * c);
    for rows in fours.by_ref() {
        let (a, b) = rows.split_at(2 * c);
        let ((a, b), (d, e)) = (a.split_at(c), b.split_at(c));
        let (a, b, d, e) = (&a[..c], &b[..c], &d[..c], &e[..c]);
        for i in 0..c {
            sums[i] += (a[i] + b[i]) + (d[i] + e[i]);
        }
    }
    for row in fours.remainder().chunks_exact(c) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

kernel! {
    /// Sum of the squared distances of each column from its mean.
    fn squared_distances<'a, S, simd>(x: &'a [f32], means: &'a [f32], sums: &'a mut [f32]) {
        let c = means.len();
        let sums = &mut sums[..c];
        sums.fill(0.0);
        let mut twos = x.chunks_exact(2 * c);
        for rows in twos.by_ref() {
            let (a, b) = rows.split_at(c);
            let (a, b) = (&a[..c], &b[..c]);
            for i in 0..c {
                let (a, b) = (a[i] - means[i], b[i] - means[i]);
                sums[i] += simd.mul_add(a, a, b * b);
            }
        }
        for row in twos.remainder().chunks_exact(c) {
            for i in 0..c {
                let a = row[i] - means[i];
                sums[i] = simd.mul_add(a, a, sums[i]);
            }
        }
    }
}

kernel! {
    /// Gradient with respect to the norm's result, from that behind the activation: `gradient = d ·
    /// slope`, or added to what is there. `sums` gets per channel the sum of the gradient and that of
    /// the gradient times the distance of `x` from the mean.
    pub fn add_gradient<'a, S, simd>(
        d: &'a [f32],
        slope: Option<&'a [f32]>,
        x: &'a [f32],
        mean: &'a [f32],
        accumulate: bool,
        gradient: &'a mut [f32],
        sums: [&'a mut [f32]; 2],
    ) {
        let c = mean.len();
        let [first, second] = sums;
        for (at, (d, gradient)) in d.chunks_exact(c).zip(gradient.chunks_exact_mut(c)).enumerate() {
            let x = &x[at * c..][..c];
            let slope = slope.map(|s| &s[at * c..][..c]);
            match (slope, accumulate) {
                (Some(s), false) => add_row(simd, |i| d[i] * s[i], x, mean, gradient, first, second),
                (Some(s), true) => {
                    add_row_to(simd, |i| d[i] * s[i], x, mean, gradient, first, second)
                }
                (None, false) => add_row(simd, |i| d[i], x, mean, gradient, first, second),
                (None, true) => add_row_to(simd, |i| d[i], x, mean, gradient, first, second),
            }
        }
    }
}

#[inline(always)]
fn add_row<S: Simd>(
    simd: S,
    of: impl Fn(usize) -> f32,
    x: &[f32],
    mean: &[f32],
    gradient: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let c = x.len();
    let (mean, gradient, first, second) = (
        &mean[..c],
        &mut gradient[..c],
        &mut first[..c],
        &mut second[..c],
    );
    for i in 0..c {
        let g = of(i);
        gradient[i] = g;
        first[i] += g;
        second[i] = simd.mul_add(g, x[i] - mean[i], second[i]);
    }
}

#[inline(always)]
fn add_row_to<S: Simd>(
    simd: S,
    of: impl Fn(usize) -> f32,
    x: &[f32],
    mean: &[f32],
    gradient: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let c = x.len();
    let (mean, gradient, first, second) = (
        &mean[..c],
        &mut gradient[..c],
        &mut first[..c],
        &mut second[..c],
    );
    for i in 0..c {
        let g = of(i);
        gradient[i] += g;
        first[i] += g;
        second[i] = simd.mul_add(g, x[i] - mean[i], second[i]);
    }
}

kernel! {
    /// Gradient with respect to the map before the norm: `y = factor · gradient + slope · (x − mean) +
    /// offset`, or added to what is there. See [`Backward`].
    pub fn input_gradient<'a, S, simd>(
        backward: &'a Backward,
        gradient: &'a [f32],
        x: &'a [f32],
        mean: &'a [f32],
        accumulate: bool,
        y: &'a mut [f32],
    ) {
        let c = mean.len();
        let factor = &backward.factor[..c];
        let (slope, offset) = (&backward.slope[..c], &backward.offset[..c]);
        for (at, y) in y.chunks_exact_mut(c).enumerate() {
            let (gradient, x) = (&gradient[at * c..][..c], &x[at * c..][..c]);
            if accumulate {
                for i in 0..c {
                    let g = simd.mul_add(factor[i], gradient[i], offset[i]);
                    y[i] += simd.mul_add(slope[i], x[i] - mean[i], g);
                }
            } else {
                for i in 0..c {
                    let g = simd.mul_add(factor[i], gradient[i], offset[i]);
                    y[i] = simd.mul_add(slope[i], x[i] - mean[i], g);
                }
            }
        }
    }
}

/// The gradient through a norm's statistics as a linear function per channel.
#[derive(Debug, Clone, Default)]
pub struct Backward {
    /// Of the gradient with respect to the norm's result.
    pub factor: Vec<f32>,
    /// Of the distance from the mean.
    pub slope: Vec<f32>,
    /// Of one.
    pub offset: Vec<f32>,
}

impl Backward {
    /// From the norm's scale, its reciprocal deviation, and the two sums of [`add_gradient`] over `count`
    /// rows.
    pub fn set(&mut self, scale: &[f32], reciprocal: &[f32], sums: [&[f64]; 2], count: f64) {
        self.factor.clear();
        self.factor.extend_from_slice(scale);
        let channels = 0..scale.len();
        self.slope.clear();
        self.slope.extend(channels.clone().map(|i| {
            let r = reciprocal[i] as f64;
            (-(scale[i] as f64) * r * r * sums[1][i] / count) as f32
        }));
        self.offset.clear();
        self.offset
            .extend(channels.map(|i| (-(scale[i] as f64) * sums[0][i] / count) as f32));
    }

    /// With statistics that do not depend on the batch.
    pub fn set_frozen(&mut self, scale: &[f32]) {
        self.factor.clear();
        self.factor.extend_from_slice(scale);
        for of in [&mut self.slope, &mut self.offset] {
            of.clear();
            of.resize(scale.len(), 0.0);
        }
    }
}
