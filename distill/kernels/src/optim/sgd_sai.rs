//! Xu et al., "No More Adam: Learning Rate Scaling at Initialization is All You Need" (2024): momentum, and
//! per parameter a fixed factor of the learning rate, the signal-to-noise ratio of its first gradient.

use super::block::{Block, blocks};
use super::state::Given;
use super::{Optimizer, StateArray, StateData, StateError};
use crate::graph::Parameter;
use crate::isa::kernel;

/// Constants of [`SgdSai`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdSaiConfig {
    /// Share of the old momentum in a new one.
    pub momentum: f32,
    /// Added to the standard deviation of a gradient.
    pub epsilon: f32,
    /// Share of a decayed weight that a step with learning rate 1 removes.
    pub weight_decay: f32,
    /// Ratios are at most this times √n of n values. That of a gradient with mean zero is √n; the published
    /// form has no limit, and a constant gradient makes it as good as infinite.
    pub limit: f32,
}

impl Default for SgdSaiConfig {
    fn default() -> Self {
        SgdSaiConfig {
            momentum: 0.9,
            epsilon: 1e-8,
            weight_decay: 0.01,
            limit: 10.0,
        }
    }
}

/// Momentum with scaling at initialisation. Its learning rates are those of SGD, not those of Adam: 0.01 is
/// the published default.
#[derive(Debug, Clone, PartialEq)]
pub struct SgdSai {
    config: SgdSaiConfig,
    blocks: Vec<Block>,
    momentum: Vec<Vec<f32>>,
    /// Per parameter; 0 until it has a gradient.
    ratios: Vec<f32>,
}

impl SgdSai {
    /// For these parameters, with factors of their learning rates. Parameters of one axis, or without
    /// weight decay, are not decayed.
    pub fn new(parameters: &[Parameter], factors: &[f32], config: SgdSaiConfig) -> Self {
        let blocks = blocks(parameters, factors, config.weight_decay);
        SgdSai {
            config,
            momentum: blocks.iter().map(|b| vec![0.0; b.len]).collect(),
            ratios: vec![0.0; blocks.len()],
            blocks,
        }
    }
}

impl Optimizer for SgdSai {
    fn step(&mut self, parameters: &mut [Vec<f32>], gradients: &[Vec<f32>], rate: f32) {
        for (i, block) in self.blocks.iter().enumerate() {
            let gradient = &gradients[i][..block.len];
            let mut beta = self.config.momentum;
            if self.ratios[i] == 0.0 {
                // A gradient of nothing but zeros says nothing yet: the next one may. (The released code
                // takes 0 for good, and such a parameter never learns.)
                self.ratios[i] = ratio(&self.config, gradient);
                beta = 0.0;
            }
            let rate = rate * block.factor;
            let constants = Constants {
                beta,
                keep: 1.0 - rate * block.decay,
                size: rate * self.ratios[i],
            };
            let weights = &mut parameters[i][..block.len];
            update(constants, gradient, &mut self.momentum[i], weights);
        }
    }

    fn state(&self) -> Vec<StateArray> {
        let ratios = StateData::F32(self.ratios.clone());
        let mut state = vec![StateArray::new("ratios", ratios)];
        for (block, values) in self.blocks.iter().zip(&self.momentum) {
            if block.len > 0 {
                let name = format!("momentum/{}", block.name);
                state.push(StateArray::new(name, StateData::F32(values.clone())));
            }
        }
        state
    }

    fn restore(&mut self, state: Vec<StateArray>) -> Result<(), StateError> {
        let mut given = Given::new(state);
        let ratios = given.f32("ratios", self.blocks.len())?;
        let mut momentum = self.momentum.clone();
        for (block, values) in self.blocks.iter().zip(&mut momentum) {
            if block.len > 0 {
                *values = given.f32(&format!("momentum/{}", block.name), block.len)?;
            }
        }
        given.finish()?;
        (self.ratios, self.momentum) = (ratios, momentum);
        Ok(())
    }
}

/// Norm of a gradient over the standard deviation of its values; 1 for a single value, which has no
/// deviation.
fn ratio(config: &SgdSaiConfig, gradient: &[f32]) -> f32 {
    let n = gradient.len() as f64;
    let values = || gradient.iter().map(|&g| g as f64);
    let squares: f64 = values().map(|g| g * g).sum();
    if squares == 0.0 {
        return 0.0;
    }
    if gradient.len() == 1 {
        return 1.0;
    }
    let mean = values().sum::<f64>() / n;
    let distances: f64 = values().map(|g| (g - mean) * (g - mean)).sum();
    let deviation = (distances / (n - 1.0)).sqrt();
    let ratio = squares.sqrt() / (deviation + config.epsilon as f64);
    ratio.min(config.limit as f64 * n.sqrt()) as f32
}

#[derive(Clone, Copy)]
struct Constants {
    beta: f32,
    /// Factor of weight decay.
    keep: f32,
    /// Learning rate of the momentum.
    size: f32,
}

kernel! {
    fn update<'a, S, simd>(constants: Constants, g: &'a [f32], m: &'a mut [f32], w: &'a mut [f32]) {
        let Constants { beta, keep, size } = constants;
        let n = w.len();
        let (g, m) = (&g[..n], &mut m[..n]);
        for i in 0..n {
            m[i] = simd.mul_add(beta, m[i], (1.0 - beta) * g[i]);
            w[i] = keep * w[i] - size * m[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(gradient: &[f32]) -> f32 {
        ratio(&SgdSaiConfig::default(), gradient)
    }

    #[test]
    fn ratios() {
        assert!((of(&[0.1, -0.2, 0.3, -0.4]) - 1.76166).abs() < 1e-5);
        assert_eq!(of(&[0.3]), 1.0);
        assert_eq!(of(&[0.1; 4]), 20.0);
        assert_eq!(of(&[0.0; 4]), 0.0);
    }
}
