//! Teacher, student and int8 on the measured pictures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ampoule::Classifier;
use ampoule::distill::augment::Augmentation;
use ampoule::distill::data::Dataset;
use ampoule::distill::teacher::{Panel, Teacher};
use ampoule::distill::train::classify::{Classification, Confusion};
use ampoule_quantize::calibrate::RangeMethod;
use ampoule_quantize::data::decode;
use ampoule_quantize::metrics::{Rate, argmax};
use ampoule_quantize::model::Model;
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::{Progress, QuantizeOptions, quantize, seal_float};
use ampoule_quantize::program::Island;
use ampoule_runtime::Isa;
use ampoule_runtime::preprocess::{Preprocess, Resize};
use serde::Serialize;

use super::lesson::Known;
use super::student::Student;
use crate::cli::args::ImportArgs;
use crate::cli::error::Failure;
use crate::cli::files::save;
use crate::cli::models::SourceModel;
use crate::cli::output::{note, plural};
use crate::cli::progress::Bars;
use crate::cli::quantize::summary::island_line;
use crate::cli::samples::pixels;
use crate::cli::timing::{self, Times, Until};

/// Calibration pictures, at most.
const CALIBRATION: usize = 256;
/// How long each model is timed.
const TIMED: Duration = Duration::from_millis(400);

/// A model's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub top1: Option<Rate>,
    pub parameters: Option<u64>,
    pub macs: Option<u64>,
    /// Of its file.
    pub bytes: usize,
    /// Per picture, one thread, preprocessing not included.
    pub median_us: Option<f64>,
    pub arena_bytes: Option<usize>,
}

impl Row {
    /// Of a student before training: of a pruned one, what is to be recovered. It takes the time of the trained one.
    pub fn untrained(student: &Student, file: &Path, confusion: &Confusion) -> Self {
        let (hits, total) = confusion.right();
        let top1 = Rate {
            hits: hits as u64,
            total: total as u64,
        };
        Row {
            name: format!("{} before training", student.name),
            top1: Some(top1).filter(|r| r.total > 0),
            parameters: Some(student.parameters),
            macs: Some(student.macs),
            bytes: std::fs::metadata(file).map_or(0, |m| m.len() as usize),
            median_us: None,
            arena_bytes: None,
        }
    }
}

/// The pictures that are measured.
pub struct Measured {
    data: Arc<Dataset>,
    /// Samples, in the order of the student's answers.
    samples: Vec<usize>,
    student: Rate,
    /// Pictures that are learnt from, for calibration.
    calibration: Vec<PathBuf>,
    classes: Vec<String>,
    threads: usize,
}

impl Measured {
    /// Those that the trained network was measured on.
    pub fn new(
        task: &Classification,
        confusion: &Confusion,
        known: &Known,
        threads: usize,
    ) -> Self {
        let (data, _) = task.measured();
        let (hits, trials) = confusion.right();
        let learnt = task.learnt();
        let step = learnt.len().div_ceil(CALIBRATION).max(1);
        Measured {
            data: data.clone(),
            samples: confusion.answers.iter().map(|a| a.sample).collect(),
            student: Rate {
                hits: hits as u64,
                total: trials as u64,
            },
            calibration: learnt.into_iter().step_by(step).collect(),
            classes: known.class_names(),
            threads,
        }
    }

    /// Their files.
    pub fn pictures(&self) -> Vec<PathBuf> {
        let samples = self.samples.iter();
        samples
            .map(|&s| self.data.samples()[s].path.clone())
            .collect()
    }

    /// The teachers' row, where there are any.
    pub fn teacher(&self, known: &Known) -> Result<Option<Row>, Failure> {
        let Some(panel) = &known.teachers else {
            return Ok(None);
        };
        let shown = Augmentation::none(known.teacher_size, Resize::Exact);
        let answers = self.answers("teacher", || {
            let (mut desks, shown) = (panel.desks(), shown.clone());
            move |path: &Path| {
                let image = decode(path)?;
                let picture = shown.picture(&image, 0).map_err(|error| Failure::Picture {
                    path: path.to_owned(),
                    error,
                })?;
                Ok(argmax(&desks.distribution(&picture, shown.size)?))
            }
        })?;
        Ok(Some(Row {
            top1: self.rate(&answers),
            ..row_of(panel)?
        }))
    }

