//! Streaming histogram of activations.

use super::CalibrateError;

/// Number of bins of a [`Histogram`]: half of them on each side of zero.
///
/// A ReLU's outputs fill at least a quarter of the bins (one side, down to the next power of two),
/// which leaves four or more bins per int8 code.
pub const BINS: usize = 4096;

/// Bins on one side of zero.
pub(super) const SIDE: usize = BINS / 2;
const SIDE_LOG2: i32 = SIDE.trailing_zeros() as i32;

/// Smallest exponent of the range: all values below `2^MIN_EXPONENT` share the two middle bins.
const MIN_EXPONENT: i32 = -100;

/// Values handled between two looks at the range; the scratch of a block stays in the L1 cache.
const BLOCK: usize = 1024;

/// Histogram of the f32 values of one tensor over any number of images, in constant memory.
///
/// The bins cover `(−2^e, 2^e)` symmetrically. A bin on the positive side is `[k·w, (k+1)·w)`, one on
/// the negative side `(−(k+1)·w, −k·w]`, with `w = 2^e / 2048`. When a value does not fit, `e` grows
/// and neighbouring bins merge exactly. Counts are integers and `e` depends only on the largest
/// magnitude, so any order of updates and merges ends in the identical histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    bins: Box<[u64; BINS]>,
    exponent: i32,
    min: f32,
    max: f32,
    zeros: u64,
    finite: u64,
    non_finite: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// A histogram that has seen nothing.
    pub fn new() -> Self {
        Histogram {
            bins: Box::new([0; BINS]),
            exponent: MIN_EXPONENT,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            zeros: 0,
            finite: 0,
            non_finite: 0,
        }
    }

    /// Counts `values`.
    pub fn update(&mut self, values: &[f32]) {
        for block in values.chunks(BLOCK) {
            let extent = Extent::of(block);
            if extent.non_finite == 0 {
                self.count_finite(block, extent);
                continue;
            }
            self.non_finite += extent.non_finite as u64;
            let finite: Vec<f32> = block.iter().copied().filter(|v| v.is_finite()).collect();
            self.count_finite(&finite, Extent::of(&finite));
        }
    }

    /// Adds everything `other` has seen.
    pub fn merge(&mut self, other: &Histogram) {
        self.grow(other.exponent);
        let shift = (self.exponent - other.exponent) as u32;
        for (i, &count) in other.bins.iter().enumerate().filter(|(_, c)| **c > 0) {
            self.bins[coarser_bin(i, shift)] += count;
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.zeros += other.zeros;
        self.finite += other.finite;
        self.non_finite += other.non_finite;
    }

    /// Smallest finite value, `None` when none was seen.
    pub fn min(&self) -> Option<f32> {
        (self.finite > 0).then_some(self.min)
    }

    /// Largest finite value, `None` when none was seen.
    pub fn max(&self) -> Option<f32> {
        (self.finite > 0).then_some(self.max)
    }

    /// Number of values seen, including infinities and NaN.
    pub fn count(&self) -> u64 {
        self.finite + self.non_finite
    }

    /// Number of finite values seen.
    pub fn finite(&self) -> u64 {
        self.finite
    }

    /// Number of zeros seen, of either sign.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Number of infinities and NaN seen.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// Counts per bin, from the most negative to the most positive; zeros are in bin `BINS / 2`.
    pub fn bins(&self) -> &[u64; BINS] {
        &self.bins
    }

    /// Width of a bin.
    pub fn bin_width(&self) -> f64 {
        f64::from(power_of_two(self.exponent - SIDE_LOG2))
    }

    /// Passes when the histogram has values and all of them are finite.
    pub fn check(&self, tensor: &str) -> Result<(), CalibrateError> {
        if self.non_finite > 0 {
            return Err(CalibrateError::NonFinite {
                tensor: tensor.to_owned(),
                non_finite: self.non_finite,
                count: self.count(),
            });
        }
        if self.finite == 0 {
            return Err(CalibrateError::Empty {
                tensor: tensor.to_owned(),
            });
        }
        Ok(())
    }

    fn count_finite(&mut self, block: &[f32], extent: Extent) {
        if block.is_empty() {
            return;
        }
        self.grow(exponent_above(extent.max.max(-extent.min)));
        self.min = self.min.min(extent.min);
        self.max = self.max.max(extent.max);
        self.zeros += extent.zeros as u64;
        self.finite += block.len() as u64;
        let mut indices = [0i32; BLOCK];
        let per_width = power_of_two(SIDE_LOG2 - self.exponent);
        for (index, &value) in indices.iter_mut().zip(block) {
            *index = bin_of(value, per_width);
        }
        for &index in &indices[..block.len()] {
            self.bins[index as usize % BINS] += 1;
        }
    }

    /// Raises the exponent to `exponent`, merging bins, when it is smaller.
    fn grow(&mut self, exponent: i32) {
        if exponent <= self.exponent {
            return;
        }
        let shift = (exponent - self.exponent) as u32;
        self.exponent = exponent;
        if self.finite == 0 {
            return;
        }
        let fine = std::mem::replace(&mut self.bins, Box::new([0; BINS]));
        for (i, &count) in fine.iter().enumerate() {
            self.bins[coarser_bin(i, shift)] += count;
        }
    }
}

/// The bin of a value that fits. The product is exact but for underflow, which truncates to the
/// same bin; so the bin of a coarser histogram is the bin here with its low bits dropped.
#[inline(always)]
fn bin_of(value: f32, per_width: f32) -> i32 {
    // Truncates; the product is below SIDE, because the caller has grown the range.
    let steps = (value.abs() * per_width) as i32;
    let negative = -i32::from(value < 0.0);
    SIDE as i32 + (steps ^ negative)
}

