//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), as PyTorch computes it.

use super::block::{Block, blocks};
use super::state::Given;
use super::{Optimizer, StateArray, StateData, StateError};
use crate::graph::Parameter;
use crate::isa::{Simd, kernel};

/// Constants of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first and the second moment.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Share of a decayed weight that a step with learning rate 1 removes.
    pub weight_decay: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig {
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

/// Adam with decoupled weight decay.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    blocks: Vec<Block>,
    /// First and second moments, by parameter.
    moments: [Vec<Vec<f32>>; 2],
    steps: u64,
}

impl AdamW {
    /// For these parameters, with factors of their learning rates. Parameters of one axis, or without
    /// weight decay, are not decayed.
    pub fn new(parameters: &[Parameter], factors: &[f32], config: AdamWConfig) -> Self {
        let blocks = blocks(parameters, factors, config.weight_decay);
        let zeros = || blocks.iter().map(|b| vec![0.0; b.len]).collect();
        AdamW {
            config,
            moments: [zeros(), zeros()],
            blocks,
            steps: 0,
        }
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, parameters: &mut [Vec<f32>], gradients: &[Vec<f32>], rate: f32) {
        self.steps += 1;
        let [first, second] = &mut self.moments;
        for (i, block) in self.blocks.iter().enumerate() {
            let constants = Constants::new(&self.config, block, rate, self.steps);
            let weights = &mut parameters[i][..block.len];
            let gradients = &gradients[i][..block.len];
            update(constants, gradients, &mut first[i], &mut second[i], weights);
        }
    }

    fn state(&self) -> Vec<StateArray> {
        let mut state = vec![StateArray::new("steps", StateData::U64(vec![self.steps]))];
        for (moment, values) in MOMENTS.iter().zip(&self.moments) {
            for (block, values) in self.blocks.iter().zip(values).filter(|(b, _)| b.len > 0) {
                let name = format!("{moment}/{}", block.name);
                state.push(StateArray::new(name, StateData::F32(values.clone())));
            }
        }
        state
    }

    fn restore(&mut self, state: Vec<StateArray>) -> Result<(), StateError> {
        let mut given = Given::new(state);
        let steps = given.count("steps")?;
        let mut moments = self.moments.clone();
        for (moment, values) in MOMENTS.iter().zip(&mut moments) {
            for (block, values) in self.blocks.iter().zip(values).filter(|(b, _)| b.len > 0) {
                *values = given.f32(&format!("{moment}/{}", block.name), block.len)?;
            }
        }
        given.finish()?;
        (self.steps, self.moments) = (steps, moments);
        Ok(())
    }
}

/// Names of the moments in states.
pub(super) const MOMENTS: [&str; 2] = ["first", "second"];

/// What a step needs for a parameter.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    betas: [f32; 2],
    epsilon: f32,
    /// Factor of weight decay.
    keep: f32,
    /// Learning rate, with the first moment's correction.
    size: f32,
    /// Correction of the second moment's root.
    root: f32,
}

impl Constants {
    /// Of step `steps`, counted from one.
    pub fn new(config: &AdamWConfig, block: &Block, rate: f32, steps: u64) -> Self {
        let rate = rate * block.factor;
        let corrections = config.betas.map(|b| 1.0 - (b as f64).powf(steps as f64));
        Constants {
            betas: config.betas,
            epsilon: config.epsilon,
            keep: 1.0 - rate * block.decay,
            size: (rate as f64 / corrections[0]) as f32,
            root: (1.0 / corrections[1].sqrt()) as f32,
        }
    }
}

kernel! {
    fn update<'a, S, simd>(
        constants: Constants,
        g: &'a [f32],
        m: &'a mut [f32],
        v: &'a mut [f32],
        w: &'a mut [f32],
    ) {
        step(simd, constants, g, m, v, w);
    }
}

/// Takes in a gradient, and changes the weights.
#[inline(always)]
pub(super) fn step<S: Simd>(
    simd: S,
    constants: Constants,
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    w: &mut [f32],
) {
    let Constants {
        betas,
        epsilon,
        keep,
        size,
        root,
    } = constants;
    let n = w.len();
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    for i in 0..n {
        m[i] = simd.mul_add(betas[0], m[i], (1.0 - betas[0]) * g[i]);
        v[i] = simd.mul_add(betas[1], v[i], (1.0 - betas[1]) * g[i] * g[i]);
        w[i] = keep * w[i] - size * m[i] / simd.mul_add(v[i].sqrt(), root, epsilon);
    }
}
