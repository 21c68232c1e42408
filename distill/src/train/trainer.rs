//! The training loop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::{Graph, Kind, Op, Parameter};
use ampoule_distill_kernels::optim::{Ema, Optimizer, WarmupCosine, clip_global_norm, layer_decay};
use serde::{Deserialize, Serialize};

use super::branches::{Branches, Branching};
use super::metrics::{Metrics, Record};
use super::optimizer::{self, OptimizerKind};
use super::task::outputs;
use super::zeros::Zeros;
use super::{
    EpochReport, Evaluator, Measures, Observer, Run, Snapshot, Step, StepReport, Task, TrainError,
};
use crate::augment::{Generator, Purpose};
use crate::elastic::Elastic;

/// How a network is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Epochs.
    pub epochs: usize,
    /// Highest learning rate.
    pub rate: f32,
    /// Share of the steps in which the learning rate rises; after it, it falls along half a cosine to a
    /// hundredth.
    pub warmup: f64,
    /// How gradients change parameters.
    pub optimizer: OptimizerKind,
    /// Share of a weight that is removed per step of learning rate 1.
    pub weight_decay: f32,
    /// Largest norm of all gradients together.
    pub clip: Option<f32>,
    /// Decay of the average of the weights that is measured and exported; the weights themselves without.
    pub ema: Option<f32>,
    /// Factors of the learning rate for parameters whose names begin so; the first that fits counts. With 0
    /// they stay as they are.
    pub factors: Vec<(String, f32)>,
    /// Factor by which the learning rate falls from each layer to the one before it; all learn alike without.
    pub layer_decay: Option<f32>,
    /// Weight of the attention's sparsity term in the loss: the mean of ln(1 + A²) over the attention weights A of
    /// each layer, averaged over the layers (Sparse then Prune).
    pub attention_sparsity: f32,
    /// So many epochs at the end see values and weights as the runtime's int8 codes stand for them.
    pub quantized_epochs: usize,
    /// Weights that are zero at the start stay zero: a network that pruning has emptied in part learns in what is left.
    #[serde(default)]
    pub keep_zeros: bool,
    /// Seed of drop path.
    pub seed: u64,
    /// Threads that compute; the result does not depend on them.
    #[serde(skip)]
    pub threads: usize,
    /// Time between checkpoints within an epoch.
    #[serde(skip)]
    pub checkpoint_every: Duration,
    /// Epochs between evaluations; the last epoch has one anyway.
    #[serde(skip)]
    pub evaluate_every: usize,
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions {
            epochs: 30,
            rate: 1e-3,
            warmup: 0.05,
            optimizer: OptimizerKind::default(),
            weight_decay: 0.05,
            clip: Some(5.0),
            ema: Some(0.999),
            factors: Vec::new(),
            layer_decay: None,
            attention_sparsity: 0.0,
            quantized_epochs: 0,
            keep_zeros: false,
            seed: 0,
            threads: 1,
            checkpoint_every: Duration::from_secs(30),
            evaluate_every: 1,
        }
    }
}

impl TrainOptions {
    /// Factors of the parameters' learning rates.
    pub(super) fn factors(&self, parameters: &[Parameter]) -> Vec<f32> {
        let of_name = |p: &Parameter| {
            let mut known = self.factors.iter();
            let found = known.find(|(prefix, _)| p.name.starts_with(prefix));
            found.map_or(1.0, |(_, factor)| *factor)
        };
        let of_layers = layer_decay(parameters, self.layer_decay.unwrap_or(1.0));
        let factors = parameters.iter().zip(of_layers);
        factors.map(|(p, of_layer)| of_name(p) * of_layer).collect()
    }

