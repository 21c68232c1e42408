//! From the graph to steps: chooses kernels' operand layouts, inserts type changes, packs weights.
//!
//! Without a [`Scheme`] the program is float throughout. With one, each node runs in the precision
//! the scheme gives it, or in f32 where no integer kernel exists; every such case is recorded in
//! [`Program::islands`].

mod attention;
mod constants;
mod conv;
mod data;
mod elementwise;
mod merge;
mod sparse;

pub(crate) use conv::clamp_of;
pub(crate) use sparse::pixels;
pub use sparse::{has_sparse_kernel, runs_sparse, sparse_pays};

use std::collections::HashMap;

use ampoule_runtime::artifact::Step;
use ampoule_runtime::{DType, Isa, Shape, TensorId};
use thiserror::Error;

use crate::graph::{Graph, Node, Op, ValueId};
use crate::program::{Island, Program, ProgramPort, Stage, VirtualTensor};
use crate::scheme::{Precision, Scheme};

/// How float weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FloatWeights {
    /// Single precision.
    #[default]
    F32,
    /// Half precision, widened when used.
    F16,
}

/// Choices of lowering.
#[derive(Debug, Clone)]
pub struct LowerOptions {
    /// Storage of float weights.
    pub float_weights: FloatWeights,
    /// Output pixels gathered at a time by convolutions that are not 1×1: more is faster on wide
    /// machines, fewer needs less memory.
    pub panel_rows: usize,
    /// Store linear layers in int8 as lists of 1×4 blocks where enough of them are zero for that to be
    /// [faster](sparse_pays) on this instruction set. Others run such layers, too, but slowly.
    pub sparse: Option<Isa>,
}

impl Default for LowerOptions {
    fn default() -> Self {
        LowerOptions {
            float_weights: FloatWeights::F32,
            panel_rows: 32,
            sparse: None,
        }
    }
}

/// Why a graph can't be lowered.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LowerError {
    /// More dimensions or elements than the format allows.
    #[error(
        "tensor `{name}` has shape {shape:?}; the format allows 6 dimensions, none of them 0, and fewer than 2^31 elements"
    )]
    Shape {
        /// Tensor name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// An operand that must be constant is not.
    #[error("node `{node}` ({op}): operand {operand} must be constant")]
    NotConstant {
        /// Node name.
        node: String,
        /// Operator.
        op: &'static str,
        /// Operand number.
        operand: usize,
    },
    /// The scheme has no parameters for a value.
    #[error("value `{0}` was never calibrated; add calibration images that reach it")]
    NotCalibrated(String),
    /// A value is used but nothing produced it.
    #[error("value `{0}` has no producer")]
    NoProducer(String),
}

/// Lowers a graph.
///
/// # Errors
///
/// [`LowerError`], naming the node or value.
pub fn lower(
    graph: &Graph,
    scheme: Option<&Scheme>,
    options: &LowerOptions,
) -> Result<Program, LowerError> {
    let mut lowering = Lowering {
        graph,
        scheme,
        options,
        program: Program::default(),
        tensors: HashMap::new(),
        node: 0,
    };
    lowering.inputs()?;
    for (index, node) in graph.nodes.iter().enumerate() {
        lowering.node = index;
        lowering.lower_node(node)?;
    }
    lowering.outputs()?;
    Ok(lowering.program)
}

/// Types that activations are in, narrowest first.
const TYPES: [DType; 4] = [DType::I8, DType::I16, DType::F32, DType::I32];

/// State of one lowering.
struct Lowering<'g> {
    graph: &'g Graph,
    scheme: Option<&'g Scheme>,
    options: &'g LowerOptions,
    program: Program,
    /// The tensor that holds a value in a type.
    tensors: HashMap<(ValueId, Stage, DType), TensorId>,
    /// Node being lowered.
    node: usize,
}

