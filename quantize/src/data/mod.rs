//! Folders of images: found, labelled, limited and decoded.
//!
//! ```no_run
//! use ampoule_quantize::data::ImageSet;
//!
//! let set = ImageSet::open("calibration-images")?.limit(128);
//! let mut images = set.images();
//! for sample in images.by_ref() {
//!     println!("{} {}x{}", sample.path.display(), sample.image.width(), sample.image.height());
//! }
//! println!("{}", images.report());
//! # Ok::<(), ampoule_quantize::data::DataError>(())
//! ```
//!
//! The order is that of the paths, everywhere the same, and files that cannot be read are counted in
//! the [`LoadReport`], never dropped silently.

pub mod csv;
mod decode;
mod error;
mod images;
mod jpeg;
mod labels;
mod limit;
mod listing;
mod report;
mod set;
#[cfg(test)]
mod tests;

pub use decode::{MAX_BYTES, MAX_SIDE, RgbImage, decode, decode_bytes};
pub use error::DataError;
pub use images::{Images, Sample};
pub use report::{LoadReport, Skipped};
pub use set::{Entry, ImageSet};
