//! What is learnt from what.

use std::collections::BTreeMap;

use ampoule_distill_kernels::engine::{Engine, Mode};
use serde::{Deserialize, Serialize};

use super::TrainError;

/// Something to learn.
///
/// An epoch is a sequence of batches that depends on nothing but the task's settings and the epoch's
/// number, and that can be entered at any [`Task::position`]: this is what makes a resumed run equal to one
/// that was never stopped.
pub trait Task {
    /// What a step is computed from.
    type Batch;

    /// Most steps of an epoch; at least 1.
    fn steps(&self) -> u64;

    /// Begins an epoch, counted from 0, at its start (position 0) or at a position that [`Task::position`]
    /// gave during the same epoch of an earlier run.
    ///
    /// # Errors
    ///
    /// When the data can't be read.
    fn start(&mut self, epoch: usize, position: u64) -> Result<(), TrainError>;

    /// The next batch; none at the end of the epoch.
    ///
    /// # Errors
    ///
    /// When the data can't be read.
    fn batch(&mut self) -> Result<Option<Self::Batch>, TrainError>;

    /// Where the epoch goes on behind the last batch.
    fn position(&self) -> u64;

    /// What the network sees of a batch.
    fn inputs<'b>(&self, batch: &'b Self::Batch) -> Inputs<'b>;

    /// The loss of a step. Writes its gradients with respect to the outputs, which are zero before, and
    /// adds those with respect to parameters that the loss itself uses.
    ///
    /// # Errors
    ///
    /// When outputs and batch do not fit each other.
    fn loss(&mut self, batch: &Self::Batch, step: Step<'_>) -> Result<Measures, TrainError>;

    /// Measures the network on data it does not learn from; called after each epoch with the weights that
    /// will be exported. Nothing by default.
    ///
    /// # Errors
    ///
    /// When the data can't be read.
    fn evaluate(&mut self, network: &mut Evaluator<'_>) -> Result<Measures, TrainError> {
        let _ = network;
        Ok(Measures::default())
    }
}

/// A batch as the network sees it.
#[derive(Debug, Clone)]
pub struct Inputs<'b> {
    /// Number of samples.
    pub samples: usize,
    /// Per input of the graph: `[samples, height, width, channels]`.
    pub values: Vec<&'b [f32]>,
}

/// A step between forward and backward pass.
#[derive(Debug)]
pub struct Step<'s> {
    /// Number of the step, from 0, over all epochs.
    pub number: u64,
    /// Per output of the graph: `[samples, height, width, channels]`.
    pub outputs: Vec<&'s [f32]>,
    /// As long as the outputs.
    pub output_gradients: &'s mut [Vec<f32>],
    /// In the graph's order.
    pub parameters: &'s [Vec<f32>],
    /// As long as the parameters.
    pub gradients: &'s mut [Vec<f32>],
}

/// What was measured over a step, some steps, or an evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// The loss, mean per sample, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Others by name, such as `accuracy`, each a mean.
    #[serde(flatten)]
    pub others: BTreeMap<String, f64>,
}

impl Measures {
    /// A loss.
    pub fn of_loss(loss: f64) -> Self {
        Measures {
            loss: Some(loss),
            others: BTreeMap::new(),
        }
    }

    /// And something else.
    pub fn and(mut self, name: &str, value: f64) -> Self {
        self.others.insert(name.to_owned(), value);
        self
    }

    /// A measure other than the loss.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.others.get(name).copied()
    }
}

/// The network with the weights to be measured.
pub struct Evaluator<'t> {
    pub(super) engine: &'t mut Engine,
    pub(super) parameters: &'t mut [Vec<f32>],
    pub(super) mode: Mode,
}

impl<'t> Evaluator<'t> {
    /// An engine with parameters in its graph's order. They are not changed.
    pub fn new(engine: &'t mut Engine, parameters: &'t mut [Vec<f32>]) -> Self {
        Evaluator {
            engine,
            parameters,
            mode: Mode::EVAL,
        }
    }

    /// The outputs for some samples.
    ///
    /// # Errors
    ///
    /// [`TrainError::Engine`] when the inputs are not those of the graph.
    pub fn run(&mut self, inputs: &Inputs<'_>) -> Result<Vec<&[f32]>, TrainError> {
        let Evaluator {
            engine,
            parameters,
            mode,
        } = self;
        engine.forward(parameters, &inputs.values, inputs.samples, *mode)?;
        Ok(outputs(engine))
    }

    /// The parameters.
    pub fn parameters(&self) -> &[Vec<f32>] {
        self.parameters
    }
}

/// All outputs of the last forward pass.
pub(super) fn outputs(engine: &Engine) -> Vec<&[f32]> {
    let count = engine.graph().outputs().len();
    (0..count).map(|i| engine.output(i)).collect()
}
