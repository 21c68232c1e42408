//! Runs the forward and the backward pass of a graph.
//!
//! The samples of a batch are cut into a fixed number of parts. Each part keeps its own sums, and these
//! are added up in order, so that results do not depend on the number of threads or on who finishes
//! first.

mod backward;
mod buffers;
mod forward;
mod part;
mod plan;

use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::gemm::Packed;
use crate::graph::{Graph, Kind};
use crate::ops::batch_norm::{Backward, Moments};
use crate::ops::fake_quantize;
use buffers::Buffers;
use part::Scratch;
use plan::{Kernel, Plan};

/// Most parts that the samples of a batch are cut into.
const PARTS: usize = 8;

/// Executes a graph on the processor.
pub struct Engine {
    graph: Graph,
    plan: Plan,
    pool: Option<rayon::ThreadPool>,
    batch: usize,
    mode: Mode,
    /// Maps.
    storages: Vec<Vec<f32>>,
    /// Gradients that are waiting, by slot.
    gradients: Vec<Option<Vec<f32>>>,
    free: Buffers,
    norms: Vec<NormState>,
    prepared: Vec<Prepared>,
    scratch: Vec<Scratch>,
    /// Ones and zeros for views without norm.
    neutral: [Vec<f32>; 2],
    sparsity: Sparsity,
    /// Forward and backward, by unit, once asked for.
    times: Option<Vec<[Duration; 2]>>,
}

/// The shortest time that a layer has taken, with the norms and activations that it reads its inputs through:
/// other programs make times longer, never shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerTime {
    /// Its name.
    pub name: String,
    /// In a forward pass.
    pub forward: Duration,
    /// In a backward pass.
    pub backward: Duration,
}

/// How norms and drop path behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Norms use the statistics of the batch, and running statistics follow; else they use those.
    pub batch_statistics: bool,
    /// Seed of drop path for this step; nothing is dropped without.
    pub drop_path: Option<u64>,
    /// Convolutions and linear layers use their weights as int8 codes stand for them.
    pub quantized_weights: bool,
}

impl Mode {
    /// For using a network.
    pub const EVAL: Mode = Mode {
        batch_statistics: false,
        drop_path: None,
        quantized_weights: false,
    };

    /// The same with weights as int8 codes stand for them.
    pub const fn quantized(self) -> Mode {
        Mode {
            quantized_weights: true,
            ..self
        }
    }

    /// For a step of training.
    pub const fn train(seed: u64) -> Mode {
        Mode {
            batch_statistics: true,
            drop_path: Some(seed),
            quantized_weights: false,
        }
    }
}

/// What does not fit a graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {why}")]
    Threads {
        /// How many.
        threads: usize,
        /// The system's reason.
        why: String,
    },
    /// A slice has the wrong length.
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        /// Which.
        what: String,
        /// What it has.
        got: usize,
        /// What the graph needs.
        expected: usize,
    },
    /// A number that is no row of a table.
    #[error("input {input}, place {place}: {got} is no row of a table of {rows}, expected 0 to {}", rows - 1)]
    Row {
        /// Which input of the graph.
        input: usize,
        /// Where in it.
        place: usize,
        /// The number.
        got: f32,
        /// Rows of the table.
        rows: usize,
    },
    /// A backward pass without forward pass.
    #[error("backward pass without forward pass")]
    NothingToDifferentiate,
}

/// The term of attention weights.
#[derive(Debug, Default)]
struct Sparsity {
    weight: f32,
    /// Layers with attention.
    layers: usize,
    /// Of the layers' means in the last forward pass.
    sum: f64,
}

impl Sparsity {
    /// Of each layer's mean over its weights of a sample.
    fn factor(&self, batch: usize) -> f32 {
        self.weight / (self.layers.max(1) * batch.max(1)) as f32
    }
}

/// A batch norm during a step.
#[derive(Debug, Default)]
struct NormState {
    mean: Vec<f32>,
    /// 1/√(variance + epsilon)
    reciprocal: Vec<f32>,
    /// The norm as `scale · x + shift`.
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Over the batch: of the gradient, and of the gradient times the distance from the mean.
    sums: [Vec<f64>; 2],
    backward: Backward,
}

