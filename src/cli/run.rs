//! `ampoule run`: what an artifact says about pictures or arrays.

use std::path::{Path, PathBuf};

use ampoule::{Classifier, Scores};
use ampoule_quantize::data;
use ampoule_quantize::model::{Model, outputs_f32};
use ampoule_quantize::pipeline::to_source;
use ampoule_runtime::{Pool, Session};
use clap::Args;
use serde::Serialize;

use super::args::{ExecArgs, is_npy};
use super::error::Failure;
use super::inspect::details::Details;
use super::models::{classifier, not_classes, read_artifact};
use super::output;
use super::output::{Table, plural, print, print_json, shape};
use super::profile::{self, StepTime};
use super::samples::{dimensions, input_layout, known_ids_of, read_rows};
use super::timing::{self, Until};

const EXAMPLES: &str = "\
Examples:
  ampoule run model.amp cat.jpg dog.jpg
  ampoule run model.amp cat.jpg --top 3 --json
  ampoule run model.amp cat.jpg --profile --isa portable
  ampoule run encoder.amp cat.jpg --raw --json
  ampoule run sensor.amp samples.npy";

/// Runs behind the times of `--profile`.
const PROFILE_RUNS: usize = 50;
/// Classes shown unless told otherwise.
const TOP: u32 = 5;
/// Values of an output that are printed.
const SHOWN: usize = 8;

/// Run an artifact on pictures, or on .npy arrays
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// The artifact
    model: PathBuf,
    /// Pictures, or arrays as .npy
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Classes shown per picture [default: 5]. Without labels or a softmax at the end, outputs count as
    /// classes only when this is given
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Show the values of all outputs for pictures, too
    #[arg(long, conflicts_with = "top")]
    raw: bool,
    /// Show the time per step
    #[arg(long)]
    profile: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    exec: ExecArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    isa: &'static str,
    threads: usize,
    results: Vec<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepTime>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Picture {
        #[serde(serialize_with = "crate::cli::output::path")]
        file: PathBuf,
        softmax_applied: bool,
        top: Vec<Class>,
    },
    Values {
        #[serde(serialize_with = "crate::cli::output::path")]
        file: PathBuf,
        /// Number of the sample in an array.
        #[serde(skip_serializing_if = "Option::is_none")]
        sample: Option<usize>,
        outputs: Vec<Output>,
    },
}

#[derive(Debug, Serialize)]
struct Class {
    class: usize,
    label: String,
    probability: f32,
}

#[derive(Debug, Serialize)]
struct Output {
    name: String,
    shape: Vec<u32>,
    values: Vec<f32>,
}

