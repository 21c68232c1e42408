//! Training on CPUs.
//!
//! A [`graph::Graph`] says what a network computes; an [`engine::Engine`] computes its outputs and the
//! gradients of its parameters; [`loss`] compares outputs with what they should be; [`optim`] changes
//! the parameters. [`ops`] and [`gemm`] are the kernels on plain slices.

#![deny(unsafe_code)]

mod arch;
pub mod engine;
pub mod gemm;
pub mod graph;
mod isa;
pub mod loss;
mod math;
pub mod ops;
pub mod optim;
