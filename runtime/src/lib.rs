//! Executes sealed ampoules: `no_std`, no allocation, SIMD, identical integer results everywhere.
//!
//! Four things make a run:
//!
//! 1. [`Artifact::verify`] checks the `.amp` bytes once, in place;
//! 2. an arena of exactly [`arena_bytes`] bytes, known at compile time;
//! 3. a [`Session`] over both;
//! 4. [`preprocess`] turns pixels into the input the model was sealed for.
//!
//! [`numerics`] defines the integer arithmetic that every kernel in [`arch`] and [`ops`] reproduces
//! bit for bit.

#![no_std]
#![deny(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod arch;
pub mod artifact;
mod error;
mod exec;
mod isa;
mod memory;
pub mod numerics;
mod operators;
pub mod ops;
pub mod packed;
pub mod peak;
#[cfg(feature = "std")]
mod pool;
pub mod preprocess;
mod session;
mod tensor;

pub use artifact::Artifact;
pub use artifact::layout::arena_bytes;
pub use error::Error;
pub use isa::{Capability, Isa};
pub use memory::{Aligned, Arena};
pub use operators::{AllOperators, OperatorSet, Operators};
#[cfg(feature = "std")]
pub use pool::Pool;
pub use session::{Observation, Session, dequantize};
pub use tensor::{CONSTANT_BANK, DType, MAX_RANK, Shape, Tensor, TensorId};

/// Alignment in bytes that every arena slice must have.
pub const ARENA_ALIGN: usize = artifact::layout::ALIGN;
/// Alignment in bytes that the artifact must have in memory.
pub const ARTIFACT_ALIGN: usize = artifact::layout::ALIGN;
