//! Kullback–Leibler divergence between a histogram and its quantised version.

use super::Histogram;
use super::histogram::{BINS, SIDE};

/// Mass in counts that stands for an empty level, as in ONNX Runtime.
const EMPTY: f64 = 1e-4;

/// Cumulative sums over the bins of a histogram without its zeros, which every range represents
/// exactly.
pub(super) struct Divergence {
    width: f64,
    /// Counts of the bins before `i`.
    counts: Vec<f64>,
    /// `Σ c ln c` of the bins before `i`.
    logs: Vec<f64>,
    /// Occupied bins before `i`.
    occupied: Vec<f64>,
}

impl Divergence {
    pub(super) fn of(histogram: &Histogram) -> Divergence {
        let mut d = Divergence { width: histogram.bin_width(), counts: vec![0.0], logs: vec![0.0], occupied: vec![0.0] };
        let (mut count, mut log, mut occupied) = (0.0, 0.0, 0.0);
        for (i, &bin) in histogram.bins().iter().enumerate() {
            let c = (bin - if i == SIDE { histogram.zeros() } else { 0 }) as f64;
            count += c;
            log += weighted_log(c);
            occupied += f64::from(u8::from(c > 0.0));
            d.counts.push(count);
            d.logs.push(log);
            d.occupied.push(occupied);
        }
        d
    }

    /// Divergence of the distribution clipped to `lo..=hi` (widened to whole bins) from what `levels`
    /// equal levels of that range keep of the unclipped part: each level's count, spread evenly over
    /// its occupied bins.
    pub(super) fn of_range(&self, lo: f64, hi: f64, levels: usize) -> f64 {
        let bin = |x: f64| (x / self.width) as i64 + SIDE as i64;
        let first = bin(lo.floor_to(self.width)).clamp(0, BINS as i64 - 1) as usize;
        let end = bin(hi.ceil_to(self.width)).clamp(first as i64 + 1, BINS as i64) as usize;
        let (total, inside) = (self.counts[BINS], self.counts[end] - self.counts[first]);
        if inside <= 0.0 {
            return f64::INFINITY;
        }
        let outliers = (self.counts[first], total - self.counts[end]);
        let self_information = self.clipped_logs(first, end, outliers);
        let levels = levels.min(end - first);
        let bound = |level: usize| first + level * (end - first) / levels;
        let mut cross = 0.0;
        for level in 0..levels {
            let (a, b) = (bound(level), bound(level + 1));
            let count = self.counts[b] - self.counts[a];
            let (below, above) = (if a == first { outliers.0 } else { 0.0 }, if b == end { outliers.1 } else { 0.0 });
            let clipped = count + below + above;
            if clipped <= 0.0 {
                continue;
            }
            let newly = |mass: f64, at: usize| f64::from(u8::from(mass > 0.0 && self.count(at) == 0.0));
            let both_ends_are_one = end - first == 1;
            let extra = newly(below, first) + if both_ends_are_one { 0.0 } else { newly(above, end - 1) };
            let occupied = self.occupied[b] - self.occupied[a] + extra;
            cross += clipped * (count / occupied.max(1.0)).max(EMPTY).ln();
        }
        (self_information - cross) / total + (inside / total).ln()
    }

    /// `Σ p ln p` of the bins `first..end` with the outliers added to the outermost ones.
    fn clipped_logs(&self, first: usize, end: usize, (below, above): (f64, f64)) -> f64 {
        if end - first == 1 {
            return weighted_log(self.count(first) + below + above);
        }
        let inner = self.logs[end - 1] - self.logs[first + 1];
        inner + weighted_log(self.count(first) + below) + weighted_log(self.count(end - 1) + above)
    }

    fn count(&self, bin: usize) -> f64 {
        self.counts[bin + 1] - self.counts[bin]
    }
}

fn weighted_log(c: f64) -> f64 {
    if c > 0.0 { c * c.ln() } else { 0.0 }
}

/// Multiples of a step.
trait Multiples {
    fn floor_to(self, step: f64) -> f64;
    fn ceil_to(self, step: f64) -> f64;
}

impl Multiples for f64 {
    fn floor_to(self, step: f64) -> f64 {
        (self / step).floor() * step
    }
    fn ceil_to(self, step: f64) -> f64 {
        (self / step).ceil() * step
    }
}
