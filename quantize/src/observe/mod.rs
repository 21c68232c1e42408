//! Runs a float graph over samples and gathers what calibration needs: a histogram of every
//! activation, and per-channel means of what convolutions read.
//!
//! Memory does not depend on the number of samples, and the result does not depend on the number of
//! threads: samples are dealt to a fixed number of lanes and the lanes merged in order.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_runtime::{Isa, dequantize};
use rayon::prelude::*;
use thiserror::Error;

use crate::calibrate::{CalibrateError, ChannelStats, Histogram};
use crate::graph::{Graph, Op, ValueId};
use crate::lower::LowerOptions;
use crate::model::{Model, ModelError, compile};
use crate::plan::PlanOptions;
use crate::program::{Program, Stage};
use crate::seal::Extras;

/// Samples in flight; fixed, so that sums are formed in one order on every machine.
const LANES: usize = 4;

/// Model inputs, one set per sample, as real values in the stored layout.
pub trait Samples: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The inputs of sample `index`.
    ///
    /// # Errors
    ///
    /// A message that names the file or says what is wrong with it.
    fn sample(&self, index: usize) -> Result<Vec<Vec<f32>>, String>;

    /// The class of sample `index`, where it is known.
    fn label(&self, _index: usize) -> Option<usize> {
        None
    }
}

impl Samples for Vec<Vec<Vec<f32>>> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn sample(&self, index: usize) -> Result<Vec<Vec<f32>>, String> {
        self.get(index)
            .cloned()
            .ok_or_else(|| format!("no sample {index}"))
    }
}

/// Why observation stopped.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// There is nothing to calibrate with.
    #[error("no samples: give at least one image that can be read")]
    NoSamples,
    /// A sample can't be used.
    #[error("sample {index}: {message}")]
    Sample {
        /// Number of the sample.
        index: usize,
        /// What is wrong.
        message: String,
    },
    /// An activation has values that can't be calibrated.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// The float model can't be run.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    /// Distribution of every activation.
    pub histograms: BTreeMap<(ValueId, Stage), Histogram>,
    /// Per-channel sums of the values that products read.
    pub channels: BTreeMap<ValueId, ChannelStats>,
    /// Number of samples.
    pub samples: usize,
}

