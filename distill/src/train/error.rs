//! Why training stops.

use std::io;
use std::path::PathBuf;

use ampoule_distill_kernels::engine::EngineError;
use ampoule_distill_kernels::graph::GraphError;
use thiserror::Error;

use crate::data::DatasetError;
use crate::elastic::ElasticError;
use crate::loss::LossError;
use crate::scalekd::ScaleKdError;
use crate::store::{Difference, StoreError};
use crate::teacher::TeacherError;

/// Training can't begin, go on or end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Pictures, their list or their labels.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The teacher's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A teacher that answers while training.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// Outputs and targets that do not fit each other.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// A teacher's maps.
    #[error(transparent)]
    ScaleKd(#[from] ScaleKdError),
    /// A network of many sizes.
    #[error(transparent)]
    Elastic(#[from] ElasticError),
    /// Inputs or parameters that are not the graph's.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A graph that has no form with int8 codes.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Attention is to be regularised where there is none.
    #[error("the student has no attention that could be regularised")]
    NoAttention,
    /// Nothing to learn from.
    #[error("there is nothing to learn from: {0}")]
    Nothing(String),
    /// Captions without pictures, or pictures without captions.
    #[error("{count} of {total} {what}, such as `{}`; {hint}", .examples.join("`, `"))]
    Pairs {
        /// What is wrong with them.
        what: &'static str,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first few.
        examples: Vec<String>,
        /// What to try.
        hint: &'static str,
    },
    /// Student, teacher and data that do not go together.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// Which number or setting.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A number that is not finite. The weights on disk are from before.
    #[error(
        "the {what} became {value} in step {step} (epoch {epoch}, learning rate {rate:.2e}); {}",
        kept_text(*.kept)
    )]
    NotFinite {
        /// Loss or norm of the gradients.
        what: &'static str,
        /// Infinity or no number.
        value: f64,
        /// Number of the step, from 1.
        step: u64,
        /// Epoch, from 1.
        epoch: usize,
        /// Learning rate of the step.
        rate: f32,
        /// Steps done at the last checkpoint.
        kept: Option<u64>,
    },
    /// A file of the run that can't be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of the run that can't be written. What was there before is intact.
    #[error("cannot write `{path}`: {source}; {}", kept_text(*.kept))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
        /// Steps done at the last checkpoint, where there is one.
        kept: Option<u64>,
    },
    /// Checkpoints that are damaged, all generations of them.
    #[error("no checkpoint in `{path}` can be used: {}", .reasons.join("; "))]
    Damaged {
        /// The run's folder.
        path: PathBuf,
        /// What is wrong with each.
        reasons: Vec<String>,
    },
    /// A checkpoint of a run with other settings, data or student.
    #[error("`{path}` is a checkpoint of another run: {}", .differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// Every setting that differs.
        differences: Vec<Difference>,
    },
    /// Another process trains in the same folder.
    #[error("another process is training in `{path}`")]
    Busy {
        /// The run's folder.
        path: PathBuf,
    },
}

fn kept_text(kept: Option<u64>) -> String {
    match kept {
        Some(steps) => format!("the checkpoint after step {steps} is intact"),
        None => "there is no checkpoint yet".to_owned(),
    }
}
