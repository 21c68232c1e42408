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
        let mut d = Divergence {
            width: histogram.bin_width(),
            counts: vec![0.0],
            logs: vec![0.0],
            occupied: vec![0.0],
        };
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
        let steps = |distance: f64| ((distance / self.width) as usize).min(SIDE - 1);
        let first = if lo < 0.0 {
            SIDE - 1 - steps(-lo)
        } else {
            SIDE
        };
        let end = if hi > 0.0 { SIDE + 1 + steps(hi) } else { SIDE };
        self.of_bins(first, end, levels)
    }

    fn of_bins(&self, first: usize, end: usize, levels: usize) -> f64 {
        let total = self.counts[BINS];
        let outliers = [self.counts[first], total - self.counts[end]];
        let inside = total - outliers[0] - outliers[1];
        if inside <= 0.0 {
            return f64::INFINITY;
        }
        let levels = levels.min(end - first);
        let bound = |level: usize| first + level * (end - first) / levels;
        let mut cross = 0.0;
        for level in 0..levels {
            let (a, b) = (bound(level), bound(level + 1));
            let kept = self.counts[b] - self.counts[a];
            let mut clipped = kept;
            let mut occupied = self.occupied[b] - self.occupied[a];
            for (outliers, bin) in [(outliers[0], first), (outliers[1], end - 1)] {
                if (a..b).contains(&bin) && outliers > 0.0 {
                    clipped += outliers;
                    occupied += f64::from(u8::from(self.count(bin) == 0.0));
                }
            }
            if clipped > 0.0 {
                cross += clipped * (kept / occupied).max(EMPTY).ln();
            }
        }
        (self.clipped_logs(first, end, outliers) - cross) / total + (inside / total).ln()
    }

    /// `Σ p ln p` of the bins `first..end` with the outliers added to the outermost ones.
    fn clipped_logs(&self, first: usize, end: usize, [below, above]: [f64; 2]) -> f64 {
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