/// Runs `graph` over all samples. `progress` is called with the number of samples done.
///
/// # Errors
///
/// [`ObserveError`]: no samples, one that can't be used, or a model that can't run.
pub fn observe(
    graph: &Graph,
    samples: &dyn Samples,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Statistics, ObserveError> {
    if samples.is_empty() {
        return Err(ObserveError::NoSamples);
    }
    let compiled = compile(
        graph,
        None,
        &LowerOptions::default(),
        &PlanOptions::default(),
        &Extras::default(),
    )
    .map_err(ObserveError::Model)?;
    let model = Model::from_bytes(compiled.bytes.clone())?;
    let observed = Observed::new(graph, &compiled.program);
    let mut lanes: Vec<(Model, Statistics)> = (0..LANES)
        .map(|_| (model.clone(), Statistics::default()))
        .collect();
    for start in (0..samples.len()).step_by(LANES) {
        lanes
            .par_iter_mut()
            .enumerate()
            .try_for_each(|(lane, (model, statistics))| {
                let index = start + lane;
                if index >= samples.len() {
                    return Ok(());
                }
                let inputs = samples
                    .sample(index)
                    .map_err(|message| ObserveError::Sample { index, message })?;
                observed.run(model, &inputs, statistics)
            })?;
        progress((start + LANES).min(samples.len()));
    }
    lanes
        .into_iter()
        .map(|(_, s)| s)
        .try_fold(Statistics::default(), |all, lane| all.merged(graph, lane))
}

/// Which results of the program are looked at.
struct Observed {
    /// Per step: the value its output completes.
    values: Vec<Option<(ValueId, Stage)>>,
    /// Model inputs.
    inputs: Vec<ValueId>,
    /// Values whose channel means are wanted, with their channel count.
    means: BTreeSet<ValueId>,
    /// Values that nothing but softmax reads.
    scores: BTreeSet<ValueId>,
    /// Names of values, for messages.
    names: Vec<String>,
}

impl Observed {
    fn new(graph: &Graph, program: &Program) -> Self {
        let mut last_writer = vec![0usize; program.tensors.len()];
        for (i, step) in program.steps.iter().enumerate() {
            last_writer[usize::from(step.output())] = i;
        }
        let values = program
            .steps
            .iter()
            .enumerate()
            .map(|(i, step)| {
                let id = usize::from(step.output());
                program.tensors[id].origin.filter(|_| last_writer[id] == i)
            })
            .collect();
        let read = graph.nodes.iter().flat_map(|n| match n.op {
            Op::Conv { .. } | Op::Linear { .. } => &n.inputs[..1],
            Op::Attention(_) => &n.inputs[..3],
            _ => &[],
        });
        Observed {
            values,
            inputs: graph.inputs.iter().map(|p| p.value).collect(),
            means: read.copied().collect(),
            scores: scores(graph),
            names: graph.values.iter().map(|v| v.name.clone()).collect(),
        }
    }

    fn run(
        &self,
        model: &mut Model,
        inputs: &[Vec<f32>],
        statistics: &mut Statistics,
    ) -> Result<(), ObserveError> {
        statistics.samples += 1;
        let mut session = model.session(Isa::best())?;
        for (i, values) in inputs.iter().enumerate() {
            session.write_f32(i, values).map_err(ModelError::Runtime)?;
            if let Some(&value) = self.inputs.get(i) {
                let channels = session
                    .input(i)
                    .map_err(ModelError::Runtime)?
                    .tensor
                    .shape
                    .last();
                self.record(statistics, (value, Stage::Post), channels, values)?;
            }
        }
        let mut values = Vec::new();
        let mut outcome = Ok(());
        session
            .run_observed(|o| {
                if let Some(key) = self.values.get(o.index).copied().flatten() {
                    values.resize(o.tensor.shape.elements(), 0.0);
                    dequantize(&o.tensor, o.bytes, &mut values);
                    if self.scores.contains(&key.0) {
                        without_masked(&mut values, o.tensor.shape.last());
                    }
                    let recorded = self.record(statistics, key, o.tensor.shape.last(), &values);
                    outcome = std::mem::replace(&mut outcome, Ok(())).and(recorded);
                }
            })
            .map_err(ModelError::Runtime)?;
        Ok(outcome?)
    }

    fn record(
        &self,
        statistics: &mut Statistics,
        key: (ValueId, Stage),
        channels: usize,
        values: &[f32],
    ) -> Result<(), CalibrateError> {
        statistics.histograms.entry(key).or_default().update(values);
        if key.1 == Stage::Pre || !self.means.contains(&key.0) {
            return Ok(());
        }
        let name = &self.names[key.0.0 as usize];
        statistics
            .channels
            .entry(key.0)
            .or_insert_with(|| ChannelStats::new(channels))
            .update(name, values)
    }
}

/// Scores so far below the largest of their row have weights that int8 softmax rounds to 0.
const WEIGHTLESS: f32 = 12.0;

/// Raises scores that softmax gives no weight, which masks make as low as −∞: a range that reaches them
/// has no codes left for the others. Saturated codes are as good for them.
fn without_masked(values: &mut [f32], row: usize) {
    for row in values.chunks_exact_mut(row.max(1)) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        if largest.is_finite() {
            let least = largest - WEIGHTLESS;
            row.iter_mut().for_each(|v| {
                if *v < least {
                    *v = least;
                }
            });
        }
    }
}

/// Values that only softmax reads, directly or moved as whole rows.
fn scores(graph: &Graph) -> BTreeSet<ValueId> {
    let consumers = graph.consumers();
    let mut scores = BTreeSet::new();
    // Readers come after what they read.
    for node in graph.nodes.iter().rev() {
        let v = node.output;
        let read = |i: &usize| {
            let reader = &graph.nodes[*i];
            let whole_rows = match &reader.op {
                Op::Reshape(shape) => shape.last() == graph.shape(v).last(),
                Op::Transpose(perm) => perm.last().is_some_and(|&p| p + 1 == perm.len()),
                _ => false,
            };
            reader.op == (Op::Softmax { log: false })
                || (whole_rows && scores.contains(&reader.output))
        };
        let readers = consumers.get(&v);
        let is_output = graph.outputs.iter().any(|p| p.value == v);
        if !is_output && readers.is_some_and(|r| r.iter().all(read)) {
            scores.insert(v);
        }
    }
    scores
}

impl Statistics {
    fn merged(mut self, graph: &Graph, other: Statistics) -> Result<Statistics, ObserveError> {
        for (key, histogram) in other.histograms {
            self.histograms.entry(key).or_default().merge(&histogram);
        }
        for (value, stats) in other.channels {
            match self.channels.get_mut(&value) {
                Some(mine) => mine.merge(&graph.value(value).name, &stats)?,
                None => {
                    self.channels.insert(value, stats);
                }
            }
        }
        self.samples += other.samples;
        Ok(self)
    }
}
