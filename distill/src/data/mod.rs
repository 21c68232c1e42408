//! Pictures to learn from: found, decoded, augmented and put into batches.
//!
//! ```no_run
//! use std::sync::Arc;
//! use ampoule_distill::augment::Augmentation;
//! use ampoule_distill::data::{Dataset, Loader, LoaderOptions, Pictures, epoch_order, record_seed};
//! # fn example(preprocess: ampoule_runtime::preprocess::Preprocess) -> Result<(), Box<dyn std::error::Error>> {
//! let data = Arc::new(Dataset::open("photos")?);
//! let (run, epoch) = (0, 0);
//! let order = epoch_order(run, epoch, data.len());
//! let pictures = Pictures { data, augmentation: Augmentation::light([64, 64]) };
//! let options = LoaderOptions {
//!     batch: 64, threads: 2, ahead: 2, preprocess, max_unreadable: 0, keep_pixels: false,
//! };
//! let seeds = Arc::new(move |sample| record_seed(run, epoch, sample));
//! for batch in Loader::new(pictures, &order, seeds, options) {
//!     let batch = batch?;
//!     println!("{} samples, {} values", batch.samples.len(), batch.images.len());
//! }
//! # Ok(())
//! # }
//! ```

mod dataset;
mod error;
mod loader;
mod ordered;
mod pictures;
#[cfg(test)]
mod tests;

pub use dataset::{Dataset, Sample};
pub use error::DatasetError;
pub(crate) use loader::input;
pub use loader::{Batch, Loader, LoaderOptions};
pub(crate) use ordered::Ordered;
pub use pictures::{Picture, Pictures, Seeds, epoch_order, partners, record_seed};