    /// The first epoch that sees int8 codes.
    fn quantized_from(&self) -> usize {
        self.epochs.saturating_sub(self.quantized_epochs)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After all epochs.
    Done,
    /// After this many steps, because the observer asked for it. A checkpoint is on disk if there is a
    /// folder for it.
    Stopped(u64),
}

/// A network in training.
pub struct Trainer {
    options: TrainOptions,
    engine: Engine,
    parameters: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    output_gradients: Vec<Vec<f32>>,
    optimizer: Box<dyn Optimizer>,
    ema: Option<Ema>,
    /// Weights that stay zero.
    zeros: Option<Zeros>,
    /// The smaller sizes of an elastic network.
    branches: Option<Branches>,
    /// Parameters whose learning rate is 0: their gradients do not count.
    frozen: Vec<usize>,
    /// Parameters of the network itself; ranges of codes follow.
    own: usize,
    /// The graph of the last epochs, until they begin.
    quantized: Option<Graph>,
    mode: Mode,
    /// Where training goes on.
    at: Snapshot,
}

/// Share of a batch's smallest and largest values in new ranges of codes.
const RANGE_MOMENTUM: f32 = 0.05;

/// Lines of metrics that a run writes for its steps, at most.
const LINES: u64 = 2000;

impl Trainer {
    /// A network with its first parameters, in the graph's order.
    ///
    /// # Errors
    ///
    /// When the parameters are not the graph's.
    pub fn new(
        graph: Graph,
        parameters: Vec<Vec<f32>>,
        options: TrainOptions,
    ) -> Result<Self, TrainError> {
        Trainer::build(graph, parameters, options, None)
    }

    /// An elastic network with the whole's first parameters. Each step trains the whole and one of the other sizes,
    /// half on the task and half on what the whole answers; the losses' gradients are added.
    ///
    /// # Errors
    ///
    /// As [`Trainer::new`].
    pub fn elastic(
        elastic: &Elastic,
        parameters: Vec<Vec<f32>>,
        options: TrainOptions,
    ) -> Result<Self, TrainError> {
        let graph = elastic.whole().graph().clone();
        Trainer::build(graph, parameters, options, Some(elastic))
    }

    fn build(
        mut graph: Graph,
        mut parameters: Vec<Vec<f32>>,
        options: TrainOptions,
        elastic: Option<&Elastic>,
    ) -> Result<Self, TrainError> {
        let own = graph.parameters();
        if own.len() != parameters.len() {
            return Err(TrainError::Mismatch {
                what: "number of parameters",
                expected: own.len().to_string(),
                got: parameters.len().to_string(),
            });
        }
        let wrong = own
            .iter()
            .zip(&parameters)
            .find(|(p, v)| p.len() != v.len());
        if let Some((parameter, values)) = wrong {
            return Err(TrainError::Mismatch {
                what: "size of a parameter",
                expected: format!("{} for `{}`", parameter.len(), parameter.name),
                got: values.len().to_string(),
            });
        }
        let (count, factors) = (own.len(), options.factors(own));
        let zeros_kept = options.keep_zeros.then(|| Zeros::of(own, &parameters));
        let has_attention = || {
            graph
                .nodes()
                .iter()
                .any(|n| matches!(n.op, Op::Attention(_)))
        };
        if options.attention_sparsity != 0.0 && !has_attention() {
            return Err(TrainError::NoAttention);
        }
        let mut quantized = None;
        if options.quantized_epochs > 0 {
            let with_codes = graph.quantization_aware(RANGE_MOMENTUM)?;
            // The ranges are there from the start, so that states have one size throughout.
            for range in &with_codes.parameters()[count..] {
                graph.parameter(range.name.clone(), &range.shape, range.kind);
                parameters.push(vec![0.0; range.len()]);
            }
            quantized = Some(with_codes);
        }
        let mut branches = None;
        if let Some(elastic) = elastic {
            let numbers = [options.threads as u64, options.seed];
            branches = Some(Branches::new(
                elastic,
                &mut graph,
                &mut parameters,
                numbers,
            )?);
        }
        let all = graph.parameters();
        let zeros = all.iter().zip(&parameters).map(|(p, v)| match p.kind {
            Kind::Statistic => Vec::new(),
            _ => vec![0.0; v.len()],
        });
        let frozen = factors.iter().enumerate().filter(|(_, f)| **f == 0.0);
        let frozen = frozen.map(|(i, _)| i).collect();
        let optimizer = options.optimizer.build(all, options.weight_decay, &factors);
        let gradients = zeros.collect();
        let output_gradients = vec![Vec::new(); graph.outputs().len()];
        let mut engine = Engine::new(graph, options.threads)?;
        engine.regularise_attention(options.attention_sparsity);
        Ok(Trainer {
            gradients,
            output_gradients,
            optimizer,
            branches,
            frozen,
            own: count,
            zeros: zeros_kept,
            quantized,
            mode: Mode::EVAL,
            ema: options.ema.map(|decay| Ema::new(decay, &parameters)),
            engine,
            at: Snapshot::default(),
            parameters,
            options,
        })
    }