/// A unit's parameters as its kernel needs them.
#[derive(Debug, Default)]
struct Prepared {
    /// `[I · taps, O]`
    forward: Packed,
    /// `[O, I · taps]`
    backward: Packed,
    /// Depthwise weights `[taps, C]`, dense ones `[O, taps · I]`, or attention biases `[heads, tokens,
    /// tokens]`.
    rows: Vec<f32>,
    rounded: Rounded,
}

/// A weight as int8 codes stand for it.
#[derive(Debug, Default)]
struct Rounded(Vec<f32>);

impl Rounded {
    /// The weight of `rows` output channels that the mode asks for.
    fn weight<'a>(&'a mut self, mode: &Mode, rows: usize, weight: &'a [f32]) -> &'a [f32] {
        if !mode.quantized_weights {
            return weight;
        }
        fake_quantize::weights(rows, weight, &mut self.0);
        &self.0
    }
}

impl Engine {
    /// For a graph, on `threads` threads.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    pub fn new(graph: Graph, threads: usize) -> Result<Engine, EngineError> {
        let plan = Plan::new(&graph);
        let pool = match threads {
            0 | 1 => None,
            _ => {
                let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let failed = |e: rayon::ThreadPoolBuildError| EngineError::Threads {
                    threads,
                    why: e.to_string(),
                };
                Some(builder.build().map_err(failed)?)
            }
        };
        let sources = plan
            .units
            .iter()
            .map(|u| u.sources.len())
            .max()
            .unwrap_or(0);
        Ok(Engine {
            pool,
            batch: 0,
            mode: Mode::EVAL,
            storages: plan.storages.iter().map(|_| Vec::new()).collect(),
            gradients: plan.slots.iter().map(|_| None).collect(),
            free: Buffers::default(),
            norms: plan.norms.iter().map(|_| NormState::default()).collect(),
            prepared: plan.units.iter().map(|_| Prepared::default()).collect(),
            scratch: (0..PARTS).map(|_| Scratch::new(sources)).collect(),
            neutral: [vec![1.0; plan.channels], vec![0.0; plan.channels]],
            sparsity: Sparsity {
                layers: plan.attentions(),
                ..Sparsity::default()
            },
            times: None,
            graph,
            plan,
        })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// From here on backward passes add the gradient of `weight` times [`Engine::attention_sparsity`] to that of
    /// the outputs; 0 stops it.
    pub fn regularise_attention(&mut self, weight: f32) {
        self.sparsity.weight = weight;
    }

    /// Mean of ln(1 + A²) over the attention weights A of each layer in the last forward pass, averaged over the
    /// layers; 0 when no weight was set with [`Engine::regularise_attention`].
    pub fn attention_sparsity(&self) -> f64 {
        self.sparsity.sum / self.sparsity.layers.max(1) as f64
    }

    /// Computes the outputs of `batch` samples; [`Engine::output`] has them. Parameters are in the graph's
    /// order; running statistics change as `mode` says.
    ///
    /// # Errors
    ///
    /// When slices do not have the graph's lengths.
    pub fn forward(
        &mut self,
        parameters: &mut [Vec<f32>],
        inputs: &[&[f32]],
        batch: usize,
        mode: Mode,
    ) -> Result<(), EngineError> {
        self.check_parameters("parameter", parameters, |_| true)?;
        self.batch = batch;
        self.mode = mode;
        for (&storage, given) in self.plan.inputs.iter().zip(inputs) {
            let expected = self.plan.storages[storage].map.len() * batch;
            check_length("input", given.len(), expected)?;
            self.storages[storage].clear();
            self.storages[storage].extend_from_slice(given);
        }
        check_length("list of inputs", inputs.len(), self.plan.inputs.len())?;
        self.check_rows()?;
        for gradient in &mut self.gradients {
            self.free.give(gradient.take());
        }
        self.prepare(parameters);
        self.sparsity.sum = 0.0;
        for &storage in &self.plan.inputs.clone() {
            self.input_statistics(storage, parameters);
        }
        for unit in 0..self.plan.units.len() {
            let start = Instant::now();
            self.forward_unit(unit, parameters);
            self.took(unit, 0, start);
        }
        Ok(())
    }

