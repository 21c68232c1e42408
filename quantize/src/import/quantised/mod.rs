//! Quantised ONNX models, spelled out in float with their parameters beside, before tract sees them.
//!
//! A tensor of codes becomes the real tensor that it stands for, and what made it is followed by a
//! [`CODES`] node that states scale and zero point; lowering turns that into
//! [`Op::Quantize`](crate::graph::Op). Constants of codes become real constants, whose steps go beside the
//! graph. So pairs of QuantizeLinear and DequantizeLinear, and operators on codes (QLinear…), all come out
//! as float operators between stated parameters.
//!
//! DynamicQuantizeLinear has no parameters in the file: with what reads it (ConvInteger, MatMulInteger) it
//! becomes the float operator, and calibration finds ranges.

mod constants;
mod operators;
mod parameters;

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, type_proto};

use super::error::Problem;
use super::symmetric;
use crate::calibrate::QParams;
use crate::scheme::WeightSteps;

/// Operator of nodes that state parameters: attributes `scale` and `zero_point`, of signed codes.
pub(super) const CODES: &str = "AmpouleCodes";

/// What a rewritten model has beside its graph.
#[derive(Debug, Default)]
pub(super) struct Stated {
    pub steps: WeightSteps,
    pub warnings: Vec<String>,
}

/// Whether an operator makes or takes codes.
pub(super) fn is_quantised(op: &str) -> bool {
    op.contains("QuantizeLinear")
        || op.starts_with("QLinear")
        || op == "QGemm"
        || op.ends_with("Integer")
}

/// Rewrites a graph whose nodes have unique names. `folder` is where its external weights are.
pub(super) fn rewrite(graph: &mut GraphProto, folder: Option<&str>) -> Result<Stated, Problem> {
    if !graph.node.iter().any(|n| is_quantised(&n.op_type)) {
        return Ok(Stated::default());
    }
    let mut rewrite = Rewrite {
        folder,
        constants: HashMap::new(),
        params: HashMap::new(),
        layers: layers(graph),
        weights: HashMap::new(),
        real: HashSet::new(),
        nodes: Vec::with_capacity(graph.node.len()),
        made: Vec::new(),
        widened: [0; 2],
        dynamic: HashSet::new(),
        dynamic_readers: 0,
    };
    for tensor in &graph.initializer {
        rewrite
            .constants
            .insert(tensor.name.clone(), tensor.clone());
    }
    for node in std::mem::take(&mut graph.node) {
        rewrite.node(node)?;
    }
    let steps = rewrite.layer_steps();
    let mut warnings: Vec<String> = symmetric::warning(rewrite.widened).into_iter().collect();
    if rewrite.dynamic_readers > 0 {
        warnings.push(format!(
            "{} layers quantise their operand while they run; the file has no ranges for them, so they are calibrated like a float model's, and their weights rounded again",
            rewrite.dynamic_readers
        ));
    }
    graph.node = rewrite.nodes;
    graph.initializer.append(&mut rewrite.made);
    real_ports(graph);
    drop_unread(graph);
    Ok(Stated { steps, warnings })
}

/// Constants that are weights of layers, seen through dequantisation and transposition.
fn layers(graph: &GraphProto) -> HashMap<String, Channels> {
    let mut found = HashMap::new();
    for node in graph.node.iter().rev() {
        match &*node.op_type {
            "Conv" => found.insert(input(node, 1).to_owned(), Channels::First),
            "Gemm" | "QGemm" => {
                let at = if node.op_type == "Gemm" { 1 } else { 3 };
                let channels = match number(node, "transB").unwrap_or(0) {
                    0 => Channels::Last,
                    _ => Channels::First,
                };
                found.insert(input(node, at).to_owned(), channels)
            }
            "MatMul" => found.insert(input(node, 1).to_owned(), Channels::Last),
            "QLinearMatMul" => found.insert(input(node, 3).to_owned(), Channels::Last),
            "QLinearConv" => found.insert(input(node, 3).to_owned(), Channels::First),
            "QuantizeLinear" | "DequantizeLinear" => match found.get(&output(node)).copied() {
                Some(channels) => found.insert(input(node, 0).to_owned(), channels),
                None => None,
            },
            "Transpose" => match found.get(&output(node)).copied() {
                Some(channels) => found.insert(input(node, 0).to_owned(), channels.flipped()),
                None => None,
            },
            _ => None,
        };
    }
    found
}

