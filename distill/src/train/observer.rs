//! Who sees a run while it goes on.

use serde::{Deserialize, Serialize};

use super::Measures;

/// Sees what happens. All methods do nothing by default.
pub trait Observer {
    /// A run begins, at a step that is not 0 when it is resumed, with so many steps in all.
    fn start(&mut self, step: u64, total: u64) {
        let _ = (step, total);
    }

    /// A step is done.
    fn step(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// An epoch is done.
    fn epoch(&mut self, report: &EpochReport) {
        let _ = report;
    }

    /// A checkpoint is on disk, from which the run would go on behind this many steps.
    fn checkpoint(&mut self, steps: u64) {
        let _ = steps;
    }

    /// Something that the user should know, such as a damaged checkpoint.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// Asked after each step: whether to write a checkpoint and stop.
    fn stops(&mut self) -> bool {
        false
    }
}

/// Looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// A step, or the mean over some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps done, over all epochs.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: usize,
    /// What the task measured.
    #[serde(flatten)]
    pub measures: Measures,
    /// Learning rate.
    pub rate: f32,
    /// Norm of all gradients, before clipping.
    pub gradient_norm: f32,
    /// Samples.
    pub samples: usize,
    /// Time taken.
    pub seconds: f64,
}

/// An epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Steps done, over all epochs.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: usize,
    /// What the evaluation measured, with the weights that will be exported.
    #[serde(flatten)]
    pub measures: Measures,
    /// Samples that the epoch showed; those before a resumption are not counted.
    pub samples: usize,
    /// Time taken, likewise.
    pub seconds: f64,
}
