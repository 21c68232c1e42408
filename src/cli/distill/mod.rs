//! `ampoule distill`: a small network learns what a large one says.

pub mod elastic;
mod lesson;
pub mod live;
pub mod measure;
pub mod pairs;
pub mod scalekd;
mod student;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ampoule::distill::scalekd::FROZEN;
use ampoule::distill::train::classify::{Classification, Confusion};
use ampoule::distill::train::{
    Effort, End, Evaluator, Measures, OptimizerKind, Record, Run, TrainError, TrainOptions,
    Trainer, read_metrics,
};
use ampoule_distill_kernels::engine::Engine;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::args::is_onnx;
use super::augment::AugmentArgs;
use super::error::Failure;
use super::files::{check_output, save};
use super::output::{self, Table, bytes, count, facts, micros, note, plural, print};
use super::preprocessing::{ImageArgs, Preset};
use crate::report;
use live::{Live, View};
use measure::Row;
use scalekd::Trained;
use student::Student;

const EXAMPLES: &str = "\
Examples:
  ampoule distill --store store/ --student tinyvit-mini -o student.onnx
  ampoule distill --store store/ --student tiny-moat-mini --labels-weight 0.3 --eval test/ -o student.onnx
  ampoule distill --teacher teacher.onnx --data photos/ --student tinyvit-mini -o student.onnx   (no store)
  ampoule distill --labels-only --data photos/ --label-fraction 0.1 --student tinyvit-mini -o student.onnx
  ampoule distill --store store/ --teacher teacher.onnx --student tinyvit-mini --scalekd -o student.onnx   (maps, too)
  ampoule distill --labels-only --data photos/ --student tinyvit-mini --elastic 0.34,0.67 -o student.onnx   (many sizes)
  ampoule distill --pairs captions.jsonl --text-teacher text.onnx --vocabulary vocab.txt --student clip-mini -o towers/

Started again with the same arguments, it goes on where it was stopped (Ctrl-C: exit code 130) or killed.";

/// Train a small network on a teacher's answers, and write it as ONNX
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Distill {
    /// A teacher's answers, made by `ampoule teach`
    #[arg(long, value_name = "FOLDER")]
    pub store: Option<PathBuf>,
    /// Without a store: a float ONNX model that answers while training (several are averaged). With one:
    /// where its teacher is now, to be measured
    #[arg(long = "teacher", value_name = "FILE.onnx")]
    pub teachers: Vec<PathBuf>,
    /// No teacher: learn from the labels alone
    #[arg(long, conflicts_with_all = ["store", "teachers"])]
    pub labels_only: bool,
    /// Pictures: a folder, or a list (.csv or .jsonl) [default: where the store was made from]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// What learns: a network of `ampoule zoo list`, or an ONNX file with its weights, as a pruned one
    #[arg(long, value_name = "NAME|FILE.onnx")]
    pub student: String,
    /// The trained network
    #[arg(short, long, value_name = "FILE.onnx")]
    pub output: PathBuf,
    /// First weights: safetensors, or an ONNX file with them as initialisers [default: random]
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Pictures to measure on, with labels [default: a tenth of the data is held out]
    #[arg(long, value_name = "FOLDER")]
    pub eval: Option<PathBuf>,
    /// Share of the pictures held out to measure on [default: 0.1, or 0 with --eval]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub hold_out: Option<f64>,
    /// Epochs between measurements
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub eval_every: u32,
    /// Folder for checkpoints, metrics and the report [default: the output's name with .run]
    #[arg(long, value_name = "FOLDER")]
    pub run: Option<PathBuf>,
    /// Print JSON, a line per epoch and one for the result
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub pairs: pairs::PairsArgs,
    #[command(flatten)]
    pub recipe: Recipe,
    #[command(flatten)]
    pub maps: scalekd::ScaleKdArgs,
    #[command(flatten)]
    pub elastic: elastic::ElasticArgs,
    #[command(flatten)]
    pub augment: AugmentArgs,
    #[command(flatten)]
    pub image: ImageArgs,
    /// How the teacher's pictures are prepared, without a store
    #[arg(long, value_enum, help_heading = "Preprocessing")]
    pub teacher_preset: Option<Preset>,
}