    /// Trains until the end, or until the observer asks to stop. With a run's folder it goes on from the
    /// checkpoint that is there, and writes checkpoints and metrics.
    ///
    /// # Errors
    ///
    /// [`TrainError`]; the last checkpoint is intact.
    pub fn train<T: Task>(
        &mut self,
        task: &mut T,
        mut run: Option<&mut Run>,
        observer: &mut dyn Observer,
    ) -> Result<End, TrainError> {
        if let Some(run) = &mut run {
            self.resume(run, observer)?;
        }
        let mut metrics = match &run {
            Some(run) => Some(run.metrics(&self.at)?),
            None => None,
        };
        let total = self.options.epochs as u64 * task.steps();
        let schedule = WarmupCosine {
            peak: self.options.rate,
            floor: self.options.rate / 100.0,
            warmup: (total as f64 * self.options.warmup).round() as u64,
            total,
        };
        let every = total.div_ceil(LINES).max(1);
        let mut saved = Instant::now();
        observer.start(self.at.steps, total);
        while self.at.epoch < self.options.epochs {
            if self.at.epoch >= self.options.quantized_from() {
                self.quantize()?;
            }
            let (started, mut samples) = (Instant::now(), 0);
            let mut sums = Sums::default();
            task.start(self.at.epoch, self.at.position)?;
            while let Some(batch) = task.batch()? {
                let rate = schedule.rate(self.at.steps);
                let kept = run.as_ref().and_then(|run| run.kept());
                let report = self.step(task, &batch, rate, kept)?;
                self.at.position = task.position();
                samples += report.samples;
                observer.step(&report);
                sums.add(&report);
                if self.at.steps % every == 0
                    && let Some(mean) = sums.take()
                {
                    write(&mut metrics, run.as_deref(), Record::Step(mean))?;
                }
                let stops = observer.stops();
                if stops || saved.elapsed() >= self.options.checkpoint_every {
                    self.save(run.as_deref_mut(), observer)?;
                    saved = Instant::now();
                }
                if stops {
                    return Ok(End::Stopped(self.at.steps));
                }
            }
            if let Some(mean) = sums.take() {
                write(&mut metrics, run.as_deref(), Record::Step(mean))?;
            }
            let epochs = self.at.epoch + 1;
            let is_due = epochs % self.options.evaluate_every.max(1) == 0;
            let measures = match is_due || epochs == self.options.epochs {
                true => task.evaluate(&mut self.evaluator())?,
                false => Measures::default(),
            };
            let report = EpochReport {
                step: self.at.steps,
                epoch: self.at.epoch,
                measures,
                samples,
                seconds: started.elapsed().as_secs_f64(),
            };
            observer.epoch(&report);
            write(&mut metrics, run.as_deref(), Record::Epoch(report))?;
            (self.at.epoch, self.at.position) = (self.at.epoch + 1, 0);
            self.save(run.as_deref_mut(), observer)?;
            saved = Instant::now();
        }
        // A run that was done before has not been through its epochs.
        self.quantize()?;
        Ok(End::Done)
    }

    /// The weights to be exported: the average where there is one. In the graph's order, with statistics.
    pub fn weights(&self) -> &[Vec<f32>] {
        &self.values()[..self.own]
    }

    /// [`Trainer::weights`], and behind them the statistics of an elastic network's sizes.
    pub fn values(&self) -> &[Vec<f32>] {
        match &self.ema {
            Some(ema) => &ema.average,
            None => &self.parameters,
        }
    }

    /// From here on values and weights are what int8 codes stand for.
    fn quantize(&mut self) -> Result<(), TrainError> {
        if let Some(graph) = self.quantized.take() {
            self.engine = Engine::new(graph, self.options.threads)?;
            self.engine
                .regularise_attention(self.options.attention_sparsity);
            self.mode = Mode::EVAL.quantized();
        }
        Ok(())
    }

