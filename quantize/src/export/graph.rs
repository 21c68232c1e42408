//! Writing a float graph before fusion as ONNX.
//!
//! Maps are channels-last in the graph and channels-first in ONNX. A value is kept in the order that its node gives, and
//! brought into the other one where a node needs it, once.

use std::collections::HashMap;

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::{Attribute, Dim, OnnxGraph};
use crate::graph::{
    Graph, Node, Op, Port, ReduceKind, ResizeCoordinates, ResizeMode, ValueId, inverse,
};

/// From channels-first to channels-last, and back.
const LAST: [usize; 4] = [0, 2, 3, 1];
const FIRST: [usize; 4] = [0, 3, 1, 2];

/// A node that ONNX has no words for here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{node}` ({op}) can't be written as ONNX: only graphs before fusion can")]
pub struct Unwritable {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
}

/// The bytes of an ONNX file with the graph, with the names and shapes of the source's inputs and outputs, and
/// pairs of `metadata`.
///
/// # Errors
///
/// [`Unwritable`] for fused operators.
pub fn graph_to_onnx(
    graph: &Graph,
    name: &str,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, Unwritable> {
    let mut writer = Writer {
        graph,
        out: OnnxGraph::new(name),
        names: HashMap::new(),
        indices: Vec::new(),
    };
    // Nodes are often named like the outputs that they make.
    for port in &graph.outputs {
        writer.out.free_name(&port.name);
    }
    graph.inputs.iter().for_each(|port| writer.input(port));
    for node in &graph.nodes {
        writer.node(node)?;
    }
    for port in &graph.outputs {
        writer.output(port);
    }
    Ok(writer.out.into_model(metadata))
}

/// Order of a value's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    /// The graph's.
    Own,
    /// Of a map, channels first.
    First,
}

struct Writer<'g> {
    graph: &'g Graph,
    out: OnnxGraph,
    names: HashMap<(ValueId, Order), String>,
    /// Indices of tables that were written.
    indices: Vec<(Vec<i64>, String)>,
}

/// Elements of a constant from which it is tried as a table.
const TABLE: usize = 1024;

/// A constant `[.., queries, keys]` that repeats few different columns over its leading dimensions, as position biases
/// do: `[.., columns]` and an index `[queries, keys]`.
struct Table {
    axis: usize,
    shape: Vec<usize>,
    values: Vec<f32>,
    index: Vec<i64>,
}

impl Table {
    /// `None` where that takes more than half the bytes.
    fn of(shape: &[usize], data: &[f32]) -> Option<Table> {
        let axis = shape.len().checked_sub(2).filter(|&a| a > 0)?;
        let (leads, places) = (
            shape[..axis].iter().product::<usize>(),
            shape[axis] * shape[axis + 1],
        );
        if data.len() < TABLE || leads < 2 {
            return None;
        }
        let mut known: HashMap<Vec<u32>, i64> = HashMap::new();
        let mut first = Vec::new();
        let index = (0..places).map(|place| {
            let column = (0..leads).map(|lead| data[lead * places + place].to_bits());
            let next = known.len() as i64;
            *known.entry(column.collect()).or_insert_with(|| {
                first.push(place);
                next
            })
        });
        let index: Vec<i64> = index.collect();
        let columns = first.len();
        if columns * 4 > places {
            return None;
        }
        let values =
            (0..leads).flat_map(|lead| first.iter().map(move |place| lead * places + place));
        Some(Table {
            axis,
            shape: [&shape[..axis], &[columns]].concat(),
            values: values.map(|at| data[at]).collect(),
            index,
        })
    }
}

