//! A histogram read as a density: moments up to any point, and what a quantiser costs on it.

use super::histogram::SIDE;
use super::{Histogram, QParams};

/// The distribution of a histogram: a point mass at zero and, on either side, uniform bins clipped to
/// the exact minimum and maximum.
pub(super) struct Density {
    negative: Side,
    positive: Side,
    finite: f64,
}

/// Mass, first and second moment.
type Moments = [f64; 3];

/// One side of zero, by distance from it.
struct Side {
    width: f64,
    /// Distances between which all values lie.
    near: f64,
    far: f64,
    /// Counts per bin, from zero outwards.
    counts: Vec<f64>,
    /// Moments of the first `k` bins. Sums run from zero outwards so that the bulk keeps its digits
    /// beside outliers.
    upto: Vec<Moments>,
}

impl Density {
    pub(super) fn of(histogram: &Histogram) -> Density {
        let (bins, width) = (histogram.bins(), histogram.bin_width());
        let min = f64::from(histogram.min().unwrap_or(0.0));
        let max = f64::from(histogram.max().unwrap_or(0.0));
        let outwards =
            (0..SIDE).map(|k| bins[SIDE + k] - if k == 0 { histogram.zeros() } else { 0 });
        Density {
            negative: Side::new(width, -max, -min, (0..SIDE).map(|k| bins[SIDE - 1 - k])),
            positive: Side::new(width, min, max, outwards),
            finite: histogram.finite() as f64,
        }
    }

    /// Mean squared error of sending the values through codes and back.
    pub(super) fn mean_squared_error(&self, params: &QParams) -> f64 {
        let ((lo, hi), zero) = (params.codes(), params.zero_point);
        let step = f64::from(params.scale);
        let sum = self.negative.error(step, zero - lo) + self.positive.error(step, hi - zero);
        sum / self.finite.max(1.0)
    }

    /// Mean of the squared values.
    pub(super) fn mean_square(&self) -> f64 {
        (self.negative.total()[2] + self.positive.total()[2]) / self.finite.max(1.0)
    }

    /// Points that stand for the values: two per bin, with the number of values each stands for.
    pub(super) fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let side = |side: &'_ Side, sign: f64| -> Vec<(f64, f64)> {
            let bins = (0..SIDE).filter(|&k| side.counts[k] > 0.0);
            bins.flat_map(|k| {
                let lo = (k as f64 * side.width).max(side.near);
                let hi = ((k + 1) as f64 * side.width).min(side.far);
                let at = move |share: f64| sign * (lo + (hi - lo) * share);
                [0.25, 0.75].map(|share| (at(share), side.counts[k] / 2.0))
            })
            .collect()
        };
        side(&self.negative, -1.0)
            .into_iter()
            .chain(side(&self.positive, 1.0))
    }

    /// Share of the values outside `lo..=hi`, which contains 0.
    pub(super) fn share_outside(&self, lo: f64, hi: f64) -> f64 {
        let beyond = |side: &Side, t: f64| side.total()[0] - side.moments(t)[0];
        (beyond(&self.negative, -lo) + beyond(&self.positive, hi)) / self.finite.max(1.0)
    }

    /// The distances from zero, down and up, beyond which `count` values lie; 0 on a side that has
    /// fewer.
    pub(super) fn tails(&self, count: f64) -> (f64, f64) {
        (self.negative.tail(count), self.positive.tail(count))
    }
}

impl Side {
    fn new(width: f64, near: f64, far: f64, counts: impl Iterator<Item = u64>) -> Side {
        let counts: Vec<f64> = counts.map(|c| c as f64).collect();
        let mut side = Side {
            width,
            near: near.max(0.0),
            far: far.max(0.0),
            counts,
            upto: vec![[0.0; 3]],
        };
        let mut sum = [0.0; 3];
        for k in 0..SIDE {
            let part = side.part(k, f64::INFINITY);
            sum = [sum[0] + part[0], sum[1] + part[1], sum[2] + part[2]];
            side.upto.push(sum);
        }
        side
    }

    /// Moments of bin `k` up to distance `t`.
    fn part(&self, k: usize, t: f64) -> Moments {
        let count = self.counts[k];
        if count == 0.0 {
            return [0.0; 3];
        }
        let lo = (k as f64 * self.width).max(self.near);
        let hi = ((k + 1) as f64 * self.width).min(self.far);
        let end = t.min(hi);
        let share = match hi > lo {
            true => ((end - lo) / (hi - lo)).max(0.0),
            false => f64::from(u8::from(t >= lo)), // a point
        };
        let mass = count * share;
        [
            mass,
            mass * (lo + end) / 2.0,
            mass * (lo * lo + lo * end + end * end) / 3.0,
        ]
    }

