//! From tract's typed operators to our graph.
//!
//! Shapes are concrete and what can be folded is folded when lowering starts. Operators that our graph
//! has channels-last get a transpose on each side.

mod conv;
mod einsum;
mod elementwise;
mod moves;
mod operand;
mod reduce;
mod resize;
mod resize_axis;

use std::collections::{HashMap, HashSet};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::{self, cnn, konst, nn, source};

use super::error::Problem;
use super::load::Nodes;
use super::marker::{Codes, Marker};
use crate::graph::{Graph, Op, Port, ValueId};
use operand::Operand;

type Lowered = Result<Vec<Operand>, Problem>;

/// Dimension `i` of an NHWC map is this dimension of the NCHW map, and the other way around.
pub(crate) const TO_NHWC: [usize; 4] = [0, 2, 3, 1];
pub(crate) const TO_NCHW: [usize; 4] = [0, 3, 1, 2];

/// Most elements of a tensor: 2 GiB of f32.
const MAX_ELEMENTS: usize = 1 << 29;

/// Lowers a typed model; gives the graph and warnings.
pub(super) fn lower(model: &TypedModel, file: &Nodes) -> Result<(Graph, Vec<String>), Problem> {
    let images = model.nodes().iter().any(|n| {
        n.op_is::<cnn::Conv>()
            || n.op_is::<cnn::MaxPool>()
            || n.op_is::<cnn::SumPool>()
            || n.op().name() == "Resize"
    });
    let mut lowering = Lowering {
        model,
        file,
        images,
        graph: Graph::default(),
        known: HashMap::new(),
        names: HashSet::new(),
        warnings: Vec::new(),
    };
    // Inputs come first and in order, those that nothing reads too.
    let sources: Vec<usize> = model.inputs.iter().map(|o| o.node).collect();
    let order = model.eval_order().map_err(order)?;
    for &id in sources
        .iter()
        .chain(order.iter().filter(|id| !sources.contains(id)))
    {
        let outputs = lowering.node(model.node(id))?;
        for (slot, operand) in outputs.into_iter().enumerate() {
            lowering.known.insert(OutletId::new(id, slot), operand);
        }
    }
    lowering.outputs()?;
    Ok((lowering.graph, lowering.warnings))
}

fn order(error: TractError) -> Problem {
    Problem::Invalid {
        stage: "ordering nodes",
        what: format!("{error:#}"),
    }
}

struct Lowering<'m> {
    model: &'m TypedModel,
    file: &'m Nodes,
    /// Whether the model has operators on maps, so that inputs of rank 4 are taken for NCHW images.
    images: bool,
    graph: Graph,
    known: HashMap<OutletId, Operand>,
    names: HashSet<String>,
    warnings: Vec<String>,
}

