//! Streaming statistics per channel.

use super::CalibrateError;

/// Units of the totals: sums are kept in multiples of 2⁻⁶⁴.
const UNIT: f64 = 18_446_744_073_709_551_616.0;

/// Sum, minimum and maximum of every channel of a channels-last tensor over any number of images.
///
/// The sum of one [`update`](ChannelStats::update) is taken in double precision in a fixed order; the
/// total over updates is an integer multiple of 2⁻⁶⁴ (magnitudes up to 2⁶³). So the result does not
/// depend on the order of updates and merges, as long as each update holds the same values.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStats {
    sums: Vec<i128>,
    min: Vec<f32>,
    max: Vec<f32>,
    rows: u64,
    non_finite: u64,
}

impl ChannelStats {
    /// Statistics of that many channels that have seen nothing.
    pub fn new(channels: usize) -> Self {
        ChannelStats {
            sums: vec![0; channels],
            min: vec![f32::INFINITY; channels],
            max: vec![f32::NEG_INFINITY; channels],
            rows: 0,
            non_finite: 0,
        }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.sums.len()
    }

    /// Adds `values`, whose last dimension is the channels. Infinities and NaN are counted and count
    /// as 0.
    ///
    /// # Errors
    ///
    /// [`CalibrateError::Length`] when `values` is not made of whole rows; `tensor` names it.
    pub fn update(&mut self, tensor: &str, values: &[f32]) -> Result<(), CalibrateError> {
        let channels = self.channels();
        if channels == 0 || !values.len().is_multiple_of(channels) {
            return Err(CalibrateError::Length {
                tensor: tensor.to_owned(),
                expected: format!("a multiple of {channels} channels"),
                got: values.len(),
            });
        }
        let mut sums = vec![0.0f64; channels];
        for row in values.chunks_exact(channels) {
            self.add_row(row, &mut sums);
        }
        for (total, sum) in self.sums.iter_mut().zip(sums) {
            *total = total.saturating_add((sum * UNIT) as i128);
        }
        self.rows += (values.len() / channels) as u64;
        Ok(())
    }

    /// Adds everything `other` has seen.
    ///
    /// # Errors
    ///
    /// [`CalibrateError::Length`] when the channel counts differ; `tensor` names the tensor.
    pub fn merge(&mut self, tensor: &str, other: &ChannelStats) -> Result<(), CalibrateError> {
        if self.channels() != other.channels() {
            return Err(CalibrateError::Length {
                tensor: tensor.to_owned(),
                expected: format!("{} channels", self.channels()),
                got: other.channels(),
            });
        }
        for c in 0..self.channels() {
            self.sums[c] = self.sums[c].saturating_add(other.sums[c]);
            self.min[c] = self.min[c].min(other.min[c]);
            self.max[c] = self.max[c].max(other.max[c]);
        }
        self.rows += other.rows;
        self.non_finite += other.non_finite;
        Ok(())
    }

    /// Mean of every channel; zeros when nothing was seen.
    pub fn means(&self) -> Vec<f32> {
        let rows = self.rows.max(1) as f64;
        self.sums
            .iter()
            .map(|&s| (s as f64 / UNIT / rows) as f32)
            .collect()
    }

    /// Smallest value of every channel; infinite when nothing was seen.
    pub fn min(&self) -> &[f32] {
        &self.min
    }

    /// Largest value of every channel; negative infinite when nothing was seen.
    pub fn max(&self) -> &[f32] {
        &self.max
    }

    /// Values seen per channel.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Infinities and NaN seen, over all channels.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    fn add_row(&mut self, row: &[f32], sums: &mut [f64]) {
        let mut non_finite = 0;
        let channels = sums
            .iter_mut()
            .zip(&mut self.min)
            .zip(&mut self.max)
            .zip(row);
        for (((sum, min), max), &value) in channels {
            let finite = value.is_finite();
            let value = if finite { value } else { 0.0 };
            non_finite += u32::from(!finite);
            *sum += f64::from(value);
            *min = if value < *min { value } else { *min };
            *max = if value > *max { value } else { *max };
        }
        self.non_finite += u64::from(non_finite);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;

    #[test]
    fn statistics_by_hand() {
        let mut s = ChannelStats::new(2);
        s.update("t", &[1.0, -4.0, 2.0, 0.5]).unwrap();
        s.update("t", &[6.0, f32::NAN]).unwrap();
        assert_eq!(s.means(), [3.0, -3.5 / 3.0]);
        assert_eq!((s.min(), s.max()), (&[1.0, -4.0][..], &[6.0, 0.5][..]));
        assert_eq!((s.rows(), s.non_finite()), (3, 1));
        assert_eq!(ChannelStats::new(3).means(), [0.0; 3]);
    }

    #[test]
    fn order_and_merging_do_not_matter() {
        let mut rng = Lcg(2);
        let images: Vec<Vec<f32>> = (0..30).map(|i| rng.gaussians(5 * (i + 1))).collect();
        let gather = |images: &mut dyn Iterator<Item = &Vec<f32>>| {
            let mut s = ChannelStats::new(5);
            images.for_each(|i| s.update("t", i).unwrap());
            s
        };
        let once = gather(&mut images.iter());
        assert_eq!(once, gather(&mut images.iter().rev()));
        let mut merged = ChannelStats::new(5);
        for part in images.chunks(7).rev() {
            merged.merge("t", &gather(&mut part.iter())).unwrap();
        }
        assert_eq!(once, merged);
    }

    #[test]
    fn lengths_are_checked() {
        let message = ChannelStats::new(3)
            .update("pool", &[0.0; 4])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("pool") && message.contains("got 4"),
            "{message}"
        );
        assert!(ChannelStats::new(0).update("t", &[]).is_err());
        assert!(
            ChannelStats::new(3)
                .merge("t", &ChannelStats::new(4))
                .is_err()
        );
    }

    #[test]
    #[ignore = "measures; run with --release -- --ignored --nocapture"]
    fn speed() {
        let values = Lcg(1).gaussians(56 * 56 * 64);
        for channels in [3 * 7, 64, 448] {
            let mut s = ChannelStats::new(channels);
            let values = &values[..values.len() / channels * channels];
            let start = std::time::Instant::now();
            (0..100).for_each(|_| s.update("t", values).unwrap());
            let rate = 100.0 * values.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
            println!("{channels} channels: {rate:.0} M values/s ({})", s.rows());
        }
    }
}
