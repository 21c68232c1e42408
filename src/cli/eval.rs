//! `ampoule eval`: accuracy on labelled pictures.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ampoule::ClassifyError;
use ampoule_quantize::data::{DataError, Entry, ImageSet, decode};
use ampoule_quantize::metrics::{Rate, argmax, in_top_k};
use ampoule_quantize::pipeline::Progress;
use ampoule_runtime::Isa;
use clap::Args;
use serde::Serialize;

use super::args::{ImportArgs, is_source, isa};
use super::error::Failure;
use super::models::{Engine, OracleEngine, SourceModel, classifier, not_classes, read_classifier};
use super::output::{facts, note, plural, print, print_json};
use super::preprocessing::{ImageArgs, describe};
use super::progress::Bars;
use super::{labels, memory};

const EXAMPLES: &str = "\
Examples:
  ampoule eval model.amp --data labelled/
  ampoule eval model.onnx --data labelled/ --like model.amp      (the float original, same pictures)
  ampoule eval model.onnx --data labelled/ --preset imagenet --limit 500";

/// Measure accuracy on labelled pictures: a folder per class, or a labels.csv with columns `file` and `class`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Eval {
    /// An artifact (.amp), an ONNX file to run in float, or a TFLite file
    model: PathBuf,
    /// The pictures
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Most pictures used, spread evenly over the classes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Class names in order, when folders are named by class; an artifact has its own
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Take preprocessing and labels for an ONNX file from this artifact
    #[arg(long, value_name = "FILE.amp", conflicts_with_all = ["preset", "resize", "filter", "no_antialias", "scale", "mean", "std", "bgr"])]
    like: Option<PathBuf>,
    /// Instruction set of an artifact [default: the best there is]
    #[arg(long, value_parser = isa())]
    isa: Option<Isa>,
    /// Pictures at a time [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    import: ImportArgs,
    #[command(flatten)]
    image: ImageArgs,
}

/// Accuracy on a set.
#[derive(Debug, Clone, Serialize)]
pub struct Accuracy {
    pub top1: Rate,
    /// Wilson's 95 % interval of the share.
    pub top1_interval: (f64, f64),
    /// Not given for five classes or fewer.
    pub top5: Option<Rate>,
    pub top5_interval: Option<(f64, f64)>,
    pub classes: usize,
    /// Pictures that could not be used, with the reason.
    pub left_out: Vec<String>,
    pub unlabelled: usize,
    pub images_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(serialize_with = "crate::cli::output::path")]
    model: PathBuf,
    engine: &'static str,
    #[serde(flatten)]
    accuracy: Accuracy,
    /// Rows of labels.csv whose picture is not there.
    rows_without_file: usize,
    peak_memory_bytes: Option<u64>,
}