    fn total(&self) -> Moments {
        self.upto[SIDE]
    }

    /// Moments of everything up to distance `t`.
    fn moments(&self, t: f64) -> Moments {
        let k = (t / self.width) as usize;
        if k >= SIDE {
            return self.total();
        }
        let (below, part) = (self.upto[k], self.part(k, t));
        [below[0] + part[0], below[1] + part[1], below[2] + part[2]]
    }

    /// Sum of squared errors when distances round to multiples of `step`, `levels` of them at most.
    fn error(&self, step: f64, levels: i32) -> f64 {
        if self.total()[0] == 0.0 {
            return 0.0;
        }
        let last = f64::from(levels) * step;
        if step < self.width / 2.0 {
            let inside = self.moments(last);
            return inside[0] * step * step / 12.0 + squares_around(last, inside, self.total());
        }
        let reached = levels.min((self.far / step + 0.5) as i32);
        let mut sum = 0.0;
        let mut below = [0.0; 3];
        for level in 0..reached {
            let upto = self.moments((f64::from(level) + 0.5) * step);
            sum += squares_around(f64::from(level) * step, below, upto);
            below = upto;
        }
        sum + squares_around(f64::from(reached) * step, below, self.total())
    }

    /// The distance beyond which `count` values lie.
    fn tail(&self, count: f64) -> f64 {
        let inside = self.total()[0] - count;
        if inside <= 0.0 {
            return 0.0;
        }
        let k = self
            .upto
            .partition_point(|m| m[0] < inside)
            .saturating_sub(1)
            .min(SIDE - 1);
        let lo = (k as f64 * self.width).max(self.near);
        let hi = ((k + 1) as f64 * self.width).min(self.far);
        lo + (hi - lo) * ((inside - self.upto[k][0]) / self.counts[k].max(1.0)).clamp(0.0, 1.0)
    }
}

/// `Σ (x − centre)²` over the values between two cumulative moments.
fn squares_around(centre: f64, below: Moments, upto: Moments) -> f64 {
    let m = [upto[0] - below[0], upto[1] - below[1], upto[2] - below[2]];
    (m[2] - 2.0 * centre * m[1] + centre * centre * m[0]).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;

    fn of(values: &[f32]) -> Density {
        let mut h = Histogram::new();
        h.update(values);
        Density::of(&h)
    }

    fn measured(values: &[f32], params: &QParams) -> f64 {
        let square = |v: &f32| (f64::from(params.round_trip(*v)) - f64::from(*v)).powi(2);
        values.iter().map(square).sum::<f64>() / values.len() as f64
    }

    #[test]
    fn constants_and_zeros_are_points() {
        let p = QParams::from_range(0.0, 0.75);
        assert!(of(&[0.75; 9]).mean_squared_error(&p) < 1e-15);
        assert!(of(&[0.0, 0.0, 0.75]).mean_squared_error(&p) < 1e-15);
        assert_eq!(of(&[0.0; 4]).mean_squared_error(&p), 0.0);
        let clipped = of(&[-3.0]).mean_squared_error(&p);
        assert!((clipped - 9.0).abs() < 1e-9, "{clipped}");
    }

    #[test]
    fn expected_error_is_the_measured_one() {
        let mut rng = Lcg(11);
        let gaussian = rng.gaussians(200_000);
        let relu: Vec<f32> = gaussian.iter().map(|v| v.max(0.0)).collect();
        for values in [&gaussian, &relu] {
            let density = of(values);
            for (lo, hi) in [
                (-6.0, 6.0),
                (-3.0, 3.0),
                (-1.0, 4.0),
                (-0.5, 0.25),
                (-0.01, 0.01),
                (-40.0, 40.0),
            ] {
                for p in [QParams::from_range(lo, hi), QParams::symmetric_i16(hi)] {
                    let (expected, got) = (density.mean_squared_error(&p), measured(values, &p));
                    assert!(
                        (expected / got - 1.0).abs() < 0.02,
                        "{p:?}: {expected} {got}"
                    );
                }
            }
        }
    }

    #[test]
    fn shares_and_tails_match_counting() {
        let mut rng = Lcg(5);
        let values = rng.gaussians(100_000);
        let density = of(&values);
        let counted = values.iter().filter(|v| !(-1.0..=2.0).contains(*v)).count() as f64 / 1e5;
        assert!((density.share_outside(-1.0, 2.0) - counted).abs() < 2e-4);
        let (down, up) = density.tails(1000.0);
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        assert!(
            (-down - f64::from(sorted[1000])).abs() < 0.01
                && (up - f64::from(sorted[98_999])).abs() < 0.01
        );
        assert_eq!(density.tails(60_000.0), (0.0, 0.0));
    }
}