impl Writer<'_> {
    fn input(&mut self, port: &Port) {
        let value = self.graph.value(port.value);
        // Source dimension `i` is stored dimension `layout[i]`.
        let source: Vec<usize> = port.layout.iter().map(|&d| value.shape[d]).collect();
        let dims: Vec<Dim<'_>> = source.iter().map(|&n| Dim::Size(n)).collect();
        if value.is_index {
            let name = self.out.integer_input(&port.name, &dims);
            self.names.insert((port.value, Order::Own), name);
            return;
        }
        let name = self.out.input(&port.name, &dims);
        if port.layout == FIRST {
            self.names.insert((port.value, Order::First), name);
        } else {
            let own = self.transposed(&name, &port.name, &inverse(&port.layout));
            self.names.insert((port.value, Order::Own), own);
        }
    }

    fn output(&mut self, port: &Port) {
        let own = self.graph.shape(port.value);
        let dims: Vec<Dim<'_>> = port.layout.iter().map(|&d| Dim::Size(own[d])).collect();
        let value = if port.layout == FIRST {
            self.get(port.value, Order::First)
        } else {
            let value = self.get(port.value, Order::Own);
            self.transposed(&value, &port.name, &port.layout)
        };
        // What is an output may be an input or another output, too.
        let value = self.out.node("Identity", &port.name, &[&value], &[]);
        match self.graph.value(port.value).is_index {
            true => self.out.integer_output(&port.name, &value, &dims),
            false => self.out.output(&port.name, &value, &dims),
        }
    }

    /// Transposed, or itself where that does nothing.
    fn transposed(&mut self, value: &str, name: &str, order: &[usize]) -> String {
        if order.iter().copied().eq(0..order.len()) {
            return value.to_owned();
        }
        let perm: Vec<i64> = order.iter().map(|&d| d as i64).collect();
        let attributes = [("perm", Attribute::Ints(&perm))];
        self.out.node("Transpose", name, &[value], &attributes)
    }

    /// The name of a value in an order.
    fn get(&mut self, value: ValueId, order: Order) -> String {
        if let Some(name) = self.names.get(&(value, order)) {
            return name.clone();
        }
        let of = self.graph.value(value);
        let name = match (&of.data, order) {
            (Some(data), Order::Own) => {
                let name = self.out.free_name(&of.name);
                match of.is_index {
                    true => {
                        let data: Vec<i64> = data.iter().map(|&v| v as i64).collect();
                        self.out.integers(&name, &of.shape, &data);
                    }
                    false => match Table::of(&of.shape, data) {
                        Some(table) => return self.table(value, &name, table),
                        None => self.out.floats(&name, &of.shape, data),
                    },
                }
                name
            }
            (_, Order::First) => {
                let own = self.get(value, Order::Own);
                self.transposed(&own, &of.name, &FIRST)
            }
            (None, Order::Own) => {
                let first = self.names.get(&(value, Order::First)).cloned();
                self.transposed(&first.unwrap_or_default(), &of.name, &LAST)
            }
        };
        self.names.insert((value, order), name.clone());
        name
    }

    /// A constant as rows of a table.
    fn table(&mut self, value: ValueId, name: &str, table: Table) -> String {
        let rows = format!("{name} table");
        self.out.floats(&rows, &table.shape, &table.values);
        // Blocks of one size share their indices.
        let known = self.indices.iter().find(|(of, _)| *of == table.index);
        let index = match known {
            Some((_, name)) => name.clone(),
            None => {
                let name = self.out.free_name("positions");
                let shape = &self.graph.shape(value)[table.axis..];
                self.out.integers(&name, shape, &table.index);
                self.indices.push((table.index, name.clone()));
                name
            }
        };
        let axis = [("axis", Attribute::Int(table.axis as i64))];
        let name = self.out.node("Gather", name, &[&rows, &index], &axis);
        self.names.insert((value, Order::Own), name.clone());
        name
    }

    /// Whether a value is at hand with channels first, and not in its own order.
    fn is_first(&self, value: ValueId) -> bool {
        let has = |order| self.names.contains_key(&(value, order));
        has(Order::First) && !has(Order::Own)
    }

    fn emit(&mut self, node: &Node, order: Order, op: &str, attributes: &[(&str, Attribute<'_>)]) {
        let inputs: Vec<String> = node.inputs.iter().map(|&v| self.get(v, order)).collect();
        self.emit_with(node, order, op, &inputs, attributes);
    }

    fn emit_with(
        &mut self,
        node: &Node,
        order: Order,
        op: &str,
        inputs: &[String],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let value = self.out.node(op, &node.name, &inputs, attributes);
        self.names.insert((node.output, order), value);
    }

    fn node(&mut self, node: &Node) -> Result<(), Unwritable> {
        let refused = Unwritable {
            node: node.name.clone(),
            op: node.op.name(),
        };
        if node.op.activation().is_some() {
            return Err(refused);
        }
        // Operators on single elements, and those along one axis, keep the order that their operand has.
        let first = node.inputs.first().is_some_and(|&x| self.is_first(x));
        let order = if first { Order::First } else { Order::Own };
        let axis = |axis: usize| match order {
            Order::Own => axis as i64,
            Order::First => inverse(&FIRST)[axis] as i64,
        };
        match &node.op {
            Op::Conv {
                window,
                groups,
                residual: false,
                ..
            } => self.conv(node, window, *groups),
            Op::Linear {
                residual: false, ..
            } => self.linear(node),
            Op::MatMul => self.emit(node, Order::Own, "MatMul", &[]),
            Op::Binary { kind, .. } => self.binary(node, *kind),
            Op::Unary(kind) => self.unary(node, *kind, order),
            Op::Pool {
                kind,
                window,
                include_pad,
            } => self.pool(node, *kind, window, *include_pad),
            Op::Reduce { kind, axes } => {
                let axes: Vec<i64> = axes.iter().map(|&a| axis(a)).collect();
                let x = self.get(node.inputs[0], order);
                let keep = ("keepdims", Attribute::Int(1));
                // The sum alone has had its axes as an operand since opset 13, the others since 18.
                if let ReduceKind::Sum = kind {
                    let axes = self.out.list(&axes);
                    self.emit_with(node, order, "ReduceSum", &[x, axes], &[keep]);
                } else {
                    let axes = ("axes", Attribute::Ints(&axes));
                    self.emit_with(node, order, node.op.name(), &[x], &[axes, keep]);
                }
            }
            Op::Softmax { .. } => {
                let axis = [("axis", Attribute::Int(-1))];
                self.emit(node, Order::Own, node.op.name(), &axis);
            }
            Op::LayerNorm { epsilon } => {
                let attributes = [
                    ("axis", Attribute::Int(-1)),
                    ("epsilon", Attribute::Float(*epsilon)),
                ];
                self.emit(node, Order::Own, "LayerNormalization", &attributes);
            }
            Op::Reshape(to) => {
                let to: Vec<i64> = to.iter().map(|&n| n as i64).collect();
                let inputs = [self.get(node.inputs[0], Order::Own), self.out.list(&to)];
                self.emit_with(node, Order::Own, "Reshape", &inputs, &[]);
            }
            Op::Transpose(perm) => {
                let perm: Vec<i64> = perm.iter().map(|&d| d as i64).collect();
                let perm = [("perm", Attribute::Ints(&perm))];
                self.emit(node, Order::Own, "Transpose", &perm);
            }
            Op::Slice {
                axis: along,
                start,
                len,
                step,
            } => {
                let (start, step) = (*start as i64, *step as i64);
                let end = match start + step * *len as i64 {
                    end if end < 0 => i64::MIN,
                    end => end,
                };
                let lists = [start, end, axis(*along), step].map(|n| self.out.list(&[n]));
                let x = self.get(node.inputs[0], order);
                let inputs: Vec<String> = std::iter::once(x).chain(lists).collect();
                self.emit_with(node, order, "Slice", &inputs, &[]);
            }
            Op::Concat { axis: along } => {
                let along = [("axis", Attribute::Int(axis(*along)))];
                self.emit(node, order, "Concat", &along);
            }
            Op::Pad {
                before,
                after,
                value,
            } => {
                let mut pads = vec![0; 2 * before.len()];
                for (d, (&b, &a)) in before.iter().zip(after).enumerate() {
                    pads[axis(d) as usize] = b as i64;
                    pads[before.len() + axis(d) as usize] = a as i64;
                }
                let x = self.get(node.inputs[0], order);
                let inputs = [x, self.out.list(&pads), self.out.scalar(*value)];
                self.emit_with(node, order, "Pad", &inputs, &[]);
            }
            Op::Broadcast(to) => {
                let to: Vec<i64> = to.iter().map(|&n| n as i64).collect();
                let inputs = [self.get(node.inputs[0], Order::Own), self.out.list(&to)];
                self.emit_with(node, Order::Own, "Expand", &inputs, &[]);
            }
            Op::Gather { axis } => {
                let axis = [("axis", Attribute::Int(*axis as i64))];
                self.emit(node, Order::Own, "Gather", &axis);
            }
            Op::ArgMax { axis: along, last } => {
                let attributes = [
                    ("axis", Attribute::Int(axis(*along))),
                    ("keepdims", Attribute::Int(1)),
                    ("select_last_index", Attribute::Int(i64::from(*last))),
                ];
                self.emit(node, order, "ArgMax", &attributes);
            }
            Op::Resize {
                size,
                mode,
                coordinates,
            } => self.resize(node, *size, *mode, *coordinates),
            _ => return Err(refused),
        }
        Ok(())
    }

    fn conv(&mut self, node: &Node, window: &Window, groups: usize) {
        let w = node.inputs[1];
        let weights = match self.graph.constant(w) {
            // `[O, kh, kw, I]` to `[O, I, kh, kw]`.
            Some(data) => {
                let (shape, data) = first_data(self.graph.shape(w), data);
                let name = self.out.free_name(&self.graph.value(w).name);
                self.out.floats(&name, &shape, &data);
                name
            }
            None => self.get(w, Order::First),
        };
        let inputs = [
            self.get(node.inputs[0], Order::First),
            weights,
            self.get(node.inputs[2], Order::Own),
        ];
        let mut geometry = geometry(window);
        let groups = [groups as i64];
        geometry.push(("group", groups.to_vec()));
        let attributes = self::attributes(&geometry);
        self.emit_with(node, Order::First, "Conv", &inputs, &attributes);
    }

    fn linear(&mut self, node: &Node) {
        let w = node.inputs[1];
        let (out, depth) = (self.graph.shape(w)[0], self.graph.shape(w)[1]);
        let weights = match self.graph.constant(w) {
            Some(data) => {
                let columns = (0..depth).flat_map(|i| (0..out).map(move |o| o * depth + i));
                let data: Vec<f32> = columns.map(|at| data[at]).collect();
                let name = self.out.free_name(&self.graph.value(w).name);
                self.out.floats(&name, &[depth, out], &data);
                name
            }
            None => {
                let own = self.get(w, Order::Own);
                self.transposed(&own, &node.name, &[1, 0])
            }
        };
        let x = self.get(node.inputs[0], Order::Own);
        let product = self.out.node("MatMul", &node.name, &[&x, &weights], &[]);
        let bias = self.get(node.inputs[2], Order::Own);
        self.emit_with(node, Order::Own, "Add", &[product, bias], &[]);
    }

    fn binary(&mut self, node: &Node, kind: BinaryKind) {
        let maps = node.inputs.iter().filter(|&&v| self.is_first(v)).count();
        // Of lower rank, a constant can still be given with channels first.
        let fits = |v: &ValueId| {
            self.is_first(*v)
                || self.graph.shape(*v).len() == 4
                || self.graph.constant(*v).is_some()
        };
        let (order, inputs): (Order, Vec<String>) =
            if maps > 0 && node.inputs.iter().all(fits) && self.graph.shape(node.output).len() == 4
            {
                let inputs = node.inputs.clone();
                let get = |v: ValueId| match self.graph.constant(v) {
                    Some(data) => self.map_constant(v, data),
                    None => self.get(v, Order::First),
                };
                (Order::First, inputs.into_iter().map(get).collect())
            } else {
                let inputs = node.inputs.clone();
                let get = |v| self.get(v, Order::Own);
                (Order::Own, inputs.into_iter().map(get).collect())
            };
        self.emit_with(node, order, kind.name(), &inputs, &[]);
    }

    /// A constant of rank 4 or less that broadcasts against maps with channels first.
    fn map_constant(&mut self, value: ValueId, data: &[f32]) -> String {
        let shape = self.graph.shape(value);
        let mut full = vec![1; 4 - shape.len()];
        full.extend(shape);
        let (shape, data) = first_data(&full, data);
        let name = self.out.free_name(&self.graph.value(value).name);
        self.out.floats(&name, &shape, &data);
        name
    }

    fn pool(&mut self, node: &Node, kind: PoolKind, window: &Window, include_pad: bool) {
        let mut geometry = geometry(window);
        let op = match kind {
            PoolKind::Average => {
                geometry.retain(|(name, _)| *name != "dilations");
                geometry.push(("count_include_pad", vec![i64::from(include_pad)]));
                "AveragePool"
            }
            _ => "MaxPool",
        };
        let attributes = self::attributes(&geometry);
        self.emit(node, Order::First, op, &attributes);
    }

    fn resize(
        &mut self,
        node: &Node,
        size: [usize; 2],
        mode: ResizeMode,
        coordinates: ResizeCoordinates,
    ) {
        let shape = self.graph.shape(node.output);
        let sizes = [shape[0], shape[3], size[0], size[1]].map(|n| n as i64);
        let x = self.get(node.inputs[0], Order::First);
        let inputs = [x, String::new(), String::new(), self.out.list(&sizes)];
        let coordinates = match coordinates {
            ResizeCoordinates::HalfPixel => "half_pixel",
            ResizeCoordinates::AlignCorners => "align_corners",
            ResizeCoordinates::Asymmetric => "asymmetric",
        };
        let (mode, nearest) = match mode {
            ResizeMode::Nearest { floor: true } => ("nearest", "floor"),
            ResizeMode::Nearest { floor: false } => ("nearest", "round_prefer_floor"),
            ResizeMode::Linear => ("linear", "round_prefer_floor"),
        };
        let attributes = [
            ("mode", Attribute::Text(mode)),
            ("nearest_mode", Attribute::Text(nearest)),
            (
                "coordinate_transformation_mode",
                Attribute::Text(coordinates),
            ),
        ];
        self.emit_with(node, Order::First, "Resize", &inputs, &attributes);
    }

    /// An element-wise function, in ONNX's words of opset 17.
    fn unary(&mut self, node: &Node, kind: UnaryKind, order: Order) {
        let x = self.get(node.inputs[0], order);
        let out = &mut self.out;
        let mut op = |op: &str, inputs: &[&str]| out.node(op, &node.name, inputs, &[]);
        let value = match kind {
            UnaryKind::LeakyRelu(slope) => {
                let alpha = [("alpha", Attribute::Float(slope))];
                out.node("LeakyRelu", &node.name, &[&x], &alpha)
            }
            UnaryKind::Elu(alpha) => {
                let alpha = [("alpha", Attribute::Float(alpha))];
                out.node("Elu", &node.name, &[&x], &alpha)
            }
            UnaryKind::HardSigmoid(alpha, beta) => {
                let attributes = [
                    ("alpha", Attribute::Float(alpha)),
                    ("beta", Attribute::Float(beta)),
                ];
                out.node("HardSigmoid", &node.name, &[&x], &attributes)
            }
            UnaryKind::Silu => {
                let gate = op("Sigmoid", &[&x]);
                op("Mul", &[&x, &gate])
            }
            UnaryKind::QuickGelu => {
                let factor = out.scalar(1.702);
                let scaled = out.node("Mul", &node.name, &[&x, &factor], &[]);
                let gate = out.node("Sigmoid", &node.name, &[&scaled], &[]);
                out.node("Mul", &node.name, &[&x, &gate], &[])
            }
            UnaryKind::GeluErf => {
                let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|c| out.scalar(c));
                let mut op = |op: &str, inputs: &[&str]| out.node(op, &node.name, inputs, &[]);
                let scaled = op("Div", &[&x, &root]);
                let erf = op("Erf", &[&scaled]);
                let gate = op("Add", &[&erf, &one]);
                let gated = op("Mul", &[&x, &gate]);
                op("Mul", &[&gated, &half])
            }
            UnaryKind::GeluTanh => {
                let [cube, root, one, half] =
                    [0.044_715, 0.797_884_56, 1.0, 0.5].map(|c| out.scalar(c));
                let mut op = |op: &str, inputs: &[&str]| out.node(op, &node.name, inputs, &[]);
                let square = op("Mul", &[&x, &x]);
                let third = op("Mul", &[&square, &x]);
                let bent = op("Mul", &[&third, &cube]);
                let sum = op("Add", &[&x, &bent]);
                let scaled = op("Mul", &[&sum, &root]);
                let tanh = op("Tanh", &[&scaled]);
                let gate = op("Add", &[&tanh, &one]);
                let gated = op("Mul", &[&x, &gate]);
                op("Mul", &[&gated, &half])
            }
            UnaryKind::Clamp(low, high) => {
                let bounds = [low, high].map(|c| out.scalar(c));
                out.node("Clip", &node.name, &[&x, &bounds[0], &bounds[1]], &[])
            }
            UnaryKind::Mish => {
                let soft = op("Softplus", &[&x]);
                let gate = op("Tanh", &[&soft]);
                op("Mul", &[&x, &gate])
            }
            UnaryKind::Square => op("Mul", &[&x, &x]),
            UnaryKind::Rsqrt => {
                let root = op("Sqrt", &[&x]);
                op("Reciprocal", &[&root])
            }
            // The rest have ONNX's names.
            kind => op(kind.name(), &[&x]),
        };
        self.names.insert((node.output, order), value);
    }
}