/// Inputs and outputs of codes are real ones now.
fn real_ports(graph: &mut GraphProto) {
    for port in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(type_proto::Value::TensorType(t)) =
            port.r#type.as_mut().and_then(|t| t.value.as_mut())
            && [DataType::Int8 as i32, DataType::Uint8 as i32].contains(&t.elem_type)
        {
            t.elem_type = DataType::Float as i32;
        }
    }
}

/// Constants that nothing reads any more.
fn drop_unread(graph: &mut GraphProto) {
    let read: HashSet<&str> = graph
        .node
        .iter()
        .flat_map(|n| &n.input)
        .chain(graph.output.iter().map(|o| &o.name))
        .map(String::as_str)
        .collect();
    let unread: HashSet<String> = graph
        .initializer
        .iter()
        .filter(|t| !read.contains(t.name.as_str()))
        .map(|t| t.name.clone())
        .collect();
    graph.initializer.retain(|t| !unread.contains(&t.name));
    graph.input.retain(|i| !unread.contains(&i.name));
}

/// Dimension of a constant that counts the output channels of the layer that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channels {
    /// Convolutions, and products with a transposed matrix.
    First,
    /// Products with a matrix.
    Last,
}

impl Channels {
    fn flipped(self) -> Channels {
        match self {
            Channels::First => Channels::Last,
            Channels::Last => Channels::First,
        }
    }

    /// The dimension, of a matrix or of a convolution's weights.
    fn axis(self, dims: &[i64]) -> Option<usize> {
        match self {
            Channels::First => (dims.len() >= 2).then_some(0),
            Channels::Last => (dims.len() == 2).then_some(1),
        }
    }
}

struct Rewrite<'p> {
    folder: Option<&'p str>,
    /// Constants of the file by name.
    constants: HashMap<String, TensorProto>,
    /// Parameters of tensors of codes, which are real now.
    params: HashMap<String, QParams>,
    /// Constants that are weights of a layer, by name.
    layers: HashMap<String, Channels>,
    /// Steps of weights, one for each output channel.
    weights: HashMap<String, Vec<f32>>,
    /// Constants that were made real.
    real: HashSet<String>,
    nodes: Vec<NodeProto>,
    made: Vec<TensorProto>,
    widened: [usize; 2],
    /// Results of DynamicQuantizeLinear.
    dynamic: HashSet<String>,
    dynamic_readers: usize,
}

