//! `ampoule teach`: what large models say about pictures, stored for training small ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ampoule::distill::data::{Dataset, Pictures};
use ampoule::distill::store::{Header, Kind, MadeFrom, Shard, Store, TeacherId};
use ampoule::distill::teacher::{
    Drift, Panel, Question, TeachError, TeachOptions, Teacher, TeacherError, TeacherOptions, check,
    header, teach,
};
use ampoule_runtime::preprocess::{Preprocess, Resize};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::args::ImportArgs;
use super::augment::AugmentArgs;
use super::error::Failure;
use super::output::{self, bytes, facts, note, plural, print, print_json};
use super::preprocessing::{ImageArgs, describe};
use super::progress::Bars;

const EXAMPLES: &str = "\
Examples:
  ampoule teach --teacher teacher.onnx --data photos/ --preset imagenet --epochs 3 -o store/
  ampoule teach --teacher a.onnx --teacher b.onnx --data photos/ --top-k 5 -o store/
  ampoule teach --teacher clip.onnx --teacher-output embedding --kind embeddings --data photos/ -o store/
  ampoule teach --teacher teacher.onnx --data photos/ --shard 2/8 -o store/   (one of eight machines)
  ampoule teach check store/";

/// Run teachers over pictures once, and store their answers to train students from
///
/// Started again with the same arguments, it goes on where it was stopped.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Teach {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pass: Pass,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
}

impl Teach {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        match (&self.command, &self.pass.data, &self.pass.output) {
            (Some(Command::Check(check)), ..) => check.execute(),
            (None, Some(data), Some(output)) => self.pass.execute(data, output),
            // The parser asks for both unless there is a subcommand.
            (None, ..) => Err(Failure::Usage("--data and -o are needed".to_owned())),
        }
    }
}

impl Teach {
    /// Runs the pass without printing what it did.
    pub fn quietly(&self) -> Result<(), Failure> {
        match (&self.pass.data, &self.pass.output) {
            (Some(data), Some(output)) => self.pass.run(data, output).map(drop),
            _ => Err(Failure::Usage("--data and -o are needed".to_owned())),
        }
    }
}

/// The teacher pass.
#[derive(Debug, Args)]
struct Pass {
    /// A float ONNX model; the probabilities of several are averaged
    #[arg(long = "teacher", required = true, value_name = "FILE.onnx")]
    teachers: Vec<PathBuf>,
    /// Pictures: a folder, or a list (.csv with a column `path`, or .jsonl)
    #[arg(long, required = true, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The store
    #[arg(short, long, required = true, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// How often every picture is shown, differently each time
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// What is stored
    #[arg(long, value_enum, default_value_t = What::Logits)]
    kind: What,
    /// Probabilities stored for a picture [default: 10, or all of fewer classes]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// The teachers' output to use, where they have several
    #[arg(long, value_name = "NAME")]
    teacher_output: Option<String>,
    /// What all random choices are made of
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Do only this share of the pictures, for example 2/8; all shards go into one folder
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
    /// Pictures at a time [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Go on with up to so many unreadable pictures [default: 1 % of them]
    #[arg(long, value_name = "N")]
    max_unreadable: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    augment: AugmentArgs,
    #[command(flatten)]
    import: ImportArgs,
    #[command(flatten)]
    image: ImageArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The largest probabilities
    Logits,
    /// Vectors, one teacher's after another's
    Embeddings,
    /// A feature map
    Features,
}

/// What a pass did.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(serialize_with = "output::path")]
    store: PathBuf,
    teachers: Vec<Voice>,
    kind: Kind,
    samples: usize,
    epochs: usize,
    /// Records of this shard, in all epochs.
    records: usize,
    record_bytes: usize,
    /// Records that were there before.
    kept: usize,
    /// Bytes of cut or damaged records that were done again.
    discarded_bytes: u64,
    unreadable: Vec<String>,
    seconds: f64,
    images_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Voice {
    name: String,
    sha256: String,
    output: String,
    /// Whether its output was taken for probabilities, so that no softmax was applied.
    gives_probabilities: bool,
    /// Why tract runs it and not our own runtime.
    fallback: Option<String>,
}

impl Pass {
    fn execute(&self, data: &Path, output: &Path) -> Result<(), Failure> {
        let outcome = self.run(data, output)?;
        match self.json {
            true => print_json(&outcome),
            false => print(&render(&outcome)),
        }
    }

