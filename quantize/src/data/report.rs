//! What happened while loading.

use std::fmt;
use std::path::PathBuf;

use super::DataError;

/// A file that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Counts of an [`ImageSet`](super::ImageSet) and of what was decoded of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Images in the folder.
    pub found: usize,
    /// Images chosen of them.
    pub chosen: usize,
    /// Chosen images without a label, when others have one.
    pub unlabelled: usize,
    /// Visible files that are no images.
    pub other_files: usize,
    /// Rows of the label file whose image is not there.
    pub rows_without_file: usize,
    /// Images decoded so far.
    pub decoded: usize,
    /// Images that could not be decoded, in order.
    pub skipped: Vec<Skipped>,
}

impl LoadReport {
    /// Fails when images were tried and none could be decoded.
    pub fn check(&self) -> Result<(), DataError> {
        match self.skipped.first() {
            Some(first) if self.decoded == 0 => Err(DataError::NothingDecoded {
                count: self.skipped.len(),
                first: first.reason.clone(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} chosen images decoded ({} found)",
            self.decoded, self.chosen, self.found
        )?;
        let counts = [
            (self.unlabelled, "without label"),
            (self.rows_without_file, "label rows without file"),
            (self.other_files, "other files"),
            (self.skipped.len(), "skipped"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        self.skipped
            .iter()
            .try_for_each(|s| write!(f, "\n  skipped: {}", s.reason))
    }
}
