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
