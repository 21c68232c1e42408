//! `ampoule distill --pairs`: two towers that match pictures and texts.

mod design;
mod setup;
mod student;
mod table;
mod teachers;
mod text_lesson;

use std::path::{Path, PathBuf};

use ampoule::distill::data::Pictures;
use ampoule::distill::text::WordPiece;
use ampoule::distill::train::pairs::{Pairs, PairsOptions, PairsWeights, Retrieval};
use ampoule::distill::train::{Effort, End, Record, Run, Trainer, read_metrics};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::Distill;
use super::live::{Live, View};
use crate::cli::error::Failure;
use crate::cli::files::save;
use crate::cli::output::{self, count, facts, note, plural, print};
use crate::report;
use design::Design;
use setup::{augmentation, data, hash, hash_texts, preprocess, training};
use student::Student;
pub use table::{figures, recalls};
use teachers::Teachers;
use text_lesson::TextLesson;

/// Largest norm of the gradients.
const CLIP: f32 = 1.0;

/// Pictures and texts that belong together.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Pictures and texts")]
pub struct PairsArgs {
    /// Pictures with captions, a JSON object a line: `path`, and `caption` or `captions`, of which the
    /// first is what the picture is measured with. --output is a folder then
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["store", "teachers", "labels_only", "data"])]
    pub pairs: Option<PathBuf>,
    /// Folder that the paths are relative to [default: that of the list]
    #[arg(long, value_name = "FOLDER", requires = "pairs")]
    images: Option<PathBuf>,
    /// An ONNX model whose embeddings of texts both towers approach
    #[arg(long, value_name = "FILE.onnx", requires = "pairs")]
    text_teacher: Option<PathBuf>,
    /// An ONNX model whose embeddings of pictures lie in the text teacher's space
    #[arg(long, value_name = "FILE.onnx", requires = "text_teacher")]
    image_teacher: Option<PathBuf>,
    /// The text tower's vocabulary: BERT's vocab.txt, one token a line, [PAD] first
    #[arg(long, value_name = "FILE", requires = "pairs")]
    vocabulary: Option<PathBuf>,
    /// The text teacher's [default: the same]
    #[arg(long, value_name = "FILE", requires = "text_teacher")]
    teacher_vocabulary: Option<PathBuf>,
    /// First weights of the text tower: safetensors or ONNX [default: random]
    #[arg(long, value_name = "FILE", requires = "pairs")]
    text_init: Option<PathBuf>,
    /// Factor of the text tower's learning rate, but for its last layer [default: 0.1 with --text-init, or 1]
    #[arg(long, value_name = "FACTOR", requires = "pairs")]
    text_rate: Option<f32>,
    /// Factor of the learning rate of a picture tower from a file, but for its head [default: 0.3]
    #[arg(long, value_name = "FACTOR", requires = "pairs")]
    image_rate: Option<f32>,
    /// Texts without pictures, one a line, that the text tower learns from its teacher before, with the
    /// captions
    #[arg(long, value_name = "FILE.txt", requires = "text_teacher")]
    texts: Option<PathBuf>,
    /// Epochs over captions and --texts in which the text tower alone learns from its teacher
    /// [default: 4 with --texts, or 0]
    #[arg(long, value_name = "N", requires = "text_teacher")]
    text_epochs: Option<u16>,
    /// How losses are weighed: between the towers, of the picture tower with the text teacher, of the text
    /// tower with its teacher, and to both teachers' similarities
    #[arg(long, value_name = "A,B,C,D", requires = "pairs", value_parser = weights)]
    loss_weights: Option<PairsWeights>,
}

/// What a run ended in.
#[derive(Debug, Serialize)]
pub struct Outcome {
    #[serde(serialize_with = "output::path")]
    pub folder: PathBuf,
    pub network: String,
    pub learnt_from: String,
    pub pairs: usize,
    pub texts: usize,
    pub epochs: usize,
    pub steps: u64,
    pub seconds: f64,
    pub images_per_second: f64,
    /// Teachers, student, int8.
    pub rows: Vec<Row>,
    pub unreadable: Vec<String>,
    #[serde(serialize_with = "output::path")]
    pub report: PathBuf,
    #[serde(skip)]
    pub metrics: Vec<Record>,
}

/// Figures of a pair of models.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub retrieval: Option<Retrieval>,
    pub image: Tower,
    pub text: Tower,
}

/// Figures of a tower.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tower {
    pub parameters: Option<u64>,
    pub macs: Option<u64>,
    /// Of its file.
    pub bytes: usize,
    /// Per picture or text, one thread, preprocessing not included.
    pub median_us: Option<f64>,
    pub arena_bytes: Option<usize>,
}

/// Runs the command.
pub fn execute(args: &Distill, list: &Path) -> Result<(), Failure> {
    let view = if args.json { View::Json } else { View::Text };
    let mut live = Live::new(view)?;
    let outcome = run(args, list, &mut live)?;
    drop(live);
    match args.json {
        true => output::print_json_line(&json!({"kind": "result", "result": outcome})),
        false => print(&table::render(&outcome)),
    }
}