/// How it is trained.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Training")]
pub struct Recipe {
    /// Epochs [default: those of the store, 30 without]. More than the store has use its own again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Pictures in a step, an even number
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = batch)]
    pub batch: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 1e-3, value_name = "RATE", value_parser = learning_rate)]
    pub lr: f32,
    /// Weight decay
    #[arg(long, default_value_t = 0.05, value_name = "DECAY", value_parser = rate)]
    pub weight_decay: f32,
    /// How gradients change weights
    #[arg(long, value_enum, default_value_t = Optimizer::Adamw)]
    pub optimizer: Optimizer,
    /// Decay of the average of the weights that is exported; 0 exports the last weights
    #[arg(long, default_value_t = 0.995, value_name = "DECAY", value_parser = share)]
    pub ema: f64,
    /// Keep weights at zero that are zero in --student FILE.onnx, as ampoule prune --blocks leaves them
    #[arg(long)]
    pub keep_zeros: bool,
    /// Share of the label in the loss of a picture that has one, beside a teacher
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = share)]
    pub labels_weight: f64,
    /// Use only this share of the labels, of each class
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = share)]
    pub label_fraction: f64,
    /// Temperature of teacher and student
    #[arg(long, default_value_t = 1.0, value_name = "T", value_parser = temperature)]
    pub temperature: f64,
    /// Share of a label that is spread over all classes
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", value_parser = share)]
    pub smoothing: f64,
    /// Rate at which whole branches are dropped in the last block [default: the network's own]
    #[arg(long, value_name = "RATE", value_parser = share)]
    pub drop_path: Option<f64>,
    /// Factor by which the learning rate falls from each layer to the one before it, as 0.8, for a student
    /// that has learnt already
    #[arg(long, value_name = "FACTOR", value_parser = share)]
    pub layer_decay: Option<f64>,
    /// Weight in the loss of the mean of ln(1 + A²) over the student's attention weights A, as 0.01
    #[arg(long, default_value_t = 0.0, value_name = "WEIGHT", conflicts_with = "pairs", value_parser = rate)]
    pub attention_sparsity: f32,
    /// Train the last N epochs with values and weights rounded as int8 rounds them (quantisation-aware)
    #[arg(long, value_name = "N", conflicts_with = "pairs", value_parser = clap::value_parser!(u32).range(1..))]
    pub qat: Option<u32>,
    /// What all random choices are made of
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Threads [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Seconds between checkpoints within an epoch
    #[arg(long, default_value_t = 30.0, value_name = "S", value_parser = seconds)]
    pub checkpoint_every: f64,
    /// Go on with up to so many unreadable pictures [default: 1 % of them]
    #[arg(long, value_name = "N")]
    pub max_unreadable: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Optimizer {
    /// Adam with decoupled weight decay
    Adamw,
    /// The same with one-byte moments
    CoatAdamw,
    /// Momentum with rates set by the first gradient
    SgdSai,
}

/// What a run ended in.
#[derive(Debug, Serialize)]
pub struct Outcome {
    #[serde(serialize_with = "output::path")]
    pub student: PathBuf,
    pub network: String,
    pub learnt_from: String,
    pub samples: usize,
    pub labels: usize,
    pub measured: usize,
    pub epochs: usize,
    pub steps: u64,
    /// Training time of the steps in the metrics.
    pub seconds: f64,
    pub images_per_second: f64,
    /// Teacher; student as its file was, where it came from one; student; int8.
    pub rows: Vec<Row>,
    /// Of an elastic student, the smallest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<elastic::Measured>,
    /// The file of an elastic student.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic: Option<PathBuf>,
    pub unreadable: Vec<String>,
    #[serde(serialize_with = "output::path")]
    pub artifact: PathBuf,
    #[serde(serialize_with = "output::path")]
    pub report: PathBuf,
    #[serde(skip)]
    pub metrics: Vec<Record>,
    #[serde(skip)]
    pub confusion: Confusion,
    #[serde(skip)]
    pub int8: Vec<Option<usize>>,
    #[serde(skip)]
    pub classes: Vec<String>,
    /// The measured pictures' files, in the confusion's order.
    #[serde(skip)]
    pub pictures: Vec<PathBuf>,
    /// How to quantise it again.
    pub quantize: String,
}

impl Distill {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        if let Some(list) = &self.pairs.pairs {
            return pairs::execute(self, list);
        }
        let mut inputs = vec![self.init.as_deref(), Some(Path::new(&self.student))];
        inputs.extend(self.teachers.iter().map(|p| Some(p.as_path())));
        let inputs: Vec<&Path> = inputs.into_iter().flatten().collect();
        check_output(&self.output, &inputs)?;
        for extension in ["amp", "safetensors"] {
            if self.output.with_extension(extension) == self.output {
                return Err(Failure::Usage(format!(
                    "`{}`: the student is written as ONNX, and its int8 artifact beside it; give -o {}",
                    self.output.display(),
                    self.output.with_extension("onnx").display()
                )));
            }
        }
        if self.recipe.keep_zeros && !is_onnx(Path::new(&self.student)) {
            return Err(Failure::Usage(
                "--keep-zeros is for --student FILE.onnx: other students have no zeros to keep"
                    .to_owned(),
            ));
        }
        let view = if self.json { View::Json } else { View::Text };
        let mut live = Live::new(view)?;
        let outcome = self.run(&mut live)?;
        drop(live);
        match self.json {
            true => output::print_json_line(&json!({"kind": "result", "result": outcome})),
            false => print(&render(&outcome)),
        }
    }

    /// Trains, exports, quantises and measures.
    pub fn run(&self, live: &mut Live) -> Result<Outcome, Failure> {
        let lesson = lesson::Lesson::prepare(self)?;
        let student = Student::open(self, lesson.classes())?;
        let settings = lesson.settings(self, &student);
        let threads = self.threads();
        let (mut task, known) = lesson.into_task(self, &student)?;
        let trained = Trained::new(self, &student, &known)?;
        if let Some(mimicry) = trained.mimicry {
            task = task.with_mimicry(mimicry);
        }
        let epochs = self.epochs(&known);
        if let Some(rounded) = self.recipe.qat.filter(|&n| n as usize > epochs) {
            return Err(Failure::Usage(format!(
                "--qat {rounded} is more than the {epochs} epochs; give at most as many"
            )));
        }
        let options = self.options(epochs, threads);
        let folder = self.run_folder();
        let settings = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "training": options,
            "lesson": settings,
        });
        let mut run = Run::open(&folder, settings)?;
        let elastic = self.elastic.sizes(&student)?;
        let mut trainer = match &elastic {
            Some(elastic) => Trainer::elastic(elastic, trained.first, options)?,
            None => Trainer::new(trained.graph, trained.first, options)?,
        };
        live.introduce(&self.introduction(&task, &student, epochs, &known));
        let untrained = match &student.file {
            Some(file) => Some((file, task.confusion(&mut trainer.evaluator())?)),
            None => None,
        };
        let untrained =
            untrained.map(|(file, confusion)| Row::untrained(&student, file, &confusion));
        let end = trainer.train(&mut task, Some(&mut run), live)?;
        live.finish();
        for reason in task.unreadable() {
            note(&format!("warning: left out: {reason}"));
        }
        if let End::Stopped(steps) = end {
            return Err(Failure::Stopped { steps, run: folder });
        }
        save(&self.output, &student.to_onnx(student.own(&trainer))?)?;
        let mut outcome = self.measure(&trainer, &task, &student, untrained, &known, folder)?;
        if let Some(elastic) = &elastic {
            let file = self.output.with_extension("safetensors");
            let bytes = elastic.to_bytes(trainer.values());
            save(&file, &bytes.map_err(TrainError::from)?)?;
            outcome.sizes = elastic::measure(elastic, trainer.values(), &task, self.threads())?;
            outcome.elastic = Some(file);
        }
        save(&outcome.report, report::distill::page(&outcome).as_bytes())?;
        Ok(outcome)
    }

    fn measure(
        &self,
        trainer: &Trainer,
        task: &Classification,
        student: &Student,
        untrained: Option<Row>,
        known: &lesson::Known,
        folder: PathBuf,
    ) -> Result<Outcome, Failure> {
        let mut weights = student.own(trainer).to_vec();
        let engine = Engine::new(student.graph.clone(), self.threads());
        let mut engine = engine.map_err(TrainError::from)?;
        let confusion = task.confusion(&mut Evaluator::new(&mut engine, &mut weights))?;
        let measured = measure::Measured::new(task, &confusion, known, self.threads());
        let report = folder.join("report.html");
        let artifact = self.output.with_extension("amp");
        let mut rows: Vec<Row> = measured.teacher(known)?.into_iter().collect();
        let (float, quantized, int8) =
            measured.student(&self.output, &artifact, student, self.recipe.qat.is_some())?;
        rows.extend(untrained);
        rows.extend([float, quantized]);
        let metrics = read_metrics(&folder).map_err(|source| Failure::Read {
            path: folder.join("metrics.jsonl"),
            source,
        })?;
        let effort = Effort::of(&metrics);
        Ok(Outcome {
            student: self.output.clone(),
            network: self.student.clone(),
            learnt_from: known.source.clone(),
            samples: task.samples(),
            labels: self.labels_used(task),
            measured: confusion.answers.len(),
            epochs: self.epochs(known),
            steps: effort.steps,
            seconds: effort.seconds,
            images_per_second: effort.speed(),
            rows,
            unreadable: task.unreadable().to_vec(),
            artifact,
            report,
            classes: known.class_names(),
            pictures: measured.pictures(),
            int8,
            metrics,
            confusion,
            quantize: student.quantize_command(
                &self.output,
                &self.image,
                self.recipe.qat.is_some(),
            ),
            sizes: Vec::new(),
            elastic: None,
        })
    }

    fn options(&self, epochs: usize, threads: usize) -> TrainOptions {
        let recipe = &self.recipe;
        let optimizer = match recipe.optimizer {
            Optimizer::Adamw => OptimizerKind::AdamW,
            Optimizer::CoatAdamw => OptimizerKind::CoatAdamW,
            Optimizer::SgdSai => OptimizerKind::SgdSai,
        };
        TrainOptions {
            epochs,
            rate: recipe.lr,
            optimizer,
            weight_decay: recipe.weight_decay,
            ema: Some(recipe.ema as f32).filter(|&ema| ema > 0.0),
            layer_decay: recipe.layer_decay.map(|factor| factor as f32),
            attention_sparsity: recipe.attention_sparsity,
            quantized_epochs: recipe.qat.map_or(0, |n| n as usize),
            keep_zeros: recipe.keep_zeros,
            factors: match self.maps.parts() {
                Some(_) => vec![(FROZEN.to_owned(), 0.0)],
                None => Vec::new(),
            },
            seed: recipe.seed,
            threads,
            checkpoint_every: Duration::from_secs_f64(recipe.checkpoint_every),
            evaluate_every: self.eval_every as usize,
            ..TrainOptions::default()
        }
    }

    fn epochs(&self, known: &lesson::Known) -> usize {
        let given = self.recipe.epochs.map(|e| e as usize);
        given.or(known.store_epochs).unwrap_or(30)
    }

    /// Labels that the loss knows of.
    fn labels_used(&self, task: &Classification) -> usize {
        match self.labels_only || self.recipe.labels_weight > 0.0 {
            true => task.labels(),
            false => 0,
        }
    }

    fn threads(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.recipe.threads.map_or_else(processors, usize::from)
    }

    fn run_folder(&self) -> PathBuf {
        let beside = || self.output.with_extension("run");
        self.run.clone().unwrap_or_else(beside)
    }

    /// What is going to happen, in a few lines.
    fn introduction(
        &self,
        task: &Classification,
        student: &Student,
        epochs: usize,
        known: &lesson::Known,
    ) -> String {
        let cycles = match known.store_epochs {
            Some(stored) if stored < epochs => {
                format!(", those {stored} of the store again and again")
            }
            _ => String::new(),
        };
        let rounded = match self.recipe.qat {
            Some(n) => format!(", the last {n} with int8 codes"),
            None => String::new(),
        };
        let mut rows = vec![
            (
                "student",
                format!(
                    "{}, {} parameters, {}",
                    self.student,
                    count(student.parameters),
                    student.source
                ),
            ),
            ("learns from", known.source.clone()),
            (
                "pictures",
                format!(
                    "{}, {} with a label that is used; {} measured",
                    task.samples(),
                    self.labels_used(task),
                    task.measured().1.len()
                ),
            ),
            ("epochs", format!("{epochs}{cycles}{rounded}")),
        ];
        if self.recipe.attention_sparsity != 0.0 {
            let weight = self.recipe.attention_sparsity;
            rows.push((
                "attention",
                format!("ln(1 + A²) in the loss, times {weight}"),
            ));
        }
        if let Some(parts) = self.maps.parts() {
            let mut what = vec!["maps of the teacher's last two stages"];
            what.extend(parts.second_view.then_some("without their means, too"));
            what.extend(parts.teacher_stage.then_some("through its last stage"));
            rows.push(("maps", what.join(", ")));
        }
        rows.push(("run", self.run_folder().display().to_string()));
        facts(&rows)
    }
}

