//! Divergence between predicted distributions.

use super::MetricError;
use super::error::same_length;

/// Kullback–Leibler divergence in nats of `softmax(got)` from `softmax(reference)`; 0 for empty rows.
///
/// # Errors
///
/// [`MetricError::Length`] unless both are equally long.
pub fn kl_of_softmax(reference: &[f32], got: &[f32]) -> Result<f64, MetricError> {
    same_length("divergence of softmax", reference.len(), got.len())?;
    let (p, q) = (log_softmax(reference), log_softmax(got));
    // A class of probability 0 contributes nothing, whatever the other says.
    let terms = p.iter().zip(&q).map(|(p, q)| {
        if p.exp() == 0.0 {
            0.0
        } else {
            p.exp() * (p - q)
        }
    });
    Ok(terms.sum::<f64>().clamp(0.0, f64::INFINITY)) // rounding may leave less than 0; NaN passes
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let shifted: Vec<f64> = logits
        .iter()
        .map(|&v| f64::from(v) - f64::from(max))
        .collect();
    let log_sum = shifted.iter().map(|v| v.exp()).sum::<f64>().ln();
    shifted.iter().map(|v| v - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_by_hand() {
        let (ln3, uniform) = (3f32.ln(), [0.0, 0.0]);
        // (3/4, 1/4) against (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        let got = kl_of_softmax(&[ln3, 0.0], &uniform).unwrap();
        assert!((got - expected).abs() < 1e-7, "{got} {expected}");
        assert!((kl_of_softmax(&[ln3 + 500.0, 500.0], &uniform).unwrap() - expected).abs() < 1e-5);
        assert_eq!(kl_of_softmax(&[1.0, 2.0], &[1.0, 2.0]), Ok(0.0));
        assert_eq!(kl_of_softmax(&[], &[]), Ok(0.0));
        assert!(
            (kl_of_softmax(&[0.0, f32::NEG_INFINITY], &uniform).unwrap() - 2f64.ln()).abs() < 1e-12
        );
        assert!(kl_of_softmax(&[1.0], &[]).is_err());
    }

    #[test]
    fn nan_is_not_hidden() {
        assert!(
            kl_of_softmax(&[f32::NAN, 1.0], &[0.0, 1.0])
                .unwrap()
                .is_nan()
        );
    }
}
