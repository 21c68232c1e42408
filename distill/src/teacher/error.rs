//! What can go wrong with teachers.

use std::path::PathBuf;

use ampoule_quantize::import::ImportError;
use thiserror::Error;

use crate::data::DatasetError;
use crate::store::StoreError;

/// A model can't be a teacher, or several can't answer together.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TeacherError {
    /// A file that can't be read or imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A model with other inputs than one picture.
    #[error("`{path}`: expected one input of shape 1×H×W×3 or 1×3×H×W, got {got}")]
    Input {
        /// The file.
        path: PathBuf,
        /// Its inputs.
        got: String,
    },
    /// A model of texts with other inputs than rows of tokens.
    #[error("`{path}`: expected inputs of shape 1×tokens for token ids, got {got}")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// Its inputs.
        got: String,
    },
    /// Several outputs, and no choice between them, or one that is not there.
    #[error("`{path}`: expected {expected}, got the outputs {}", .got.join(", "))]
    Output {
        /// The file.
        path: PathBuf,
        /// What is wanted.
        expected: String,
        /// Names of the outputs.
        got: Vec<String>,
    },
    /// An output whose shape is not what the kind of answer needs.
    #[error("`{path}`: output `{output}` has shape {shape:?}; expected {expected}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The output.
        output: String,
        /// Its shape, batch first.
        shape: Vec<usize>,
        /// What is wanted.
        expected: String,
    },
    /// More classes per record than there are.
    #[error("top-k {k}: the teacher has only {classes} classes")]
    TopK {
        /// Classes asked for.
        k: usize,
        /// Classes there are.
        classes: usize,
    },
    /// No teacher at all.
    #[error("no teacher given")]
    Nobody,
    /// Preprocessing of another size than the input's.
    #[error("`{path}`: expected preprocessing to {expected}, got {got}")]
    Preprocess {
        /// The file.
        path: PathBuf,
        /// Width×height of the input.
        expected: String,
        /// Width×height of the preprocessing.
        got: String,
    },
    /// A model that fails when it runs.
    #[error("`{path}` can't be run: {what}")]
    Run {
        /// The file.
        path: PathBuf,
        /// What the runtime says.
        what: String,
    },
}

/// The teacher pass stopped. What was written stays valid, and the pass can go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TeachError {
    /// A teacher.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// The pictures.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A teacher whose answer is no number, with the picture.
    #[error("the teacher's answer to `{name}` can't be stored: {what}")]
    Answer {
        /// The sample.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// More shards than samples.
    #[error("shard {index}/{count} is empty: there are {samples} samples")]
    EmptyShard {
        /// Which shard.
        index: usize,
        /// Of how many.
        count: usize,
        /// Samples in all.
        samples: usize,
    },
}
