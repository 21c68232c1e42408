//! The loop on a toy: two classes of 8×8 pictures, told apart by which half is brighter.

use std::time::Duration;

use ampoule_distill_kernels::engine::Engine;
use ampoule_distill_kernels::graph::{
    Activation, Attention, BatchNorm, Graph, Kind, Lane, Map, Op, ParameterId, Value,
};
use ampoule_distill_kernels::ops::Window;
use serde_json::json;

use super::*;
use crate::augment::{Generator, Purpose};
use crate::loss::label_cross_entropy;

const SAMPLES: usize = 50;
const BATCH: usize = 8;

/// A stem, a residual block with drop path, a head; and a temperature that no layer uses.
fn graph() -> (Graph, ParameterId) {
    graph_with(false)
}

/// The same, with attention behind the stem if asked for.
fn graph_with(attention: bool) -> (Graph, ParameterId) {
    let mut g = Graph::new();
    let input = g.input(Map::new(8, 8, 3));
    let mut x = conv(&mut g, input, "stem", 8, Window::square(3, 2));
    if attention {
        let qkv = conv(&mut g, x, "qkv", 24, Window::POINT);
        let lane = |offset| Lane {
            input: 0,
            offset,
            stride: 4,
        };
        let op = Op::Attention(Attention {
            heads: 2,
            head_size: 4,
            scale: 0.5,
            lanes: [0, 8, 16].map(lane),
            window: None,
            bias: None,
            causal: false,
            mask: None,
        });
        x = g.push("attention", op, &[qkv]).unwrap();
    }
    let y = conv(&mut g, x, "block", 8, Window::POINT);
    let op = Op::Add { drop_path: 0.3 };
    let x = g.push("add", op, &[x, y]).unwrap();
    let x = g.push("mean", Op::Mean, &[x]).unwrap();
    let weight = g.parameter("head.weight", &[2, 8], Kind::Weight);
    let bias = Some(g.parameter("head.bias", &[2], Kind::Undecayed));
    let op = Op::Conv {
        weight,
        bias,
        window: Window::POINT,
    };
    let x = g.push("head", op, &[x]).unwrap();
    g.output(x);
    let temperature = g.parameter("temperature", &[1], Kind::Undecayed);
    (g, temperature)
}

fn conv(g: &mut Graph, x: Value, name: &str, out: usize, window: Window) -> Value {
    let [h, w] = window.kernel;
    let shape = [out, g.map(x).channels, h, w];
    let weight = g.parameter(format!("{name}.weight"), &shape, Kind::Weight);
    let op = Op::Conv {
        weight,
        bias: None,
        window,
    };
    let x = g.push(name, op, &[x]).unwrap();
    let mut of = |part: &str, kind| g.parameter(format!("{name}.bn.{part}"), &[out], kind);
    let norm = BatchNorm {
        weight: of("weight", Kind::Undecayed),
        bias: of("bias", Kind::Undecayed),
        mean: of("mean", Kind::Statistic),
        variance: of("variance", Kind::Statistic),
        epsilon: 1e-5,
        momentum: 0.1,
    };
    let x = g.push(name, Op::BatchNorm(norm), &[x]).unwrap();
    g.push(name, Op::Activation(Activation::Gelu), &[x])
        .unwrap()
}

fn parameters(graph: &Graph) -> Vec<Vec<f32>> {
    let mut random = Generator::new([1, 2, 3], Purpose::Picture);
    let mut values = |name: &str, len: usize| match name.rsplit('.').next() {
        _ if name == "temperature" || name.ends_with("bn.weight") => vec![1.0; len],
        Some("variance") => vec![1.0; len],
        Some("bias" | "mean") => vec![0.0; len],
        _ => (0..len).map(|_| 0.3 * random.normal() as f32).collect(),
    };
    let all = graph.parameters().iter();
    all.map(|p| values(&p.name, p.len())).collect()
}

struct Halves {
    temperature: ParameterId,
    epoch: usize,
    at: usize,
    /// The loss of this step is no number.
    poison: Option<u64>,
}

struct Batch {
    images: Vec<f32>,
    labels: Vec<usize>,
}

impl Task for Halves {
    type Batch = Batch;