    /// An output of the last forward pass, `[batch, height, width, channels]`.
    pub fn output(&self, index: usize) -> &[f32] {
        &self.storages[self.plan.outputs[index]]
    }

    /// Adds the gradients of all parameters to `gradients`, from those with respect to the outputs. Entries
    /// of statistics may be empty.
    ///
    /// # Errors
    ///
    /// When slices do not have the graph's lengths, or there was no forward pass.
    pub fn backward(
        &mut self,
        parameters: &[Vec<f32>],
        outputs: &[&[f32]],
        gradients: &mut [Vec<f32>],
    ) -> Result<(), EngineError> {
        if self.batch == 0 {
            return Err(EngineError::NothingToDifferentiate);
        }
        self.check_parameters("parameter", parameters, |_| true)?;
        self.check_parameters("gradient of", gradients, |k| k != Kind::Statistic)?;
        check_length(
            "list of output gradients",
            outputs.len(),
            self.plan.outputs.len(),
        )?;
        for (&storage, given) in self.plan.outputs.iter().zip(outputs) {
            check_length("output gradient", given.len(), self.storages[storage].len())?;
        }
        self.start_backward(outputs);
        for unit in (0..self.plan.units.len()).rev() {
            let start = Instant::now();
            self.backward_unit(unit, parameters, gradients);
            self.took(unit, 1, start);
        }
        Ok(())
    }

    /// Bytes held for maps, gradients and scratch.
    pub fn memory(&self) -> usize {
        let waiting = self.gradients.iter().flatten();
        let maps: usize = self.storages.iter().chain(waiting).map(Vec::capacity).sum();
        let scratch: usize = self.scratch.iter().map(Scratch::len).sum();
        4 * (maps + scratch + self.free.len())
    }

    /// Starts to measure the time of each layer.
    pub fn measure(&mut self) {
        self.times = Some(vec![[Duration::MAX; 2]; self.plan.units.len()]);
    }

    /// Time of each layer since [`Engine::measure`], of nothing before; longest where it was not run.
    pub fn times(&self) -> Vec<LayerTime> {
        let units = self.plan.units.iter().zip(self.times.iter().flatten());
        let time = |(unit, &[forward, backward]): (&plan::Unit, &[Duration; 2])| LayerTime {
            name: self.graph.nodes()[unit.node].name.clone(),
            forward,
            backward,
        };
        units.map(time).collect()
    }

    fn took(&mut self, unit: usize, pass: usize, start: Instant) {
        if let Some(times) = &mut self.times {
            times[unit][pass] = times[unit][pass].min(start.elapsed());
        }
    }

    fn check_parameters(
        &self,
        what: &str,
        given: &[Vec<f32>],
        needed: impl Fn(Kind) -> bool,
    ) -> Result<(), EngineError> {
        check_length(
            "list of parameters",
            given.len(),
            self.graph.parameters.len(),
        )?;
        for (p, given) in self.graph.parameters.iter().zip(given) {
            if needed(p.kind) {
                check_length(&format!("{what} `{}`", p.name), given.len(), p.len())?;
            }
        }
        Ok(())
    }

    /// Numbers that pick rows of tables are rows of them.
    fn check_rows(&self) -> Result<(), EngineError> {
        for unit in &self.plan.units {
            let Kernel::Embedding(table) = unit.kernel else {
                continue;
            };
            let rows = self.graph.parameters[table.0].shape[0];
            let storage = unit.sources[0].view.storage;
            let is_row = |x: f32| x >= 0.0 && x < rows as f32 && x.fract() == 0.0;
            let ids = self.storages[storage].iter().copied();
            if let Some((place, got)) = ids.enumerate().find(|&(_, x)| !is_row(x)) {
                let input = self.plan.inputs.iter().position(|&s| s == storage);
                return Err(EngineError::Row {
                    input: input.unwrap_or(0),
                    place,
                    got,
                    rows,
                });
            }
        }
        Ok(())
    }