    fn run(&self, data: &Path, output: &Path) -> Result<Outcome, Failure> {
        let panel = self.panel()?;
        let made_from = self.made_from(data);
        let data = Arc::new(Dataset::open(data).map_err(TeachError::from)?);
        let first = &panel.teachers()[0];
        let preprocess = self.image.preprocess(&input_shape(first))?;
        let pictures = Pictures {
            augmentation: self.augment.settings(&preprocess)?,
            data,
        };
        let epochs = self.epochs as usize;
        if epochs > 1 && !pictures.augmentation.is_random() {
            note("warning: every epoch is the same without augmentation; one is enough");
        }
        let header = header(&panel, &pictures, epochs, self.seed, made_from);
        let options = TeachOptions {
            shard: self.shard.unwrap_or(Shard::WHOLE),
            threads: self.threads.map_or_else(processors, usize::from),
            max_unreadable: self.max_unreadable.unwrap_or(header.samples / 100),
        };
        let bars = Bars::new();
        let taught = teach(output, &panel, &pictures, &header, &options, &bars)?;
        for reason in &taught.unreadable {
            note(&format!("warning: no answer: {reason}"));
        }
        let done = taught.records - taught.kept;
        Ok(Outcome {
            store: output.to_owned(),
            teachers: panel.teachers().iter().map(Voice::of).collect(),
            record_bytes: header.kind.record_bytes(),
            kind: header.kind,
            samples: header.samples,
            epochs,
            records: taught.records,
            kept: taught.kept,
            discarded_bytes: taught.discarded,
            unreadable: taught.unreadable,
            seconds: taught.seconds,
            images_per_second: done as f64 / taught.seconds.max(1e-9),
        })
    }

    fn panel(&self) -> Result<Panel, Failure> {
        let options = TeacherOptions {
            import: self.import.options(),
            size: self.image.size(),
            output: self.teacher_output.clone(),
        };
        let question = match (self.kind, self.top_k) {
            (What::Logits, k) => Question::SparseLogits(k),
            (_, Some(_)) => return Err(Failure::Usage("--top-k is for --kind logits".to_owned())),
            (What::Embeddings, None) => Question::Embeddings,
            (What::Features, None) => Question::Features,
        };
        let load = |path: &PathBuf| {
            let teacher = Teacher::load(path, &options).map_err(TeachError::from)?;
            let preprocess = Preprocess {
                resize: Resize::Exact,
                ..self.image.preprocess(&input_shape(&teacher))?
            };
            if self.image.is_assumed() {
                note(&format!(
                    "assuming: {}; give --preset to choose",
                    describe(&preprocess)
                ));
            }
            tell_fallback(&teacher);
            let teacher = teacher.with_preprocess(preprocess);
            Ok(teacher.map_err(TeachError::from)?)
        };
        let teachers = self.teachers.iter().map(load);
        let teachers = teachers.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Panel::new(teachers, question).map_err(TeachError::from)?)
    }

    /// Whole paths, for `check`.
    fn made_from(&self, data: &Path) -> MadeFrom {
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        MadeFrom {
            teachers: self.teachers.iter().map(|path| whole(path)).collect(),
            data: whole(data),
        }
    }
}

/// Recompute some answers and see whether the store still agrees with its teachers
///
/// Fails when the mean difference exceeds 0.001 or more than 0.5 % of the classes differ.
#[derive(Debug, Args)]
struct Check {
    /// The store
    store: PathBuf,
    /// Records to recompute, spread evenly
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// The teachers, where they are no longer at their place
    #[arg(long = "teacher", value_name = "FILE.onnx")]
    teachers: Vec<PathBuf>,
    /// The pictures, where they are no longer at their place
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    import: ImportArgs,
}

impl Check {
    fn execute(&self) -> Result<(), Failure> {
        let store = Store::open(&self.store).map_err(TeachError::from)?;
        let stored = store.header();
        let panel = self.panel(stored)?;
        let data = self.data.as_ref().unwrap_or(&stored.made_from.data);
        let pictures = Pictures {
            data: Arc::new(Dataset::open(data).map_err(TeachError::from)?),
            augmentation: stored.augmentation.clone(),
        };
        let made_from = MadeFrom::default();
        let expected = header(&panel, &pictures, stored.epochs, stored.seed, made_from);
        let count = self.samples as usize;
        let bars = Bars::new();
        let drift = check(&self.store, &panel, &pictures, &expected, count, &bars)?;
        drop(bars);
        match self.json {
            true => print_json(&drift)?,
            false => print(&render_drift(&drift))?,
        }
        match drift.is_small() {
            true => Ok(()),
            false => Err(Failure::Drift {
                difference: drift.mean_difference,
                mismatch: drift.index_mismatch,
            }),
        }
    }

