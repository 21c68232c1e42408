//! Which optimiser, and its state as bytes.

use ampoule_distill_kernels::graph::Parameter;
use ampoule_distill_kernels::optim::{AdamW, AdamWConfig};
use serde::{Deserialize, Serialize};

/// How gradients change parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    #[default]
    AdamW,
}

/// An optimiser at work.
pub(super) struct Optimizer(AdamW);

impl Optimizer {
    pub fn new(kind: OptimizerKind, parameters: &[Parameter], weight_decay: f32) -> Self {
        let OptimizerKind::AdamW = kind;
        let config = AdamWConfig {
            weight_decay,
            ..AdamWConfig::default()
        };
        Optimizer(AdamW::new(parameters, config))
    }

    pub fn step(
        &mut self,
        parameters: &mut [Vec<f32>],
        gradients: &[Vec<f32>],
        rate: impl Fn(usize) -> f32,
    ) {
        self.0.step(parameters, gradients, rate);
    }

    /// Everything that the next step depends on.
    pub fn state(&self) -> Vec<u8> {
        let mut bytes = self.0.steps.to_le_bytes().to_vec();
        let moments = self.0.moments.iter().flatten().flatten();
        bytes.extend(moments.flat_map(|m| m.to_le_bytes()));
        bytes
    }

    /// Goes on from a state; false when it is another's.
    #[must_use]
    pub fn restore(&mut self, state: &[u8]) -> bool {
        let Some((steps, moments)) = state.split_first_chunk() else {
            return false;
        };
        let (values, rest) = moments.as_chunks::<4>();
        let own = self.0.moments.iter_mut().flatten().flatten();
        let own: Vec<&mut f32> = own.collect();
        if own.len() != values.len() || !rest.is_empty() {
            return false;
        }
        self.0.steps = u64::from_le_bytes(*steps);
        for (own, value) in own.into_iter().zip(values) {
            *own = f32::from_le_bytes(*value);
        }
        true
    }
}