    /// Arranges the weights for the kernels.
    fn prepare(&mut self, parameters: &[Vec<f32>]) {
        let Engine {
            plan,
            prepared,
            pool,
            graph,
            mode,
            ..
        } = self;
        let units: Vec<_> = plan.units.iter().zip(prepared).collect();
        parallel(pool, units, |(unit, prepared)| match &unit.kernel {
            Kernel::Conv { weight, window, .. } => {
                let out = graph.parameters[weight.0].shape[0];
                let w = prepared.rounded.weight(mode, out, &parameters[weight.0]);
                let k = w.len() / out.max(1);
                let taps = window.taps();
                let rows = if taps == 1 {
                    w
                } else {
                    prepared.rows.resize(w.len(), 0.0);
                    swap_inner(w, taps, k / taps, &mut prepared.rows);
                    &prepared.rows
                };
                prepared.forward.pack(rows, [k, out], [1, k]);
                if unit.sources[0].slot.is_some() {
                    prepared.backward.pack(rows, [out, k], [k, 1]);
                }
            }
            Kernel::Depthwise { weight, window, .. } => {
                let taps = window.taps();
                let channels = parameters[weight.0].len() / taps;
                let w = prepared
                    .rounded
                    .weight(mode, channels, &parameters[weight.0]);
                prepared.rows.resize(w.len(), 0.0);
                swap_inner(w, taps, channels, &mut prepared.rows);
            }
            Kernel::Attention {
                geometry,
                bias: Some(bias),
            } => {
                let table = &parameters[bias.table.0];
                let entries = table.len() / geometry.heads;
                prepared.rows.clear();
                for table in table.chunks_exact(entries) {
                    prepared
                        .rows
                        .extend(bias.index.iter().map(|&i| table[i as usize]));
                }
            }
            _ => {}
        });
    }
}

/// `[.., channels, taps]` to `[.., taps, channels]`.
fn swap_inner(from: &[f32], taps: usize, channels: usize, to: &mut [f32]) {
    let size = (taps * channels).max(1);
    for (from, to) in from.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
        for (tap, to) in to.chunks_exact_mut(channels).enumerate() {
            for (channel, to) in to.iter_mut().enumerate() {
                *to = from[channel * taps + tap];
            }
        }
    }
}

/// Runs the jobs, on the pool's threads if there is one.
fn parallel<J: Send>(
    pool: &Option<rayon::ThreadPool>,
    jobs: Vec<J>,
    run: impl Fn(J) + Sync + Send,
) {
    match pool {
        Some(pool) => pool.install(|| jobs.into_par_iter().with_max_len(1).for_each(run)),
        None => jobs.into_iter().for_each(run),
    }
}

fn check_length(what: &str, got: usize, expected: usize) -> Result<(), EngineError> {
    if got == expected {
        return Ok(());
    }
    Err(EngineError::Length {
        what: what.into(),
        got,
        expected,
    })
}

/// Merges the parts' statistics, and sets the norm for this step.
fn set_norm(
    of: &crate::graph::BatchNorm,
    state: &mut NormState,
    batch: Option<&Moments>,
    parameters: &mut [Vec<f32>],
) {
    let c = parameters[of.weight.0].len();
    for to in [
        &mut state.mean,
        &mut state.reciprocal,
        &mut state.scale,
        &mut state.shift,
    ] {
        to.resize(c, 0.0);
    }
    for sums in &mut state.sums {
        sums.clear();
        sums.resize(c, 0.0);
    }
    for i in 0..c {
        let (mean, variance) = match batch {
            Some(moments) => (moments.mean(i), moments.variance(i)),
            None => (
                parameters[of.mean.0][i] as f64,
                parameters[of.variance.0][i] as f64,
            ),
        };
        let reciprocal = 1.0 / (variance + of.epsilon as f64).sqrt();
        let scale = parameters[of.weight.0][i] as f64 * reciprocal;
        state.mean[i] = mean as f32;
        state.reciprocal[i] = reciprocal as f32;
        state.scale[i] = scale as f32;
        state.shift[i] = (parameters[of.bias.0][i] as f64 - mean * scale) as f32;
        if let Some(moments) = batch {
            let unbiased = variance * moments.count() / (moments.count() - 1.0).max(1.0);
            let momentum = of.momentum as f64;
            for (statistic, new) in [(of.mean, mean), (of.variance, unbiased)] {
                let running = &mut parameters[statistic.0][i];
                *running = (*running as f64 * (1.0 - momentum) + momentum * new) as f32;
            }
        }
    }
}
