//! `ampoule demo`: the whole way on data that comes with the repository: a finished model to int8, and a
//! teacher to a student to int8.

mod training;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ampoule::Classifier;
use ampoule_quantize::compare::{Comparison, compare};
use ampoule_quantize::data::ImageSet;
use ampoule_quantize::metrics::Rate;
use ampoule_quantize::model::Model;
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::{Progress, QuantizeOptions, quantize, seal_float};
use ampoule_runtime::Isa;
use clap::Args;
use serde::Serialize;

use super::args::ImportArgs;
use super::error::Failure;
use super::eval::{Verdict, Verdicts, classify_all};
use super::files::save;
use super::inspect::details::Details;
use super::models::{Engine, OracleEngine, OracleModel, SourceModel};
use super::output::{Table, bytes, micros, plural, print, print_json};
use super::preprocessing::ImageArgs;
use super::profile::{self, StepTime};
use super::progress::Bars;
use super::samples::Loaded;
use super::selftest::{self, Tested};
use super::timing::{self, Times, Until};
use crate::report;
use training::{Amount, Trained};

const MODEL: &str = "models/mlperf-tiny/vww_mobilenet025_float.onnx";
const PHOTOS: &str = "demo/photos";
/// Folder names in sorted order are the model's classes.
const LABELS: [&str; 2] = ["no_person", "person"];
/// Turns in which the engines are timed, and how long one is.
const TURNS: usize = 10;
const TURN: Duration = Duration::from_millis(80);
/// How long the steps are timed.
const PROFILED: Duration = Duration::from_millis(400);
/// Samples of the layer by layer comparison.
const COMPARED: usize = 16;

/// Quantise a small model and train another from a teacher, all from files that come with ampoule, and
/// write reports with pictures
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ampoule demo --out /tmp/demo    (then open /tmp/demo/report.html and student.run/report.html)\n  ampoule demo --no-training      (a few seconds)\n  ampoule demo --full             (trains the teacher too)"
)]
pub struct Demo {
    /// Folder for the artifact and the report
    #[arg(long, default_value = "ampoule-demo", value_name = "FOLDER")]
    out: PathBuf,
    /// Only the first half: no teacher, no student
    #[arg(long)]
    no_training: bool,
    /// Train the teacher too, and a larger student for longer; nothing computed before is used
    #[arg(long, conflicts_with = "no_training")]
    full: bool,
    /// Epochs of the student [default: 40, 80 with --full]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "no_training")]
    epochs: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything the report shows.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub isa: &'static str,
    /// Float first, int8 last.
    pub rows: Vec<Row>,
    pub selftest: Vec<Tested>,
    #[serde(serialize_with = "crate::cli::output::path")]
    pub report: PathBuf,
    /// Of the first half.
    pub seconds: f64,
    /// The second half.
    pub training: Option<Trained>,
    #[serde(skip)]
    pub comparison: Comparison,
    #[serde(skip)]
    pub details: Details,
    #[serde(skip)]
    pub steps: Vec<StepTime>,
    #[serde(skip)]
    pub pictures: Vec<Picture>,
}

/// One engine's figures.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    pub top1: Rate,
    pub top1_interval: (f64, f64),
    pub file_bytes: usize,
    pub arena_bytes: Option<usize>,
    pub median_us: f64,
}

/// A photo with the answers.
#[derive(Debug)]
pub struct Picture {
    /// File name.
    pub name: String,
    pub jpeg: Vec<u8>,
    pub truth: String,
    pub float: Answer,
    pub int8: Answer,
}

/// What an engine says about a photo.
#[derive(Debug)]
pub struct Answer {
    pub class: String,
    pub probability: f32,
}

impl Picture {
    /// Whether int8 is right.
    pub fn is_right(&self) -> bool {
        self.int8.class == self.truth
    }

    /// Whether float and int8 differ.
    pub fn is_contested(&self) -> bool {
        self.float.class != self.int8.class
    }
}

