//! From layers to nodes.

use std::collections::{HashMap, HashSet};

use ampoule_distill_kernels::graph::{BatchNorm, Graph, Map, Node, Op, ParameterId, Value};
use ampoule_distill_kernels::ops::Window;
use ampoule_quantize::export::{Attribute, Dim, OnnxGraph};

use super::{ExportError, Settings, activation};

/// Order of the dimensions of a value in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[N, C, H, W]`, for convolutions.
    Map,
    /// `[N, H, W, C]`, for linear layers, norms of tokens and attention. A row of tokens is `[N, W, C]`, a
    /// single one `[N, C]`.
    Tokens,
}

/// An ONNX graph that grows layer by layer.
pub(super) struct Writer<'a> {
    pub graph: &'a Graph,
    pub onnx: OnnxGraph,
    values: &'a [Vec<f32>],
    settings: &'a Settings<'a>,
    /// Names of each value as map and as tokens, where it is there.
    names: Vec<[Option<String>; 2]>,
    /// Parameters that are initialisers by now.
    written: HashSet<ParameterId>,
    /// Constants of position indices.
    pub indices: HashMap<Vec<i64>, String>,
}

impl<'a> Writer<'a> {
    pub fn new(graph: &'a Graph, values: &'a [Vec<f32>], settings: &'a Settings<'a>) -> Self {
        let nodes = graph.nodes().iter().map(|n| n.output);
        let count = nodes.chain(graph.inputs().iter().copied()).max();
        Writer {
            graph,
            onnx: OnnxGraph::with_opset("main", settings.opset.number()),
            values,
            settings,
            names: vec![[None, None]; count.map_or(0, |v| v.0 + 1)],
            written: HashSet::new(),
            indices: HashMap::new(),
        }
    }

    /// The file.
    pub fn write(mut self) -> Result<Vec<u8>, ExportError> {
        let inputs = self.graph.inputs();
        for (i, &value) in inputs.iter().enumerate() {
            let name = port_name(self.settings.inputs, "input", "input", i, inputs.len());
            let (layout, mut shape) = port(self.graph.map(value));
            let name = match self.rows(value) {
                // Numbers of rows have no channels.
                Some(_) => {
                    shape.pop();
                    self.onnx.integer_input(&name, &shape)
                }
                None => self.onnx.input(&name, &shape),
            };
            self.set(value, layout, name);
        }
        for node in self.graph.nodes() {
            self.node(node)?;
        }
        let outputs = self.graph.outputs();
        let mut used = HashSet::new();
        for (i, &value) in outputs.iter().enumerate() {
            let name = port_name(self.settings.outputs, "logits", "output", i, outputs.len());
            let (layout, shape) = port(self.graph.map(value));
            let mut from = self.get(value, layout, &name);
            // A value can have one name as a port.
            if inputs.contains(&value) || !used.insert(value) {
                from = self.emit("Identity", &name, &[&from], &[]);
            }
            self.onnx.output(&name, &from, &shape);
            self.set(value, layout, name);
        }
        Ok(self.onnx.into_model(self.settings.metadata))
    }

