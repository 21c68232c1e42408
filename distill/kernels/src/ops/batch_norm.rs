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
        let [first, second] = sums.map(|s| &mut s[..c]);
        for (at, gradient) in gradient.chunks_mut(ROWS * c).enumerate() {
            let range = at * ROWS * c..at * ROWS * c + gradient.len();
            let (d, x) = (&d[range.clone()], &x[range.clone()]);
            let slope = slope.map(|s| &s[range]);
            let mut i = 0;
            while i + 2 * S::LANES <= c {
                add_block::<S, 2>(simd, i, d, slope, x, mean, accumulate, gradient, first, second);
                i += 2 * S::LANES;
            }
            for i in i..c {
                for at in (i..gradient.len()).step_by(c) {
                    let g = slope.map_or(d[at], |s| d[at] * s[at]);
                    gradient[at] = if accumulate { gradient[at] + g } else { g };
                    first[i] += g;
                    second[i] = simd.mul_add(g, x[at] - mean[i], second[i]);
                }
            }
        }
    }
}

/// Rows whose sums stay in registers.
const ROWS: usize = 8;

/// `N` vectors of channels of some rows.
#[inline(always)]
fn add_block<S: Simd, const N: usize>(
    simd: S,
    at: usize,
    d: &[f32],
    slope: Option<&[f32]>,
    x: &[f32],
    mean: &[f32],
    accumulate: bool,
    gradient: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let (c, size) = (mean.len(), N * S::LANES);
    let (first, second) = (&mut first[at..][..size], &mut second[at..][..size]);
    let vectors = |x: &[f32]| std::array::from_fn::<_, N, _>(|n| simd.load(&x[n * S::LANES..]));
    let mean = vectors(&mean[at..][..size]);
    let (mut sums, mut products) = (vectors(first), vectors(second));
    for at in (at..gradient.len()).step_by(c) {
        let (d, x, gradient) = (
            &d[at..][..size],
            &x[at..][..size],
            &mut gradient[at..][..size],
        );
        let slope = slope.map(|s| &s[at..][..size]);
        for n in 0..N {
            let lane = n * S::LANES;
            let mut g = simd.load(&d[lane..]);
            if let Some(slope) = slope {
                g = simd.fused(g, simd.load(&slope[lane..]), simd.splat(0.0));
            }
            sums[n] = simd.add(sums[n], g);
            let distance = simd.fused(mean[n], simd.splat(-1.0), simd.load(&x[lane..]));
            products[n] = simd.fused(g, distance, products[n]);
            if accumulate {
                g = simd.add(g, simd.load(&gradient[lane..]));
            }
            simd.store(g, &mut gradient[lane..]);
        }
    }
    for n in 0..N {
        simd.store(sums[n], &mut first[n * S::LANES..]);
        simd.store(products[n], &mut second[n * S::LANES..]);
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