/// A map's elements with channels first, and its shape then.
fn first_data(shape: &[usize], data: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let [n, h, w, c] = [shape[0], shape[1], shape[2], shape[3]];
    let mut out = Vec::with_capacity(data.len());
    for i in 0..n {
        for channel in 0..c {
            let pixels = data[i * h * w * c..].iter().skip(channel).step_by(c);
            out.extend(pixels.take(h * w));
        }
    }
    (vec![n, c, h, w], out)
}

fn geometry(w: &Window) -> Vec<(&'static str, Vec<i64>)> {
    let pair = |of: [u16; 2]| of.map(i64::from).to_vec();
    vec![
        ("kernel_shape", pair(w.kernel)),
        ("strides", pair(w.stride)),
        ("dilations", pair(w.dilation)),
        ("pads", w.pad.map(i64::from).to_vec()),
    ]
}

fn attributes<'a>(of: &'a [(&'static str, Vec<i64>)]) -> Vec<(&'a str, Attribute<'a>)> {
    let attribute = |(name, ints): &'a (&'static str, Vec<i64>)| {
        let value = match (*name, ints.as_slice()) {
            ("group" | "count_include_pad", &[one]) => Attribute::Int(one),
            (_, ints) => Attribute::Ints(ints),
        };
        (*name, value)
    };
    of.iter().map(attribute).collect()
}