/// The result as text.
pub fn render(o: &Outcome) -> String {
    let mut table = Table::new(&[
        "",
        ">top-1",
        ">parameters",
        ">MACs",
        ">bytes",
        ">time",
        ">arena",
    ]);
    for r in &o.rows {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        table.row([
            r.name.clone(),
            or_dash(r.top1.map(|t| format!("{:.1} %", 100.0 * t.value()))),
            or_dash(r.parameters.map(count)),
            or_dash(r.macs.map(count)),
            bytes(r.bytes),
            or_dash(r.median_us.map(micros)),
            or_dash(r.arena_bytes.map(bytes)),
        ]);
    }
    let mut text = table.render();
    if !o.sizes.is_empty() {
        text.push_str(&format!("\n{}", elastic::table(&o.sizes)));
    }
    let mut rows = vec![
        ("student", o.student.display().to_string()),
        ("int8", o.artifact.display().to_string()),
        ("report", o.report.display().to_string()),
        (
            "training",
            format!(
                "{}, {} steps, {:.0} s, {:.1} images/s",
                plural(o.epochs, "epoch"),
                o.steps,
                o.seconds,
                o.images_per_second
            ),
        ),
        ("again", o.quantize.clone()),
    ];
    if let Some(file) = &o.elastic {
        rows.insert(1, ("sizes", file.display().to_string()));
    }
    format!("{text}\n{}", facts(&rows))
}