    fn node(&mut self, node: &Node) -> Result<(), ExportError> {
        let (name, x) = (node.name.as_str(), node.inputs[0]);
        let map = self.graph.map(x);
        let (layout, result) = match &node.op {
            Op::Conv {
                weight,
                bias,
                window,
            } => match self.graph.parameters()[weight.0].shape.len() {
                2 if *window == Window::POINT => {
                    (Layout::Tokens, self.linear(name, x, *weight, *bias))
                }
                _ => (Layout::Map, self.conv(name, x, *weight, *bias, window, 1)),
            },
            Op::Depthwise {
                weight,
                bias,
                window,
            } => {
                let result = self.conv(name, x, *weight, *bias, window, map.channels);
                (Layout::Map, result)
            }
            Op::BatchNorm(norm) => (Layout::Map, self.batch_norm(name, x, norm)),
            Op::LayerNorm {
                weight,
                bias,
                epsilon,
            } => {
                let x = self.get(x, Layout::Tokens, name);
                let [weight, bias] = [*weight, *bias].map(|p| self.parameter(p));
                let attributes = [
                    ("axis", Attribute::Int(-1)),
                    ("epsilon", Attribute::Float(*epsilon)),
                ];
                let inputs = [&*x, &*weight, &*bias];
                let result = self.emit("LayerNormalization", name, &inputs, &attributes);
                (Layout::Tokens, result)
            }
            Op::Activation(f) => {
                let layout = self.common(&node.inputs);
                let x = self.get(x, layout, name);
                let opset = self.settings.opset;
                let result = activation::write(&mut self.onnx, opset, *f, name, x);
                (layout, result.ok_or_else(|| unsupported(node))?)
            }
            Op::Attention(a) if a.mask.is_none_or(|m| self.rows(node.inputs[m]).is_some()) => {
                (Layout::Tokens, self.attention(name, a, &node.inputs))
            }
            Op::Add { .. } => {
                let layout = self.common(&node.inputs);
                let mut sum = self.get(x, layout, name);
                for &other in &node.inputs[1..] {
                    let other = self.get(other, layout, name);
                    sum = self.emit("Add", name, &[&sum, &other], &[]);
                }
                (layout, sum)
            }
            Op::Gate => {
                let inputs = [x, node.inputs[1]].map(|v| self.get(v, Layout::Map, name));
                let result = self.emit("Mul", name, &[&inputs[0], &inputs[1]], &[]);
                (Layout::Map, result)
            }
            Op::AveragePool(window) | Op::MaxPool(window) => {
                let x = self.get(x, Layout::Map, name);
                let attributes = sliding(window);
                let attributes = attributes.each_ref().map(|(n, a)| (*n, Attribute::Ints(a)));
                let operator = match &node.op {
                    Op::MaxPool(_) => "MaxPool",
                    _ => "AveragePool",
                };
                (Layout::Map, self.emit(operator, name, &[&x], &attributes))
            }
            Op::Mean => self.mean(name, x),
            Op::MaskedMean if self.rows(node.inputs[1]).is_some() => {
                (Layout::Tokens, self.masked_mean(name, &node.inputs))
            }
            Op::Embedding { table } => {
                let [ids, table] = [self.get(x, Layout::Tokens, name), self.parameter(*table)];
                (
                    Layout::Tokens,
                    self.emit("Gather", name, &[&table, &ids], &[]),
                )
            }
            Op::Positions { table } => {
                let x = self.get(x, Layout::Tokens, name);
                let table = match map.height {
                    1 => self.parameter(*table),
                    _ => self.parameter_as(*table, &[map.height, map.width, map.channels]),
                };
                (Layout::Tokens, self.emit("Add", name, &[&x, &table], &[]))
            }
            Op::Tokens { table } => (Layout::Tokens, self.tokens(name, x, *table)),
            Op::Normalize => {
                let x = self.get(x, Layout::Tokens, name);
                (Layout::Tokens, self.normalize(name, &x))
            }
            Op::Pad(by) => {
                let layout = self.movable(node);
                let x = self.get(x, layout, name);
                let [down, right] = by.map(|n| n as i64);
                let pads = match layout {
                    Layout::Map => [0, 0, 0, 0, 0, 0, down, right],
                    Layout::Tokens => [0, 0, 0, 0, 0, down, right, 0],
                };
                let pads = self.onnx.list(&pads);
                (layout, self.emit("Pad", name, &[&x, &pads], &[]))
            }
            Op::Crop(_) => {
                let layout = self.movable(node);
                let x = self.get(x, layout, name);
                let to = self.graph.map(node.output);
                let axes = match layout {
                    Layout::Map => [2, 3],
                    Layout::Tokens => [1, 2],
                };
                let [starts, ends, axes] = [[0, 0], [to.height as i64, to.width as i64], axes]
                    .map(|list| self.onnx.list(&list));
                (
                    layout,
                    self.emit("Slice", name, &[&x, &starts, &ends, &axes], &[]),
                )
            }
            _ => return Err(unsupported(node)),
        };
        self.set(node.output, layout, result);
        Ok(())
    }

