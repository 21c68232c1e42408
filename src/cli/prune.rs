//! `ampoule prune`: smaller graphs that are really faster.

mod budget;
pub mod layers;
mod measure;
pub mod summary;

use std::path::{Path, PathBuf};

use ampoule::distill::taylor::{Objective, taylor};
use ampoule_quantize::data::ImageSet;
use ampoule_quantize::export::graph_to_onnx;
use ampoule_quantize::graph::Graph;
use ampoule_quantize::metrics::classes as classes_of;
use ampoule_quantize::observe::Samples;
use ampoule_quantize::passes;
use ampoule_quantize::pipeline::Progress;
use ampoule_quantize::prune::{
    Coupling, Criterion, PruneError, Sparsity, StructuredOptions, fix, importance, magnitude,
};
use clap::{ArgGroup, Args, ValueEnum};

use super::args::{ExecArgs, ImportArgs, is_npy, is_tflite};
use super::error::Failure;
use super::files::{check_output, save};
use super::labels;
use super::models::SourceModel;
use super::output::{note, print, print_json};
use super::preprocessing::{ImageArgs, describe};
use super::progress::Bars;
use super::samples::{Loaded, known_ids};
use crate::report;
use budget::Cutter;
use summary::{Size, Summary, render};

const EXAMPLES: &str = "\
Examples:
  ampoule prune model.onnx --structured 0.5 --data labelled/ -o pruned.onnx
  ampoule prune model.onnx --budget-ms 3 --data photos/ --isa avxvnni -o pruned.onnx
  ampoule prune model.onnx --structured 0.5 --sweep --data labelled/ --report pruned.html -o pruned.onnx
  ampoule prune model.onnx --blocks 0.75 --data labelled/ -o sparse.onnx
  ampoule prune model.onnx --magnitude 0.5 -o sparse.onnx
  ampoule prune experts.onnx --fix /gate/Softmax=0,1,0,0 -o task.onnx
  ampoule distill --student pruned.onnx --teacher model.onnx …      (recovery)";

/// Cut channels, heads and hidden units out of an ONNX model, or set weights to zero
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("how").required(true))]
pub struct Prune {
    /// The float model
    pub model: PathBuf,
    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE.onnx")]
    pub output: PathBuf,
    /// Cut this share of channels, hidden units and heads
    #[arg(
        long,
        value_name = "SHARE",
        allow_negative_numbers = true,
        group = "how"
    )]
    pub structured: Option<f32>,
    /// Cut until an int8 run takes so many milliseconds here, whatever matters least for its cost first
    #[arg(
        long,
        value_name = "MS",
        allow_negative_numbers = true,
        group = "how",
        requires = "data"
    )]
    pub budget_ms: Option<f64>,
    /// Set the smallest weights of all layers together to zero, this share of them
    #[arg(
        long,
        value_name = "SHARE",
        allow_negative_numbers = true,
        group = "how"
    )]
    pub magnitude: Option<f32>,
    /// Set the smallest 1×4 blocks of weights to zero, this share of each linear layer and 1×1 convolution
    #[arg(
        long,
        value_name = "SHARE",
        allow_negative_numbers = true,
        group = "how"
    )]
    pub blocks: Option<f32>,
    /// Set all but the N largest of each M neighbouring weights to zero, as 2:4
    #[arg(long, value_name = "N:M", group = "how", value_parser = pattern)]
    pub nm: Option<(usize, usize)>,
    /// Take a computed value for a constant and remove what is then multiplied by zero, as experts that a task never
    /// asks: the name of the gate's last node, =, and its values; may be given several times
    #[arg(long, value_name = "NAME=VALUE,…", group = "how", value_parser = fixed)]
    pub fix: Vec<Fixed>,
    /// Folder of pictures like those the model will see, or samples as .npy: for importance, measured time, and
    /// accuracy where they are labelled
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Most samples used
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    /// How much a channel matters by [default: energy with --data, else magnitude]
    #[arg(long, value_enum)]
    pub importance: Option<Importance>,
    /// One ranking of the whole graph, importance over cost, in place of one per group
    #[arg(long)]
    pub global: bool,
    /// What is left of a layer is a multiple of this, which kernels like
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub step: u16,
    /// A layer, or the beginning of names of layers, to leave alone; may be given several times
    #[arg(long, value_name = "NAME")]
    pub keep: Vec<String>,
    /// Class labels of the folders of --data: .txt with one a line, or .csv with columns `class` and `label`
    #[arg(long, value_name = "FILE", requires = "data")]
    pub labels: Option<PathBuf>,
    /// Cut these shares, too, and draw accuracy and time over them in the report [without a list: 0.1,0.3,0.5,0.7]
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', num_args = 0..=1, require_equals = true,
        default_missing_value = "0.1,0.3,0.5,0.7", requires = "structured", requires = "data")]
    pub sweep: Option<Vec<f32>>,
    /// Write a report to look at in a browser, and what is in it as JSON beside it
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub exec: ExecArgs,
    #[command(flatten)]
    pub import: ImportArgs,
    #[command(flatten)]
    pub image: ImageArgs,
}

