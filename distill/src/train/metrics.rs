//! `metrics.jsonl`: what was measured, a JSON object a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{EpochReport, StepReport};

/// Name of the file in a run's folder.
pub(super) const NAME: &str = "metrics.jsonl";

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A step, or the mean over the steps since the line before.
    Step(StepReport),
    /// An epoch and its evaluation.
    Epoch(EpochReport),
}

/// Reads the lines of a run's metrics. A last line that was cut is left out.
///
/// # Errors
///
/// When the file can't be read.
pub fn read_metrics(run: &Path) -> io::Result<Vec<Record>> {
    let text = fs::read_to_string(run.join(NAME))?;
    let records = text.lines().map(serde_json::from_str);
    Ok(records.filter_map(Result::ok).collect())
}

/// What a run took, over all its sittings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Effort {
    /// Steps.
    pub steps: u64,
    /// Samples in them.
    pub samples: usize,
    /// Seconds they took.
    pub seconds: f64,
}

impl Effort {
    /// Of a run's records.
    pub fn of(records: &[Record]) -> Self {
        let mut effort = Effort::default();
        for record in records {
            if let Record::Step(step) = record {
                effort.steps = effort.steps.max(step.step);
                effort.samples += step.samples;
                effort.seconds += step.seconds;
            }
        }
        effort
    }

    /// Samples a second.
    pub fn speed(&self) -> f64 {
        self.samples as f64 / self.seconds.max(1e-9)
    }
}

/// The open file.
pub(super) struct Metrics(File);

impl Metrics {
    /// Opens the file of a run that goes on after `steps` steps with epoch `epoch`: what an earlier run
    /// wrote beyond is left out.
    pub fn resume(run: &Path, steps: u64, epoch: usize) -> io::Result<Self> {
        let records = match read_metrics(run) {
            Ok(records) => records,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let kept = records.iter().filter(|record| match record {
            Record::Step(report) => report.step <= steps,
            Record::Epoch(report) => report.epoch < epoch,
        });
        let lines: Vec<String> = kept.map(line).collect::<io::Result<_>>()?;
        let path = run.join(NAME);
        ampoule_quantize::seal::write_atomically(&path, lines.concat().as_bytes())?;
        Ok(Metrics(OpenOptions::new().append(true).open(path)?))
    }

    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.0.write_all(line(record)?.as_bytes())
    }
}

fn line(record: &Record) -> io::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(record)?))
}