fn run(args: &Distill, list: &Path, live: &mut Live) -> Result<Outcome, Failure> {
    let vocabulary = args.pairs.vocabulary.as_ref().ok_or_else(|| {
        Failure::Usage("--pairs needs --vocabulary, a vocab.txt as BERT has it".to_owned())
    })?;
    std::fs::create_dir_all(&args.output).map_err(|source| Failure::Write {
        path: args.output.clone(),
        source,
    })?;
    let tokenizer = WordPiece::read(vocabulary)?;
    let design = Design::open(args, &tokenizer)?;
    let (towers, text) = (&design.towers, design.text);
    let mut first = design.first.clone();
    let preprocess = preprocess(args, design.size)?;
    let (data, measured) = data(args, list)?;
    let threads = args.threads();
    let augmentation = augmentation(args, &preprocess)?;
    let options = PairsOptions {
        batch: args.recipe.batch,
        tokens: text.tokens,
        weights: args.pairs.loss_weights.unwrap_or_default(),
        seed: args.recipe.seed,
        preprocess,
        threads,
        max_unreadable: args.recipe.max_unreadable.unwrap_or(data.len() / 100),
    };
    let pictures = Pictures {
        data: data.clone(),
        augmentation: augmentation.clone(),
    };
    let mut task = Pairs::new(pictures, measured.clone(), &tokenizer, options.clone())?;
    let teachers = Teachers::open(args, &tokenizer)?;
    let folder = args.run.clone().unwrap_or_else(|| args.output.join("run"));
    let (with_teachers, space) = teachers.teach(task, &data, text.embedding, threads, &folder)?;
    task = with_teachers;
    let training = training(args, threads, &design);
    if let (Some(teacher), Some(space)) = (&teachers.text, &space) {
        let lesson = TextLesson {
            args,
            teacher,
            space,
            design: &design,
            tokenizer: &tokenizer,
        };
        lesson.run(&task, &folder, &mut first, live)?;
    }
    let settings = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "training": training,
        "towers": design.config,
        "first_weights": hash(&first),
        "pairs": {"list": data.digest(), "texts": hash_texts(&task.captions().texts), "measured": measured.digest()},
        "teachers": teachers.ids(),
        "weights": options.weights,
        "augmentation": augmentation,
        "preprocess": preprocess,
        "batch": args.recipe.batch,
        "seed": args.recipe.seed,
    });
    let mut run = Run::open(&folder, settings)?;
    let epochs = training.epochs;
    let mut trainer = Trainer::new(towers.graph(), first, training)?;
    live.introduce(&facts(&[
        (
            "student",
            format!(
                "{}, {} + {} parameters",
                args.student,
                count(towers.image.parameter_count()),
                count(towers.text.parameter_count())
            ),
        ),
        ("learns from", teachers.text()),
        (
            "pairs",
            format!(
                "{} with {}; {} measured",
                plural(data.len(), "picture"),
                plural(task.captions().texts.len(), "text"),
                measured.len()
            ),
        ),
        ("run", folder.display().to_string()),
    ]));
    let end = trainer.train(&mut task, Some(&mut run), live)?;
    live.finish();
    for reason in task.unreadable() {
        note(&format!("warning: left out: {reason}"));
    }
    if let End::Stopped(steps) = end {
        return Err(Failure::Stopped { steps, run: folder });
    }
    let found = task.retrieval(&mut trainer.evaluator())?;
    let metrics = read_metrics(&folder).map_err(|source| Failure::Read {
        path: folder.join("metrics.jsonl"),
        source,
    })?;
    let student = Student {
        towers,
        weights: trainer.weights(),
        folder: &args.output,
        tokenizer: &tokenizer,
        tokens: text.tokens,
        preprocess,
        data: &data,
        measured: &measured,
    };
    let mut rows: Vec<Row> = teachers
        .row(&measured, threads, &folder)?
        .into_iter()
        .collect();
    rows.extend(student.rows(found)?);
    let copied = std::fs::copy(vocabulary, args.output.join("vocab.txt"));
    copied.map_err(|source| Failure::Write {
        path: args.output.join("vocab.txt"),
        source,
    })?;
    let effort = Effort::of(&metrics);
    let outcome = Outcome {
        folder: args.output.clone(),
        network: args.student.clone(),
        learnt_from: teachers.text(),
        pairs: data.len(),
        texts: task.captions().texts.len(),
        epochs,
        steps: effort.steps,
        seconds: effort.seconds,
        images_per_second: effort.speed(),
        rows,
        unreadable: task.unreadable().to_vec(),
        report: args.output.join("report.html"),
        metrics,
    };
    save(&outcome.report, report::pairs::page(&outcome).as_bytes())?;
    Ok(outcome)
}

/// `1,1,4,1`.
fn weights(text: &str) -> Result<PairsWeights, String> {
    let parsed: Option<Vec<f64>> = text.split(',').map(|w| w.trim().parse().ok()).collect();
    match parsed.as_deref() {
        Some(&[contrast, picture, text, relational])
            if [contrast, picture, text, relational]
                .iter()
                .all(|w| (0.0..=1e3).contains(w)) =>
        {
            Ok(PairsWeights {
                contrast,
                picture,
                text,
                relational,
            })
        }
        _ => Err("expected four numbers from 0, for example 1,1,4,1".to_owned()),
    }
}