impl Eval {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let (engine, names, what) = self.engine()?;
        let classes = engine.classes().ok_or_else(|| not_classes(&self.model))?;
        if let Some(path) = &self.labels {
            labels::check_count(path, names.len(), classes)?;
        }
        let set = ImageSet::open_with_classes(&self.data, &names)?;
        let report = set.report();
        if !set.has_labels() {
            return Err(Failure::Unfit {
                path: self.data.clone(),
                what: "has no labels".to_owned(),
                hint: "a folder per class, named by label or number, or a labels.csv with columns `file` and `class`",
            });
        }
        if set.in_folder_order() {
            self.check_folders(&set, classes)?;
        }
        let set = set.labelled();
        let largest = set.entries().iter().filter_map(|e| e.class).max();
        if names.is_empty() && is_off_by_background(largest, classes) {
            note(
                "note: the pictures have ImageNet's classes, 0 to 999, and the model has 1001: where its first is `background`, no label fits; give --labels with the model's",
            );
        }
        let set = match self.limit {
            Some(limit) => set.limit(limit as usize),
            None => set,
        };
        let verdicts = classify_all(
            &set,
            &*engine,
            self.threads.map(usize::from),
            "evaluate",
            &Bars::new(),
        )?;
        for reason in &verdicts.left_out {
            note(&format!("warning: left out: {reason}"));
        }
        let outcome = Outcome {
            model: self.model.clone(),
            engine: what,
            accuracy: verdicts.accuracy(report.unlabelled),
            rows_without_file: report.rows_without_file,
            peak_memory_bytes: memory::peak(),
        };
        if self.json {
            print_json(&outcome)
        } else {
            print(&render(&outcome))
        }
    }

    /// Folders that nothing numbers are classes only where there are as many as the model has.
    fn check_folders(&self, set: &ImageSet, classes: usize) -> Result<(), Failure> {
        let folders: Vec<&str> = set.class_names().values().map(String::as_str).collect();
        if folders.len() != classes {
            return Err(Failure::Unfit {
                path: self.data.clone(),
                what: format!(
                    "has {} folders named otherwise than by number, but the model has {classes} classes and no names for them",
                    folders.len()
                ),
                hint: "--labels with the names of all classes in order, or folders named by class number",
            });
        }
        labels::assume_order(&folders);
        Ok(())
    }

    fn engine(&self) -> Result<(Box<dyn Engine>, Vec<String>, &'static str), Failure> {
        let given = self.labels.as_deref().map(labels::read).transpose()?;
        if !is_source(&self.model) {
            self.import.refuse_for_artifact()?;
            if self.image.is_given() || self.like.is_some() {
                return Err(Failure::Usage(
                    "preprocessing and --like are for ONNX and TFLite files; an artifact has its own"
                        .to_owned(),
                ));
            }
            let classifier =
                read_classifier(&self.model)?.with_isa(self.isa.unwrap_or_else(Isa::best))?;
            let names = given.unwrap_or_else(|| classifier.labels().to_vec());
            return Ok((Box::new(classifier), names, "artifact"));
        }
        if self.isa.is_some() {
            return Err(Failure::Usage("--isa is for artifacts".to_owned()));
        }
        let source = SourceModel::open(&self.model, &self.import, self.image.size(), false)?;
        let (preprocess, names) = match &self.like {
            Some(path) => {
                let like = read_classifier(path)?;
                (*like.preprocess(), like.labels().to_vec())
            }
            None => {
                let preprocess = source.preprocess(&self.image)?;
                if self.image.is_assumed() {
                    note(&format!(
                        "assuming: {}; give --preset or --like to choose",
                        describe(&preprocess)
                    ));
                }
                (preprocess, Vec::new())
            }
        };
        if !source.has_oracle() {
            let how = match source.is_quantised() {
                true => "this runtime, int8 parameters of the file",
                false => "this runtime, float",
            };
            let engine = classifier(&self.model, source.sealed(preprocess)?)?;
            return Ok((Box::new(engine), given.unwrap_or(names), how));
        }
        let engine = OracleEngine {
            model: source.oracle(&self.model)?,
            preprocess,
        };
        Ok((
            Box::new(engine),
            given.unwrap_or(names),
            "float oracle (tract)",
        ))
    }
}

/// Whether a set seems to number ImageNet's classes from 0 for a model that has `background` there.
fn is_off_by_background(largest: Option<u32>, classes: usize) -> bool {
    classes == 1001 && largest.is_some_and(|class| class < 1000)
}

/// The answer for one picture.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Position among the set's entries.
    pub index: usize,
    /// The class given.
    pub class: Option<u32>,
    /// The class found.
    pub best: Option<usize>,
    /// Its score, as the model gives it.
    pub score: f32,
    in_top5: bool,
    classes: usize,
}

/// Answers for a set, in its order.
pub struct Verdicts {
    pub answers: Vec<Verdict>,
    pub left_out: Vec<String>,
    seconds: f64,
}