    fn conv(
        &mut self,
        name: &str,
        x: Value,
        weight: ParameterId,
        bias: Option<ParameterId>,
        window: &Window,
        groups: usize,
    ) -> String {
        let mut inputs = vec![self.get(x, Layout::Map, name)];
        let channels = self.graph.map(x).channels / groups;
        let [height, width] = window.kernel;
        let out = self.graph.parameters()[weight.0].len() / (channels * height * width).max(1);
        inputs.push(self.parameter_as(weight, &[out, channels, height, width]));
        inputs.extend(bias.map(|b| self.parameter(b)));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes = sliding(window);
        let attributes = attributes.each_ref().map(|(n, a)| (*n, Attribute::Ints(a)));
        let group = [("group", Attribute::Int(groups as i64))];
        self.emit("Conv", name, &inputs, &[&attributes[..], &group].concat())
    }

    fn linear(
        &mut self,
        name: &str,
        x: Value,
        weight: ParameterId,
        bias: Option<ParameterId>,
    ) -> String {
        let x = self.get(x, Layout::Tokens, name);
        let weight = self.parameter(weight);
        let swap = [("perm", Attribute::Ints(&[1, 0]))];
        let weight = self.emit("Transpose", name, &[&weight], &swap);
        let product = self.emit("MatMul", name, &[&x, &weight], &[]);
        match bias.map(|b| self.parameter(b)) {
            Some(bias) => self.emit("Add", name, &[&product, &bias], &[]),
            None => product,
        }
    }

    fn batch_norm(&mut self, name: &str, x: Value, norm: &BatchNorm) -> String {
        let x = self.get(x, Layout::Map, name);
        let parameters = [norm.weight, norm.bias, norm.mean, norm.variance];
        let [weight, bias, mean, variance] = parameters.map(|p| self.parameter(p));
        self.emit(
            "BatchNormalization",
            name,
            &[&x, &weight, &bias, &mean, &variance],
            &[("epsilon", Attribute::Float(norm.epsilon))],
        )
    }

    fn mean(&mut self, name: &str, x: Value) -> (Layout, String) {
        let map = self.graph.map(x);
        if map.height > 1 && self.name(x, Layout::Map).is_none() {
            let x = self.get(x, Layout::Tokens, name);
            let keep = ("keepdims", Attribute::Int(0));
            let result = match self.settings.opset.number() {
                ..18 => {
                    let axes = ("axes", Attribute::Ints(&[1, 2]));
                    self.emit("ReduceMean", name, &[&x], &[axes, keep])
                }
                18.. => {
                    let axes = self.onnx.list(&[1, 2]);
                    self.emit("ReduceMean", name, &[&x, &axes], &[keep])
                }
            };
            return (Layout::Tokens, result);
        }
        let x = self.get(x, Layout::Map, name);
        (
            Layout::Map,
            self.emit("GlobalAveragePool", name, &[&x], &[]),
        )
    }

    /// Rows of the tables that a value picks from, where it does.
    pub fn rows(&self, value: Value) -> Option<usize> {
        self.graph.nodes().iter().find_map(|n| match n.op {
            Op::Embedding { table } if n.inputs[0] == value => {
                Some(self.graph.parameters()[table.0].shape[0])
            }
            _ => None,
        })
    }

    /// For ids the number `padding` where they are 0, and `other` elsewhere, as `[N, tokens]`: a table,
    /// which importers know, in place of a comparison.
    pub fn where_padding(&mut self, layer: &str, ids: Value, padding: f32, other: f32) -> String {
        let rows = self.rows(ids).unwrap_or_default();
        let table = format!("{padding:?} for padding, {other:?} for {rows} tokens");
        if !self.onnx.contains(&table) {
            let mut values = vec![other; rows];
            values.iter_mut().take(1).for_each(|v| *v = padding);
            self.onnx.floats(&table, &[rows], &values);
        }
        let ids = self.get(ids, Layout::Tokens, layer);
        self.emit("Gather", layer, &[&table, &ids], &[])
    }