impl Rewrite<'_> {
    fn node(&mut self, mut node: NodeProto) -> Result<(), Problem> {
        let standard = node.domain.is_empty() || node.domain == "ai.onnx";
        if !standard && node.domain != "com.microsoft" {
            self.nodes.push(node);
            return Ok(());
        }
        match &*node.op_type {
            "QuantizeLinear" => self.quantize(&node),
            "DequantizeLinear" => self.dequantize(&node),
            "DynamicQuantizeLinear" => self.dynamic(&node),
            "ConvInteger" => self.integer(node, "Conv"),
            "MatMulInteger" => self.integer(node, "MatMul"),
            "QLinearConv" => {
                let x = self.operand(&node, 0)?;
                let w = self.operand(&node, 3)?;
                let mut inputs = vec![x, w];
                if !input(&node, 8).is_empty() {
                    inputs.push(self.bias(&node, [0, 3, 8])?);
                }
                self.real(node, "Conv", inputs, 6)
            }
            "QGemm" if !input(&node, 8).is_empty() => {
                let mut inputs = vec![self.operand(&node, 0)?, self.operand(&node, 3)?];
                if !input(&node, 6).is_empty() {
                    inputs.push(self.bias(&node, [0, 3, 6])?);
                }
                // Where alpha is not 1 the bias has it in its scale.
                let scaled = |a: &AttributeProto| a.name == "alpha" && a.f != 1.0;
                if node.attribute.iter().any(scaled) {
                    return Err(unsupported(&node, "with another alpha than 1"));
                }
                self.real(node, "Gemm", inputs, 7)
            }
            "QLinearMatMul" => {
                let inputs = vec![self.operand(&node, 0)?, self.operand(&node, 3)?];
                self.real(node, "MatMul", inputs, 6)
            }
            kind @ ("QLinearAdd" | "QLinearMul") => {
                let op = &kind["QLinear".len()..].to_owned();
                let inputs = vec![self.operand(&node, 0)?, self.operand(&node, 3)?];
                self.real(node, op, inputs, 6)
            }
            kind @ ("QLinearSigmoid"
            | "QLinearLeakyRelu"
            | "QLinearGlobalAveragePool"
            | "QLinearAveragePool"
            | "QLinearSoftmax") => {
                let op = &kind["QLinear".len()..].to_owned();
                if number(&node, "channels_last").unwrap_or(0) != 0 {
                    return Err(unsupported(&node, "channels last"));
                }
                node.attribute
                    .retain(|a| a.name != "channels_last" && a.name != "opset");
                let inputs = vec![self.operand(&node, 0)?];
                self.real(node, op, inputs, 3)
            }
            "QLinearConcat" => {
                let parts = (2..node.input.len()).step_by(3);
                let inputs = parts.map(|at| self.operand(&node, at));
                let inputs = inputs.collect::<Result<_, _>>()?;
                self.real(node, "Concat", inputs, 0)
            }
            other if is_quantised(other) => Err(unsupported(
                &node,
                "there is no counterpart; import the float original, or quantise with QuantizeLinear and DequantizeLinear",
            )),
            _ => {
                self.plain(node);
                Ok(())
            }
        }
    }

    /// An operator that does not know of codes. What moves codes keeps their parameters.
    fn plain(&mut self, node: NodeProto) {
        const MOVES: [&str; 12] = [
            "Flatten",
            "Gather",
            "Identity",
            "MaxPool",
            "Pad",
            "Reshape",
            "Resize",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ];
        if node.op_type == "Constant"
            && let (Some(tensor), Some(name)) = (
                node.attribute.iter().find_map(|a| a.t.clone()),
                node.output.first(),
            )
        {
            self.constants.insert(name.clone(), tensor);
        }
        if let ("Transpose", Some(steps)) =
            (&*node.op_type, self.weights.get(input(&node, 0)).cloned())
        {
            self.weights.insert(output(&node), steps);
        }
        let params = node.input.first().and_then(|x| self.params.get(x)).copied();
        if let (true, Some(params)) = (MOVES.contains(&&*node.op_type), params) {
            for output in &node.output {
                self.params.insert(output.clone(), params);
            }
        }
        self.nodes.push(node);
    }

    fn push(&mut self, op: &str, name: &str, inputs: Vec<String>, output: String) {
        self.nodes.push(NodeProto {
            op_type: op.to_owned(),
            name: name.to_owned(),
            input: inputs,
            output: vec![output],
            ..NodeProto::default()
        });
    }
}

fn input(node: &NodeProto, at: usize) -> &str {
    node.input.get(at).map_or("", String::as_str)
}

fn output(node: &NodeProto) -> String {
    node.output.first().cloned().unwrap_or_default()
}

/// An attribute that is an integer.
fn number(node: &NodeProto, name: &str) -> Option<i64> {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map(|a| a.i)
}

fn unsupported(node: &NodeProto, what: &str) -> Problem {
    Problem::Unsupported {
        node: node.name.clone(),
        operator: node.op_type.clone(),
        what: what.to_owned(),
        shapes: Vec::new(),
    }
}