    /// The store's teachers, from its own paths or from those given.
    fn panel(&self, stored: &Header) -> Result<Panel, Failure> {
        let paths = match self.teachers.is_empty() {
            true => &stored.made_from.teachers,
            false => &self.teachers,
        };
        if paths.len() != stored.teachers.len() {
            return Err(Failure::Usage(format!(
                "the store has {}; give as many --teacher",
                plural(stored.teachers.len(), "teacher")
            )));
        }
        let load = |(path, id): (&PathBuf, &TeacherId)| {
            let options = TeacherOptions {
                import: self.import.options(),
                size: Some([id.preprocess.height, id.preprocess.width].map(usize::from)),
                output: Some(id.output.clone()),
            };
            let teacher = Teacher::load(path, &options)?;
            tell_fallback(&teacher);
            teacher.with_preprocess(id.preprocess)
        };
        let teachers = paths.iter().zip(&stored.teachers).map(load);
        let teachers = teachers.collect::<Result<Vec<_>, TeacherError>>();
        let question = match stored.kind {
            Kind::SparseLogits { k, .. } => Question::SparseLogits(Some(k)),
            Kind::Embeddings { .. } => Question::Embeddings,
            Kind::Features { .. } => Question::Features,
        };
        let panel = teachers.and_then(|teachers| Panel::new(teachers, question));
        Ok(panel.map_err(TeachError::from)?)
    }
}

impl Voice {
    fn of(teacher: &Teacher) -> Self {
        let name = teacher.path().file_name().unwrap_or_default();
        Voice {
            name: name.to_string_lossy().into_owned(),
            sha256: teacher.sha256().to_owned(),
            output: teacher.output().to_owned(),
            gives_probabilities: teacher.is_distribution(),
            fallback: teacher.fallback().map(str::to_owned),
        }
    }
}

fn tell_fallback(teacher: &Teacher) {
    if let Some(reason) = teacher.fallback() {
        let path = teacher.path().display();
        note(&format!(
            "warning: tract runs `{path}`, which is slower: {reason}"
        ));
    }
}

fn input_shape(teacher: &Teacher) -> [usize; 4] {
    let p = teacher.preprocess();
    [1, p.height.into(), p.width.into(), 3]
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn render(o: &Outcome) -> String {
    let kind = match &o.kind {
        Kind::SparseLogits { k, classes } => {
            format!("the {k} largest of {classes} probabilities")
        }
        Kind::Embeddings { widths } => format!("embeddings of {}", output::shape(widths)),
        Kind::Features { shape } => format!("features of {}", output::shape(shape)),
    };
    let teachers = o.teachers.iter().map(|t| {
        let engine = if t.fallback.is_some() { " (tract)" } else { "" };
        let output = match t.gives_probabilities {
            true => ", its own probabilities",
            false => "",
        };
        format!("{}{engine}{output}", t.name)
    });
    let teachers: Vec<String> = teachers.collect();
    let again = match o.discarded_bytes {
        0 => String::new(),
        n => format!(", {} cut or damaged and done again", bytes(n as usize)),
    };
    facts(&[
        ("store", o.store.display().to_string()),
        ("teacher", teachers.join(" + ")),
        ("answers", kind),
        (
            "records",
            format!(
                "{} × {} = {} of {} each, {}",
                plural(o.samples, "picture"),
                plural(o.epochs, "epoch"),
                o.samples * o.epochs,
                bytes(o.record_bytes),
                bytes(o.samples * o.epochs * o.record_bytes)
            ),
        ),
        (
            "this run",
            format!("{} written, {} kept{again}", o.records - o.kept, o.kept),
        ),
        ("unreadable", plural(o.unreadable.len(), "picture")),
        (
            "speed",
            match o.records == o.kept {
                true => "nothing was left to do".to_owned(),
                false => format!("{:.1} images/s", o.images_per_second),
            },
        ),
    ])
}

fn render_drift(d: &Drift) -> String {
    facts(&[
        ("checksums", format!("right for all {} records", d.records)),
        (
            "recomputed",
            format!("{}, and {} without an answer", d.compared, d.missing),
        ),
        (
            "mean |Δ|",
            format!(
                "{:.2e} (at most {:.0e})",
                d.mean_difference,
                Drift::MOST_DIFFERENCE
            ),
        ),
        (
            "other classes",
            format!(
                "{:.2} % (at most {:.1} %)",
                100.0 * d.index_mismatch,
                100.0 * Drift::MOST_MISMATCH
            ),
        ),
    ])
}

/// `2/8`.
fn shard(text: &str) -> Result<Shard, String> {
    let parsed = text
        .split_once('/')
        .and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
    parsed
        .filter(|&(index, count): &(usize, usize)| (1..=count).contains(&index))
        .map(|(index, count)| Shard { index, count })
        .ok_or_else(|| "expected I/N with I from 1 to N, for example 2/8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_values() {
        assert_eq!(shard("2/8"), Ok(Shard { index: 2, count: 8 }));
        assert!(
            ["", "2", "0/3", "4/3", "a/b"]
                .iter()
                .all(|s| shard(s).is_err())
        );
    }
}