    /// The student's rows in float and int8, and the answers in int8. Writes the artifact. `rounded`: the
    /// student has learnt with int8 codes.
    pub fn student(
        &self,
        file: &Path,
        artifact: &Path,
        student: &Student,
        rounded: bool,
    ) -> Result<(Row, Row, Vec<Option<usize>>), Failure> {
        let source = SourceModel::open(file, &ImportArgs::default(), None, false)?;
        let mut options = QuantizeOptions {
            preprocess: Some(student.preprocess),
            labels: self.classes.clone(),
            ..QuantizeOptions::default()
        };
        if rounded {
            // The codes that it has learnt with: whole ranges, and biases that make up for rounding.
            options.range = RangeMethod::MinMax;
            options.bias_correction = false;
        }
        let bars = Bars::new();
        let samples = Calibration::read(&self.calibration, &student.preprocess)?;
        let int8 = quantize(source.graph.clone(), &samples, &options, &bars)?;
        save(artifact, &int8.compiled.bytes)?;
        tell_islands("student", &int8.compiled.program.islands);
        let float = Model::from_bytes(seal_float(&source.graph, &options)?.bytes)?;
        let int8 = Model::from_bytes(int8.compiled.bytes)?;
        let classifier = Classifier::new(int8.clone())?;
        let answers = self.answers("int8", || {
            let mut classifier = classifier.clone();
            move |path: &Path| {
                let image = decode(path)?;
                let view = image.view().map_err(ampoule::ClassifyError::from)?;
                let scores = classifier.run(&view, None, |session| session.run())?;
                Ok(argmax(&scores))
            }
        })?;
        let bytes = std::fs::metadata(file).map_or(0, |m| m.len() as usize);
        let row = |name: &str, top1, bytes, (median_us, arena_bytes)| Row {
            name: format!("{} {name}", student.name),
            top1,
            parameters: Some(student.parameters),
            macs: Some(student.macs),
            bytes,
            median_us: Some(median_us),
            arena_bytes: Some(arena_bytes),
        };
        let size = int8.bytes().len();
        let top1 = Some(self.student).filter(|r| r.total > 0);
        Ok((
            row("float", top1, bytes, cost(float)?),
            row("int8", self.rate(&answers), size, cost(int8)?),
            answers,
        ))
    }

    fn rate(&self, answers: &[Option<usize>]) -> Option<Rate> {
        let mut rate = Rate::default();
        for (&sample, &answer) in self.samples.iter().zip(answers) {
            if let Some(class) = self.data.samples()[sample].class {
                rate.add(answer == Some(class as usize));
            }
        }
        Some(rate).filter(|r| r.total > 0)
    }