impl Lowering<'_> {
    fn node(&mut self, node: &TypedNode) -> Lowered {
        if let Some(constant) = node.op_as::<konst::Const>() {
            return Ok(vec![Operand::Constant(constant.val().clone())]);
        }
        if node.op_is::<source::TypedSource>() {
            return Ok(vec![self.source(node)?]);
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for outlet in &node.inputs {
            match self.known.get(outlet) {
                Some(operand) => inputs.push(operand.clone()),
                None => {
                    return Err(
                        self.unsupported(node, "an operand has no value that lowering knows")
                    );
                }
            }
        }
        if let Some(folded) = fold(node, &inputs) {
            return Ok(folded);
        }
        for output in &node.outputs {
            self.shape_of(node, &output.fact)?;
        }
        self.operator(node, &inputs)
    }

    fn operator(&mut self, node: &TypedNode, inputs: &[Operand]) -> Lowered {
        let op = &node.op;
        if let Some(op) = op.downcast_ref::<cnn::Conv>() {
            return self.conv(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<cnn::MaxPool>() {
            return self.max_pool(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<cnn::SumPool>() {
            return self.sum_pool(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<ops::einsum::EinSum>() {
            return self.einsum(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<ops::binary::TypedBinOp>() {
            return self.binary(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<ops::element_wise::ElementWiseOp>() {
            return self.unary(node, op, inputs);
        }
        if let Some(Marker(kind)) = op.downcast_ref() {
            let x = self.activation(node, &inputs[0])?;
            return self.emit(node, "", Op::Unary(*kind), &[x]);
        }
        if let Some(Codes(params)) = op.downcast_ref() {
            let x = self.activation(node, &inputs[0])?;
            return self.emit(node, "", Op::Quantize(*params), &[x]);
        }
        if let Some(op) = op.downcast_ref::<ops::logic::Iff>() {
            return self.select(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<nn::Reduce>() {
            return self.reduce(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<nn::Softmax>() {
            return self.softmax(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<nn::RmsNorm>() {
            return self.rms_norm(node, op, inputs);
        }
        match &*op.name() {
            "Resize" => self.resize(node, inputs),
            _ => self.moves(node, inputs),
        }
    }

    /// A model input. Maps are stored channels-last behind a transpose, which the layout pass cancels or
    /// takes back.
    fn source(&mut self, node: &TypedNode) -> Result<Operand, Problem> {
        let fact = &node.outputs[0].fact;
        let shape = self.shape_of(node, fact)?;
        self.names.insert(node.name.clone());
        if operand::is_integer(fact.datum_type) {
            return Ok(Operand::Value(self.graph.index_input(&node.name, &shape)));
        }
        if fact.datum_type != DatumType::F32 {
            return Err(self.unsupported(node, "only f32 and integer inputs are supported"));
        }
        if !(self.images && shape.len() == 4) {
            return Ok(Operand::Value(self.graph.input(&node.name, &shape)));
        }
        let stored: Vec<usize> = TO_NHWC.iter().map(|&d| shape[d]).collect();
        let value = self.graph.add_value(&node.name, &stored, None);
        self.graph.inputs.push(Port {
            name: node.name.clone(),
            value,
            layout: TO_NCHW.to_vec(),
        });
        self.value(node, "nchw", Op::Transpose(TO_NCHW.to_vec()), &[value])
            .map(Operand::Value)
    }

    fn outputs(&mut self) -> Result<(), Problem> {
        let outlets = self.model.output_outlets().map_err(order)?.to_vec();
        for (i, outlet) in outlets.iter().enumerate() {
            let node = self.model.node(outlet.node);
            let name = self.file.outputs.get(i).unwrap_or(&node.name).clone();
            let Some(operand) = self.known.get(outlet).cloned() else {
                return Err(self.unsupported(node, "an output has no value that lowering knows"));
            };
            let value = match &operand {
                Operand::Value(v) => *v,
                Operand::Constant(_) => {
                    self.warnings.push(format!("output `{name}` is constant"));
                    self.activation(node, &operand)?
                }
            };
            self.graph.output(&name, value);
        }
        Ok(())
    }

    /// Adds a node named after `node`, and gives its result.
    fn value(
        &mut self,
        node: &TypedNode,
        suffix: &str,
        op: Op,
        inputs: &[ValueId],
    ) -> Result<ValueId, Problem> {
        let name = self.name(&node.name, suffix);
        Ok(self.graph.push(&name, op, inputs)?)
    }

    /// [`Lowering::value`] as the only output of a node.
    fn emit(&mut self, node: &TypedNode, suffix: &str, op: Op, inputs: &[ValueId]) -> Lowered {
        Ok(vec![Operand::Value(self.value(node, suffix, op, inputs)?)])
    }

    /// A unique name: that of the ONNX node for its main operator, with a suffix for helpers.
    fn name(&mut self, typed: &str, suffix: &str) -> String {
        let origin = origin(typed, &self.file.names);
        let wanted = if suffix.is_empty() {
            origin.to_owned()
        } else {
            format!("{origin}.{suffix}")
        };
        if self.names.insert(wanted.clone()) {
            return wanted;
        }
        if suffix.is_empty() && self.names.insert(typed.to_owned()) {
            return typed.to_owned();
        }
        let numbered = (2u64..)
            .map(|n| format!("{wanted}.{n}"))
            .find(|n| !self.names.contains(n));
        let name = numbered.unwrap_or(wanted);
        self.names.insert(name.clone());
        name
    }

    /// Value of an operand as f32; constants become constants of the graph.
    fn activation(&mut self, node: &TypedNode, operand: &Operand) -> Result<ValueId, Problem> {
        match operand {
            Operand::Value(v) => Ok(*v),
            Operand::Constant(t) => {
                let data = self.floats(node, t)?;
                let name = self.name(&node.name, "constant");
                let value = self.graph.constant_value(&name, t.shape(), data);
                self.graph.value_mut(value).is_index = operand::is_integer(t.datum_type());
                Ok(value)
            }
        }
    }

    /// Data of a constant as f32.
    fn floats(&self, node: &TypedNode, t: &Tensor) -> Result<Vec<f32>, Problem> {
        let data = operand::floats(t).map_err(|e| {
            self.unsupported(node, &format!("a constant operand is not numeric: {e:#}"))
        })?;
        match data.iter().position(|&v| !may_hold(node, v)) {
            None => Ok(data),
            Some(i) => Err(Problem::Invalid {
                stage: "reading constants",
                what: format!(
                    "node `{}`: element {i} of a constant is {}; expected finite numbers, or -inf in a mask. Check the weights and export again",
                    origin(&node.name, &self.file.names),
                    data[i]
                ),
            }),
        }
    }

    /// Concrete shape of a fact, which must be of a sensible size.
    fn shape_of(&self, node: &TypedNode, fact: &TypedFact) -> Result<Vec<usize>, Problem> {
        let Some(shape) = fact.shape.as_concrete() else {
            return Err(
                self.unsupported(node, &format!("its shape {:?} depends on data", fact.shape))
            );
        };
        match elements(shape) {
            Some(0) => Err(self.unsupported(node, "a tensor without elements")),
            Some(n) if n <= MAX_ELEMENTS => Ok(shape.to_vec()),
            _ => Err(self.unsupported(node, "a tensor larger than 2 GiB")),
        }
    }

    /// Concrete shape of a node's first output.
    fn output_shape(&self, node: &TypedNode) -> Result<Vec<usize>, Problem> {
        self.shape_of(node, &node.outputs[0].fact)
    }

    /// Whether an output of a node is read, by a node or as an output of the model.
    fn is_read(&self, node: &TypedNode, slot: usize) -> bool {
        let successors = node
            .outputs
            .get(slot)
            .is_some_and(|o| !o.successors.is_empty());
        successors || self.model.outputs.contains(&OutletId::new(node.id, slot))
    }

    fn unsupported(&self, node: &TypedNode, what: &str) -> Problem {
        let facts = self.model.node_input_facts(node.id).unwrap_or_default();
        Problem::Unsupported {
            node: origin(&node.name, &self.file.names).to_owned(),
            operator: node.op.name().to_string(),
            what: what.to_owned(),
            shapes: facts
                .iter()
                .map(|f| format!("{:?} {:?}", f.datum_type, f.shape))
                .collect(),
        }
    }
}

/// Whether a constant of a node may have that element: masks bar with −∞, and clamps have open ends.
fn may_hold(node: &TypedNode, v: f32) -> bool {
    let kind = node
        .op_as::<ops::binary::TypedBinOp>()
        .map(|op| op.0.name());
    let masks = kind == Some("Add") || node.op_is::<ops::logic::Iff>();
    let clamps = matches!(kind, Some("Min" | "Max"));
    v.is_finite() || (v.is_infinite() && (clamps || (masks && v < 0.0)))
}

/// Evaluates a node of constants that folding has left, because they are large or shared.
fn fold(node: &TypedNode, inputs: &[Operand]) -> Option<Vec<Operand>> {
    let constants: Option<TVec<TValue>> = inputs
        .iter()
        .map(|operand| match operand {
            Operand::Constant(t) => Some(t.clone().into_tvalue()),
            Operand::Value(_) => None,
        })
        .collect();
    let small = |n: usize| n <= MAX_ELEMENTS;
    let mut sizes = node
        .outputs
        .iter()
        .map(|o| o.fact.shape.as_concrete().and_then(elements));
    if !sizes.all(|n| n.is_some_and(small)) {
        return None;
    }
    let outputs = node.op.eval_out_of_plan(constants?).ok()??;
    Some(
        outputs
            .into_iter()
            .map(|t| Operand::Constant(t.into_arc_tensor()))
            .collect(),
    )
}

/// Number of elements of a shape, unless it overflows.
fn elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &d| product.checked_mul(d))
}

/// The ONNX node that a typed node was made from: the longest prefix that ends at a separator.
fn origin<'a>(typed: &'a str, names: &HashSet<String>) -> &'a str {
    let mut end = typed.len();
    loop {
        if names.contains(&typed[..end]) {
            return &typed[..end];
        }
        match typed[..end].rfind(['.', '-']) {
            Some(at) if at > 0 => end = at,
            _ => return typed,
        }
    }
}