    fn steps(&self) -> u64 {
        SAMPLES.div_ceil(BATCH) as u64
    }

    fn start(&mut self, epoch: usize, position: u64) -> Result<(), TrainError> {
        (self.epoch, self.at) = (epoch, position as usize);
        Ok(())
    }

    fn batch(&mut self) -> Result<Option<Batch>, TrainError> {
        let samples = self.at..(self.at + BATCH).min(SAMPLES);
        self.at = samples.end;
        let labels: Vec<usize> = samples.clone().map(|s| s % 2).collect();
        let image = |sample: usize| {
            let mut random =
                Generator::new([self.epoch as u64, sample as u64, 0], Purpose::Picture);
            let pixels = (0..8 * 8 * 3).map(move |i| {
                let bright = usize::from(i < 96) == sample % 2;
                random.unit() as f32 + if bright { 0.3 } else { 0.0 }
            });
            pixels.collect::<Vec<_>>()
        };
        let images = samples.flat_map(image).collect();
        Ok((!labels.is_empty()).then_some(Batch { images, labels }))
    }

    fn position(&self) -> u64 {
        self.at as u64
    }

    fn inputs<'b>(&self, batch: &'b Batch) -> Inputs<'b> {
        Inputs {
            samples: batch.labels.len(),
            values: vec![&batch.images],
        }
    }

    fn loss(&mut self, batch: &Batch, step: Step<'_>) -> Result<Measures, TrainError> {
        if self.poison == Some(step.number) {
            return Ok(Measures::of_loss(f64::NAN));
        }
        let t = step.parameters[self.temperature.0][0];
        let n = batch.labels.len() as f32;
        let mut total = 0.0;
        for (i, &label) in batch.labels.iter().enumerate() {
            let logits = [0, 1].map(|c| t * step.outputs[0][2 * i + c]);
            let mut gradient = [0.0; 2];
            total += label_cross_entropy(&logits, label, 0.0, &mut gradient)?;
            for (c, g) in gradient.iter().enumerate() {
                step.output_gradients[0][2 * i + c] = t * g / n;
                step.gradients[self.temperature.0][0] += g * step.outputs[0][2 * i + c] / n;
            }
        }
        Ok(Measures::of_loss(total / f64::from(n)))
    }

    fn evaluate(&mut self, network: &mut Evaluator<'_>) -> Result<Measures, TrainError> {
        self.start(1000, 0)?;
        let mut right = 0;
        while let Some(batch) = self.batch()? {
            let logits = network.run(&self.inputs(&batch))?[0];
            let rows = logits.chunks_exact(2).zip(&batch.labels);
            right += rows
                .filter(|(row, l)| (row[1] > row[0]) == (**l == 1))
                .count();
        }
        Ok(Measures::default().and("accuracy", right as f64 / SAMPLES as f64))
    }
}

fn trainer(threads: usize) -> (Trainer, Halves) {
    trainer_with(threads, OptimizerKind::AdamW)
}

fn trainer_with(threads: usize, optimizer: OptimizerKind) -> (Trainer, Halves) {
    trainer_of(threads, optimizer, 0, 0.0)
}

/// The last epochs with int8 codes, and with a student whose attention is regularised.
fn trainer_of(
    threads: usize,
    optimizer: OptimizerKind,
    quantized_epochs: usize,
    attention_sparsity: f32,
) -> (Trainer, Halves) {
    let (graph, temperature) = graph_with(attention_sparsity > 0.0);
    let options = TrainOptions {
        attention_sparsity,
        quantized_epochs,
        epochs: 6,
        rate: 2e-2,
        optimizer,
        ema: Some(0.9),
        threads,
        checkpoint_every: Duration::ZERO,
        ..TrainOptions::default()
    };
    let first = parameters(&graph);
    let trainer = Trainer::new(graph, first, options).unwrap();
    let task = Halves {
        temperature,
        epoch: 0,
        at: 0,
        poison: None,
    };
    (trainer, task)
}

/// Stops after some steps, and notes what it sees.
#[derive(Default)]
struct Watch {
    stop: Option<u64>,
    started: u64,
    steps: u64,
    accuracy: Vec<f64>,
    notes: Vec<String>,
}

