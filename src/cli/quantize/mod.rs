//! `ampoule quantize`: from an ONNX or TFLite file to a sealed artifact.

pub mod summary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ampoule_quantize::calibrate::{RangeMethod, WeightMethod};
use ampoule_quantize::data::ImageSet;
use ampoule_quantize::graph::Graph;
use ampoule_quantize::import::Format;
use ampoule_quantize::lower::{FloatWeights, LowerOptions, has_sparse_kernel};
use ampoule_quantize::metrics::{Difference, classes};
use ampoule_quantize::model::{Compiled, Model};
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::{self, QuantizeOptions, Quantized};
use ampoule_quantize::plan::{PlanOptions, Target};
use ampoule_quantize::program::Island;
use ampoule_quantize::seal::pack;
use ampoule_runtime::Isa;
use ampoule_runtime::artifact::Step;
use ampoule_runtime::preprocess::Preprocess;
use clap::{Args, ValueEnum};

use super::args::{ImportArgs, any_isa, is_npy};
use super::error::Failure;
use super::files::{check_output, save};
use super::inspect::details::Details;
use super::models::SourceModel;
use super::output::{hex, note, print, print_json};
use super::preprocessing::ImageArgs;
use super::progress::Bars;
use super::samples::{Loaded, known_ids};
use super::{labels, memory};
use crate::report;
use summary::{SparseLayers, Summary, clipped, island_line, render};

const EXAMPLES: &str = "\
Examples:
  ampoule quantize model.onnx --calibration photos/ -o model.amp
  ampoule quantize model.onnx --calibration photos/ --preset imagenet --labels labels.txt -o model.amp
  ampoule quantize model.onnx --calibration labelled/ --labels labels.txt --max-drop 0.5 -o model.amp
  ampoule quantize encoder.onnx --calibration photos/ --min-cosine 0.99 -o encoder.amp
  ampoule quantize sensor.onnx --calibration samples.npy -o sensor.amp --report report.html
  ampoule quantize model.onnx --float -o float.amp
  ampoule quantize model.onnx --calibration photos/ --target-file board.json -o model.amp
  ampoule quantize int8.tflite -o model.amp                      (already quantised: no data needed)";

/// Least agreement of the optimised graph with the ONNX file, in decibels: float rounding alone leaves
/// more than 90.
const PARITY_DB: f64 = 60.0;

