//! Optimisers, gradient clipping, learning-rate schedules and averages of weights.
//!
//! Bytes that an optimiser keeps per parameter besides the parameter and its gradient: [`AdamW`] 8,
//! [`SgdSai`] 4, [`CoatAdamW`] 2.13 (two bytes, and 16 bytes per 128 parameters).

mod adamw;
mod block;
mod coat;
mod ema;
mod schedule;
mod sgd_sai;
mod state;

use crate::graph::Parameter;

pub use adamw::{AdamW, AdamWConfig};
pub use block::layer_decay;
pub use coat::CoatAdamW;
pub use ema::Ema;
pub use schedule::WarmupCosine;
pub use sgd_sai::{SgdSai, SgdSaiConfig};
pub use state::{StateArray, StateData, StateError};

/// Changes parameters by their gradients.
pub trait Optimizer: Send {
    /// One step with this learning rate, which each parameter's factor scales; statistics stay.
    ///
    /// # Panics
    ///
    /// When a parameter or a gradient is shorter than it was when the optimiser was made.
    fn step(&mut self, parameters: &mut [Vec<f32>], gradients: &[Vec<f32>], rate: f32);

    /// All that later steps depend on besides parameters and gradients.
    fn state(&self) -> Vec<StateArray>;

    /// Continues from a [`Optimizer::state`]: later steps are those that would have followed, bit for bit.
    ///
    /// # Errors
    ///
    /// When it is not the state of this kind of optimiser for these parameters; nothing changes then.
    fn restore(&mut self, state: Vec<StateArray>) -> Result<(), StateError>;
}

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    AdamW(AdamWConfig),
    /// The same with one-byte moments.
    CoatAdamW(AdamWConfig),
    /// Momentum with rates set by the first gradient.
    SgdSai(SgdSaiConfig),
}

impl OptimizerConfig {
    /// The optimiser for these parameters. `factors` scale the learning rate of each, as [`layer_decay`]
    /// gives them; without any all are 1.
    pub fn build(self, parameters: &[Parameter], factors: &[f32]) -> Box<dyn Optimizer> {
        match self {
            OptimizerConfig::AdamW(config) => Box::new(AdamW::new(parameters, factors, config)),
            OptimizerConfig::CoatAdamW(config) => {
                Box::new(CoatAdamW::new(parameters, factors, config))
            }
            OptimizerConfig::SgdSai(config) => Box::new(SgdSai::new(parameters, factors, config)),
        }
    }
}

/// Scales the gradients so that their norm over all of them is at most `limit`; gives the norm before.
/// Not a number stays so: the caller sees it in the norm.
pub fn clip_global_norm(gradients: &mut [Vec<f32>], limit: f32) -> f32 {
    let squares: f64 = gradients.iter().map(|g| squares(g)).sum();
    let norm = squares.sqrt() as f32;
    if norm > limit {
        let factor = limit / (norm + 1e-6);
        gradients.iter_mut().flatten().for_each(|g| *g *= factor);
    }
    norm
}

/// Sum of the squares, in eight partial sums that vectorise.
fn squares(x: &[f32]) -> f64 {
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = [0.0f64; 8];
    for eight in eights {
        for (sum, &x) in sums.iter_mut().zip(eight) {
            *sum += x as f64 * x as f64;
        }
    }
    let rest = rest.iter().map(|&x| x as f64 * x as f64);
    sums.into_iter().chain(rest).sum()
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
        let mut one = vec![vec![1.0; 83], vec![2.0; 17]];
        assert_eq!(clip_global_norm(&mut one, 100.0), 151f32.sqrt());
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
