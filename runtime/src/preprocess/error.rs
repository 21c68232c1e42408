//! Why a picture, a buffer or a specification is refused.

use thiserror::Error;

/// Why preprocessing refused a picture, a buffer or a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// The picture has no rows or no columns.
    #[error("the picture is empty")]
    EmptyImage,
    /// A side of the source or of the resized picture exceeds [`MAX_SIDE`](super::MAX_SIDE), or the
    /// scratch it asks for exceeds the address space.
    #[error("the picture is too large")]
    ImageTooLarge,
    /// The stride is less than one row of pixels.
    #[error("the stride is shorter than a row")]
    StrideTooShort,
    /// The pixel slice ends before the last row does.
    #[error("the pixel slice is shorter than the picture")]
    PixelsTooShort,
    /// The resized picture is smaller than the model's input, so no crop exists.
    #[error("the resized picture is smaller than the model's input")]
    CropTooLarge,
    /// The specification has a zero size, a zero deviation or a value that is not finite.
    #[error("the preprocessing specification is invalid")]
    BadSpec,
    /// The scratch slice is too short.
    #[error("the scratch slice is too short: {need} bytes needed")]
    ScratchTooShort {
        /// Bytes needed, as [`Preprocess::scratch_bytes`](super::Preprocess::scratch_bytes) says.
        need: usize,
    },
    /// A buffer does not have the number of elements the call writes.
    #[error("wrong buffer length: {expected} elements expected")]
    Length {
        /// Elements expected.
        expected: usize,
    },
}