/// Quantise an ONNX or TFLite model to int8 and seal it; one that is quantised already keeps its parameters
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Quantize {
    /// The model, ONNX or TFLite
    pub model: PathBuf,
    /// Folder of pictures like those the model will see (or one picture), or samples as .npy; not for
    /// models that are quantised already
    #[arg(long, value_name = "FOLDER")]
    pub calibration: Option<PathBuf>,
    /// The artifact to write
    #[arg(short, long, value_name = "FILE.amp")]
    pub output: PathBuf,
    /// Most calibration samples used, spread evenly over the folder
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "float")]
    pub samples: u32,
    /// How activation ranges are chosen: mse, min-max, percentile:P (as percentile:99.99) or entropy
    #[arg(long, value_name = "METHOD", default_value = "mse", value_parser = range, conflicts_with = "float")]
    pub range: RangeMethod,
    /// How weight scales are chosen: mse or min-max
    #[arg(long, value_name = "METHOD", default_value_t, conflicts_with = "float")]
    pub weight_range: WeightMethod,
    /// Leave the biases as they are
    #[arg(long, conflicts_with = "float")]
    pub no_bias_correction: bool,
    /// Equalise channel ranges of neighbouring layers first
    #[arg(long, conflicts_with = "float")]
    pub equalise: bool,
    /// Round the weights of each layer to N values, as 32, but for depthwise ones: costs accuracy, and makes --compress smaller
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=255), conflicts_with = "float")]
    pub cluster: Option<u16>,
    /// Store linear layers and 1×1 convolutions as lists of 1×4 blocks where so many blocks are zero that it is faster
    /// on this instruction set; on others it is slower
    #[arg(long, value_name = "ISA", value_parser = any_isa(), conflicts_with = "float")]
    pub sparse: Option<Isa>,
    /// Merge the N most alike tokens in every block of a plain vision transformer, as r=13
    #[arg(long, value_name = "r=N", default_value = "r=0", value_parser = tokens, conflicts_with = "float")]
    pub merge: usize,
    /// Widen the most sensitive layers until at most so many points of accuracy are lost on the
    /// calibration pictures (with --labels), or of agreement with the float model
    #[arg(long, value_name = "POINTS", value_parser = points, conflicts_with = "float")]
    pub max_drop: Option<f64>,
    /// Widen the most sensitive layers until the cosine of the angle between the outputs and the float
    /// model's is at least this on every calibration sample; needs no labels
    #[arg(long, value_name = "COSINE", value_parser = cosine, conflicts_with = "float")]
    pub min_cosine: Option<f64>,
    /// Class labels: .txt with one a line, or .csv with columns `class` and `label`
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Most bytes of arena (as 65536, 64k or 1.5M): the first layers run in bands of rows until it fits
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub arena_budget: Option<usize>,
    /// A board's memory banks, JSON: tensors are placed in them by the cost of a byte
    #[arg(long, value_name = "BOARD.json")]
    pub target_file: Option<PathBuf>,
    /// Fail when a layer would not run in int8
    #[arg(long, conflicts_with = "float")]
    pub deny_fallback: bool,
    /// Check every pass, and the result with the ONNX file on one sample
    #[arg(long)]
    pub verify: bool,
    /// Seal in float, without quantising
    #[arg(long)]
    pub float: bool,
    /// Storage of the weights of layers that are in float
    #[arg(long, value_enum, default_value = "f32")]
    pub weights: StoredWeights,
    /// Leave names out of the artifact
    #[arg(long)]
    pub strip: bool,
    /// Store the artifact entropy-coded: a smaller file of the same model, unpacked into memory when it is opened
    #[arg(long)]
    pub compress: bool,
    /// Write a report to look at in a browser
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub import: ImportArgs,
    #[command(flatten)]
    pub image: ImageArgs,
}

/// Storage of float weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoredWeights {
    /// Single precision
    F32,
    /// Half precision
    F16,
}