impl Lowering<'_> {
    fn inputs(&mut self) -> Result<(), LowerError> {
        for port in &self.graph.inputs {
            let dtype = if self.graph.value(port.value).is_index {
                DType::I32
            } else if let Some(scheme) = self.scheme {
                match scheme.float_inputs.get(&port.value) {
                    None => DType::I8,
                    Some(reason) => {
                        self.program.islands.push(Island {
                            node: port.name.clone(),
                            op: "Input".to_owned(),
                            dtype: DType::F32.name().to_owned(),
                            reason: reason.clone(),
                        });
                        DType::F32
                    }
                }
            } else {
                DType::F32
            };
            let tensor = self.result(port.value, Stage::Post, dtype)?;
            self.program.inputs.push(ProgramPort {
                name: port.name.clone(),
                tensor,
                layout: port.layout.clone(),
            });
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<(), LowerError> {
        for port in &self.graph.outputs {
            let constant = self.graph.constant(port.value).is_some();
            let mut tensor = if constant {
                self.operand(port.value, DType::F32)?
            } else {
                TYPES
                    .into_iter()
                    .find_map(|d| self.find(port.value, Stage::Post, d))
                    .ok_or_else(|| LowerError::NoProducer(port.name.clone()))?
            };
            let taken = |t| {
                self.program
                    .outputs
                    .iter()
                    .chain(&self.program.inputs)
                    .any(|p| p.tensor == t)
            };
            if constant || taken(tensor) {
                tensor = self.copy_of(tensor, &port.name);
            }
            self.program.outputs.push(ProgramPort {
                name: port.name.clone(),
                tensor,
                layout: port.layout.clone(),
            });
        }
        Ok(())
    }

    /// A second tensor with the same content, for an output that is also a constant or an input, or
    /// listed twice.
    fn copy_of(&mut self, tensor: TensorId, name: &str) -> TensorId {
        let mut copy = self.program.tensor(tensor).clone();
        copy.name = name.to_owned();
        copy.constant = None;
        let elements = copy.shape.elements();
        let y = self.program.add_tensor(copy);
        self.program.push(
            name,
            0,
            Step::Copy {
                x: tensor,
                y,
                map: data::whole(elements),
            },
        );
        y
    }

    fn lower_node(&mut self, node: &Node) -> Result<(), LowerError> {
        let dtype = self.choose_type(node);
        match &node.op {
            Op::Conv { .. } | Op::Linear { .. } => self.conv(node, dtype),
            Op::MatMul => self.matmul(node, dtype),
            Op::Attention(a) => self.attention(node, a, dtype),
            Op::Binary { .. } => self.binary(node, dtype),
            Op::Unary(kind) => self.unary(node, *kind, dtype),
            Op::Quantize(_) => self.quantize(node, dtype),
            Op::Pool { .. } => self.pool(node, dtype),
            Op::Reduce { .. } => self.reduce(node, dtype),
            Op::Softmax { log } => self.softmax(node, *log, dtype),
            Op::LayerNorm { epsilon } => self.layer_norm(node, *epsilon, dtype),
            Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Broadcast(_) => self.movement(node, dtype),
            Op::Gather { axis } => self.gather(node, *axis, dtype),
            Op::ArgMax { axis, last } => self.arg_max(node, *axis, *last),
            Op::Resize { .. } => self.resize(node, dtype),
            Op::Match(matching) => self.match_tokens(node, matching),
            Op::Merge { .. } => self.merge(node, dtype),
        }
    }

    /// The type the node runs in; records an island when that is not int8.
    fn choose_type(&mut self, node: &Node) -> DType {
        if self.graph.value(node.output).is_index {
            return DType::I32;
        }
        let Some(scheme) = self.scheme else {
            return DType::F32;
        };
        let wanted = scheme
            .precision
            .get(self.node)
            .copied()
            .unwrap_or(Precision::I8);
        let (dtype, reason) = match wanted {
            Precision::I8 => match no_i8_kernel(self.graph, node) {
                None => return DType::I8,
                Some(why) => (DType::F32, why.to_owned()),
            },
            Precision::I16 if has_i16_kernel(&node.op) => (DType::I16, self.reason()),
            Precision::I16 => (DType::F32, format!("{}; no i16 kernel", self.reason())),
            Precision::F32 => (DType::F32, self.reason()),
        };
        self.program.islands.push(Island {
            node: node.name.clone(),
            op: node.op.name().to_owned(),
            dtype: dtype.name().to_owned(),
            reason,
        });
        dtype
    }

    fn reason(&self) -> String {
        let given = self
            .scheme
            .and_then(|s| s.reasons.get(self.node).cloned().flatten());
        given.unwrap_or_else(|| "chosen by the scheme".to_owned())
    }

    /// A new tensor for a value.
    fn result(
        &mut self,
        value: ValueId,
        stage: Stage,
        dtype: DType,
    ) -> Result<TensorId, LowerError> {
        let v = self.graph.value(value);
        let shape = Shape::new(&v.shape).ok_or_else(|| LowerError::Shape {
            name: v.name.clone(),
            shape: v.shape.clone(),
        })?;
        let (scale, zero_point) = self.parameters(value, stage, dtype)?;
        let name = match stage {
            Stage::Post => v.name.clone(),
            Stage::Pre => format!("{}:before-activation", v.name),
        };
        let tensor = VirtualTensor {
            name,
            dtype,
            shape,
            scale,
            zero_point,
            constant: None,
            origin: Some((value, stage)),
            view: None,
        };
        let id = self.program.add_tensor(tensor);
        self.tensors.insert((value, stage, dtype), id);
        Ok(id)
    }

    /// Scale and zero point of a value in a type.
    fn parameters(
        &self,
        value: ValueId,
        stage: Stage,
        dtype: DType,
    ) -> Result<(f32, i32), LowerError> {
        let missing = || LowerError::NotCalibrated(self.graph.value(value).name.clone());
        match (dtype, self.scheme) {
            (DType::I8, Some(s)) => s
                .values
                .get(&(value, stage))
                .map(|q| (q.scale, q.zero_point))
                .ok_or_else(missing),
            (DType::I16, Some(s)) => s
                .wide
                .get(&(value, stage))
                .map(|&scale| (scale, 0))
                .ok_or_else(missing),
            _ => Ok((1.0, 0)),
        }
    }

    /// Working memory of a step.
    fn working_memory(&mut self, node: &Node, bytes: usize) -> Result<TensorId, LowerError> {
        let shape = Shape::new(&[bytes]).ok_or_else(|| LowerError::Shape {
            name: node.name.clone(),
            shape: vec![bytes],
        })?;
        Ok(self.program.add_tensor(VirtualTensor {
            name: format!("{}:scratch", node.name),
            dtype: DType::I8,
            shape,
            scale: 1.0,
            zero_point: 0,
            constant: None,
            origin: None,
            view: None,
        }))
    }

    fn find(&self, value: ValueId, stage: Stage, dtype: DType) -> Option<TensorId> {
        self.tensors.get(&(value, stage, dtype)).copied()
    }

    /// The tensor that holds `value` in type `dtype`, converting it where it exists in another.
    fn operand(&mut self, value: ValueId, dtype: DType) -> Result<TensorId, LowerError> {
        if let Some(found) = self.find(value, Stage::Post, dtype) {
            return Ok(found);
        }
        if self.graph.constant(value).is_some() {
            return self.constant_operand(value, dtype);
        }
        let source = TYPES
            .into_iter()
            .find_map(|d| self.find(value, Stage::Post, d));
        let x =
            source.ok_or_else(|| LowerError::NoProducer(self.graph.value(value).name.clone()))?;
        let y = self.result(value, Stage::Post, dtype)?;
        let name = format!("{}:to-{}", self.graph.value(value).name, dtype.name());
        self.program.push(&name, 0, Step::Convert { x, y });
        Ok(y)
    }
}

/// Longest rows of the runtime's int8 softmax.
const SOFTMAX_ROW: usize = 1 << 16;
/// Most terms of a sum of the runtime's int8 products of activations.
const MATMUL_DEPTH: usize = 1 << 15;
/// Most terms of a sum of the runtime's int8 layers.
const LAYER_DEPTH: usize = 1 << 16;

/// Why an operator has no int8 kernel, `None` when it has one.
pub(crate) fn no_i8_kernel(graph: &Graph, node: &Node) -> Option<&'static str> {
    use crate::graph::ReduceKind;
    use ampoule_runtime::ops::binary::BinaryKind;
    use ampoule_runtime::ops::norm::MAX_CHANNELS;
    let last = || graph.shape(node.inputs[0]).last().copied().unwrap_or(1);
    match &node.op {
        Op::Softmax { log: true } => Some("no int8 kernel"),
        Op::Softmax { log: false } => {
            (last() > SOFTMAX_ROW).then_some("int8 softmax has at most 65536 values a row")
        }
        Op::LayerNorm { .. } => {
            (last() > MAX_CHANNELS).then_some("int8 normalises at most 16384 values a row")
        }
        Op::MatMul => (last() > MATMUL_DEPTH).then_some("int8 products sum at most 32768 terms"),
        Op::Conv { .. } | Op::Linear { .. } => {
            let weights = graph.shape(node.inputs[1]);
            let depth: usize = weights[1..].iter().product();
            (depth > LAYER_DEPTH).then_some("int8 layers sum at most 65536 terms")
        }
        Op::Binary {
            kind: BinaryKind::Add | BinaryKind::Sub | BinaryKind::Mul,
            ..
        } => None,
        Op::Binary { .. } => Some("no int8 kernel"),
        Op::Reduce { kind, axes } => {
            let elements: usize = graph.shape(node.inputs[0]).iter().product();
            let few = elements < 1 << 23 && !axes.is_empty();
            (*kind != ReduceKind::Mean || !few).then_some("int8 reduces only to the mean")
        }
        Op::Pad { value, .. } if *value != 0.0 => Some("int8 pads only with zero"),
        _ => None,
    }
}

/// Whether an operator has a kernel for 16-bit activations.
pub(crate) fn has_i16_kernel(op: &Op) -> bool {
    use ampoule_runtime::ops::binary::BinaryKind;
    match op {
        Op::Conv {
            activation,
            residual,
            ..
        }
        | Op::Linear {
            activation,
            residual,
        } => !residual && activation.is_none_or(|a| conv::clamp_of(a).is_some()),
        Op::Binary {
            kind: BinaryKind::Add | BinaryKind::Sub | BinaryKind::Mul,
            activation,
        } => activation.is_none(),
        Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Broadcast(_)
        | Op::Merge { .. } => true,
        _ => false,
    }
}
