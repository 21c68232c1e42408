//! What can be wrong with images and their folders.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Images cannot be read; names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder that cannot be opened or read.
    #[error("cannot read `{path}`: {source}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file in the place of a folder.
    #[error("`{path}` is a file; expected a folder of pictures, a picture, or samples as .npy")]
    NoFolder {
        /// The file.
        path: PathBuf,
    },
    /// A folder without images.
    #[error(
        "no images in `{path}`: expected .jpg, .jpeg, .png, .bmp or .webp files, got {other} other files"
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// Files with other extensions.
        other: usize,
    },
    /// Every image failed to decode.
    #[error("none of {count} images could be decoded; the first: {first}")]
    NothingDecoded {
        /// Images tried.
        count: usize,
        /// Error of the first.
        first: String,
    },
    /// Damaged data.
    #[error("`{path}` is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        what: String,
    },
    /// A format or a variant of one that is not decoded.
    #[error("`{path}` is not supported: {what}; expected JPEG, PNG, BMP or WebP")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// Too many pixels or bytes.
    #[error("`{path}` is too large: {what}; at most 16384x16384 pixels and 512 MiB are decoded")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Which limit it exceeds.
        what: String,
    },
    /// No pixels.
    #[error("`{path}` has no pixels: {width}x{height}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// A label file that does not say what it should.
    #[error("`{path}` line {line}: expected {expected}, got `{got}`")]
    Labels {
        /// The label file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What belongs there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A folder whose name is no class of the label list.
    #[error(
        "folder `{folder}` is no class: expected a name of the label list or a number below {classes}"
    )]
    UnknownClass {
        /// Folder name.
        folder: String,
        /// Length of the label list.
        classes: usize,
    },
}
