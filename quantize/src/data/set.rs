//! The images of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::listing::{Listing, is_image, list};
use super::{DataError, Images, LoadReport, labels, limit};

/// An image file and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// Its class, where known.
    pub class: Option<u32>,
}

/// Images in the order of their paths, with labels where there are any.
#[derive(Debug, Clone)]
pub struct ImageSet {
    entries: Vec<Entry>,
    names: BTreeMap<u32, String>,
    in_folder_order: bool,
    report: LoadReport,
}

impl ImageSet {
    /// The images in a folder and below, or a single image file.
    ///
    /// Labels come from `labels.csv` in the folder or beside it (columns `file` and `class`), or else
    /// from the names of the sub-folders: numbers where all are numbers, their sorted order otherwise.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read or has no images, or a label file that is not understood.
    pub fn open(path: impl AsRef<Path>) -> Result<ImageSet, DataError> {
        Self::open_with_classes(path, &[])
    }

    /// [`ImageSet::open`] with the model's class names in order: sub-folders and the label file may
    /// then name classes in place of their numbers.
    ///
    /// # Errors
    ///
    /// Those of [`ImageSet::open`], and a sub-folder that is no class.
    pub fn open_with_classes(
        path: impl AsRef<Path>,
        classes: &[String],
    ) -> Result<ImageSet, DataError> {
        let path = path.as_ref();
        let (root, listing) = if path.is_file() && is_image(path) {
            let root = path.parent().unwrap_or(Path::new("")).to_owned();
            let images = path.file_name().map(PathBuf::from).into_iter().collect();
            (root, Listing { images, other: 0 })
        } else {
            (path.to_owned(), list(path)?)
        };
        if listing.images.is_empty() {
            return Err(DataError::NoImages {
                path: root,
                other: listing.other,
            });
        }
        let labels = labels::find(&root, &listing.images, classes)?;
        let report = LoadReport {
            found: listing.images.len(),
            other_files: listing.other,
            rows_without_file: labels.rows_without_file,
            ..LoadReport::default()
        };
        let entries = listing.images.iter().zip(labels.classes);
        let entries = entries
            .map(|(image, class)| Entry {
                path: root.join(image),
                class,
            })
            .collect();
        Ok(ImageSet {
            entries,
            names: labels.names,
            in_folder_order: labels.in_folder_order,
            report,
        })
    }

    /// At most `count` of the images: equally many of every class, evenly spaced, in path order.
    pub fn limit(mut self, count: usize) -> ImageSet {
        let classes: Vec<_> = self.entries.iter().map(|e| e.class).collect();
        self.entries = limit::pick(&classes, count)
            .into_iter()
            .map(|i| self.entries[i].clone())
            .collect();
        self
    }

    /// Only the images that have a label.
    pub fn labelled(mut self) -> ImageSet {
        self.entries.retain(|e| e.class.is_some());
        self
    }

    /// The images, in path order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Names of the classes, where known.
    pub fn class_names(&self) -> &BTreeMap<u32, String> {
        &self.names
    }

    /// Whether classes are the sub-folders counted in sorted order: a guess that only fits a model whose
    /// classes are in that order, too.
    pub fn in_folder_order(&self) -> bool {
        self.in_folder_order
    }

    /// Whether any image has a label.
    pub fn has_labels(&self) -> bool {
        self.entries.iter().any(|e| e.class.is_some())
    }

    /// What was found; nothing is decoded yet.
    pub fn report(&self) -> LoadReport {
        let unlabelled = self.entries.iter().filter(|e| e.class.is_none()).count();
        LoadReport {
            chosen: self.entries.len(),
            unlabelled: if self.has_labels() { unlabelled } else { 0 },
            ..self.report.clone()
        }
    }

    /// Decodes the images in parallel, a few at a time, and yields them in path order.
    pub fn images(&self) -> Images<'_> {
        Images::new(&self.entries, self.report())
    }
}