impl Quantize {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let summary = self.run()?;
        match self.json {
            true => print_json(&summary),
            false => print(&render(&summary)),
        }
    }

    fn run(&self) -> Result<Summary, Failure> {
        let started = Instant::now();
        self.check_outputs()?;
        let labels = self
            .labels
            .as_deref()
            .map(labels::read)
            .transpose()?
            .unwrap_or_default();
        let source = SourceModel::open(&self.model, &self.import, self.image.size(), self.verify)?;
        self.check_calibration(&source)?;
        self.check_labels(&source.graph, &labels)?;
        let rows = self.calibration.as_deref().is_some_and(is_npy);
        if rows && self.image.is_given() {
            return Err(Failure::Usage(
                "preprocessing is for pictures; samples in .npy are taken as they are".to_owned(),
            ));
        }
        let pictures = match self.calibration {
            Some(_) => !rows,
            None => self.image.is_given() || source.takes_pictures()?,
        };
        let preprocess = pictures.then(|| source.preprocess(&self.image));
        let preprocess = preprocess.transpose()?;
        let bars = Bars::new();
        let samples = self.load(&source, preprocess.as_ref(), &labels, &bars)?;
        let parity_db = match (&samples, self.verify) {
            (Some(samples), true) if source.has_oracle() => Some(self.parity(&source, samples)?),
            (_, true) if !source.has_oracle() => {
                note(
                    "note: --verify checked the passes only: no second implementation runs TFLite files here",
                );
                None
            }
            (None, true) => {
                note(
                    "note: --verify checked the passes only: comparing with the ONNX file takes a sample, give --calibration",
                );
                None
            }
            _ => None,
        };
        let options = self.options(&source, preprocess, labels)?;
        let (compiled, quantized) = match samples {
            Some(samples) if !self.float && !source.is_quantised() => {
                let q = pipeline::quantize(source.graph.clone(), &samples, &options, &bars)?;
                (q.compiled.clone(), Some(q))
            }
            _ if source.is_quantised() && !self.float => {
                let steps = &source.imported.weight_steps;
                let q = pipeline::take_over(source.graph.clone(), steps, &options)?;
                (q.compiled.clone(), Some(q))
            }
            _ => (pipeline::seal_float(&source.graph, &options)?, None),
        };
        self.deny_fallback(&compiled)?;
        self.check_weights(&compiled)?;
        let packed = self.compress.then(|| pack(&compiled.bytes));
        let mut summary = self.summary(
            &source,
            &compiled,
            quantized.as_ref(),
            preprocess,
            parity_db,
            started,
        )?;
        summary.packed_bytes = packed.as_ref().map(Vec::len);
        match &packed {
            Some(packed) => save(&self.output, packed)?,
            None => save(&self.output, &compiled.bytes)?,
        }
        if let Some(path) = &self.report {
            let details = Details::of(&Model::from_bytes(compiled.bytes)?)?;
            save(path, report::quantize::page(&summary, &details).as_bytes())?;
        }
        Ok(summary)
    }

    fn check_outputs(&self) -> Result<(), Failure> {
        let read = [
            Some(&self.model),
            self.labels.as_ref(),
            self.calibration.as_ref(),
        ];
        let mut taken: Vec<&Path> = read.into_iter().flatten().map(PathBuf::as_path).collect();
        check_output(&self.output, &taken)?;
        let Some(report) = &self.report else {
            return Ok(());
        };
        if *report == self.output {
            return Err(Failure::Usage(
                "--report and --output name one file".to_owned(),
            ));
        }
        taken.push(&self.output);
        check_output(report, &taken)
    }

    /// What is quantised already needs no data, and what is not does.
    fn check_calibration(&self, source: &SourceModel) -> Result<(), Failure> {
        if self.float && self.calibration.is_some() && !self.verify {
            return Err(Failure::Usage(
                "--calibration does nothing with --float but give --verify a sample; leave it out, or add --verify"
                    .to_owned(),
            ));
        }
        if self.float {
            return Ok(());
        }
        if !source.is_quantised() {
            return match self.calibration {
                Some(_) => Ok(()),
                None => Err(Failure::Usage(format!(
                    "{}: the model is in float: give pictures or samples like those it will see with --calibration, or seal it as it is with --float",
                    self.model.display()
                ))),
            };
        }
        let given = [
            (self.calibration.is_some(), "--calibration"),
            (self.equalise, "--equalise"),
            (self.cluster.is_some(), "--cluster"),
            (self.merge > 0, "--merge"),
            (self.max_drop.is_some(), "--max-drop"),
            (self.min_cosine.is_some(), "--min-cosine"),
            (self.no_bias_correction, "--no-bias-correction"),
        ];
        match given.iter().find(|(is_given, _)| *is_given) {
            None => Ok(()),
            Some((_, name)) => Err(Failure::Usage(format!(
                "{}: the model is quantised already and its parameters are taken over; leave {name} out, or import its float original",
                self.model.display()
            ))),
        }
    }

    /// Labels that are too many or too few would name the wrong classes.
    fn check_labels(&self, graph: &Graph, labels: &[String]) -> Result<(), Failure> {
        let (Some(path), Some(output)) = (&self.labels, graph.outputs.first()) else {
            return Ok(());
        };
        let shape = graph.shape(output.value);
        let classes = classes(shape).ok_or_else(|| Failure::Unfit {
            path: path.clone(),
            what: format!("names classes, but the model's first output has shape {shape:?}"),
            hint: "leave --labels out; it is for an output that is one row of classes",
        })?;
        labels::check_count(path, labels.len(), classes)
    }

    fn load(
        &self,
        source: &SourceModel,
        preprocess: Option<&Preprocess>,
        labels: &[String],
        bars: &Bars,
    ) -> Result<Option<Loaded>, Failure> {
        let Some(path) = &self.calibration else {
            return Ok(None);
        };
        let limit = self.samples as usize;
        match preprocess {
            None => {
                let port = source.input()?;
                let (shape, ids) = (
                    source.graph.shape(port.value),
                    known_ids(&source.graph, port.value),
                );
                Loaded::rows(path, shape, &port.layout, ids, limit).map(Some)
            }
            // Folder names mean classes only where a label list says which.
            Some(p) if self.max_drop.is_some() && !labels.is_empty() => {
                let set = ImageSet::open_with_classes(path, labels)?.limit(limit);
                Loaded::pictures(&set, p, bars).map(Some)
            }
            Some(p) => {
                let set = ImageSet::open(path)?.limit(limit);
                Ok(Some(Loaded::pictures(&set, p, bars)?.without_labels()))
            }
        }
    }

    /// Agreement of the optimised graph with the file on the first sample, in decibels.
    fn parity(&self, source: &SourceModel, samples: &Loaded) -> Result<f64, Failure> {
        let inputs = samples.sample(0).map_err(Failure::Usage)?;
        let ours = Model::float(&source.graph)?.run_f32(&inputs)?;
        let theirs = source.oracle(&self.model)?.run(&inputs[0])?;
        let mut difference = Difference::default();
        for ((port, ours), theirs) in source.graph.outputs.iter().zip(&ours).zip(&theirs) {
            let ours = pipeline::to_source(ours, source.graph.shape(port.value), &port.layout);
            difference
                .update(theirs, &ours)
                .map_err(|e| Failure::Usage(e.to_string()))?;
        }
        // JSON can't hold an infinity.
        let sqnr_db = difference.sqnr_db().clamp(-200.0, 200.0);
        match sqnr_db >= PARITY_DB {
            true => Ok(sqnr_db),
            false => Err(Failure::Parity {
                after: "import".into(),
                sqnr_db,
                wanted: PARITY_DB,
            }),
        }
    }

    fn options(
        &self,
        source: &SourceModel,
        preprocess: Option<Preprocess>,
        labels: Vec<String>,
    ) -> Result<QuantizeOptions, Failure> {
        let file = self
            .model
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut facts = BTreeMap::from([
            ("source".to_owned(), file.into()),
            match source.imported.format {
                Format::Tflite { version } => ("tflite".to_owned(), version.into()),
                Format::Onnx { opset } => ("opset".to_owned(), opset.into()),
            },
            (
                "exporter".to_owned(),
                source.imported.producer.clone().into(),
            ),
        ]);
        let target = self.target()?;
        if let Some(target) = &target {
            facts.insert("target".to_owned(), serde_json::json!(target));
        }
        Ok(QuantizeOptions {
            range: self.range,
            weights: self.weight_range,
            bias_correction: !self.no_bias_correction,
            equalise: self.equalise,
            cluster: self.cluster.map_or(0, usize::from),
            merge: self.merge,
            max_drop: self.max_drop,
            min_cosine: self.min_cosine,
            verify: self.verify,
            preprocess,
            labels,
            strip_names: self.strip,
            lowering: LowerOptions {
                float_weights: match self.weights {
                    StoredWeights::F32 => FloatWeights::F32,
                    StoredWeights::F16 => FloatWeights::F16,
                },
                sparse: self.sparse,
                ..LowerOptions::default()
            },
            planning: PlanOptions {
                arena_budget: self.arena_budget,
                target,
                ..PlanOptions::default()
            },
            facts,
        })
    }

    /// The memory banks of the board.
    fn target(&self) -> Result<Option<Target>, Failure> {
        let Some(path) = &self.target_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|source| Failure::Read {
            path: path.clone(),
            source,
        })?;
        let target = Target::from_json(&text).map_err(|e| Failure::Unfit {
            path: path.clone(),
            what: format!("is {e}"),
            hint: "docs/memory.md shows one",
        })?;
        Ok(Some(target))
    }

    fn deny_fallback(&self, compiled: &Compiled) -> Result<(), Failure> {
        let islands = &compiled.program.islands;
        if !self.deny_fallback || islands.is_empty() {
            return Ok(());
        }
        Err(Failure::Fallback(islands.iter().map(island_line).collect()))
    }

    /// Half precision is for float layers; where there are none it would do nothing.
    fn check_weights(&self, compiled: &Compiled) -> Result<(), Failure> {
        let mut islands = compiled.program.islands.iter();
        let is_layer = |i: &Island| i.dtype == "f32" && matches!(&*i.op, "Conv" | "Linear");
        match self.weights == StoredWeights::F32 || self.float || islands.any(is_layer) {
            true => Ok(()),
            false => Err(Failure::Usage(
                "--weights f16 does nothing: no layer keeps float weights; it is for --float and for layers that are widened"
                    .to_owned(),
            )),
        }
    }

    fn summary(
        &self,
        source: &SourceModel,
        compiled: &Compiled,
        quantized: Option<&Quantized>,
        preprocess: Option<Preprocess>,
        parity_db: Option<f64>,
        started: Instant,
    ) -> Result<Summary, Failure> {
        let model = Model::from_bytes(compiled.bytes.clone())?;
        let artifact = model.artifact()?;
        let graph = quantized.map_or(&source.graph, |q| &q.graph);
        Ok(Summary {
            artifact: self.output.clone(),
            digest: hex(artifact.digest()),
            format: source.imported.format.to_string(),
            nodes: graph.nodes.len(),
            steps: artifact.step_count(),
            macs: graph.macs(),
            float_bytes: source.graph.parameters() * 4,
            artifact_bytes: compiled.bytes.len(),
            packed_bytes: None,
            arena_bytes: compiled.plan.bank_bytes.iter().sum(),
            arena_lower_bound: compiled.plan.lower_bound,
            samples: quantized.map_or(0, |q| q.statistics.samples),
            range: self.range.to_string(),
            from_source: quantized.is_some() && source.is_quantised(),
            clipped: quantized.and_then(clipped),
            tiled: compiled.tiled.clone(),
            sparse: self.sparse.map(|isa| {
                let count = |f: fn(&Step) -> bool| artifact.steps().filter(f).count();
                let layers = count(|s| matches!(s, Step::Sparse { .. }));
                SparseLayers {
                    isa: isa.name(),
                    layers,
                    of: layers + count(|s| matches!(s, Step::Conv(_))),
                    possible: has_sparse_kernel(isa),
                }
            }),
            islands: compiled.program.islands.clone(),
            merged: quantized.map_or_else(Vec::new, |q| q.merged.clone()),
            sensitivity: quantized.and_then(|q| q.sensitivity.clone()),
            preprocess,
            preprocess_assumed: preprocess.is_some() && self.image.is_assumed(),
            parity_db,
            seconds: started.elapsed().as_secs_f64(),
            peak_memory_bytes: memory::peak(),
        })
    }
}