impl Run {
    /// Runs the command. Every input is tried; one that fails makes the command fail.
    pub fn execute(&self) -> Result<(), Failure> {
        let mut model = read_artifact(&self.model)?;
        let pool = self.exec.pool();
        let (arrays, pictures): (Vec<&PathBuf>, Vec<&PathBuf>) =
            self.inputs.iter().partition(|p| is_npy(p));
        let mut results = Vec::new();
        let mut failures = Vec::new();
        if !pictures.is_empty() {
            let mut classifier =
                classifier(&self.model, model.clone())?.with_isa(self.exec.isa())?;
            for path in pictures {
                match self.picture(&mut classifier, path, pool.as_ref()) {
                    Ok(answer) => results.push(answer),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        for path in arrays {
            match self.array(&mut model, path, pool.as_ref()) {
                Ok(answers) => results.extend(answers),
                Err(failure) => failures.push(failure),
            }
        }
        let steps = if self.profile {
            Some(self.profiled(&mut model, pool.as_ref())?)
        } else {
            None
        };
        let outcome = Outcome {
            isa: self.exec.isa().name(),
            threads: self.exec.threads(),
            results,
            steps,
        };
        match self.json {
            true => print_json(&outcome)?,
            false if outcome.results.is_empty() && outcome.steps.is_none() => {}
            false => print(&render(&outcome, self.raw))?,
        }
        let last = failures.pop();
        failures.iter().for_each(output::error);
        last.map_or(Ok(()), Err)
    }

    fn picture(
        &self,
        classifier: &mut Classifier,
        path: &Path,
        pool: Option<&Pool>,
    ) -> Result<Answer, Failure> {
        let image = data::decode(path)?;
        let view = image.view().map_err(|error| Failure::Picture {
            path: path.to_owned(),
            error,
        })?;
        let as_values = self.raw || (self.top.is_none() && !classifier.is_classifier());
        if !as_values && classifier.classes().is_none() {
            return Err(not_classes(&self.model));
        }
        let mut all = None;
        let values = classifier
            .run(&view, pool, |session| {
                session.run()?;
                all = as_values.then(|| outputs(session));
                Ok(())
            })
            .map_err(|e| match e {
                ampoule::ClassifyError::Preprocess(error) => Failure::Picture {
                    path: path.to_owned(),
                    error,
                },
                other => other.into(),
            })?;
        if let Some(outputs) = all {
            return Ok(Answer::Values {
                file: path.to_owned(),
                sample: None,
                outputs: outputs?,
            });
        }
        let scores: Scores = classifier.scores(values);
        let top = scores.top(self.top.unwrap_or(TOP) as usize).into_iter();
        Ok(Answer::Picture {
            file: path.to_owned(),
            softmax_applied: scores.softmax_applied,
            top: top
                .map(|g| Class {
                    class: g.class,
                    label: g.label,
                    probability: g.probability,
                })
                .collect(),
        })
    }

    /// One answer per sample. Samples are in the layout the source model had, or in the stored one.
    fn array(
        &self,
        model: &mut Model,
        path: &Path,
        pool: Option<&Pool>,
    ) -> Result<Vec<Answer>, Failure> {
        let (stored, layout) = input_layout(&model.artifact()?)?;
        let ids = known_ids_of(&model.artifact()?);
        let samples = read_rows(path, &stored, &layout, ids, usize::MAX)?;
        let mut session = self.exec.session(model, pool)?;
        let mut answers = Vec::new();
        for (sample, values) in samples.iter().enumerate() {
            session.write_f32(0, values)?;
            session.run()?;
            answers.push(Answer::Values {
                file: path.to_owned(),
                sample: Some(sample),
                outputs: outputs(&session)?,
            });
        }
        Ok(answers)
    }

    fn profiled(&self, model: &mut Model, pool: Option<&Pool>) -> Result<Vec<StepTime>, Failure> {
        let details = Details::of(model)?;
        let mut session = self.exec.session(model, pool)?;
        timing::measure(&mut session, Until::Runs(PROFILE_RUNS / 5))?;
        let times = timing::profile(&mut session, Until::Runs(PROFILE_RUNS))?;
        Ok(profile::steps(&details, &times, None))
    }
}

/// Every output, in the layout the source model had.
fn outputs(session: &Session<'_, '_>) -> Result<Vec<Output>, Failure> {
    let all = outputs_f32(session)?.into_iter();
    let outputs = all.zip(session.artifact().outputs()).map(|(values, io)| {
        let (stored, layout) = dimensions(&io);
        Output {
            name: io.name.unwrap_or_default().to_owned(),
            shape: layout.iter().map(|&d| stored[d] as u32).collect(),
            values: to_source(&values, &stored, &layout),
        }
    });
    Ok(outputs.collect())
}

fn render(o: &Outcome, raw: bool) -> String {
    let mut text = String::new();
    for answer in &o.results {
        text += &match answer {
            Answer::Picture {
                file,
                softmax_applied,
                top,
            } => {
                let how = if *softmax_applied {
                    "softmax applied"
                } else {
                    "the model's own probabilities"
                };
                let mut table = Table::new(&[">probability", ">class", "label"]);
                for c in top {
                    table.row([
                        format!("{:.2} %", 100.0 * c.probability),
                        c.class.to_string(),
                        c.label.clone(),
                    ]);
                }
                format!("{}  ({how})\n{}\n", file.display(), table.render())
            }
            Answer::Values {
                file,
                sample,
                outputs,
            } => {
                let mut table = Table::new(&[
                    "output",
                    "shape",
                    ">least",
                    ">mean",
                    ">most",
                    "first values",
                ]);
                for output in outputs {
                    table.row(array_row(output));
                }
                let which = match (sample, raw) {
                    (Some(sample), _) => format!(" sample {sample}"),
                    (None, true) => String::new(),
                    (None, false) => {
                        "  (values: without labels or a softmax they may not be classes; --top K shows them so)".to_owned()
                    }
                };
                format!("{}{which}\n{}\n", file.display(), table.render())
            }
        };
    }
    if let Some(steps) = &o.steps {
        text += &format!(
            "{}\n{}, {}\n",
            profile::render(steps),
            o.isa,
            plural(o.threads, "thread")
        );
    }
    text.truncate(text.trim_end().len());
    text
}

fn array_row(o: &Output) -> [String; 6] {
    let least = o.values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = o.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mean = o.values.iter().map(|&v| f64::from(v)).sum::<f64>() / o.values.len().max(1) as f64;
    let first: Vec<String> = o
        .values
        .iter()
        .take(SHOWN)
        .map(|v| format!("{v:.4}"))
        .collect();
    let more = if o.values.len() > SHOWN { " …" } else { "" };
    let numbers = [f64::from(least), mean, f64::from(most)].map(|v| format!("{v:.4}"));
    let [least, mean, most] = numbers;
    [
        o.name.clone(),
        shape(&o.shape),
        least,
        mean,
        most,
        first.join(" ") + more,
    ]
}
