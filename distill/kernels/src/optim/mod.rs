//! Optimisers, gradient clipping, learning-rate schedules and averages of weights.

mod adamw;
mod ema;
mod schedule;

pub use adamw::{AdamW, AdamWConfig};
pub use ema::Ema;
pub use schedule::WarmupCosine;

/// Scales the gradients so that their norm over all of them is at most `limit`; gives the norm before.
/// Not a number stays so: the caller sees it in the norm.
pub fn clip_global_norm(gradients: &mut [Vec<f32>], limit: f32) -> f32 {
    let squares: f64 = gradients
        .iter()
        .flatten()
        .map(|&g| g as f64 * g as f64)
        .sum();
    let norm = squares.sqrt() as f32;
    if norm > limit {
        let factor = limit / (norm + 1e-6);
        gradients.iter_mut().flatten().for_each(|g| *g *= factor);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_all_gradients_together() {
        let mut gradients = vec![vec![3.0], vec![0.0, 4.0]];
        assert_eq!(clip_global_norm(&mut gradients, 10.0), 5.0);
        assert_eq!(gradients, [vec![3.0], vec![0.0, 4.0]]);
        assert_eq!(clip_global_norm(&mut gradients, 1.0), 5.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][1] - 0.8).abs() < 1e-6);
        gradients[0][0] = f32::NAN;
        assert!(clip_global_norm(&mut gradients, 1.0).is_nan());
    }

    #[test]
    fn average_follows() {
        let mut ema = Ema::new(0.9, &[vec![1.0]]);
        ema.update(&[vec![2.0]], 0);
        assert!((ema.average[0][0] - 1.9).abs() < 1e-6);
        ema.update(&[vec![2.0]], 1000);
        assert!((ema.average[0][0] - 1.91).abs() < 1e-6);
    }
}
