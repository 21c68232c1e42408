//! Students from ONNX files: exported ones, pruned ones, and other exporters' networks.
//!
//! The file goes through ampoule's import, which recognises layer norms, activations and attention however
//! they are spelled out, and becomes a training graph with the file's weights. What training starts from is
//! the network as it runs: batch norms are part of the convolutions in front of them, whose biases carry
//! their shifts. That is what fine-tuning of a finished network wants; from the start, train the zoo's
//! network with its norms. Drop path is not in the file.
//!
//! Position biases are tied again where the file's allow it: to absolute offsets as in TinyViT, to signed
//! ones as in MOAT, else each pair of tokens has its own. A softmax at the end is left out, because losses
//! take logits; [`Student::notes`] says so.
//!
//! ```
//! use ampoule_distill::export::{self, Settings};
//! use ampoule_distill::import;
//! use ampoule_distill::zoo::{self, Weights};
//! let network = zoo::find("tinyvit-mini").unwrap().config.build().unwrap();
//! let weights = Weights::random(&network, 0);
//! let file = export::onnx(network.graph(), weights.values(), &Settings::default()).unwrap();
//! let student = import::onnx_bytes(&file).unwrap();
//! assert_eq!(student.network.macs(), network.macs());
//! ```

mod attention;
mod error;
mod names;
mod translate;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ampoule_distill_kernels::graph::{Graph as TrainingGraph, ParameterId};
use ampoule_quantize::graph::{Graph, ValueId};
use ampoule_quantize::import::{self, Imported};
use ampoule_quantize::passes;

use crate::zoo::{Network, Weights};
pub use error::StudentError;
use translate::Translator;

/// A network that can be trained, and its weights.
#[derive(Debug, Clone)]
pub struct Student {
    /// The network.
    pub network: Network,
    /// Its weights in the file.
    pub weights: Weights,
    /// Names of the inputs, in the graph's order.
    pub inputs: Vec<String>,
    /// Names of the outputs, in the graph's order.
    pub outputs: Vec<String>,
    /// What the file has and the student has not.
    pub notes: Vec<String>,
}

/// Reads a student from an ONNX file.
///
/// # Errors
///
/// [`StudentError`] when the file can't be read, or has an operator that training does not have.
pub fn onnx(path: &Path) -> Result<Student, StudentError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    student(import::onnx(path)?, name.into_owned())
}

/// Reads a student from the bytes of an ONNX file.
///
/// # Errors
///
/// As [`onnx`].
pub fn onnx_bytes(bytes: &[u8]) -> Result<Student, StudentError> {
    let imported = import::onnx_bytes(bytes, &import::ImportOptions::default())?;
    student(imported, "model in memory".to_owned())
}

/// The layers of an ONNX file that lead to its maps, up to the first that training does not have: a graph without
/// outputs, and its weights. What is behind the maps, such as a head, need not be known.
///
/// # Errors
///
/// As [`onnx`], when an operator that training does not have comes before the last map.
pub fn maps(path: &Path) -> Result<(TrainingGraph, Vec<Vec<f32>>), StudentError> {
    let mut graph = import::onnx(path)?.graph;
    passes::optimise::<StudentError>(&mut graph, None)?;
    Translator::new(&graph).maps()
}

/// A student from a graph before fusion, and for each of its layers the graph's weights and its own.
pub(crate) fn traced(
    graph: &Graph,
    source: String,
) -> Result<(Student, Vec<(ValueId, ParameterId)>), StudentError> {
    let mut fused = graph.clone();
    passes::optimise::<StudentError>(&mut fused, None)?;
    let (student, weights) = Translator::new(&fused).student(source)?;
    // Passes number values anew, but fusion shares the data of weights.
    let data = |graph: &Graph, value| graph.value(value).data.as_ref().map(Arc::as_ptr);
    let values = graph.nodes.iter().flat_map(|n| &n.inputs);
    let known: HashMap<_, _> = values.filter_map(|&v| Some((data(graph, v)?, v))).collect();
    let own = |(value, id): (ValueId, ParameterId)| match data(&fused, value)
        .and_then(|data| known.get(&data))
    {
        Some(&own) => Ok((own, id)),
        None => Err(StudentError::Unsupported {
            node: student.network.graph().parameters()[id.0].name.clone(),
            operator: "layer".to_owned(),
            what: "whose weights fusion changes".to_owned(),
        }),
    };
    let weights = weights.into_iter().map(own).collect::<Result<_, _>>()?;
    Ok((student, weights))
}

fn student(imported: Imported, source: String) -> Result<Student, StudentError> {
    let mut graph = imported.graph;
    passes::optimise::<StudentError>(&mut graph, None)?;
    let (mut student, _) = Translator::new(&graph).student(source)?;
    student.notes.splice(0..0, imported.warnings);
    Ok(student)
}