    /// What something answers to each picture, on all threads.
    fn answers<A>(&self, stage: &str, make: impl Fn() -> A) -> Result<Vec<Option<usize>>, Failure>
    where
        A: FnMut(&Path) -> Result<Option<usize>, Failure> + Send,
    {
        let bars = Bars::new();
        let paths = self.pictures();
        bars.begin(stage, paths.len());
        let lanes = self.threads.clamp(1, paths.len().max(1));
        let done = std::sync::atomic::AtomicUsize::new(0);
        let lane = |number: usize, mut answer: A| {
            let mine = paths.iter().skip(number).step_by(lanes);
            mine.map(|path| {
                let answer = answer(path);
                let count = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                bars.advance(count + 1);
                answer
            })
            .collect::<Result<Vec<_>, _>>()
        };
        let lanes: Vec<A> = (0..lanes).map(|_| make()).collect();
        let answers = std::thread::scope(|scope| {
            let lane = &lane;
            let handles: Vec<_> = lanes
                .into_iter()
                .enumerate()
                .map(|(number, answer)| scope.spawn(move || lane(number, answer)))
                .collect();
            let joined = handles.into_iter().map(|h| {
                h.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect::<Result<Vec<_>, Failure>>()
        })?;
        bars.end();
        let mut lanes: Vec<_> = answers.into_iter().map(Vec::into_iter).collect();
        let count = lanes.len();
        let in_order = (0..paths.len()).filter_map(|i| lanes[i % count].next());
        Ok(in_order.collect())
    }
}

/// Says which steps of an artifact are not int8.
pub fn tell_islands(of: &str, islands: &[Island]) {
    if !islands.is_empty() {
        let lines: Vec<String> = islands.iter().map(island_line).collect();
        note(&format!(
            "note: not int8 in the {of}'s artifact: {}\n{}",
            plural(islands.len(), "step"),
            lines.join("\n")
        ));
    }
}

/// Pictures as the student sees them.
pub struct Calibration(pub Vec<Vec<f32>>);

impl Calibration {
    pub fn read(paths: &[PathBuf], preprocess: &Preprocess) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for path in paths {
            // Unreadable ones were named while training.
            let Ok(image) = decode(path) else { continue };
            let fail = |error| Failure::Picture {
                path: path.clone(),
                error,
            };
            let pixels = pixels(preprocess, &image).map_err(fail)?;
            let mut values = vec![0.0; pixels.len()];
            preprocess
                .normalize_into(&pixels, &mut values)
                .map_err(fail)?;
            all.push(values);
        }
        Ok(Calibration(all))
    }
}

impl Samples for Calibration {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample(&self, index: usize) -> Result<Vec<Vec<f32>>, String> {
        let missing = || format!("no sample {index}");
        self.0
            .get(index)
            .map(|v| vec![v.clone()])
            .ok_or_else(missing)
    }
}

/// Figures of teachers, all together; times and memory where our own runtime runs them.
fn row_of(panel: &Panel) -> Result<Row, Failure> {
    let mut row = Row {
        name: "teacher".to_owned(),
        top1: None,
        parameters: Some(0),
        macs: Some(0),
        bytes: 0,
        median_us: Some(0.0),
        arena_bytes: Some(0),
    };
    for teacher in panel.teachers() {
        row.bytes += std::fs::metadata(teacher.path()).map_or(0, |m| m.len() as usize);
        let own = own_figures(teacher)?;
        let plus = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        row.parameters = plus(row.parameters, own.map(|o| o.0));
        row.macs = plus(row.macs, own.map(|o| o.1));
        row.median_us = row.median_us.and_then(|a| Some(a + own?.2));
        let arena = row.arena_bytes.zip(own).map(|(a, o)| a.max(o.3));
        row.arena_bytes = arena;
    }
    Ok(row)
}

/// Parameters, multiply-accumulates, microseconds and bytes of arena.
fn own_figures(teacher: &Teacher) -> Result<Option<(u64, u64, f64, usize)>, Failure> {
    if teacher.fallback().is_some() {
        return Ok(None);
    }
    let p = teacher.preprocess();
    let size = [p.height, p.width].map(usize::from);
    let source = SourceModel::open(teacher.path(), &ImportArgs::default(), Some(size), false)?;
    let (median_us, arena) = cost(Model::float(&source.graph)?)?;
    let (parameters, macs) = (source.graph.parameters(), source.graph.macs());
    Ok(Some((parameters, macs, median_us, arena)))
}

/// Median time in microseconds on one thread, and bytes of working memory.
pub fn cost(mut model: Model) -> Result<(f64, usize), Failure> {
    let artifact = model.artifact()?;
    let arena = (0..artifact.banks()).map(|b| artifact.bank_bytes(b)).sum();
    let times = timing::measure(&mut model.session(Isa::best())?, Until::Elapsed(TIMED))?;
    Ok((Times::of(times).median_us, arena))
}
