//! `ampoule prune`: smaller graphs that are really faster.

pub mod layers;
pub mod summary;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ampoule::distill::taylor::{Objective, taylor};
use ampoule_quantize::data::ImageSet;
use ampoule_quantize::export::graph_to_onnx;
use ampoule_quantize::graph::Graph;
use ampoule_quantize::metrics::{Rate, argmax, classes};
use ampoule_quantize::model::Model;
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::{self, Progress, QuantizeOptions, Silent};
use ampoule_quantize::prune::{
    Coupling, Criterion, GroupCut, PruneError, Sparsity, StructuredOptions, cut, fix, importance,
    magnitude, structured,
};
use ampoule_quantize::{metrics::Difference, passes};
use clap::{Args, ValueEnum};

use super::args::{ExecArgs, ImportArgs, is_npy};
use super::error::Failure;
use super::files::{check_output, save};
use super::labels;
use super::models::SourceModel;
use super::output::{micros, note, print, print_json};
use super::preprocessing::ImageArgs;
use super::progress::Bars;
use super::samples::{Loaded, known_ids};
use super::timing::{Times, Until, measure};
use crate::report;
use summary::{Point, Size, Summary, render};

const EXAMPLES: &str = "\
Examples:
  ampoule prune model.onnx --structured 0.5 --data labelled/ -o pruned.onnx
  ampoule prune model.onnx --budget-ms 3 --data photos/ --isa avxvnni -o pruned.onnx
  ampoule prune model.onnx --structured 0.5 --sweep --data labelled/ --report pruned.html -o pruned.onnx
  ampoule prune model.onnx --blocks 0.75 --data labelled/ -o sparse.onnx
  ampoule prune model.onnx --magnitude 0.5 -o sparse.onnx
  ampoule prune experts.onnx --fix /gate/Softmax=0,1,0,0 -o task.onnx
  ampoule distill --student pruned.onnx --teacher model.onnx …      (recovery)";

/// Rounds in which models take turns.
const ROUNDS: usize = 9;
/// How long each turn is.
const TURN: Duration = Duration::from_millis(60);
/// How near the measured time has to come to --budget-ms.
const NEAR: f64 = 0.05;
/// Most ratios that --budget-ms tries.
const TRIES: usize = 10;
/// Samples that models are calibrated with for measuring alone.
const FEW: usize = 16;

