//! Why a store is refused.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

/// A store can't be used or written; names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder that can't be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or folder that can't be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another version of the format.
    #[error("`{path}` has format version {got}; expected {expected}")]
    Version {
        /// The header.
        path: PathBuf,
        /// This program's.
        expected: u32,
        /// The file's.
        got: String,
    },
    /// A header that is not understood, or whose numbers can't be.
    #[error("`{path}` is no header of a teacher store: {what}")]
    Header {
        /// The header.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The store was made with other settings or from other data.
    #[error("`{path}` does not match this run:{}", lines(.differences))]
    Differs {
        /// The header.
        path: PathBuf,
        /// All settings that differ.
        differences: Vec<Difference>,
    },
    /// Records are missing.
    #[error("`{path}` is not complete:{}", lines(.gaps))]
    Incomplete {
        /// The store.
        path: PathBuf,
        /// What is missing.
        gaps: Vec<Gap>,
    },
    /// A file that ends inside a record.
    #[error("`{path}` is cut: sample {sample}'s record has {got} of its {expected} bytes")]
    Cut {
        /// The records.
        path: PathBuf,
        /// Whose record is cut.
        sample: usize,
        /// Bytes of a record.
        expected: usize,
        /// Bytes that are there.
        got: usize,
    },
    /// A file of another length than its name says.
    #[error("`{path}` has {got} bytes; expected {expected}")]
    Length {
        /// Records or checksums.
        path: PathBuf,
        /// What the number of samples makes.
        expected: u64,
        /// What is there.
        got: u64,
    },
    /// Two files hold the same samples, or samples that do not exist.
    #[error("`{path}` holds samples {}..{}, but {what}", .range.start, .range.end)]
    Range {
        /// One of the files.
        path: PathBuf,
        /// Its samples.
        range: Range<usize>,
        /// What is wrong with that.
        what: String,
    },
    /// Bytes that are not the ones that were written.
    #[error("`{path}` is damaged: the checksum of the records of samples {}..{} is wrong", .samples.start, .samples.end)]
    Damaged {
        /// The records.
        path: PathBuf,
        /// The samples of the block.
        samples: Range<usize>,
    },
    /// Somebody else is writing or reading.
    #[error("`{path}` is in use by another process")]
    Busy {
        /// The records.
        path: PathBuf,
    },
    /// An answer that can't be stored.
    #[error("the answer for sample {sample} can't be stored: {what}")]
    Answer {
        /// The sample.
        sample: usize,
        /// What is wrong.
        what: String,
    },
    /// An epoch or sample that the store does not have.
    #[error("there is no {what} {index} in the store, only {count}")]
    Index {
        /// Epoch or sample.
        what: &'static str,
        /// Which was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
}

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its place in the header, such as `augmentation.flip`.
    pub field: String,
    /// What this run has, as JSON.
    pub expected: String,
    /// What the store has, as JSON.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            field,
            expected,
            got,
        } = self;
        write!(f, "{field}: expected {expected}, got {got}")
    }
}

/// Records that are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The epoch, from 0.
    pub epoch: usize,
    /// The samples.
    pub samples: Range<usize>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.samples;
        write!(
            f,
            "epoch {}: samples {start}..{end} are missing",
            self.epoch
        )
    }
}

/// Items on lines of their own; of many, the first.
fn lines<T: fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 8;
    let mut text: String = items
        .iter()
        .take(SHOWN)
        .map(|i| format!("\n  {i}"))
        .collect();
    if items.len() > SHOWN {
        text += &format!("\n  and {} more", items.len() - SHOWN);
    }
    text
}