fn range(text: &str) -> Result<RangeMethod, String> {
    // Both spellings are common.
    text.replace("minmax", "min-max")
        .parse()
        .map_err(|e: ampoule_quantize::calibrate::CalibrateError| e.to_string())
}

fn tokens(text: &str) -> Result<usize, String> {
    let number = text.strip_prefix("r=").unwrap_or(text);
    let parsed = number.parse();
    parsed.map_err(|_| "expected a number of tokens, for example r=13".to_owned())
}

/// A number of bytes, with k or M for 1024 or 1024² of them.
fn byte_count(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(n) => (n, 1024.0),
        None => match text.strip_suffix('M') {
            Some(n) => (n, 1024.0 * 1024.0),
            None => (text, 1.0),
        },
    };
    let parsed = number.parse().ok().map(|n: f64| n * unit);
    match parsed.filter(|n| (1.0..=f64::from(u32::MAX)).contains(n)) {
        Some(n) => Ok(n as usize),
        None => Err("expected a number of bytes, for example 65536, 64k or 1.5M".to_owned()),
    }
}

fn points(text: &str) -> Result<f64, String> {
    let parsed = text
        .parse()
        .ok()
        .filter(|p: &f64| (0.0..=100.0).contains(p));
    parsed.ok_or_else(|| "expected points from 0 to 100, for example 0.5".to_owned())
}

fn cosine(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|c: &f64| (0.0..1.0).contains(c));
    parsed.ok_or_else(|| "expected a cosine from 0 to below 1, for example 0.99".to_owned())
}