/// Classifies every picture of a set, on all processors unless told otherwise.
pub fn classify_all(
    set: &ImageSet,
    engine: &dyn Engine,
    threads: Option<usize>,
    stage: &str,
    progress: &dyn Progress,
) -> Result<Verdicts, Failure> {
    let started = Instant::now();
    let entries = set.entries();
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let lanes = threads.unwrap_or_else(processors).min(entries.len()).max(1);
    progress.begin(stage, entries.len());
    let done = AtomicUsize::new(0);
    let lane = |number: usize, mut engine: Box<dyn Engine>| {
        let mine = entries.iter().enumerate().skip(number).step_by(lanes);
        mine.map(|(index, entry)| {
            let answer = verdict(&mut *engine, index, entry);
            progress.advance(done.fetch_add(1, Ordering::Relaxed) + 1);
            (index, answer)
        })
        .collect::<Vec<_>>()
    };
    let mut all: Vec<(usize, Result<Verdict, Failure>)> = std::thread::scope(|scope| {
        let lane = &lane;
        let handles: Vec<_> = (0..lanes)
            .map(|number| {
                let engine = engine.fork();
                scope.spawn(move || lane(number, engine))
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|h| {
                h.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    progress.end();
    all.sort_by_key(|a| a.0);
    let (mut answers, mut left_out) = (Vec::new(), Vec::new());
    for (index, answer) in all {
        match answer {
            Ok(verdict) => answers.push(verdict),
            Err(failure) if is_about_the_picture(&failure) => {
                left_out.push(with_path(&failure, &entries[index].path))
            }
            Err(failure) => return Err(failure),
        }
    }
    if answers.is_empty() {
        let first = left_out.first().cloned().unwrap_or_default();
        return Err(DataError::NothingDecoded {
            count: left_out.len(),
            first,
        }
        .into());
    }
    Ok(Verdicts {
        answers,
        left_out,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn verdict(engine: &mut dyn Engine, index: usize, entry: &Entry) -> Result<Verdict, Failure> {
    let image = decode(&entry.path)?;
    let scores = engine.scores(&image)?;
    if let Some(class) = entry.class.filter(|&c| c as usize >= scores.len()) {
        return Err(Failure::Unfit {
            path: entry.path.clone(),
            what: format!(
                "has class {class}, but the model has {} classes, from 0",
                scores.len()
            ),
            hint: "check the folder names or labels.csv, or give --labels",
        });
    }
    let best = argmax(&scores);
    Ok(Verdict {
        index,
        class: entry.class,
        best,
        score: best.map_or(f32::NAN, |b| scores[b]),
        in_top5: entry
            .class
            .is_some_and(|c| in_top_k(&scores, c as usize, 5)),
        classes: scores.len(),
    })
}

fn is_about_the_picture(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Data(_)
            | Failure::Picture { .. }
            | Failure::Classify(ClassifyError::Preprocess(_) | ClassifyError::Data(_))
    )
}

fn with_path(failure: &Failure, path: &Path) -> String {
    match failure {
        Failure::Classify(ClassifyError::Preprocess(e)) => format!("`{}`: {e}", path.display()),
        other => other.to_string(),
    }
}

impl Verdict {
    /// Whether the class found is the one given.
    pub fn is_right(&self) -> bool {
        self.class.is_some_and(|c| self.best == Some(c as usize))
    }
}

impl Verdicts {
    /// Shares of right answers among labelled pictures.
    pub fn accuracy(&self, unlabelled: usize) -> Accuracy {
        let classes = self.answers.first().map_or(0, |a| a.classes);
        let (mut top1, mut top5) = (Rate::default(), Rate::default());
        for answer in self.answers.iter().filter(|a| a.class.is_some()) {
            top1.add(answer.is_right());
            top5.add(answer.in_top5);
        }
        let top5 = Some(top5).filter(|_| classes > 5);
        Accuracy {
            top1_interval: top1.wilson(),
            top5_interval: top5.map(|r| r.wilson()),
            top1,
            top5,
            classes,
            left_out: self.left_out.clone(),
            unlabelled,
            images_per_second: self.answers.len() as f64 / self.seconds.max(1e-9),
        }
    }
}

fn render(o: &Outcome) -> String {
    let a = &o.accuracy;
    let mut rows = vec![
        ("model", format!("{}  ({})", o.model.display(), o.engine)),
        ("top-1", a.top1.to_string()),
    ];
    rows.extend(a.top5.map(|r| ("top-5", r.to_string())));
    rows.push(("classes", a.classes.to_string()));
    rows.push((
        "speed",
        format!("{:.1} images/s, decoding included", a.images_per_second),
    ));
    rows.push((
        "left out",
        format!(
            "{} unreadable, {} without label, {} without a picture",
            a.left_out.len(),
            a.unlabelled,
            plural(o.rows_without_file, "label")
        ),
    ));
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::is_off_by_background;

    #[test]
    fn a_background_class_is_suspected() {
        assert!(is_off_by_background(Some(999), 1001));
        assert!(!is_off_by_background(Some(1000), 1001));
        assert!(!is_off_by_background(None, 1001));
        assert!(!is_off_by_background(Some(999), 1000));
    }
}
