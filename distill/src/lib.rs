//! Students for distillation.
//!
//! [`zoo`] has the networks: what they are made of, what they cost, and how they become ONNX files.

#![forbid(unsafe_code)]

pub mod zoo;