    fn masked_mean(&mut self, name: &str, inputs: &[Value]) -> String {
        let (x, tokens) = (
            self.get(inputs[0], Layout::Tokens, name),
            self.onnx.list(&[1]),
        );
        let counts = self.where_padding(name, inputs[1], 0.0, 1.0);
        let last = self.onnx.list(&[-1]);
        let mut factor = self.emit("Unsqueeze", name, &[&counts, &last], &[]);
        if let Some(&weights) = inputs.get(2) {
            let weights = self.get(weights, Layout::Tokens, name);
            factor = self.emit("Mul", name, &[&weights, &factor], &[]);
        }
        let x = self.emit("Mul", name, &[&x, &factor], &[]);
        let keep = |keep| [("keepdims", Attribute::Int(keep))];
        let sum = self.emit("ReduceSum", name, &[&x, &tokens], &keep(0));
        let count = self.emit("ReduceSum", name, &[&counts, &tokens], &keep(1));
        let one = self.onnx.scalar(1.0);
        let count = self.emit("Max", name, &[&count, &one], &[]);
        self.emit("Div", name, &[&sum, &count], &[])
    }

    fn normalize(&mut self, name: &str, x: &str) -> String {
        let last = self.onnx.list(&[-1]);
        let keep = [("keepdims", Attribute::Int(1))];
        let squares = self.emit("Mul", name, &[x, x], &[]);
        let sum = self.emit("ReduceSum", name, &[&squares, &last], &keep);
        let least = self.onnx.scalar(1e-24);
        let sum = self.emit("Max", name, &[&sum, &least], &[]);
        let length = self.emit("Sqrt", name, &[&sum], &[]);
        self.emit("Div", name, &[x, &length], &[])
    }

    /// A table's rows, the same for all samples, in front of a value's.
    fn tokens(&mut self, name: &str, x: Value, table: ParameterId) -> String {
        let map = self.graph.map(x);
        let (mut x, table) = (self.get(x, Layout::Tokens, name), self.parameter(table));
        if map.height > 1 || map.width == 1 {
            x = self.reshape(name, &x, &[-1, map.pixels() as i64, map.channels as i64]);
        }
        let ends = [("start", Attribute::Int(0)), ("end", Attribute::Int(1))];
        let batch = self.emit("Shape", name, &[&x], &ends);
        let one = self.onnx.list(&[1, 1]);
        let axis = [("axis", Attribute::Int(0))];
        let shape = self.emit("Concat", name, &[&batch, &one], &axis);
        let rows = self.emit("Expand", name, &[&table, &shape], &[]);
        let axis = [("axis", Attribute::Int(1))];
        self.emit("Concat", name, &[&rows, &x], &axis)
    }

    /// The layout that most inputs have already.
    fn common(&self, inputs: &[Value]) -> Layout {
        let count = |layout| {
            let there = |v: &&Value| self.name(**v, layout).is_some();
            inputs.iter().filter(there).count()
        };
        match count(Layout::Tokens) > count(Layout::Map) {
            true => Layout::Tokens,
            false => Layout::Map,
        }
    }

    /// The layout in which a layer with one input can change height and width.
    fn movable(&self, node: &Node) -> Layout {
        let rows = [node.inputs[0], node.output].map(|v| self.graph.map(v).height);
        match rows.contains(&1) {
            true => Layout::Map,
            false => self.common(&node.inputs),
        }
    }

