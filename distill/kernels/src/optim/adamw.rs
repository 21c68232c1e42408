//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), as PyTorch computes it.

use crate::graph::{Kind, Parameter};
use crate::isa::kernel;

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
    /// Per parameter: its weight decay, or `None` for a statistic.
    decay: Vec<Option<f32>>,
    /// First and second moments, by parameter.
    pub moments: [Vec<Vec<f32>>; 2],
    /// Steps done.
    pub steps: u64,
}

impl AdamW {
    /// For these parameters. Those of one axis or without weight decay are not decayed.
    pub fn new(parameters: &[Parameter], config: AdamWConfig) -> Self {
        let decay = |p: &Parameter| match p.kind {
            Kind::Statistic => None,
            Kind::Weight if p.shape.len() > 1 => Some(config.weight_decay),
            _ => Some(0.0),
        };
        let zeros = || {
            let trained = |p: &Parameter| {
                if p.kind == Kind::Statistic {
                    0
                } else {
                    p.len()
                }
            };
            parameters.iter().map(|p| vec![0.0; trained(p)]).collect()
        };
        AdamW {
            config,
            decay: parameters.iter().map(decay).collect(),
            moments: [zeros(), zeros()],
            steps: 0,
        }
    }

    /// Changes the parameters by their gradients. `rate` gives the learning rate of each parameter.
    ///
    /// # Panics
    ///
    /// When a parameter or a gradient is shorter than it was when the optimiser was made.
    pub fn step(
        &mut self,
        parameters: &mut [Vec<f32>],
        gradients: &[Vec<f32>],
        rate: impl Fn(usize) -> f32,
    ) {
        self.steps += 1;
        let AdamWConfig { betas, epsilon, .. } = self.config;
        let corrections = betas.map(|b| 1.0 - (b as f64).powf(self.steps as f64));
        let [first, second] = &mut self.moments;
        let moments = first.iter_mut().zip(second);
        for (i, (m, v)) in moments.enumerate() {
            let Some(decay) = self.decay[i] else { continue };
            let rate = rate(i);
            let constants = Constants {
                betas,
                epsilon,
                keep: 1.0 - rate * decay,
                size: (rate as f64 / corrections[0]) as f32,
                root: (1.0 / corrections[1].sqrt()) as f32,
            };
            update(constants, &gradients[i], m, v, &mut parameters[i]);
        }
    }
}

#[derive(Clone, Copy)]
struct Constants {
    betas: [f32; 2],
    epsilon: f32,
    /// Factor of weight decay.
    keep: f32,
    /// Learning rate, with the first moment's correction.
    size: f32,
    /// Correction of the second moment's root.
    root: f32,
}

kernel! {
    fn update<'a, S, simd>(
        constants: Constants,
        g: &'a [f32],
        m: &'a mut [f32],
        v: &'a mut [f32],
        w: &'a mut [f32],
    ) {
        let Constants { betas, epsilon, keep, size, root } = constants;
        let n = m.len();
        let (g, v, w) = (&g[..n], &mut v[..n], &mut w[..n]);
        for i in 0..n {
            m[i] = simd.mul_add(betas[0], m[i], (1.0 - betas[0]) * g[i]);
            v[i] = simd.mul_add(betas[1], v[i], (1.0 - betas[1]) * g[i] * g[i]);
            w[i] = keep * w[i] - size * m[i] / simd.mul_add(v[i].sqrt(), root, epsilon);
        }
    }
}
