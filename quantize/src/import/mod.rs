//! Import of ONNX and TFLite models, and a float oracle for ONNX.
//!
//! tract parses the file, infers shapes and folds constants; `lower` turns what is left into our graph.
//! Convolutions and pooling come out in channels-last form between two transposes each, which
//! [`crate::passes::optimise`] cancels.

mod check;
mod error;
mod guard;
pub(crate) mod initializers;
mod inputs;
pub(crate) mod load;
mod lower;
mod marker;
pub mod oracle;
mod quantised;
mod symmetric;
mod tflite;

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

pub use error::{ImportError, OPSETS, Problem};
pub use initializers::{Initializer, initializers};
pub use oracle::Oracle;
pub use tflite::{tflite, tflite_bytes};

use crate::graph::Graph;
use crate::scheme::WeightSteps;
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
    /// What kind of file it came from.
    pub format: Format,
    /// Name and version of the exporter, where the file names one.
    pub producer: String,
    /// What the caller should know: things that were dropped or assumed.
    pub warnings: Vec<String>,
    /// Steps of weights that the file stores as int8.
    pub weight_steps: WeightSteps,
}

/// Kind of a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// ONNX.
    Onnx {
        /// Version of the operator set.
        opset: i64,
    },
    /// TFLite.
    Tflite {
        /// Version of the schema.
        version: u32,
    },
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Onnx { opset } => write!(f, "ONNX opset {opset}"),
            Format::Tflite { version } => write!(f, "TFLite version {version}"),
        }
    }
}

/// Imports a file of either kind, by what it begins with.
///
/// # Errors
///
/// [`ImportError`], naming the file.
pub fn open(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Imported, ImportError> {
    let path = path.as_ref();
    match is_tflite(path) {
        true => tflite(path),
        false => onnx_with(path, options),
    }
}

/// Whether a file is a TFLite model, by its name or what it begins with.
pub fn is_tflite(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let begins = || {
        let mut start = [0; 8];
        let read = std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut start));
        read.is_ok() && tflite::is_tflite(&start)
    };
    path.extension().is_some_and(|e| e == "tflite") || begins()
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
    let (graph, mut warnings) = guard::guarded("lowering", || lower::lower(&model, &source.nodes))?;
    warnings.extend(source.stated.warnings);
    let producer = format!(
        "{} {}",
        source.proto.producer_name, source.proto.producer_version
    )
    .trim()
    .to_owned();
    Ok(Imported {
        graph,
        format: Format::Onnx {
            opset: source.opset,
        },
        producer,
        warnings,
        weight_steps: source.stated.steps,
    })
}