/// Criteria of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Importance {
    /// Squares of the weights that read a channel, times its mean square on samples
    Energy,
    /// Squares of the weights that read a channel
    Magnitude,
    /// Squares of the loss's change to first order when a channel goes, by gradients: of the cross-entropy where --data
    /// has labels, else of the change of the outputs
    Taylor,
}

impl Prune {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let summary = self.run()?;
        match self.json {
            true => print_json(&summary),
            false => print(&render(&summary)),
        }
    }

    fn run(&self) -> Result<Summary, Failure> {
        self.check_arguments()?;
        if is_tflite(&self.model) {
            return Err(Failure::Unfit {
                path: self.model.clone(),
                what: "is a TFLite model, and pruning writes ONNX".to_owned(),
                hint: "export the network as ONNX, prune that, then quantise it",
            });
        }
        let source = SourceModel::open(&self.model, &self.import, self.image.size(), false)?;
        if source.is_quantised() {
            return Err(Failure::Unfit {
                path: self.model.clone(),
                what: "is quantised already".to_owned(),
                hint: "prune the float model, then quantise what is left",
            });
        }
        let mut graph = source.imported.graph.clone();
        passes::rewrite(&mut graph)?;
        let bars = Bars::new();
        let samples = self.load(&source, &bars)?;
        let samples = samples.as_ref();
        let (mut layers, mut groups, mut sweep) = (Vec::new(), Vec::new(), Vec::new());
        let mut objective = None;
        let pruned = match (self.structured, self.budget_ms) {
            (None, None) if !self.fix.is_empty() => {
                let mut pruned = source.imported.graph.clone();
                for fixed in &self.fix {
                    fix(&mut pruned, &fixed.name, &fixed.values)?;
                }
                passes::rewrite(&mut pruned)?;
                pruned
            }
            (None, None) => {
                let mut pruned = graph.clone();
                layers = magnitude(&mut pruned, self.sparsity())?;
                pruned
            }
            (share, budget) => {
                let (coupling, importance, of) = self.importance(&graph, samples, &bars)?;
                objective = of;
                let cutter = Cutter {
                    graph: &graph,
                    coupling: &coupling,
                    importance: &importance,
                    options: StructuredOptions {
                        share: share.unwrap_or(0.5),
                        step: usize::from(self.step),
                        global: self.global || budget.is_some(),
                        keep: self.keep.clone(),
                    },
                };
                let (pruned, cuts) = match (budget, samples) {
                    (Some(budget), Some(samples)) => self.within(&cutter, budget, samples)?,
                    _ => cutter.cut(cutter.options.share)?,
                };
                groups = cuts;
                if let (Some(shares), Some(samples)) = (&self.sweep, samples) {
                    sweep = self.sweep(&cutter, shares, samples, &bars)?;
                }
                pruned
            }
        };
        let file = self.onnx(&pruned)?;
        let mut before = Size::of(
            &graph,
            std::fs::metadata(&self.model).map_or(0, |m| m.len() as usize),
        );
        let mut after = Size::of(&pruned, file.len());
        let mut products = layers::cuts(&graph, &pruned, &groups);
        let (mut min_cosine, mut others_us) = (None, None);
        if let Some(samples) = samples {
            let models =
                self.measure(&graph, &pruned, samples, [&mut before, &mut after], &bars)?;
            others_us = Some(layers::time(&mut products, models, &self.exec)?);
            min_cosine = self.quality(&graph, &pruned, samples, [&mut before, &mut after])?;
        }
        save(&self.output, &file)?;
        let summary = Summary {
            output: self.output.clone(),
            before,
            after,
            groups,
            products,
            others_us,
            sweep,
            layers,
            objective,
            min_cosine,
            budget_us: self.budget_ms.map(|ms| ms * 1e3),
            isa: self.exec.isa().name(),
            threads: self.exec.threads(),
        };
        if let Some(path) = &self.report {
            save(path, report::prune::page(&summary).as_bytes())?;
            let json = serde_json::to_vec_pretty(&summary).map_err(|e| Failure::Print(e.into()))?;
            save(&path.with_extension("json"), &json)?;
        }
        Ok(summary)
    }

    fn check_arguments(&self) -> Result<(), Failure> {
        let mut read: Vec<&Path> = vec![&self.model];
        read.extend(self.data.as_deref());
        read.extend(self.labels.as_deref());
        check_output(&self.output, &read)?;
        if let Some(report) = &self.report {
            if *report == self.output {
                return Err(Failure::Usage(
                    "--report and --output are the same file; give two names".to_owned(),
                ));
            }
            read.push(&self.output);
            check_output(report, &read)?;
            check_output(&report.with_extension("json"), &read)?;
        }
        if let Some(&share) = self
            .sweep
            .iter()
            .flatten()
            .find(|&&s| !(s > 0.0 && s < 1.0))
        {
            return Err(PruneError::Share { share }.into());
        }
        let zeros = self.magnitude.is_some() || self.nm.is_some() || self.blocks.is_some();
        let zeros = zeros || !self.fix.is_empty();
        if zeros && (self.global || !self.keep.is_empty() || self.importance.is_some()) {
            return Err(Failure::Usage(
                "--global, --keep and --importance are for --structured and --budget-ms".to_owned(),
            ));
        }
        if let Some(importance @ (Importance::Energy | Importance::Taylor)) = self.importance
            && self.data.is_none()
        {
            let name = format!("{importance:?}").to_lowercase();
            return Err(Failure::Usage(format!(
                "--importance {name} needs samples: give --data"
            )));
        }
        match self.budget_ms {
            Some(ms) if !(ms > 0.0 && ms.is_finite()) => Err(Failure::Usage(format!(
                "--budget-ms {ms} is no time: expected more than 0"
            ))),
            _ => Ok(()),
        }
    }

    fn sparsity(&self) -> Sparsity {
        match (self.nm, self.blocks, self.magnitude) {
            (Some((n, m)), ..) => Sparsity::OutOf { n, m },
            (_, Some(share), _) => Sparsity::Blocks(share),
            (.., share) => Sparsity::Global(share.unwrap_or_default()),
        }
    }

    fn load(&self, source: &SourceModel, bars: &Bars) -> Result<Option<Loaded>, Failure> {
        let Some(path) = &self.data else {
            return Ok(None);
        };
        let (port, limit) = (source.input()?, self.samples as usize);
        let shape = source.graph.shape(port.value);
        if is_npy(path) {
            let ids = known_ids(&source.graph, port.value);
            return Loaded::rows(path, shape, &port.layout, ids, limit).map(Some);
        }
        let names = self.labels.as_deref().map(labels::read).transpose()?;
        let set = match &names {
            Some(names) => ImageSet::open_with_classes(path, names)?,
            None => ImageSet::open(path)?,
        };
        let classes = source.graph.outputs.first();
        let classes = classes.and_then(|port| classes_of(source.graph.shape(port.value)));
        let labelled =
            set.has_labels() && classes.is_some_and(|n| labels::folders_are_classes(&set, n));
        let preprocess = self.image.preprocess(shape)?;
        if self.image.is_assumed() {
            note(&format!(
                "assuming: {}; give --preset to choose",
                describe(&preprocess)
            ));
        }
        let loaded = Loaded::pictures(&set.limit(limit), &preprocess, bars)?;
        Ok(Some(match labelled {
            true => loaded,
            false => loaded.without_labels(),
        }))
    }

    fn importance(
        &self,
        graph: &Graph,
        samples: Option<&Loaded>,
        bars: &Bars,
    ) -> Result<
        (
            Coupling,
            ampoule_quantize::prune::Importance,
            Option<Objective>,
        ),
        Failure,
    > {
        let coupling = Coupling::new(graph);
        if let (Some(Importance::Taylor), Some(samples)) = (self.importance, samples) {
            bars.begin("gradients", samples.len());
            let found = taylor(graph, &coupling, samples, &|n| bars.advance(n));
            bars.end();
            let (found, objective) = found?;
            return Ok((coupling, found, Some(objective)));
        }
        let none: Vec<Vec<Vec<f32>>> = Vec::new();
        let (criterion, samples): (_, &dyn Samples) = match (self.importance, samples) {
            (None | Some(Importance::Energy), Some(samples)) => (Criterion::Energy, samples),
            _ => (Criterion::Magnitude, &none),
        };
        bars.begin("importance", samples.len());
        let found = importance(graph, &coupling, criterion, samples, &|n| bars.advance(n));
        bars.end();
        Ok((coupling, found?, None))
    }

    fn onnx(&self, graph: &Graph) -> Result<Vec<u8>, Failure> {
        let name = self
            .output
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        let source = self.model.file_name().unwrap_or_default().to_string_lossy();
        let facts = [("pruned_from", &*source)];
        graph_to_onnx(graph, &name, &facts).map_err(|e| Failure::Usage(e.to_string()))
    }
}

/// A value of [`Prune::fix`].
#[derive(Debug, Clone)]
pub struct Fixed {
    name: String,
    values: Vec<f32>,
}

fn fixed(text: &str) -> Result<Fixed, String> {
    let (name, values) = text
        .rsplit_once('=')
        .ok_or("expected a name, = and numbers")?;
    let number = |v: &str| match v.trim().parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("`{v}` is no number")),
    };
    Ok(Fixed {
        name: name.to_owned(),
        values: values.split(',').map(number).collect::<Result<_, _>>()?,
    })
}

fn pattern(text: &str) -> Result<(usize, usize), String> {
    let expected = || "expected N:M, for example 2:4".to_owned();
    let (n, m) = text.split_once(':').ok_or_else(expected)?;
    let parse = |t: &str| t.trim().parse().map_err(|_| expected());
    Ok((parse(n)?, parse(m)?))
}
