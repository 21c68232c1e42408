//! The loop on a toy: two classes of 8×8 pictures, told apart by which half is brighter.

use std::time::Duration;

use ampoule_distill_kernels::graph::{
    Activation, BatchNorm, Graph, Kind, Map, Op, ParameterId, Value,
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
    let mut g = Graph::new();
    let input = g.input(Map::new(8, 8, 3));
    let x = conv(&mut g, input, "stem", 8, Window::square(3, 2));
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
    let (graph, temperature) = graph();
    let options = TrainOptions {
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
    for (stop, threads, kind) in [
        (3, 1, AdamW),
        (14, 1, AdamW),
        (15, 1, CoatAdamW),
        (31, 2, AdamW),
        (33, 1, SgdSai),
        (42, 1, AdamW),
    ] {
        let (mut whole, mut task) = trainer_with(1, kind);
        whole.train(&mut task, None, &mut Silent).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = json!({"seed": 0});
        let (mut first, mut task) = trainer_with(threads, kind);
        let mut run = Run::open(folder.path(), settings.clone()).unwrap();
        let mut watch = Watch {
            stop: Some(stop),
            ..Watch::default()
        };
        let end = first.train(&mut task, Some(&mut run), &mut watch).unwrap();
        assert_eq!(end, End::Stopped(stop));
        drop(run);
        let (mut second, mut task) = trainer_with(1, kind);
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
