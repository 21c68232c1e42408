//! Distances between two tensors.

use super::MetricError;
use super::error::same_length;

/// Differences of a tensor from its reference, over any number of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Difference {
    signal: f64,
    energy: f64,
    product: f64,
    noise: f64,
    max_abs: f64,
    count: u64,
}

impl Difference {
    /// Adds a piece.
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] unless both are equally long.
    pub fn update(&mut self, reference: &[f32], got: &[f32]) -> Result<(), MetricError> {
        same_length("difference", reference.len(), got.len())?;
        for (&r, &g) in reference.iter().zip(got) {
            let (r, g) = (f64::from(r), f64::from(g));
            let difference = g - r;
            self.signal += r * r;
            self.energy += g * g;
            self.product += r * g;
            self.noise += difference * difference;
            // Unlike `f64::max`, this keeps NaN.
            let larger = difference.abs() > self.max_abs || difference.is_nan();
            self.max_abs = if larger {
                difference.abs()
            } else {
                self.max_abs
            };
        }
        self.count += reference.len() as u64;
        Ok(())
    }

    /// Signal-to-quantisation-noise ratio in decibels: infinite for equal tensors, negative infinite
    /// for noise on silence.
    pub fn sqnr_db(&self) -> f64 {
        if self.noise == 0.0 {
            f64::INFINITY
        } else {
            10.0 * (self.signal / self.noise).log10()
        }
    }

    /// Cosine of the angle between the tensors: 1 when both are zero, 0 when one is.
    pub fn cosine(&self) -> f64 {
        match (self.signal == 0.0, self.energy == 0.0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            (false, false) => {
                (self.product / (self.signal.sqrt() * self.energy.sqrt())).clamp(-1.0, 1.0)
            }
        }
    }

    /// Largest difference; NaN when one is.
    pub fn max_abs(&self) -> f64 {
        self.max_abs
    }

    /// Root of the mean squared difference; 0 for empty tensors.
    pub fn rms(&self) -> f64 {
        (self.noise / self.count.max(1) as f64).sqrt()
    }

    /// Number of values compared.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// [`Difference::sqnr_db`] of two tensors.
///
/// # Errors
///
/// [`MetricError::Length`] unless both are equally long.
pub fn sqnr_db(reference: &[f32], got: &[f32]) -> Result<f64, MetricError> {
    Ok(between(reference, got)?.sqnr_db())
}

/// [`Difference::cosine`] of two tensors.
///
/// # Errors
///
/// [`MetricError::Length`] unless both are equally long.
pub fn cosine(reference: &[f32], got: &[f32]) -> Result<f64, MetricError> {
    Ok(between(reference, got)?.cosine())
}

/// [`Difference::max_abs`] of two tensors.
///
/// # Errors
///
/// [`MetricError::Length`] unless both are equally long.
pub fn max_abs_diff(reference: &[f32], got: &[f32]) -> Result<f64, MetricError> {
    Ok(between(reference, got)?.max_abs())
}

fn between(reference: &[f32], got: &[f32]) -> Result<Difference, MetricError> {
    let mut difference = Difference::default();
    difference.update(reference, got)?;
    Ok(difference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_hand() {
        let (a, b) = ([3.0, 4.0], [3.0, 3.5]);
        assert!((sqnr_db(&a, &b).unwrap() - 20.0).abs() < 1e-12); // 25 / 0.25
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]).unwrap() - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&a, &[-6.0, -8.0]), Ok(-1.0));
        assert_eq!(max_abs_diff(&a, &b), Ok(0.5));
        let mut d = Difference::default();
        d.update(&a, &b).unwrap();
        d.update(&[1.0, 1.0], &[1.0, 1.0]).unwrap();
        assert_eq!((d.rms(), d.count()), (0.25, 4));
    }

    #[test]
    fn edges() {
        assert_eq!(sqnr_db(&[1.0], &[1.0]), Ok(f64::INFINITY));
        assert_eq!(sqnr_db(&[0.0], &[1.0]), Ok(f64::NEG_INFINITY));
        assert_eq!(
            (
                cosine(&[0.0], &[0.0]),
                cosine(&[0.0], &[2.0]),
                cosine(&[], &[])
            ),
            (Ok(1.0), Ok(0.0), Ok(1.0))
        );
        assert!(
            max_abs_diff(&[1.0, f32::NAN, 2.0], &[1.0, 1.0, 9.0])
                .unwrap()
                .is_nan()
        );
        assert!(
            cosine(&[1.0], &[1.0, 2.0])
                .unwrap_err()
                .to_string()
                .contains("expected 1 values, got 2")
        );
    }
}
