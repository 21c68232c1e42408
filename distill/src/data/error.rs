//! What can be wrong with the pictures to learn from.

use std::path::PathBuf;

use ampoule_quantize::data::DataError;
use ampoule_runtime::preprocess::PreprocessError;
use thiserror::Error;

/// Pictures, their list or their labels can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A folder, a list or a picture that can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A line of a list that is not understood.
    #[error("`{path}` line {line}: expected {expected}, got `{got}`")]
    List {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// A list without samples.
    #[error("`{0}` lists no pictures")]
    Empty(PathBuf),
    /// A class that the model does not have.
    #[error("`{name}` has class {class}, but there are {classes} classes, from 0")]
    Class {
        /// The sample.
        name: String,
        /// Its class.
        class: u32,
        /// How many there are.
        classes: usize,
    },
    /// Two sets whose classes differ.
    #[error("class {class} is `{expected}` in one set and `{got}` in the other")]
    ClassNames {
        /// The first class that differs.
        class: u32,
        /// Its name in the first set, empty where it has none.
        expected: String,
        /// Its name in the second set.
        got: String,
    },
    /// A picture too small for the crop, or of impossible size.
    #[error("`{name}`: {source}")]
    Picture {
        /// The sample.
        name: String,
        /// What is wrong.
        source: PreprocessError,
    },
    /// More unreadable pictures than allowed.
    #[error("more than {limit} pictures can't be used; the first: {}", .reasons.join("; "))]
    Unreadable {
        /// How many were allowed.
        limit: usize,
        /// Why, for each up to here.
        reasons: Vec<String>,
    },
}