/// Cut channels, heads and hidden units out of an ONNX model, or set weights to zero
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
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
        group = "how",
        required = true
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
        // Folder names that nothing numbers are no classes.
        let labelled = set.has_labels() && (names.is_some() || !set.in_folder_order());
        let loaded = Loaded::pictures(&set.limit(limit), &self.image.preprocess(shape)?, bars)?;
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

    /// Tries shares of the multiply-accumulates until a run takes as long as the budget.
    fn within(
        &self,
        cutter: &Cutter<'_>,
        budget_ms: f64,
        samples: &Loaded,
    ) -> Result<(Graph, Vec<GroupCut>), Failure> {
        let budget = budget_ms * 1e3;
        let few = Few(samples);
        let time = |graph: &Graph| -> Result<f64, Failure> {
            let mut model = self.int8(graph, &few)?.0;
            Ok(self.turns(&mut [&mut model])?[0].median_us)
        };
        let whole = time(cutter.graph)?;
        if whole <= budget {
            return Err(Failure::Usage(format!(
                "a run takes {} as it is, which --budget-ms {budget_ms} allows",
                micros(whole)
            )));
        }
        let (mut low, mut high) = (0.0f32, 1.0f32);
        let mut best: Option<(f64, Graph, Vec<GroupCut>)> = None;
        let mut share = (1.0 - budget / whole) as f32;
        for _ in 0..TRIES {
            let share_now = share.clamp(0.01, 0.99);
            let (graph, cuts) = cutter.cut(share_now)?;
            let us = time(&graph)?;
            note(&format!(
                "{:.1} % less work: {}",
                100.0 * share_now,
                micros(us)
            ));
            let distance = |us: f64| (us / budget - 1.0).abs();
            if best
                .as_ref()
                .is_none_or(|(b, ..)| distance(us) < distance(*b))
            {
                best = Some((us, graph, cuts));
            }
            if distance(us) < NEAR {
                break;
            }
            match us > budget {
                true => low = share_now,
                false => high = share_now,
            }
            share = (low + high) / 2.0;
        }
        match best {
            Some((us, graph, cuts)) if us <= budget * 1.1 => Ok((graph, cuts)),
            best => Err(Failure::Usage(format!(
                "no cut comes down to {budget_ms} ms: the fastest takes {}",
                micros(best.map_or(whole, |b| b.0))
            ))),
        }
    }

    /// The model in int8, and the sizes of artifact and arena.
    fn int8(&self, graph: &Graph, samples: &dyn Samples) -> Result<(Model, usize, usize), Failure> {
        let mut graph = graph.clone();
        pipeline::prepare(&mut graph, false)?;
        let mut options = QuantizeOptions::default();
        options.lowering.sparse = Some(self.exec.isa());
        let q = pipeline::quantize(graph, samples, &options, &Silent)?;
        let (bytes, arena) = (q.compiled.bytes.len(), q.compiled.plan.total());
        Ok((Model::from_bytes(q.compiled.bytes)?, bytes, arena))
    }

    /// Times of models that take turns.
    fn turns(&self, models: &mut [&mut Model]) -> Result<Vec<Times>, Failure> {
        let pool = self.exec.pool();
        let mut times = vec![Vec::new(); models.len()];
        for round in 0..ROUNDS {
            for (model, times) in models.iter_mut().zip(&mut times) {
                let mut session = self.exec.session(model, pool.as_ref())?;
                let turn = measure(&mut session, Until::Elapsed(TURN))?;
                // The first is for warming up.
                if round > 0 {
                    times.extend(turn);
                }
            }
        }
        Ok(times.into_iter().map(Times::of).collect())
    }

    fn measure(
        &self,
        whole: &Graph,
        pruned: &Graph,
        samples: &Loaded,
        [before, after]: [&mut Size; 2],
        bars: &Bars,
    ) -> Result<[Model; 2], Failure> {
        bars.begin("measure", 2);
        let (mut a, bytes, arena) = self.int8(whole, samples)?;
        (before.int8_bytes, before.arena_bytes) = (Some(bytes), Some(arena));
        bars.advance(1);
        let (mut b, bytes, arena) = self.int8(pruned, samples)?;
        (after.int8_bytes, after.arena_bytes) = (Some(bytes), Some(arena));
        let mut times = self.turns(&mut [&mut a, &mut b])?;
        after.times = times.pop();
        before.times = times.pop();
        bars.end();
        Ok([a, b])
    }

    /// Cuts other shares, and measures each in turns with the whole model.
    fn sweep(
        &self,
        cutter: &Cutter<'_>,
        shares: &[f32],
        samples: &Loaded,
        bars: &Bars,
    ) -> Result<Vec<Point>, Failure> {
        let few = Few(samples);
        let mut whole = self.int8(cutter.graph, &few)?.0;
        let mut points: Vec<Point> = Vec::new();
        bars.begin("sweep", shares.len());
        for &share in shares {
            let (graph, _) = cutter.cut(share)?;
            let mut model = self.int8(&graph, &few)?.0;
            let times = self.turns(&mut [&mut whole, &mut model])?;
            let [mut before, mut after] = [cutter.graph, &graph].map(|g| Size::of(g, 0));
            let min_cosine =
                self.quality(cutter.graph, &graph, samples, [&mut before, &mut after])?;
            let whole_us = times[0].median_us;
            let point = |share, us, size: Size, min_cosine| Point {
                share,
                parameters: size.parameters,
                macs: size.macs,
                us,
                whole_us,
                top1: size.top1,
                min_cosine,
            };
            if points.is_empty() {
                points.push(point(0.0, whole_us, before, Some(1.0)));
            }
            points.push(point(share, times[1].median_us, after, min_cosine));
            bars.advance(1);
        }
        bars.end();
        points.sort_by(|a, b| a.share.total_cmp(&b.share));
        Ok(points)
    }

    /// Accuracy of the float models where there are labels; smallest cosine between their outputs.
    fn quality(
        &self,
        whole: &Graph,
        pruned: &Graph,
        samples: &Loaded,
        [before, after]: [&mut Size; 2],
    ) -> Result<Option<f64>, Failure> {
        let float = |graph: &Graph| -> Result<Model, Failure> {
            let mut graph = graph.clone();
            pipeline::prepare(&mut graph, false)?;
            Ok(Model::float(&graph)?)
        };
        let (mut a, mut b) = (float(whole)?, float(pruned)?);
        let first = whole.outputs.first().map(|p| whole.shape(p.value));
        let is_classes = first.and_then(classes).is_some();
        let mut rates = [Rate::default(), Rate::default()];
        let mut least: Option<f64> = None;
        for index in 0..samples.len() {
            let inputs = samples.sample(index).map_err(Failure::Usage)?;
            let (x, y) = (a.run_f32(&inputs)?, b.run_f32(&inputs)?);
            for (x, y) in x.iter().zip(&y) {
                let mut difference = Difference::default();
                if difference.update(x, y).is_ok() {
                    let cosine = difference.cosine();
                    least = Some(least.map_or(cosine, |l| l.min(cosine)));
                }
            }
            if let (true, Some(label)) = (is_classes, samples.label(index)) {
                for (rate, output) in rates.iter_mut().zip([&x, &y]) {
                    rate.add(output.first().and_then(|o| argmax(o)) == Some(label));
                }
            }
        }
        let labelled = (0..samples.len()).any(|i| samples.label(i).is_some());
        if is_classes && labelled {
            [before.top1, after.top1] = rates.map(Some);
        }
        Ok(least)
    }
}

/// Everything a cut is made from.
struct Cutter<'a> {
    graph: &'a Graph,
    coupling: &'a Coupling,
    importance: &'a ampoule_quantize::prune::Importance,
    options: StructuredOptions,
}

impl Cutter<'_> {
    fn cut(&self, share: f32) -> Result<(Graph, Vec<GroupCut>), Failure> {
        let options = StructuredOptions {
            share,
            ..self.options.clone()
        };
        let (gone, cuts) = structured(self.graph, self.coupling, self.importance, &options)?;
        Ok((cut(self.graph, self.coupling, &gone)?, cuts))
    }
}

/// The first samples.
struct Few<'s>(&'s Loaded);

impl Samples for Few<'_> {
    fn len(&self) -> usize {
        self.0.len().min(FEW)
    }

    fn sample(&self, index: usize) -> Result<Vec<Vec<f32>>, String> {
        self.0.sample(index)
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