    /// Name of a value in a layout; it is brought into it by the layer `layer` where it is not there yet.
    pub fn get(&mut self, value: Value, layout: Layout, layer: &str) -> String {
        if let Some(name) = self.name(value, layout) {
            return name.clone();
        }
        let map = self.graph.map(value);
        let from = match layout {
            Layout::Map => self.name(value, Layout::Tokens),
            Layout::Tokens => self.name(value, Layout::Map),
        };
        let from = from.cloned().unwrap_or_default();
        let [width, c] = [map.width as i64, map.channels as i64];
        let name = match (layout, map.height, map.width) {
            (Layout::Map, 1, 1) => self.reshape(layer, &from, &[-1, c, 1, 1]),
            (Layout::Map, 1, _) => {
                let from = self.transpose(layer, &from, &[0, 2, 1]);
                self.reshape(layer, &from, &[-1, c, 1, width])
            }
            (Layout::Map, ..) => self.transpose(layer, &from, &[0, 3, 1, 2]),
            (Layout::Tokens, 1, 1) => {
                let axis = [("axis", Attribute::Int(1))];
                self.emit("Flatten", layer, &[&from], &axis)
            }
            (Layout::Tokens, 1, _) => {
                let from = self.reshape(layer, &from, &[-1, c, width]);
                self.transpose(layer, &from, &[0, 2, 1])
            }
            (Layout::Tokens, ..) => self.transpose(layer, &from, &[0, 2, 3, 1]),
        };
        self.set(value, layout, name.clone());
        name
    }

    pub fn reshape(&mut self, layer: &str, x: &str, shape: &[i64]) -> String {
        let shape = self.onnx.list(shape);
        self.emit("Reshape", layer, &[x, &shape], &[])
    }

    pub fn transpose(&mut self, layer: &str, x: &str, order: &[i64]) -> String {
        let perm = [("perm", Attribute::Ints(order))];
        self.emit("Transpose", layer, &[x], &perm)
    }

    /// Adds a node of a layer, and gives the name of its value.
    pub fn emit(
        &mut self,
        op: &str,
        layer: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        self.onnx
            .node(op, &format!("{layer}/{op}"), inputs, attributes)
    }

    /// Name of a parameter, in its own shape.
    pub fn parameter(&mut self, id: ParameterId) -> String {
        let shape = &self.graph.parameters()[id.0].shape;
        self.parameter_as(id, shape)
    }

    fn parameter_as(&mut self, id: ParameterId, shape: &[usize]) -> String {
        let name = &self.graph.parameters()[id.0].name;
        if self.written.insert(id) {
            self.onnx.floats(name, shape, &self.values[id.0]);
        }
        name.clone()
    }

    fn name(&self, value: Value, layout: Layout) -> Option<&String> {
        self.names[value.0][layout as usize].as_ref()
    }

    fn set(&mut self, value: Value, layout: Layout, name: String) {
        self.names[value.0][layout as usize] = Some(name);
    }
}

fn unsupported(node: &Node) -> ExportError {
    ExportError::Unsupported {
        layer: node.name.clone(),
        op: format!("{:?}", node.op),
    }
}

/// Attributes of a sliding window.
fn sliding(window: &Window) -> [(&'static str, Vec<i64>); 3] {
    let ints = |list: &[usize]| list.iter().map(|&i| i as i64).collect();
    [
        ("kernel_shape", ints(&window.kernel)),
        ("strides", ints(&window.stride)),
        ("pads", ints(&window.pads)),
    ]
}

/// Layout and shape of an input or output.
fn port(map: Map) -> (Layout, Vec<Dim<'static>>) {
    let (layout, sizes) = match (map.height, map.width, map.channels) {
        (1, 1, c) => (Layout::Tokens, vec![c]),
        (1, tokens, c) => (Layout::Tokens, vec![tokens, c]),
        (height, width, c) => (Layout::Map, vec![c, height, width]),
    };
    let sizes = sizes.into_iter().map(Dim::Size);
    (
        layout,
        std::iter::once(Dim::Symbol("batch")).chain(sizes).collect(),
    )
}

/// Name of a port: the given one, `only` for a single one, or `several` with its number.
fn port_name(given: &[&str], only: &str, several: &str, i: usize, count: usize) -> String {
    match given.get(i) {
        Some(&name) => name.to_owned(),
        None if count == 1 => only.to_owned(),
        None => format!("{several}_{i}"),
    }
}
