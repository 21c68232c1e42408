//! ONNX files of training graphs.
//!
//! Every [`Graph`] that training runs can be written, with the values that its parameters have. Names of
//! parameters become names of initialisers, names of layers those of nodes. The batch is dynamic. Maps are
//! `[batch, C, H, W]` at the ports, rows of tokens `[batch, tokens, C]`, vectors `[batch, C]`.
//!
//! ```
//! use ampoule_distill::export::{self, Opset, Settings};
//! use ampoule_distill::zoo::{self, Weights};
//! let network = zoo::find("tinyvit-mini").unwrap().config.build().unwrap();
//! let weights = Weights::random(&network, 0);
//! let settings = Settings { opset: Opset::V20, fold: true, ..Settings::default() };
//! let file: Vec<u8> = export::onnx(network.graph(), weights.values(), &settings).unwrap();
//! ```

mod activation;
mod attention;
mod error;
mod fold;
mod merge;
mod rewrite;
mod writer;

use ampoule_distill_kernels::graph::{Graph, GraphError};

pub use error::ExportError;
use writer::Writer;

/// How a graph is written.
#[derive(Debug, Clone, Default)]
pub struct Settings<'a> {
    /// Version of the operator set.
    pub opset: Opset,
    /// Whether batch norms become part of convolutions where one is next to them, and convolutions side by
    /// side one (RepVGG's, MobileOne's and MCi's branches): the form for inference.
    pub fold: bool,
    /// Names of the inputs. Those that have none are `input`, or `input_0` and so on of several.
    pub inputs: &'a [&'a str],
    /// Names of the outputs. Those that have none are `logits`, or `output_0` and so on of several.
    pub outputs: &'a [&'a str],
    /// Pairs of key and value for the file's reader.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// A version of ONNX' operator set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Opset {
    /// 17, whose GELU is spelled out.
    #[default]
    V17,
    /// 20, which has GELU.
    V20,
}

impl Opset {
    /// Its number.
    pub const fn number(self) -> i64 {
        match self {
            Opset::V17 => 17,
            Opset::V20 => 20,
        }
    }
}

/// The bytes of an ONNX file that computes what the engine computes outside training. `values` are the
/// graph's parameters, in its order.
///
/// # Errors
///
/// [`ExportError`] when values do not match the parameters, or ONNX has no form for a layer.
pub fn onnx(
    graph: &Graph,
    values: &[Vec<f32>],
    settings: &Settings<'_>,
) -> Result<Vec<u8>, ExportError> {
    check(graph, values)?;
    if settings.fold {
        let (graph, values) = for_inference(graph, values)?;
        return Writer::new(&graph, &values, settings).write();
    }
    Writer::new(graph, values, settings).write()
}

/// The same network with batch norms inside convolutions, and with one convolution for those side by side.
/// Each can make room for the other.
fn for_inference(graph: &Graph, values: &[Vec<f32>]) -> Result<(Graph, Vec<Vec<f32>>), GraphError> {
    let (mut graph, mut values) = (graph.clone(), values.to_vec());
    loop {
        let before = graph.nodes().len();
        (graph, values) = fold::run(&graph, &values)?;
        (graph, values) = merge::run(&graph, &values)?;
        if graph.nodes().len() == before {
            return Ok((graph, values));
        }
    }
}

/// Checks that there is a value for every element of every parameter.
fn check(graph: &Graph, values: &[Vec<f32>]) -> Result<(), ExportError> {
    let parameters = graph.parameters();
    if parameters.len() != values.len() {
        return Err(ExportError::Count {
            expected: parameters.len(),
            got: values.len(),
        });
    }
    match parameters
        .iter()
        .zip(values)
        .find(|(p, v)| p.len() != v.len())
    {
        None => Ok(()),
        Some((parameter, values)) => Err(ExportError::Length {
            name: parameter.name.clone(),
            expected: parameter.len(),
            got: values.len(),
        }),
    }
}
