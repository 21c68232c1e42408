//! tmp
mod error;
mod histogram;
#[cfg(test)]
pub(crate) mod testing;
pub use error::CalibrateError;
pub use histogram::{BINS, Histogram};