    /// The network with the weights to be exported, after epochs with int8 codes as these stand for it.
    pub fn evaluator(&mut self) -> Evaluator<'_> {
        let parameters = match &mut self.ema {
            Some(ema) => &mut ema.average,
            None => &mut self.parameters,
        };
        Evaluator {
            engine: &mut self.engine,
            parameters,
            mode: self.mode,
        }
    }

    fn step<T: Task>(
        &mut self,
        task: &mut T,
        batch: &T::Batch,
        rate: f32,
        kept: Option<u64>,
    ) -> Result<StepReport, TrainError> {
        let started = Instant::now();
        let inputs = task.inputs(batch);
        let mode = Mode {
            quantized_weights: self.mode.quantized_weights,
            ..Mode::train(drop_path_seed(self.options.seed, self.at.steps))
        };
        let parameters = &mut self.parameters;
        self.engine
            .forward(parameters, &inputs.values, inputs.samples, mode)?;
        for gradient in &mut self.gradients {
            gradient.fill(0.0);
        }
        let outputs = outputs(&self.engine);
        for (gradient, output) in self.output_gradients.iter_mut().zip(&outputs) {
            gradient.clear();
            gradient.resize(output.len(), 0.0);
        }
        let mut measures = task.loss(
            batch,
            Step {
                number: self.at.steps,
                outputs,
                output_gradients: &mut self.output_gradients,
                parameters: &self.parameters,
                gradients: &mut self.gradients,
            },
        )?;
        if self.options.attention_sparsity != 0.0 {
            let term = self.engine.attention_sparsity();
            let weight = f64::from(self.options.attention_sparsity);
            measures.loss = measures.loss.map(|loss| loss + weight * term);
            measures = measures.and("attention_sparsity", term);
        }
        let not_finite = |what, value: f64| TrainError::NotFinite {
            what,
            value,
            step: self.at.steps + 1,
            epoch: self.at.epoch + 1,
            rate,
            kept,
        };
        if let Some(loss) = measures.loss.filter(|loss| !loss.is_finite()) {
            return Err(not_finite("loss", loss));
        }
        let of_outputs: Vec<&[f32]> = self.output_gradients.iter().map(|g| &g[..]).collect();
        self.engine
            .backward(&self.parameters, &of_outputs, &mut self.gradients)?;
        if let Some(branches) = &mut self.branches {
            let at = Branching {
                number: self.at.steps,
                samples: inputs.samples,
                inputs: &inputs.values,
                mode,
                whole: self.engine.output(0),
                parameters: &mut self.parameters,
                gradients: &mut self.gradients,
            };
            let loss = branches.step(task, batch, at)?;
            if !loss.is_finite() {
                return Err(not_finite("loss of a smaller size", loss));
            }
            measures = measures.and("smaller_size", loss);
        }
        for &i in &self.frozen {
            self.gradients[i].fill(0.0);
        }
        if let Some(zeros) = &self.zeros {
            zeros.restore(&mut self.gradients);
        }
        let limit = self.options.clip.unwrap_or(f32::INFINITY);
        let norm = clip_global_norm(&mut self.gradients, limit);
        if !norm.is_finite() {
            return Err(not_finite("norm of the gradients", norm.into()));
        }
        self.optimizer
            .step(&mut self.parameters, &self.gradients, rate);
        if let Some(zeros) = &self.zeros {
            zeros.restore(&mut self.parameters);
        }
        if let Some(ema) = &mut self.ema {
            ema.update(&self.parameters, self.at.steps);
            if self.branches.is_none() {
                // Ranges are averages of batches already.
                ema.average[self.own..].clone_from_slice(&self.parameters[self.own..]);
            }
        }
        self.at.steps += 1;
        Ok(StepReport {
            step: self.at.steps,
            epoch: self.at.epoch,
            measures,
            rate,
            gradient_norm: norm,
            samples: inputs.samples,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn save(
        &mut self,
        run: Option<&mut Run>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let Some(run) = run else { return Ok(()) };
        self.at.states = vec![
            (PARAMETERS.into(), bytes_of(&self.parameters)),
            (
                OPTIMIZER.into(),
                optimizer::to_bytes(self.optimizer.state()),
            ),
        ];
        if let Some(ema) = &self.ema {
            let average = (AVERAGE.into(), bytes_of(&ema.average));
            self.at.states.push(average);
        }
        let saved = run.save(&self.at);
        self.at.states.clear();
        saved?;
        observer.checkpoint(self.at.steps);
        Ok(())
    }

    fn resume(&mut self, run: &mut Run, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Some((mut snapshot, damaged)) = run.load()? else {
            return Ok(());
        };
        if let Some(reason) = damaged {
            let steps = snapshot.steps;
            observer.note(&format!(
                "{reason}; going on from the one before, after step {steps}"
            ));
        }
        let state = |name| snapshot.state(name).unwrap_or_default();
        let mut fits = restore(&mut self.parameters, state(PARAMETERS));
        let remembered = optimizer::from_bytes(state(OPTIMIZER));
        fits &= remembered.is_some_and(|state| self.optimizer.restore(state).is_ok());
        if let Some(ema) = &mut self.ema {
            fits &= restore(&mut ema.average, state(AVERAGE));
        }
        if !fits {
            return Err(TrainError::Damaged {
                path: run.folder().to_owned(),
                reasons: vec!["its states have other sizes than the network's".to_owned()],
            });
        }
        snapshot.states.clear();
        self.at = snapshot;
        Ok(())
    }
}

const PARAMETERS: &str = "parameters";
const OPTIMIZER: &str = "optimizer";
const AVERAGE: &str = "average";

fn bytes_of(values: &[Vec<f32>]) -> Vec<u8> {
    let values = values.iter().flatten();
    values.flat_map(|v| v.to_le_bytes()).collect()
}

/// Fills values from bytes; false when their number is another one.
#[must_use]
fn restore(values: &mut [Vec<f32>], bytes: &[u8]) -> bool {
    let (stored, rest) = bytes.as_chunks::<4>();
    let count: usize = values.iter().map(Vec::len).sum();
    if count != stored.len() || !rest.is_empty() {
        return false;
    }
    let values = values.iter_mut().flatten();
    for (value, stored) in values.zip(stored) {
        *value = f32::from_le_bytes(*stored);
    }
    true
}

fn drop_path_seed(seed: u64, step: u64) -> u64 {
    let mut random = Generator::new([seed, step, 0], Purpose::DropPath);
    u64::from(random.bits()) << 32 | u64::from(random.bits())
}

fn write(
    metrics: &mut Option<Metrics>,
    run: Option<&Run>,
    record: Record,
) -> Result<(), TrainError> {
    match (metrics, run) {
        (Some(metrics), Some(run)) => {
            let written = metrics.write(&record);
            written.map_err(|source| run.write_error(super::metrics::NAME, source))
        }
        _ => Ok(()),
    }
}

/// Reports to be averaged.
#[derive(Default)]
struct Sums {
    last: Option<StepReport>,
    loss: f64,
    others: BTreeMap<String, f64>,
    samples: usize,
    seconds: f64,
}

impl Sums {
    fn add(&mut self, report: &StepReport) {
        let weight = report.samples as f64;
        self.loss += weight * report.measures.loss.unwrap_or(0.0);
        for (name, value) in &report.measures.others {
            *self.others.entry(name.clone()).or_default() += weight * value;
        }
        self.samples += report.samples;
        self.seconds += report.seconds;
        self.last = Some(report.clone());
    }

    /// The mean since the last call: the last step's numbers, measures per sample.
    fn take(&mut self) -> Option<StepReport> {
        let sums = std::mem::take(self);
        let last = sums.last?;
        let mean = |sum: f64| sum / sums.samples.max(1) as f64;
        let others = sums.others.into_iter().map(|(name, sum)| (name, mean(sum)));
        Some(StepReport {
            measures: Measures {
                loss: last.measures.loss.map(|_| mean(sums.loss)),
                others: others.collect(),
            },
            samples: sums.samples,
            seconds: sums.seconds,
            ..last
        })
    }
}
