//! What can be wrong with the numbers a calibration rests on.

use thiserror::Error;

/// A calibration cannot answer; says for which tensor.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// No value was ever seen.
    #[error("tensor `{tensor}`: no activation was recorded, so there is no range to choose")]
    Empty {
        /// Tensor name.
        tensor: String,
    },
    /// Infinities or NaN among the activations.
    #[error(
        "tensor `{tensor}`: {non_finite} of {count} activations are infinite or NaN; expected none"
    )]
    NonFinite {
        /// Tensor name.
        tensor: String,
        /// Infinities and NaN seen.
        non_finite: u64,
        /// Values seen, including those.
        count: u64,
    },
    /// A data length that does not match the shape it should have.
    #[error("`{tensor}`: expected {expected}, got {got} elements")]
    Length {
        /// Tensor name or what the slice holds.
        tensor: String,
        /// What the length should be.
        expected: String,
        /// What it is.
        got: usize,
    },
    /// A weight that is infinite or NaN.
    #[error("output channel {row}: weight {index} is {value}; expected a finite number")]
    Weight {
        /// Output channel.
        row: usize,
        /// Index within the channel.
        index: usize,
        /// The weight.
        value: f32,
    },
    /// A method name or its parameter that is not understood.
    #[error("unknown {what} `{got}`; expected {expected}")]
    Method {
        /// What was parsed.
        what: &'static str,
        /// The accepted forms.
        expected: &'static str,
        /// The text.
        got: String,
    },
}