impl Demo {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let fixtures = fixtures()?;
        let fail = |source| Failure::Write {
            path: self.out.clone(),
            source,
        };
        std::fs::create_dir_all(&self.out).map_err(fail)?;
        let bars = Bars::new();
        let mut outcome = self.measure(&fixtures, &bars)?;
        outcome.seconds = started.elapsed().as_secs_f64();
        save(&outcome.report, report::demo::page(&outcome).as_bytes())?;
        drop(bars);
        if !self.json {
            print(&render(&outcome))?;
        }
        if !self.no_training {
            let amount = Amount {
                full: self.full,
                epochs: self.epochs,
            };
            let folder = match self.full {
                true => self.out.join("full"),
                false => self.out.clone(),
            };
            std::fs::create_dir_all(&folder).map_err(fail)?;
            outcome.training = Some(training::run(&fixtures, &folder, amount, self.json)?);
        }
        match (&outcome.training, self.json) {
            (_, true) => print_json(&outcome),
            (Some(trained), false) => print(&training::render(trained)),
            (None, false) => Ok(()),
        }
    }

    fn measure(&self, fixtures: &Path, bars: &Bars) -> Result<Outcome, Failure> {
        let onnx = fixtures.join(MODEL);
        let source = SourceModel::open(&onnx, &ImportArgs::default(), None, true)?;
        let labels: Vec<String> = LABELS.map(str::to_owned).to_vec();
        let set = ImageSet::open_with_classes(fixtures.join(PHOTOS), &labels)?;
        let shape = source.graph.shape(source.input()?.value).to_vec();
        // Nothing given means stretched to the input's size, and 0 to 1: what this model wants.
        let preprocess = ImageArgs::default().preprocess(&shape)?;
        let samples = Loaded::pictures(&set, &preprocess, bars)?;

        let options = QuantizeOptions {
            preprocess: Some(preprocess),
            labels,
            ..QuantizeOptions::default()
        };
        let int8 = quantize(source.graph.clone(), &samples, &options, bars)?;
        save(&self.out.join("vww.amp"), &int8.compiled.bytes)?;
        let mut model = Model::from_bytes(int8.compiled.bytes)?;
        let mut float = Model::from_bytes(seal_float(&source.graph, &options)?.bytes)?;
        let oracle = OracleEngine {
            model: source.oracle(&onnx)?,
            preprocess,
        };

        bars.begin("compare", COMPARED);
        let few = First(&samples, COMPARED);
        let comparison = compare(&source.graph, &model, &few, &|done| bars.advance(done))?;
        bars.end();
        let classify =
            |engine: &dyn Engine, stage: &str| classify_all(&set, engine, None, stage, bars);
        let by_oracle = classify(&oracle, "float")?;
        let by_float = classify(&Classifier::new(float.clone())?, "own float")?;
        let by_int8 = classify(&Classifier::new(model.clone())?, "int8")?;

        let [oracle_us, float_us, int8_us] =
            medians(&oracle.model, &samples, &mut float, &mut model, bars)?;
        let details = Details::of(&model)?;
        let times = timing::profile(&mut model.session(Isa::best())?, Until::Elapsed(PROFILED))?;
        let selftest = selftest::test_all(&mut model)?;
        selftest::verdict(&model, &selftest)?;

        let onnx_bytes = std::fs::metadata(&onnx).map_or(0, |m| m.len() as usize);
        let arena = |m: &Model| {
            m.artifact()
                .ok()
                .map(|a| (0..a.banks()).map(|b| a.bank_bytes(b)).sum())
        };
        let rows = vec![
            row(
                "float, ONNX (tract)",
                &by_oracle,
                onnx_bytes,
                None,
                oracle_us,
            )?,
            row(
                "float, ampoule",
                &by_float,
                float.bytes().len(),
                arena(&float),
                float_us,
            )?,
            row(
                "int8, ampoule",
                &by_int8,
                model.bytes().len(),
                arena(&model),
                int8_us,
            )?,
        ];
        Ok(Outcome {
            isa: Isa::best().name(),
            rows,
            selftest,
            report: self.out.join("report.html"),
            seconds: 0.0,
            training: None,
            comparison,
            steps: profile::steps(&details, &times, None),
            details,
            pictures: pictures(&set, &by_oracle, &by_int8)?,
        })
    }
}

/// The folder of fixtures: beside the sources this program was built from, or below the current folder.
fn fixtures() -> Result<PathBuf, Failure> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let here = PathBuf::from("tests/fixtures");
    let found = [built, here].into_iter().find(|f| f.join(MODEL).is_file());
    found.ok_or_else(|| Failure::Unfit {
        path: "tests/fixtures".into(),
        what: "is not there".to_owned(),
        hint: "run the demo in a clone of the repository",
    })
}

