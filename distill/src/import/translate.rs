//! From operators to layers.

use std::collections::{HashMap, HashSet};

use ampoule_distill_kernels::graph::{Activation, Graph, Map, Op, ParameterId, Value};
use ampoule_distill_kernels::ops::Window;
use ampoule_quantize::graph::{Graph as Source, Node, Op as SourceOp, ReduceKind, ValueId};
use ampoule_runtime::ops::Window as SourceWindow;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::{Student, StudentError, names};
use crate::zoo::builder::Builder;
use crate::zoo::{Part, Role, Weights};

/// A training graph that grows operator by operator.
pub(super) struct Translator<'a> {
    pub source: &'a Source,
    pub net: Builder,
    /// Of the parameters so far.
    values: Vec<Vec<f32>>,
    /// Weights of layers: the source's constant, and the parameter that it became.
    weights: Vec<(ValueId, ParameterId)>,
    /// What the source's values are in the graph. Tokens that were pixels of a map still are.
    known: HashMap<ValueId, Value>,
    /// Names of parameters.
    taken: HashSet<String>,
    notes: Vec<String>,
}

impl<'a> Translator<'a> {
    pub fn new(source: &'a Source) -> Self {
        Translator {
            source,
            net: Builder::default(),
            values: Vec::new(),
            weights: Vec::new(),
            known: HashMap::new(),
            taken: HashSet::new(),
            notes: Vec::new(),
        }
    }

    /// The student, with weights from a file of that name, and which constants those of its layers are.
    pub fn student(
        mut self,
        file: String,
    ) -> Result<(Student, Vec<(ValueId, ParameterId)>), StudentError> {
        self.inputs()?;
        for node in &self.source.nodes {
            let value = self.node(node)?;
            self.known.insert(node.output, value);
        }
        for port in &self.source.outputs {
            let value = *self
                .known
                .get(&port.value)
                .ok_or_else(|| StudentError::Unsupported {
                    node: port.name.clone(),
                    operator: "output".to_owned(),
                    what: "that is a constant".to_owned(),
                })?;
            self.net.graph.output(value);
        }
        self.net.parts = self.parts();
        let names = |ports: &[ampoule_quantize::graph::Port]| {
            ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>()
        };
        let student = Student {
            inputs: names(&self.source.inputs),
            outputs: names(&self.source.outputs),
            network: self.net.into_network(),
            weights: Weights::from_values(self.values, file),
            notes: self.notes,
        };
        Ok((student, self.weights))
    }

    /// The graph up to the first operator that training does not have, provided that no map is behind it.
    pub fn maps(mut self) -> Result<(Graph, Vec<Vec<f32>>), StudentError> {
        self.inputs()?;
        let source = self.source;
        for (index, node) in source.nodes.iter().enumerate() {
            match self.node(node) {
                Ok(value) => {
                    self.known.insert(node.output, value);
                }
                Err(error) => {
                    let behind = source.nodes[index..].iter();
                    let mut maps = behind.filter_map(|n| map(source.shape(n.output)));
                    match maps.any(|m| m.pixels() > 1) {
                        true => return Err(error),
                        false => break,
                    }
                }
            }
        }
        Ok((self.net.graph, self.values))
    }

