//! Import of ONNX models, and a float oracle for them.
//!
//! tract parses the file, infers shapes and folds constants; `lower` turns what is left into our graph.
//! Convolutions and pooling come out in channels-last form between two transposes each, which
//! [`crate::passes::optimise`] cancels.

mod check;
mod error;
mod guard;
mod initializers;
mod inputs;
mod load;
mod lower;
mod marker;
pub mod oracle;

use std::collections::HashMap;
use std::path::Path;

pub use error::{ImportError, OPSETS, Problem};
pub use initializers::{Initializer, initializers};
pub use oracle::Oracle;

use crate::graph::Graph;
use load::Source;

/// What a caller can say about a model.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Shapes of inputs by name, for models that leave dimensions open. Batch 1 needs no entry.
    pub input_shapes: HashMap<String, Vec<usize>>,
}

/// An imported model.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The float graph, lowered and not yet optimised.
    pub graph: Graph,
    /// Version of the ONNX operator set.
    pub opset: i64,
    /// Name and version of the exporter, where the file names one.
    pub producer: String,
    /// What the caller should know: things that were dropped or assumed.
    pub warnings: Vec<String>,
}

/// Imports an ONNX file.
pub fn onnx(path: impl AsRef<Path>) -> Result<Imported, ImportError> {
    onnx_with(path, &ImportOptions::default())
}

/// Imports an ONNX file with options.
pub fn onnx_with(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Imported, ImportError> {
    let path = path.as_ref();
    let fail = |p: Problem| p.of(&path.display().to_string());
    let bytes = std::fs::read(path).map_err(|e| fail(e.into()))?;
    import(&bytes, path.parent(), options).map_err(fail)
}

/// Imports an ONNX model from memory; it cannot have external weights.
pub fn onnx_bytes(bytes: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    import(bytes, None, options).map_err(|p| p.of("model in memory"))
}

fn import(
    bytes: &[u8],
    folder: Option<&Path>,
    options: &ImportOptions,
) -> Result<Imported, Problem> {
    let source = Source::parse(bytes, folder, &options.input_shapes)?;
    let model = source.typed()?;
    let (graph, warnings) = guard::guarded("lowering", || lower::lower(&model, &source.nodes))?;
    let producer = format!(
        "{} {}",
        source.proto.producer_name, source.proto.producer_version
    )
    .trim()
    .to_owned();
    Ok(Imported {
        graph,
        opset: source.opset,
        producer,
        warnings,
    })
}