/// The first few of many samples.
struct First<'s>(&'s dyn Samples, usize);

impl Samples for First<'_> {
    fn len(&self) -> usize {
        self.0.len().min(self.1)
    }

    fn sample(&self, index: usize) -> Result<Vec<Vec<f32>>, String> {
        self.0.sample(index)
    }
}

/// Median times in microseconds, taken in turns: what else the machine does meanwhile hits all alike.
fn medians(
    oracle: &OracleModel,
    samples: &dyn Samples,
    float: &mut Model,
    int8: &mut Model,
    progress: &dyn Progress,
) -> Result<[f64; 3], Failure> {
    let sample = samples.sample(0).map_err(Failure::Usage)?;
    let input = sample.into_iter().next().unwrap_or_default();
    let (mut float, mut int8) = (float.session(Isa::best())?, int8.session(Isa::best())?);
    let mut times = [const { Vec::new() }; 3];
    progress.begin("time", TURNS);
    for turn in 0..TURNS {
        times[0].extend(oracle_times(oracle, &input)?);
        times[1].extend(timing::measure(&mut float, Until::Elapsed(TURN))?);
        times[2].extend(timing::measure(&mut int8, Until::Elapsed(TURN))?);
        progress.advance(turn + 1);
    }
    progress.end();
    Ok(times.map(|t| Times::of(t).median_us))
}

fn oracle_times(oracle: &OracleModel, input: &[f32]) -> Result<Vec<f64>, Failure> {
    let started = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || started.elapsed() < TURN {
        let start = Instant::now();
        oracle.run(input)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

fn row(
    name: &'static str,
    verdicts: &Verdicts,
    file_bytes: usize,
    arena_bytes: Option<usize>,
    median_us: f64,
) -> Result<Row, Failure> {
    let accuracy = verdicts.accuracy(0);
    let (top1, top1_interval) = (accuracy.top1, accuracy.top1_interval);
    Ok(Row {
        name,
        top1,
        top1_interval,
        file_bytes,
        arena_bytes,
        median_us,
    })
}

fn pictures(set: &ImageSet, float: &Verdicts, int8: &Verdicts) -> Result<Vec<Picture>, Failure> {
    let name = |class: Option<usize>| {
        class
            .and_then(|c| LABELS.get(c))
            .map_or("nothing", |l| *l)
            .replace('_', " ")
    };
    // The model ends in a softmax, so its scores are probabilities.
    let answer = |v: &Verdict| Answer {
        class: name(v.best),
        probability: v.score,
    };
    float
        .answers
        .iter()
        .zip(&int8.answers)
        .map(|(f, i)| {
            let path = &set.entries()[f.index].path;
            let jpeg = std::fs::read(path).map_err(|source| Failure::Read {
                path: path.clone(),
                source,
            })?;
            let file = path.file_name().unwrap_or_default();
            Ok(Picture {
                name: file.to_string_lossy().into_owned(),
                jpeg,
                truth: name(f.class.map(|c| c as usize)),
                float: answer(f),
                int8: answer(i),
            })
        })
        .collect()
}

fn render(o: &Outcome) -> String {
    let mut table = Table::new(&[
        "",
        ">top-1",
        ">95 % interval",
        ">file",
        ">arena",
        ">median",
        ">faster",
    ]);
    for r in &o.rows {
        let (lo, hi) = r.top1_interval;
        table.row([
            r.name.to_owned(),
            format!("{:.1} %", 100.0 * r.top1.value()),
            format!("{:.1}..{:.1} %", 100.0 * lo, 100.0 * hi),
            bytes(r.file_bytes),
            r.arena_bytes.map_or_else(|| "–".to_owned(), bytes),
            micros(r.median_us),
            format!("{:.1}×", o.rows[0].median_us / r.median_us.max(1e-3)),
        ]);
    }
    format!(
        "Is there a person? MLPerf Tiny visual wake words on {} photos, one thread, {}.\n\n{}\nFloat and int8 disagree on {} of {}.\n\n{}\n{:.0} s. Open {}\n",
        o.pictures.len(),
        o.isa,
        table.render(),
        o.pictures.iter().filter(|p| p.is_contested()).count(),
        plural(o.pictures.len(), "photo"),
        selftest::render(&o.selftest),
        o.seconds,
        o.report.display()
    )
}