impl Observer for Watch {
    fn start(&mut self, step: u64, total: u64) {
        assert_eq!(total, 42);
        self.started = step;
    }
    fn step(&mut self, report: &StepReport) {
        self.steps = report.step;
    }
    fn epoch(&mut self, report: &EpochReport) {
        self.accuracy.extend(report.measures.get("accuracy"));
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
    fn stops(&mut self) -> bool {
        self.stop == Some(self.steps)
    }
}

fn bits(trainer: &Trainer) -> Vec<u32> {
    trainer
        .weights()
        .iter()
        .flatten()
        .map(|w| w.to_bits())
        .collect()
}

#[test]
fn learns_and_the_free_parameter_moves() {
    let (mut trainer, mut task) = trainer(1);
    let mut watch = Watch::default();
    let end = trainer.train(&mut task, None, &mut watch).unwrap();
    assert_eq!((end, watch.steps), (End::Done, 42));
    assert!(watch.accuracy[5] > 0.9, "{:?}", watch.accuracy);
    let temperature = trainer.weights()[task.temperature.0][0];
    assert!(temperature > 1.01, "{temperature}");
}

#[test]
fn a_run_stopped_anywhere_ends_in_the_same_weights() {
    use OptimizerKind::{AdamW, CoatAdamW, SgdSai};
    // Within an epoch, at its last step, right behind it, on two threads, and with every optimiser.
    // 2 epochs are 14 steps: stopped before, at and behind the first one with int8 codes, and at the end.
    for (stop, threads, kind, codes, sparsity) in [
        (3, 1, AdamW, 0, 0.0),
        (14, 1, AdamW, 0, 0.0),
        (15, 1, CoatAdamW, 0, 0.0),
        (31, 2, AdamW, 0, 0.0),
        (33, 1, SgdSai, 0, 0.0),
        (42, 1, AdamW, 0, 0.0),
        (5, 1, AdamW, 2, 0.0),
        (28, 2, AdamW, 2, 0.0),
        (31, 1, CoatAdamW, 2, 0.0),
        (42, 1, AdamW, 2, 0.0),
        (3, 1, SgdSai, 6, 0.0),
        (17, 2, AdamW, 0, 0.1),
        (31, 1, AdamW, 2, 0.1),
    ] {
        let (mut whole, mut task) = trainer_of(1, kind, codes, sparsity);
        whole.train(&mut task, None, &mut Silent).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = json!({"seed": 0});
        let (mut first, mut task) = trainer_of(threads, kind, codes, sparsity);
        let mut run = Run::open(folder.path(), settings.clone()).unwrap();
        let mut watch = Watch {
            stop: Some(stop),
            ..Watch::default()
        };
        let end = first.train(&mut task, Some(&mut run), &mut watch).unwrap();
        assert_eq!(end, End::Stopped(stop));
        drop(run);
        let (mut second, mut task) = trainer_of(1, kind, codes, sparsity);
        let mut run = Run::open(folder.path(), settings).unwrap();
        let mut watch = Watch::default();
        let end = second.train(&mut task, Some(&mut run), &mut watch).unwrap();
        assert_eq!((end, watch.started), (End::Done, stop));
        assert_eq!(bits(&whole), bits(&second), "stopped after {stop}");
        let metrics = read_metrics(folder.path()).unwrap();
        let epochs = metrics.iter().filter_map(|r| match r {
            Record::Epoch(report) => Some(report.epoch),
            Record::Step(_) => None,
        });
        assert!(epochs.eq(0..6));
        let steps = metrics.iter().filter_map(|r| match r {
            Record::Step(report) => Some(report.step),
            Record::Epoch(_) => None,
        });
        assert!(steps.eq(1..=42));
    }
}

#[test]
fn attention_is_spread_by_its_term() {
    let last = |weight: f32| {
        let (mut trainer, mut task) = trainer_of(1, OptimizerKind::AdamW, 0, weight);
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::open(folder.path(), json!({})).unwrap();
        let end = trainer.train(&mut task, Some(&mut run), &mut Silent);
        assert_eq!(end.unwrap(), End::Done);
        let records = read_metrics(folder.path()).unwrap();
        let terms = records.iter().filter_map(|r| match r {
            Record::Step(report) => report.measures.get("attention_sparsity"),
            Record::Epoch(_) => None,
        });
        let terms: Vec<f64> = terms.collect();
        assert_eq!(terms.len(), 42);
        terms[41]
    };
    // 16 tokens: evenly spread attention has a term of ln(1 + 1/256).
    let (little, much) = (last(1e-6), last(100.0));
    let least = (1.0f64 / 256.0).ln_1p();
    assert!(
        much < little && much >= least && much < 1.05 * least,
        "{little} {much} {least}"
    );
    let (graph, _) = graph();
    let first = parameters(&graph);
    let options = TrainOptions {
        attention_sparsity: 0.1,
        ..TrainOptions::default()
    };
    let error = Trainer::new(graph, first, options).err().unwrap();
    assert!(error.to_string().contains("no attention"), "{error}");
}

#[test]
fn what_has_no_rate_stays_as_it_is() {
    use OptimizerKind::{AdamW, CoatAdamW, SgdSai};
    for optimizer in [AdamW, CoatAdamW, SgdSai] {
        let (graph, temperature) = graph();
        let first = parameters(&graph);
        let options = TrainOptions {
            epochs: 1,
            rate: 2e-2,
            optimizer,
            factors: vec![("stem.".to_owned(), 0.0)],
            ..TrainOptions::default()
        };
        let mut trainer = Trainer::new(graph.clone(), first.clone(), options).unwrap();
        let mut task = Halves {
            temperature,
            epoch: 0,
            at: 0,
            poison: None,
        };
        trainer.train(&mut task, None, &mut Silent).unwrap();
        let all = graph.parameters().iter().zip(&first).zip(trainer.weights());
        for ((p, first), last) in all.filter(|((p, _), _)| p.kind != Kind::Statistic) {
            let is_frozen = p.name.starts_with("stem.");
            assert_eq!(first == last, is_frozen, "{} {optimizer:?}", p.name);
        }
    }
}

#[test]
fn the_last_epochs_see_int8_codes() {
    let (plain, _) = trainer(1);
    let (mut coded, mut task) = trainer_of(1, OptimizerKind::AdamW, 2, 0.0);
    let mut watch = Watch::default();
    coded.train(&mut task, None, &mut watch).unwrap();
    assert!(watch.accuracy[5] > 0.9, "{:?}", watch.accuracy);
    // Parameters are those of the network, without ranges.
    assert_eq!(coded.weights().len(), plain.weights().len());
    task.start(0, 0).unwrap();
    let batch = task.batch().unwrap().unwrap();
    let inputs = task.inputs(&batch);
    let mut weights = coded.weights().to_vec();
    let codes = coded.evaluator().run(&inputs).unwrap()[0].to_vec();
    // The logits are codes of one step, of which at most 256 are in use; and close to those in float.
    let mut steps: Vec<f32> = codes.clone();
    steps.sort_by(f32::total_cmp);
    let least = steps.windows(2).map(|w| w[1] - w[0]).filter(|&d| d > 1e-6);
    let step = least.fold(f32::INFINITY, f32::min);
    let whole = |d: f32| ((d / step) - (d / step).round()).abs() < 1e-2;
    assert!(codes.iter().all(|c| whole(c - codes[0])), "{codes:?}");
    let mut engine = Engine::new(graph().0, 1).unwrap();
    let mut network = Evaluator::new(&mut engine, &mut weights);
    let float = network.run(&inputs).unwrap()[0].to_vec();
    assert_ne!(codes, float);
    let near = codes.iter().zip(&float).all(|(c, f)| (c - f).abs() < 0.3);
    assert!(near, "{codes:?} {float:?}");
}

#[test]
fn rates_fall_from_layer_to_layer() {
    let (graph, _) = graph();
    let options = TrainOptions {
        layer_decay: Some(0.5),
        factors: vec![("head".to_owned(), 0.1)],
        ..TrainOptions::default()
    };
    let factors = options.factors(graph.parameters());
    let of = |name: &str| {
        let names = graph.parameters().iter().position(|p| p.name == name);
        factors[names.unwrap()]
    };
    let names = ["stem.weight", "block.bn.bias", "head.bias", "temperature"];
    assert_eq!(names.map(of), [0.125, 0.25, 0.05, 1.0]);
}

/// A layer with rate 0 does not move, the head does.
#[test]
fn layer_decay_reaches_the_optimizer() {
    let (graph, _) = graph();
    let first = parameters(&graph);
    let head = graph
        .parameters()
        .iter()
        .position(|p| p.name == "temperature");
    let options = TrainOptions {
        epochs: 6,
        layer_decay: Some(0.0),
        ema: None,
        weight_decay: 0.0,
        ..TrainOptions::default()
    };
    let mut trained = Trainer::new(graph.clone(), first.clone(), options).unwrap();
    let (_, mut task) = trainer(1);
    trained.train(&mut task, None, &mut Silent).unwrap();
    for (i, (new, old)) in trained.weights().iter().zip(&first).enumerate() {
        let moves = graph.parameters()[i].kind == Kind::Statistic || Some(i) == head;
        assert_eq!(new != old, moves, "{}", graph.parameters()[i].name);
    }
}

/// Every other weight of each layer is zero and stays so, in the average, too, and after going on from a checkpoint;
/// without being asked for it all learn.
#[test]
fn zeros_stay() {
    let (graph, _) = graph();
    let mut first = parameters(&graph);
    let is_layer = |i: usize| {
        let p = &graph.parameters()[i];
        p.kind == Kind::Weight && p.len() > 1
    };
    for (i, values) in first.iter_mut().enumerate().filter(|(i, _)| is_layer(*i)) {
        let skipped = values.iter_mut().skip(i % 2);
        skipped.step_by(2).for_each(|w| *w = 0.0);
    }
    let zeros = |weights: &[Vec<f32>]| -> Vec<bool> {
        let layers = weights.iter().enumerate().filter(|(i, _)| is_layer(*i));
        layers
            .flat_map(|(_, w)| w.iter().map(|&w| w == 0.0))
            .collect()
    };
    for optimizer in [
        OptimizerKind::AdamW,
        OptimizerKind::CoatAdamW,
        OptimizerKind::SgdSai,
    ] {
        for keep_zeros in [true, false] {
            let new = || {
                let options = TrainOptions {
                    keep_zeros,
                    optimizer,
                    epochs: 6,
                    quantized_epochs: 1,
                    checkpoint_every: Duration::ZERO,
                    ema: Some(0.9),
                    ..TrainOptions::default()
                };
                Trainer::new(graph.clone(), first.clone(), options).unwrap()
            };
            let folder = tempfile::tempdir().unwrap();
            let mut run = Run::open(folder.path(), json!({})).unwrap();
            let mut observer = Watch {
                stop: Some(10),
                ..Watch::default()
            };
            let stopped = new().train(&mut trainer(1).1, Some(&mut run), &mut observer);
            assert_eq!(stopped.unwrap(), End::Stopped(10));
            drop(run);
            let mut run = Run::open(folder.path(), json!({})).unwrap();
            let mut trained = new();
            let ended = trained.train(&mut trainer(1).1, Some(&mut run), &mut Silent);
            assert_eq!(ended.unwrap(), End::Done);
            let (before, after) = (zeros(&first), zeros(trained.weights()));
            assert!(before.iter().any(|&zero| zero));
            assert_eq!(before == after, keep_zeros, "{optimizer:?}");
        }
    }
}

#[test]
fn a_loss_that_is_no_number_leaves_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, mut task) = trainer(1);
    task.poison = Some(20);
    let mut run = Run::open(folder.path(), json!({})).unwrap();
    let error = first.train(&mut task, Some(&mut run), &mut Silent);
    let error = error.unwrap_err();
    assert!(
        matches!(
            error,
            TrainError::NotFinite {
                step: 21,
                epoch: 3,
                kept: Some(20),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(run.load().unwrap().unwrap().0.steps, 20);
}

#[test]
fn a_checkpoint_of_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::open(folder.path(), json!({})).unwrap();
    let snapshot = Snapshot {
        states: vec![("parameters".into(), vec![0; 12])],
        ..Snapshot::default()
    };
    run.save(&snapshot).unwrap();
    let (mut trainer, mut task) = trainer(1);
    let error = trainer.train(&mut task, Some(&mut run), &mut Silent);
    assert!(matches!(error, Err(TrainError::Damaged { .. })));
}
