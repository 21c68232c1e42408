//! The float graph: what import produces, passes rewrite and sealing lowers.
//!
//! A graph is a list of [`Node`]s in execution order, each producing one [`Value`]. Activations are
//! f32 in *channels-last* layout (NHWC for images, `[.., channels]` otherwise); constants carry their
//! data. Operators with several results in the source are lowered to several nodes (a split becomes
//! slices), so every value has exactly one producer.

mod infer;
mod op;
mod permute;
mod validate;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use infer::broadcast;
pub use infer::infer_shape;
pub use op::{Activation, Attention, Op, ReduceKind, ResizeCoordinates, ResizeMode};
pub(crate) use permute::{compose, inverse, is_identity, permute};
pub use validate::GraphError;

/// Index of a [`Value`] in [`Graph::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A tensor of the graph.
#[derive(Debug, Clone)]
pub struct Value {
    /// Name in the source model, or one derived from it.
    pub name: String,
    /// Dimensions; never empty of elements. Rank 0 is a scalar.
    pub shape: Vec<usize>,
    /// Data of a constant, row-major.
    pub data: Option<Arc<Vec<f32>>>,
    /// Whether it holds indices (token ids, results of an arg-max), which are i32 when the model runs.
    /// Where this crate handles them as f32 they are exact up to 2²⁴.
    pub is_index: bool,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name in the source model, or one derived from it; unique.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Operands in the order the operator documents.
    pub inputs: Vec<ValueId>,
    /// Result.
    pub output: ValueId,
}

/// A model input or output.
#[derive(Debug, Clone)]
pub struct Port {
    /// Name in the source model.
    pub name: String,
    /// The value, in the graph's own layout.
    pub value: ValueId,
    /// Source dimension `i` is stored dimension `layout[i]` (NCHW stored as NHWC: `[0, 3, 1, 2]`).
    pub layout: Vec<usize>,
}

/// A float model.
///
/// ```
/// use ampoule_quantize::graph::{Graph, Op};
/// use ampoule_runtime::ops::unary::UnaryKind;
/// let mut g = Graph::default();
/// let x = g.input("x", &[1, 4]);
/// let y = g.push("relu", Op::Unary(UnaryKind::Relu), &[x]).unwrap();
/// g.output("y", y);
/// assert_eq!(g.value(y).shape, [1, 4]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// All values, indexed by [`ValueId`].
    pub values: Vec<Value>,
    /// Inputs in the source's order.
    pub inputs: Vec<Port>,
    /// Outputs in the source's order.
    pub outputs: Vec<Port>,
}

impl Graph {
    /// The value with that id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The value with that id, to change.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    /// The shape of a value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.value(id).shape
    }

    /// The data of a constant, `None` for an activation.
    pub fn constant(&self, id: ValueId) -> Option<&Arc<Vec<f32>>> {
        self.value(id).data.as_ref()
    }

    /// Adds a value without producer.
    pub fn add_value(&mut self, name: &str, shape: &[usize], data: Option<Vec<f32>>) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(Value {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: data.map(Arc::new),
            is_index: false,
        });
        id
    }

    /// Adds an input in the graph's own layout.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let value = self.add_value(name, shape, None);
        self.inputs.push(Port {
            name: name.to_owned(),
            value,
            layout: (0..shape.len()).collect(),
        });
        value
    }

    /// Adds an input of indices.
    pub fn index_input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let value = self.input(name, shape);
        self.value_mut(value).is_index = true;
        value
    }

    /// Number of valid indices in a value of indices: the size of the smallest axis that they select from.
    pub fn index_limit(&self, value: ValueId) -> usize {
        let mut limit = 1 << 24;
        for node in &self.nodes {
            match node.op {
                Op::Gather { axis } if node.inputs[1] == value => {
                    limit = limit.min(self.shape(node.inputs[0])[axis]);
                }
                _ if node.op.moves() && node.inputs.contains(&value) => {
                    limit = limit.min(self.index_limit(node.output));
                }
                _ => {}
            }
        }
        limit
    }

    /// Declares an output in the graph's own layout.
    pub fn output(&mut self, name: &str, value: ValueId) {
        let layout = (0..self.shape(value).len()).collect();
        self.outputs.push(Port {
            name: name.to_owned(),
            value,
            layout,
        });
    }

    /// Adds a constant; `data.len()` must be the product of `shape`.
    pub fn constant_value(&mut self, name: &str, shape: &[usize], data: Vec<f32>) -> ValueId {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}");
        self.add_value(name, shape, Some(data))
    }

    /// Appends a node, inferring its output's shape.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        let shape = infer_shape(self, name, &op, inputs)?;
        let output = self.add_value(name, &shape, None);
        self.value_mut(output).is_index = matches!(op, Op::ArgMax { .. } | Op::Match(_))
            || ((op.moves() || matches!(op, Op::Merge { .. })) && self.value(inputs[0]).is_index);
        self.nodes.push(Node {
            name: name.to_owned(),
            op,
            inputs: inputs.to_vec(),
            output,
        });
        Ok(output)
    }

    /// For each value the index of the node that produces it.
    pub fn producers(&self) -> HashMap<ValueId, usize> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (n.output, i))
            .collect()
    }

    /// For each value the indices of the nodes that read it, in order.
    pub fn consumers(&self) -> HashMap<ValueId, Vec<usize>> {
        let mut map: HashMap<ValueId, Vec<usize>> = HashMap::new();
        for (i, n) in self.nodes.iter().enumerate() {
            for &v in &n.inputs {
                map.entry(v).or_default().push(i);
            }
        }
        map
    }

    /// Multiply-accumulates of convolutions, linear layers and matrix products.
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|n| self.node_macs(n)).sum()
    }

    /// Multiply-accumulates of one node; 0 for everything but products.
    pub fn node_macs(&self, node: &Node) -> u64 {
        let out: u64 = self.shape(node.output).iter().map(|&d| d as u64).product();
        match node.op {
            Op::Conv { .. } | Op::Linear { .. } => {
                let w = self.shape(node.inputs[1]);
                out * w[1..].iter().map(|&d| d as u64).product::<u64>()
            }
            Op::Attention(ref a) => {
                let g = &a.geometry;
                let pairs = (g.outer_count() * g.query_count() * g.key_count()) as u64;
                pairs * u64::from(g.depth + g.width)
            }
            Op::Match(ref m) => m.pairs() as u64 * u64::from(m.depth),
            Op::MatMul => out * self.shape(node.inputs[0]).last().map_or(1, |&k| k as u64),
            _ => 0,
        }
    }

    /// Number of constant elements that nodes read.
    pub fn parameters(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let read = self.nodes.iter().flat_map(|n| &n.inputs);
        read.filter(|v| seen.insert(**v))
            .filter_map(|v| self.constant(*v))
            .map(|d| d.len() as u64)
            .sum()
    }
}
