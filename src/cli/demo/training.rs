//! The second half of the demo: a teacher's answers, a student that learns from them, int8, an answer.
//!
//! It consists of commands, which are shown as they are run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ampoule::Classifier;
use clap::Parser;
use serde::Serialize;

use crate::cli::distill::live::{Live, View};
use crate::cli::distill::{self, Distill};
use crate::cli::error::Failure;
use crate::cli::output::note;
use crate::cli::teach::Teach;

const TEACHER: &str = "minis/tiny-moat-mini.onnx";
const PICTURES: &str = "demo/emoji";
const TEST: &str = "minis/test";
/// Answers shown of one picture.
const SHOWN: usize = 3;

/// Words of a command.
macro_rules! line {
    ($($word:expr),* $(,)?) => { vec![$(OsString::from($word)),*] };
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Trains the teacher, too, and a student that sees whole pictures.
    pub full: bool,
    /// Epochs of the student.
    pub epochs: Option<u32>,
}

/// What came out.
#[derive(Debug, Serialize)]
pub struct Trained {
    /// What was there before the demo began, in words.
    pub precomputed: &'static str,
    pub commands: Vec<String>,
    pub distilled: distill::Outcome,
    pub seconds: f64,
    /// A picture that nobody learnt from, and what the artifact says: class and probability.
    #[serde(serialize_with = "crate::cli::output::path")]
    pub picture: PathBuf,
    pub answers: Vec<(String, f32)>,
}

/// The commands' own parsers.
#[derive(Debug, Parser)]
struct TeachLine {
    #[command(flatten)]
    teach: Teach,
}

#[derive(Debug, Parser)]
struct DistillLine {
    #[command(flatten)]
    distill: Distill,
}

/// Runs everything in the folder `out`.
pub fn run(fixtures: &Path, out: &Path, amount: Amount, json: bool) -> Result<Trained, Failure> {
    let started = Instant::now();
    let view = if json { View::Nothing } else { View::Text };
    let mut shown = Commands {
        json,
        all: Vec::new(),
    };
    let fixture = |name: &str| fixtures.join(name).into_os_string();
    let own = |name: &str| out.join(name).into_os_string();
    let (mut teacher, mut preset) = (fixture(TEACHER), "signed");
    if amount.full {
        (teacher, preset) = (own("teacher.onnx"), "imagenet");
        let line = line![
            "distill",
            "--labels-only",
            "--student",
            "tiny-moat-mini",
            "--augment",
            "light",
            "--lr",
            "0.002",
            "--epochs",
            "40",
            "--eval-every",
            "10",
            "--data",
            fixture(PICTURES),
            "--eval",
            fixture(TEST),
            "-o",
            &teacher,
        ];
        shown.distill(line, view)?;
    }
    let (stored, size, epochs) = match amount.full {
        true => (20, "64x64", 80),
        false => (10, "32x32", 40),
    };
    let epochs = amount.epochs.unwrap_or(epochs);
    let (stored, epochs) = (epochs.min(stored).to_string(), epochs.to_string());
    let line = line![
        "teach",
        "--augment",
        "light",
        "--epochs",
        stored,
        "--preset",
        preset,
        "--teacher",
        teacher,
        "--data",
        fixture(PICTURES),
        "-o",
        own("store"),
    ];
    shown.show(&line);
    TeachLine::parse_from(line).teach.quietly()?;
    let line = line![
        "distill",
        "--student",
        "tinyvit-mini",
        "--size",
        size,
        "--lr",
        "0.002",
        "--epochs",
        epochs,
        "--eval-every",
        "10",
        "--store",
        own("store"),
        "--eval",
        fixture(TEST),
        "-o",
        own("student.onnx"),
    ];
    let distilled = shown.distill(line, view)?;

    let picture = match distilled.pictures.get(distilled.pictures.len() / 2) {
        Some(picture) => picture.clone(),
        None => return Err(Failure::Usage("nothing was measured".to_owned())),
    };
    let artifact = distilled.artifact.clone().into_os_string();
    let line = line!["run", artifact, &picture];
    shown.show(&line);
    let scores = Classifier::open(&distilled.artifact)?.classify_file(&picture)?;
    let guesses = scores.top(SHOWN);
    let answers = guesses.into_iter().map(|g| (g.label, g.probability));
    Ok(Trained {
        precomputed: match amount.full {
            true => "nothing",
            false => {
                "the teacher, trained by tests/fixtures/minis/train.py on the labels of this set in all styles"
            }
        },
        commands: shown.all,
        seconds: started.elapsed().as_secs_f64(),
        answers: answers.collect(),
        picture,
        distilled,
    })
}

/// What is run, shown as it would be typed.
struct Commands {
    json: bool,
    all: Vec<String>,
}

impl Commands {
    fn show(&mut self, line: &[OsString]) {
        let parts: Vec<String> = line.iter().map(|w| w.to_string_lossy().into()).collect();
        let command = format!("ampoule {}", parts.join(" "));
        if !self.json {
            note(&format!("\n$ {command}"));
        }
        self.all.push(command);
    }

    fn distill(&mut self, line: Vec<OsString>, view: View) -> Result<distill::Outcome, Failure> {
        self.show(&line);
        let mut live = Live::new(view)?;
        DistillLine::parse_from(line).distill.run(&mut live)
    }
}

/// The result as text.
pub fn render(t: &Trained) -> String {
    let answers = t.answers.iter();
    let answers = answers.map(|(label, p)| format!("{label} {:.0} %", 100.0 * p));
    let answers: Vec<String> = answers.collect();
    let file = t.picture.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "\nNine groups of emoji: a teacher, a student that learnt from its answers alone, int8. {} pictures\nthat nobody learnt from. Computed before: {}.\n\n{}\n{file}: {}\n{:.0} s\n",
        t.distilled.measured,
        t.precomputed,
        distill::render(&t.distilled),
        answers.join(", "),
        t.seconds
    )
}
