//! Error codes of the core: small, `Copy`, without payload that would need formatting on a device.

use thiserror::Error;

/// Why an artifact, an arena or a call was refused.
///
/// The host crates wrap these codes with the file name and the operator's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end before the structure they announce.
    #[error("the artifact is truncated")]
    Truncated,
    /// The first bytes are not those of an ampoule.
    #[error("not an ampoule: wrong magic bytes")]
    BadMagic,
    /// The file was written by an incompatible version of the format.
    #[error("unsupported format version {major}.{minor}")]
    UnsupportedVersion {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// The SHA-256 digest does not match the content.
    #[error("checksum mismatch: the artifact is damaged")]
    Checksum,
    /// A section is missing, repeated, misaligned, overlapping or out of the file.
    #[error("section {0} is missing, repeated, misaligned or out of bounds")]
    BadSection(u32),
    /// A tensor record breaks a rule of the format.
    #[error("tensor {0} is malformed")]
    BadTensor(u16),
    /// Two tensors that are alive at the same step share memory.
    #[error("tensors {0} and {1} overlap while both are alive")]
    Overlap(u16, u16),
    /// A step record can't be decoded or breaks its operator's contract.
    #[error("step {0} is malformed")]
    BadStep(u16),
    /// A step needs an operator that the program is not linked with: see [`crate::Operators`].
    #[error("the operator of step {0} is not linked into this program")]
    NotLinked(u16),
    /// A step reads or writes a tensor outside that tensor's life span.
    #[error("step {0} uses a tensor outside its life span")]
    BadLifetime(u16),
    /// An input or output record is malformed.
    #[error("input/output record {0} is malformed")]
    BadIo(u16),
    /// The number of arena slices or the size of one is less than the artifact needs.
    #[error("arena bank {0} is missing or too small")]
    ArenaTooSmall(u8),
    /// An arena slice is not aligned to [`crate::ARENA_ALIGN`] bytes.
    #[error("arena bank {0} is not aligned to 64 bytes")]
    ArenaMisaligned(u8),
    /// The artifact bytes are not aligned to [`crate::ARTIFACT_ALIGN`] bytes.
    #[error("the artifact bytes are not aligned")]
    ArtifactMisaligned,
    /// An instruction set was forced that this processor does not have.
    #[error("the instruction set {0} is not available on this processor")]
    IsaUnavailable(&'static str),
    /// No input or output of that number or type.
    #[error("no such input or output")]
    NoSuchIo,
    /// Data of the wrong length was given for an input.
    #[error("wrong length: expected {expected}, got {got}")]
    Length {
        /// Elements the tensor holds.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// An index (a token id) selects nothing: it is negative, or the table has fewer rows.
    #[error("index {0} is out of range")]
    IndexOutOfRange(i32),
    /// The self-test gave other outputs than the golden vectors in the artifact.
    #[error("self-test failed: outputs differ from the golden vector {0}")]
    SelfTest(u16),
    /// A step of a verified artifact could not be executed; this is a fault of the library.
    #[error("internal error at step {0}")]
    Internal(u16),
}