/// Where bin `i` goes when widths grow by `2^shift`; bins keep their distance from zero's edge.
fn coarser_bin(i: usize, shift: u32) -> usize {
    let shift = shift.min(31);
    let (i, side) = (i as i64, SIDE as i64);
    let from_zero = i - side; // negative bins: −1 is the one next to zero
    (side + (from_zero >> shift)) as usize
}

/// Smallest exponent `e ≥ MIN_EXPONENT` with `magnitude < 2^e`.
fn exponent_above(magnitude: f32) -> i32 {
    let biased = (magnitude.to_bits() >> 23) as i32; // magnitudes have no sign bit
    (biased - 126).max(MIN_EXPONENT)
}

/// `2^exponent` for normal exponents.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// What one pass over a block finds.
struct Extent {
    min: f32,
    max: f32,
    zeros: u32,
    non_finite: u32,
}

impl Extent {
    fn of(block: &[f32]) -> Extent {
        const LANES: usize = 16;
        let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut zeros, mut non_finite) = ([0u32; LANES], [0u32; LANES]);
        let mut look = |lane: usize, v: f32| {
            min[lane] = if v < min[lane] { v } else { min[lane] };
            max[lane] = if v > max[lane] { v } else { max[lane] };
            zeros[lane] += u32::from(v == 0.0);
            non_finite[lane] += u32::from(v.to_bits() & 0x7f80_0000 == 0x7f80_0000);
        };
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                look(lane, chunk[lane]);
            }
        }
        for (lane, &v) in rest.iter().enumerate() {
            look(lane, v);
        }
        Extent {
            // Adding a zero turns −0 into +0, so the result does not depend on the order.
            min: min.iter().fold(f32::INFINITY, |a, &b| a.min(b)) + 0.0,
            max: max.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)) + 0.0,
            zeros: zeros.iter().sum(),
            non_finite: non_finite.iter().sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;

    fn of(values: &[f32]) -> Histogram {
        let mut h = Histogram::new();
        h.update(values);
        h
    }

    #[test]
    fn bins_by_hand() {
        let h = of(&[0.0, -0.0, 0.75, -0.75, 0.999_999_9, 1e-30, -1e-30]);
        assert_eq!(h.bin_width(), 1.0 / 2048.0);
        assert_eq!(h.bins()[SIDE], 3); // both zeros and 1e-30
        assert_eq!(h.bins()[SIDE - 1], 1); // −1e-30
        assert_eq!(h.bins()[SIDE + 1536], 1);
        assert_eq!(h.bins()[SIDE - 1 - 1536], 1);
        assert_eq!(h.bins()[BINS - 1], 1);
        assert_eq!((h.zeros(), h.count(), h.non_finite()), (2, 7, 0));
        assert_eq!((h.min(), h.max()), (Some(-0.75), Some(0.999_999_9)));
    }

    #[test]
    fn powers_of_two_open_the_next_range() {
        assert_eq!(of(&[1.0]).bin_width(), 2.0 / 2048.0);
        assert_eq!(of(&[1.0]).bins()[SIDE + SIDE / 2], 1);
        assert_eq!(of(&[-4.0]).bins()[SIDE - 1 - SIDE / 2], 1);
        let extremes = of(&[f32::MAX, f32::MIN, f32::MIN_POSITIVE, -f32::from_bits(1)]);
        assert_eq!(extremes.bins()[BINS - 1], 1);
        assert_eq!(extremes.bins()[0], 1);
        assert_eq!(extremes.bins()[SIDE], 1);
        assert_eq!(extremes.bins()[SIDE - 1], 1);
    }

    #[test]
    fn order_and_merging_do_not_matter() {
        let mut rng = Lcg(7);
        for round in 0..20 {
            let wide = |r: &mut Lcg| r.gaussian() * 2f32.powi((r.next() % 60) as i32 - 30);
            let mut values: Vec<f32> = (0..5000).map(|_| wide(&mut rng)).collect();
            values.push([f32::NAN, f32::INFINITY, 0.0, -0.0][round % 4]);
            let once = of(&values);
            let mut merged = Histogram::new();
            for part in values.chunks(1 + round * 137).rev() {
                merged.merge(&of(part));
            }
            assert_eq!(once, merged, "round {round}");
            values.reverse();
            assert_eq!(once, of(&values), "round {round}");
            assert_eq!(once.bins().iter().sum::<u64>(), once.finite());
        }
    }

    #[test]
    fn non_finite_values_are_counted_and_refused() {
        let h = of(&[1.0, f32::NAN, f32::NEG_INFINITY, 3.0]);
        assert_eq!((h.non_finite(), h.finite(), h.max()), (2, 2, Some(3.0)));
        let message = h.check("conv1").unwrap_err().to_string();
        assert!(
            message.contains("conv1") && message.contains("2 of 4"),
            "{message}"
        );
        assert!(matches!(
            Histogram::new().check("x"),
            Err(CalibrateError::Empty { .. })
        ));
        assert_eq!(of(&[1.0]).check("x"), Ok(()));
    }

    #[test]
    #[ignore = "measures; run with --release -- --ignored --nocapture"]
    fn speed() {
        let mut rng = Lcg(1);
        let gaussian: Vec<f32> = (0..1 << 20).map(|_| rng.gaussian()).collect();
        let relu: Vec<f32> = gaussian.iter().map(|v| v.max(0.0)).collect();
        for (name, data) in [
            ("gaussian", &gaussian),
            ("relu", &relu),
            ("zeros", &vec![0.0; 1 << 20]),
        ] {
            let mut h = Histogram::new();
            let start = std::time::Instant::now();
            for _ in 0..50 {
                h.update(data);
            }
            let rate = 50.0 * data.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
            println!("{name}: {rate:.0} M values/s (total {})", h.count());
        }
    }
}
