//! From activations seen to codes chosen: streaming statistics, range selection and the int8 and
//! int16 parameters that follow from them.
//!
//! ```
//! use ampoule_quantize::calibrate::{CodeWidth, Histogram, QParams, RangeMethod, select};
//!
//! let mut seen = Histogram::new();
//! seen.update(&[0.0, 0.5, 1.0, 1.5, 2.0]); // one call per image; memory stays the same
//! let range = select("relu1", &seen, RangeMethod::MinMax, CodeWidth::I8)?;
//! let params = QParams::from_range(range.lo, range.hi);
//! assert_eq!(params.quantize(2.0), 127);
//! # Ok::<(), ampoule_quantize::calibrate::CalibrateError>(())
//! ```
//!
//! Everything here is deterministic: histograms and channel sums do not depend on the order of the
//! images nor on how many threads gathered them.

mod argument;
mod bias;
mod channels;
mod density;
mod entropy;
mod error;
mod expected;
mod histogram;
mod method;
mod qparams;
mod range;
mod search;
#[cfg(test)]
pub(crate) mod testing;
mod weights;

pub use argument::select_argument;
pub use bias::{Geometry, expected_shift};
pub use channels::ChannelStats;
pub use error::CalibrateError;
pub use expected::{clipped_share, expected_mse, expected_sqnr_db};
pub use histogram::{BINS, Histogram};
pub use method::{RangeMethod, WeightMethod};
pub use qparams::{CodeWidth, QParams};
pub use range::{Range, select};
pub use weights::{
    QuantizedWeights, quantize_weights, quantize_weights_above, scale_floor_for_bias,
};