    fn inputs(&mut self) -> Result<(), StudentError> {
        for port in &self.source.inputs {
            let value = self.source.value(port.value);
            let map = match value.is_index {
                true => ids(&value.shape),
                false => map(&value.shape),
            };
            let map = map.ok_or_else(|| StudentError::Unsupported {
                node: port.name.clone(),
                operator: "input".to_owned(),
                what: format!("of shape {:?}", value.shape),
            })?;
            let input = self.net.graph.input(map);
            self.known.insert(port.value, input);
        }
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<Value, StudentError> {
        let name = names::layer(&node.name);
        let result = match &node.op {
            SourceOp::Conv {
                window,
                groups,
                residual,
                activation,
            } => {
                let y = self.conv(node, &name, window, *groups)?;
                let y = self.residual(node, &name, *residual, y)?;
                self.activation(node, &name, *activation, y)?
            }
            SourceOp::Linear {
                residual,
                activation,
            } => {
                let y = self.linear(node, &name)?;
                let y = self.residual(node, &name, *residual, y)?;
                self.activation(node, &name, *activation, y)?
            }
            SourceOp::Binary { kind, activation } => {
                let y = self.binary(node, &name, *kind)?;
                self.activation(node, &name, *activation, y)?
            }
            SourceOp::Unary(kind) => {
                let x = self.input(node, 0)?;
                self.activation(node, &name, Some(*kind), x)?
            }
            SourceOp::LayerNorm { epsilon } => {
                let x = self.input(node, 0)?;
                let op = Op::LayerNorm {
                    weight: self.vector(node, &name, "weight", 1, Role::Gain)?,
                    bias: self.vector(node, &name, "bias", 2, Role::Offset)?,
                    epsilon: *epsilon,
                };
                self.net.graph.push(&name, op, &[x])?
            }
            SourceOp::Attention(a) => self.attention(node, &name, a)?,
            SourceOp::Pool {
                kind: PoolKind::Average,
                window,
                include_pad,
            } => {
                if *include_pad && window.pad != [0; 4] {
                    return Err(unsupported(node, "that counts the padding"));
                }
                let window = training_window(node, window)?;
                let x = self.input(node, 0)?;
                self.net.graph.push(&name, Op::AveragePool(window), &[x])?
            }
            SourceOp::Pool {
                kind: PoolKind::Max,
                window,
                ..
            } => {
                let window = training_window(node, window)?;
                let x = self.input(node, 0)?;
                self.net.graph.push(&name, Op::MaxPool(window), &[x])?
            }
            SourceOp::Reduce {
                kind: ReduceKind::Mean,
                axes,
            } => {
                let rank = self.source.shape(node.inputs[0]).len();
                if !axes.iter().copied().eq(1..rank - 1) {
                    return Err(unsupported(node, "but over all pixels"));
                }
                let x = self.input(node, 0)?;
                self.net.graph.push(&name, Op::Mean, &[x])?
            }
            SourceOp::Pad {
                before,
                after,
                value,
            } => {
                let ([0, 0, 0, 0], &[0, down, right, 0], 0.0) = (&before[..], &after[..], value)
                else {
                    return Err(unsupported(
                        node,
                        "but with zeros at the bottom and the right",
                    ));
                };
                let x = self.input(node, 0)?;
                self.net.graph.push(&name, Op::Pad([down, right]), &[x])?
            }
            SourceOp::Slice {
                axis,
                start: 0,
                len,
                step: 1,
            } => {
                let shape = self.source.shape(node.inputs[0]);
                let less = shape[*axis] - len;
                let by = match (shape.len(), axis) {
                    (4, 1) => [less, 0],
                    (4, 2) | (3, 1) => [0, less],
                    _ => return Err(unsupported(node, "but of rows and columns")),
                };
                let x = self.input(node, 0)?;
                self.net.graph.push(&name, Op::Crop(by), &[x])?
            }
            // Class and register tokens.
            SourceOp::Concat { axis: 1 } if self.source.shape(node.output).len() == 3 => {
                let last = node.inputs.len() - 1;
                let tokens = &node.inputs[..last];
                if last == 0 || tokens.iter().any(|&v| self.source.constant(v).is_none()) {
                    return Err(unsupported(node, "but of constants in front of tokens"));
                }
                let values: Vec<Vec<f32>> = (0..last)
                    .map(|i| self.constant(node, i))
                    .collect::<Result<_, _>>()?;
                let (values, x) = (values.concat(), self.input(node, last)?);
                let c = self.net.map(x).channels;
                let shape = [values.len() / c, c];
                let table = self.parameter(&name, "weight", &shape, Role::Table, values);
                self.net.graph.push(&name, Op::Tokens { table }, &[x])?
            }
            SourceOp::Gather { axis: 0 } if self.source.constant(node.inputs[0]).is_some() => {
                let [rows, c] = self.source.shape(node.inputs[0])[..] else {
                    return Err(unsupported(node, "but of rows"));
                };
                let values = self.constant(node, 0)?;
                let table = self.parameter(&name, "weight", &[rows, c], Role::Matrix, values);
                let ids = self.input(node, 1)?;
                self.net
                    .graph
                    .push(&name, Op::Embedding { table }, &[ids])?
            }
            // A row of pixels stays the pixels of its map.
            SourceOp::Reshape(to)
                if map(to).is_some() && to.last() == self.source.shape(node.inputs[0]).last() =>
            {
                self.input(node, 0)?
            }
            SourceOp::Softmax { log: false } if self.is_last(node.output) => {
                let note = format!("the softmax `{}` at the end is left out", node.name);
                self.notes.push(note);
                self.input(node, 0)?
            }
            _ => return Err(unsupported(node, "")),
        };
        Ok(result)
    }

    fn conv(
        &mut self,
        node: &Node,
        name: &str,
        window: &SourceWindow,
        groups: usize,
    ) -> Result<Value, StudentError> {
        let window = training_window(node, window)?;
        let x = self.input(node, 0)?;
        let &[out, height, width, c] = self.source.shape(node.inputs[1]) else {
            return Err(unsupported(node, "of that rank"));
        };
        let shape = [out, c, height, width];
        let values = channels_first(&self.constant(node, 1)?, height * width, c);
        let activated = self.net.is_activated(x);
        let role = Role::Kernel { activated };
        let weight = self.parameter(name, "weight", &shape, role, values);
        self.weights.push((node.inputs[1], weight));
        let bias = Some(self.vector(node, name, "bias", 2, Role::Bias)?);
        let op = match groups {
            1 => Op::Conv {
                weight,
                bias,
                window,
            },
            _ if c == 1 && groups == out => Op::Depthwise {
                weight,
                bias,
                window,
            },
            _ => return Err(unsupported(node, &format!("in {groups} groups"))),
        };
        Ok(self.net.graph.push(name, op, &[x])?)
    }

    fn linear(&mut self, node: &Node, name: &str) -> Result<Value, StudentError> {
        let x = self.input(node, 0)?;
        let (values, shape) = (
            self.constant(node, 1)?,
            self.source.shape(node.inputs[1]).to_vec(),
        );
        let weight = self.parameter(name, "weight", &shape, Role::Matrix, values);
        self.weights.push((node.inputs[1], weight));
        let op = Op::Conv {
            weight,
            bias: Some(self.vector(node, name, "bias", 2, Role::Bias)?),
            window: Window::POINT,
        };
        Ok(self.net.graph.push(name, op, &[x])?)
    }

    /// The addend of a fused addition comes first: it is the shortcut.
    fn residual(
        &mut self,
        node: &Node,
        name: &str,
        residual: bool,
        y: Value,
    ) -> Result<Value, StudentError> {
        match residual {
            true => {
                let skip = self.input(node, 3)?;
                Ok(self.net.add(skip, y, name, 0.0)?)
            }
            false => Ok(y),
        }
    }

    fn activation(
        &mut self,
        node: &Node,
        name: &str,
        kind: Option<UnaryKind>,
        x: Value,
    ) -> Result<Value, StudentError> {
        let Some(kind) = kind else { return Ok(x) };
        let f = activation(kind).ok_or_else(|| StudentError::Unsupported {
            node: node.name.clone(),
            operator: format!("{kind:?}"),
            what: "as activation".to_owned(),
        })?;
        Ok(self.net.activation(x, name, f)?)
    }

    fn binary(&mut self, node: &Node, name: &str, kind: BinaryKind) -> Result<Value, StudentError> {
        let constants = [0, 1].map(|i| self.source.constant(node.inputs[i]).is_some());
        if let [first, second] = constants
            && first != second
        {
            return self.with_constant(node, name, kind, usize::from(second));
        }
        let inputs = [self.input(node, 0)?, self.input(node, 1)?];
        let pixels = inputs.map(|v| self.net.map(v).pixels());
        match kind {
            BinaryKind::Add => Ok(self.net.add(inputs[0], inputs[1], name, 0.0)?),
            BinaryKind::Mul if pixels[1] == 1 || pixels[1] == pixels[0] => {
                Ok(self.net.graph.push(name, Op::Gate, &inputs)?)
            }
            BinaryKind::Mul if pixels[0] == 1 => {
                let [gate, x] = inputs;
                Ok(self.net.graph.push(name, Op::Gate, &[x, gate])?)
            }
            _ => Err(unsupported(node, "of two maps")),
        }
    }

    /// A factor and an addend per channel, or an addend per pixel.
    fn with_constant(
        &mut self,
        node: &Node,
        name: &str,
        kind: BinaryKind,
        at: usize,
    ) -> Result<Value, StudentError> {
        let x = self.input(node, 1 - at)?;
        let (map, c) = (self.net.map(x), self.net.map(x).channels);
        let mut values = self.constant(node, at)?;
        let shape = self.source.shape(node.inputs[at]);
        if values.len() == map.len() && map.pixels() > 1 && kind == BinaryKind::Add {
            let shape = [map.pixels(), c];
            let table = self.parameter(name, "weight", &shape, Role::Table, values);
            return Ok(self.net.graph.push(name, Op::Positions { table }, &[x])?);
        }
        let per_channel = values.len() == 1 || (values.len() == c && shape.last() == Some(&c));
        if !per_channel {
            return Err(unsupported(node, &format!("with a constant {shape:?}")));
        }
        if values.len() == 1 {
            values = vec![values[0]; c];
        }
        let ones = |sign: f32| vec![sign; c];
        let (scale, shift) = match (kind, at) {
            (BinaryKind::Add, _) => (ones(1.0), values),
            (BinaryKind::Sub, 0) => (ones(-1.0), values),
            (BinaryKind::Sub, _) => (ones(1.0), values.iter().map(|v| -v).collect()),
            (BinaryKind::Mul, _) => (values, vec![0.0; c]),
            (BinaryKind::Div, 1) => (values.iter().map(|v| 1.0 / v).collect(), vec![0.0; c]),
            _ => return Err(unsupported(node, "with a constant")),
        };
        let op = Op::Depthwise {
            weight: self.parameter(name, "weight", &[c, 1, 1, 1], Role::Gain, scale),
            bias: Some(self.parameter(name, "bias", &[c], Role::Bias, shift)),
            window: Window::POINT,
        };
        Ok(self.net.graph.push(name, op, &[x])?)
    }

    /// A value that the graph has computed.
    pub fn input(&self, node: &Node, i: usize) -> Result<Value, StudentError> {
        let known = self.known.get(&node.inputs[i]).copied();
        known.ok_or_else(|| unsupported(node, "of constants"))
    }

    /// Data of a constant operand.
    pub fn constant(&self, node: &Node, i: usize) -> Result<Vec<f32>, StudentError> {
        let data = self.source.constant(node.inputs[i]);
        let data = data.ok_or_else(|| unsupported(node, "with computed weights"))?;
        Ok(data.to_vec())
    }

    /// A parameter with one value per channel.
    fn vector(
        &mut self,
        node: &Node,
        layer: &str,
        leaf: &str,
        i: usize,
        role: Role,
    ) -> Result<ParameterId, StudentError> {
        let values = self.constant(node, i)?;
        Ok(self.parameter(layer, leaf, &[values.len()], role, values))
    }

    pub fn parameter(
        &mut self,
        layer: &str,
        leaf: &str,
        shape: &[usize],
        role: Role,
        values: Vec<f32>,
    ) -> ParameterId {
        let name = names::unique(&mut self.taken, format!("{layer}.{leaf}"));
        self.values.push(values);
        self.net.parameter_named(name, shape, role)
    }

    /// Whether nothing but the model's user reads a value.
    fn is_last(&self, value: ValueId) -> bool {
        let mut readers = self
            .source
            .nodes
            .iter()
            .filter(|n| n.inputs.contains(&value));
        readers.all(|n| matches!(n.op, SourceOp::Reshape(_)) && self.is_last(n.output))
    }

    /// Runs of layers whose names begin alike.
    fn parts(&self) -> Vec<Part> {
        let nodes = self.net.graph.nodes();
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let alike = nodes.chunk_by(|a, b| first(&a.name) == first(&b.name));
        let mut parameters = vec![0; self.values.len()];
        for (p, count) in self.net.graph.parameters().iter().zip(&mut parameters) {
            *count = p.len() as u64;
        }
        let mut part = |nodes: &[ampoule_distill_kernels::graph::Node]| {
            let name = first(&nodes[0].name);
            let prefix = format!("{name}.");
            let own = self.net.graph.parameters().iter().zip(&mut parameters);
            // Each is counted once, by the first part of its name.
            let own = own.filter(|(p, _)| p.name.starts_with(&prefix));
            self.net
                .part_of(nodes, name, own.map(|(_, n)| std::mem::take(n)).sum())
        };
        alike.map(&mut part).collect()
    }
}

/// An operator that training does not have, or not in this use.
pub(super) fn unsupported(node: &Node, what: &str) -> StudentError {
    StudentError::Unsupported {
        node: node.name.clone(),
        operator: node.op.name().to_owned(),
        what: what.to_owned(),
    }
}

/// Shape of a sample: a map, tokens, or a vector.
fn map(shape: &[usize]) -> Option<Map> {
    match *shape {
        [1, c] => Some(Map::new(1, 1, c)),
        [1, tokens, c] => Some(Map::new(1, tokens, c)),
        [1, height, width, c] => Some(Map::new(height, width, c)),
        _ => None,
    }
}

/// Shape of a sample of token ids.
fn ids(shape: &[usize]) -> Option<Map> {
    match *shape {
        [1, tokens] => Some(Map::new(1, tokens, 1)),
        _ => None,
    }
}

fn training_window(node: &Node, window: &SourceWindow) -> Result<Window, StudentError> {
    if window.dilation != [1, 1] {
        return Err(unsupported(node, "with dilation"));
    }
    Ok(Window {
        kernel: window.kernel.map(usize::from),
        stride: window.stride.map(usize::from),
        pads: window.pad.map(usize::from),
    })
}

fn activation(kind: UnaryKind) -> Option<Activation> {
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    Some(match kind {
        UnaryKind::Relu => Activation::Relu,
        UnaryKind::Clamp(0.0, 6.0) => Activation::Relu6,
        UnaryKind::GeluErf => Activation::Gelu,
        UnaryKind::QuickGelu => Activation::QuickGelu,
        UnaryKind::Silu => Activation::Silu,
        UnaryKind::HardSwish => Activation::HardSwish,
        UnaryKind::Sigmoid => Activation::Sigmoid,
        UnaryKind::HardSigmoid(a, b) if near(a, 1.0 / 6.0) && near(b, 0.5) => {
            Activation::HardSigmoid
        }
        UnaryKind::Tanh => Activation::Tanh,
        _ => return None,
    })
}

/// `[.., taps, channels]` to `[.., channels, taps]`.
fn channels_first(from: &[f32], taps: usize, channels: usize) -> Vec<f32> {
    let size = (taps * channels).max(1);
    let at = |i: usize| i / size * size + i % taps.max(1) * channels + i % size / taps.max(1);
    (0..from.len()).map(|i| from[at(i)]).collect()
}
