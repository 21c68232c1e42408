//! Import of TFLite models, float and int8.
//!
//! The schema is that of `tract-tflite`, generated for the official flatbuffers runtime, whose verifier
//! runs first. It checks offsets, not meaning: `file` then checks every index, shape, length and scale
//! once, and `lower` walks the operators in order.
//!
//! Scales, zero points, weights and biases of int8 models are taken over: activations get an
//! [`Op::Quantize`](crate::graph::Op) behind them, weights are real multiples of their steps, which
//! [`Imported::weight_steps`] lists. Unsigned codes are shifted by 128 to int8.

mod constants;
mod file;
mod lower;
mod ops;

use std::path::Path;

use super::error::{ImportError, Problem};
use super::guard::guarded;
use super::{Format, Imported};
use file::File;

/// Imports a TFLite file.
///
/// # Errors
///
/// [`ImportError`], naming the file, and the operator by name and index where one is at fault.
pub fn tflite(path: impl AsRef<Path>) -> Result<Imported, ImportError> {
    let path = path.as_ref();
    let fail = |p: Problem| p.of(&path.display().to_string());
    let bytes = std::fs::read(path).map_err(|e| fail(e.into()))?;
    import(&bytes).map_err(fail)
}

/// Imports a TFLite model from memory.
///
/// # Errors
///
/// As [`tflite`].
pub fn tflite_bytes(bytes: &[u8]) -> Result<Imported, ImportError> {
    import(bytes).map_err(|p| p.of("model in memory"))
}

/// Whether bytes begin like a TFLite model.
pub(super) fn is_tflite(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"TFL3")
}

fn import(bytes: &[u8]) -> Result<Imported, Problem> {
    guarded("reading the model", || {
        let file = File::parse(bytes)?;
        let lowered = lower::lower(&file)?;
        Ok(Imported {
            graph: lowered.graph,
            format: Format::Tflite {
                version: file.version,
            },
            producer: file.description.to_owned(),
            warnings: lowered.warnings,
            weight_steps: lowered.steps,
        })
    })
}