/// The measure of an evaluation that people look at first.
pub fn headline(measures: &Measures) -> Option<String> {
    if let Some(recall) = measures.get("text_to_image_at_1") {
        return Some(format!("R@1 {:.1} % text to image", 100.0 * recall));
    }
    let accuracy = measures.get("accuracy")?;
    Some(format!("{:.1} % right", 100.0 * accuracy))
}

fn share(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    parsed.ok_or_else(|| "expected a share from 0 to 1, for example 0.1".to_owned())
}

fn rate(text: &str) -> Result<f32, String> {
    let parsed = text.parse().ok();
    let fits = parsed.filter(|r: &f32| r.is_finite() && *r >= 0.0);
    fits.ok_or_else(|| "expected a number from 0, for example 0.001".to_owned())
}

fn learning_rate(text: &str) -> Result<f32, String> {
    let fits = rate(text).ok().filter(|&r| r > 0.0);
    fits.ok_or_else(|| "expected a number above 0, for example 0.001".to_owned())
}

fn temperature(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok();
    let fits = parsed.filter(|t| (0.1..=100.0).contains(t));
    fits.ok_or_else(|| "expected a temperature from 0.1 to 100".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok();
    let fits = parsed.filter(|s| (0.0..=1e6).contains(s));
    fits.ok_or_else(|| "expected seconds, for example 30".to_owned())
}

fn batch(text: &str) -> Result<usize, String> {
    let parsed = text.parse().ok();
    let fits = parsed.filter(|b: &usize| (2..=65536).contains(b) && b % 2 == 0);
    fits.ok_or_else(|| {
        "expected an even number from 2, as pairs of pictures stay together".to_owned()
    })
}
