//! A number that multiplies part of a layer's result goes into the layer's weights.
//!
//! Attention scales its queries (or scores, or queries and keys) by a constant. What it scales comes from
//! a linear layer through reshapes, transposes and slices, and a matrix product of one scaled operand is a
//! scaled product. The rows of the layer that reach the multiplication, and nothing else, are scaled.

use std::collections::{HashMap, HashSet};

use ampoule_runtime::ops::binary::BinaryKind;

use super::{dead, fold};
use crate::graph::{Graph, GraphError, Node, Op, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    while let Some(found) = (0..graph.nodes.len()).find_map(|at| Scaled::find(graph, at)) {
        found.apply(graph);
        changes += 1;
    }
    if changes > 0 {
        dead::run(graph)?;
    }
    Ok(changes)
}

/// A multiplication by a number that a layer can take.
struct Scaled {
    /// Index of the multiplication.
    at: usize,
    number: f32,
    /// Index of the layer.
    layer: usize,
    /// Rows of its weights to scale.
    rows: HashSet<usize>,
}

impl Scaled {
    fn find(graph: &Graph, at: usize) -> Option<Scaled> {
        let node = &graph.nodes[at];
        let (
            Op::Binary {
                kind: BinaryKind::Mul,
                activation: None,
            },
            &[x, c],
        ) = (&node.op, &node.inputs[..])
        else {
            return None;
        };
        let &[number] = graph.constant(c)?.as_slice() else {
            return None;
        };
        if graph.shape(x) != graph.shape(node.output) || number == 0.0 {
            return None;
        }
        let producers = graph.producers();
        let consumers = graph.consumers();
        let is_output = |v: ValueId| graph.outputs.iter().any(|p| p.value == v);
        let product = producers.get(&x).map(|&i| (i, &graph.nodes[i]));
        let starts = match product {
            // Either operand of a matrix product may be scaled instead of the product.
            Some((
                i,
                Node {
                    op: Op::MatMul,
                    inputs,
                    ..
                },
            )) if consumers.get(&x).is_some_and(|c| c.len() == 1) && !is_output(x) => {
                inputs.iter().map(|&v| (v, i)).collect()
            }
            _ => vec![(x, at)],
        };
        starts.into_iter().find_map(|(v, reader)| {
            let layer = layer_above(graph, &producers, v)?;
            let rows = exclusive_rows(graph, &consumers, layer, v, reader)?;
            Some(Scaled {
                at,
                number,
                layer,
                rows,
            })
        })
    }

    fn apply(self, graph: &mut Graph) {
        let layer = graph.nodes[self.layer].clone();
        for &operand in &layer.inputs[1..3] {
            let value = graph.value(operand).clone();
            let rows = value.shape[0];
            let Some(data) = value.data else { continue };
            let row = data.len() / rows;
            let factor = |i: usize| {
                if self.rows.contains(&(i / row)) {
                    self.number
                } else {
                    1.0
                }
            };
            let data = data
                .iter()
                .enumerate()
                .map(|(i, x)| x * factor(i))
                .collect();
            let scaled = graph.constant_value(&value.name, &value.shape, data);
            let inputs = &mut graph.nodes[self.layer].inputs;
            inputs
                .iter_mut()
                .filter(|v| **v == operand)
                .for_each(|v| *v = scaled);
        }
        let (gone, x) = (graph.nodes[self.at].output, graph.nodes[self.at].inputs[0]);
        graph.nodes.remove(self.at);
        let readers = graph.nodes.iter_mut().flat_map(|n| &mut n.inputs);
        for v in readers
            .chain(graph.outputs.iter_mut().map(|p| &mut p.value))
            .filter(|v| **v == gone)
        {
            *v = x;
        }
    }
}

/// The layer that a value comes from by moving data only.
fn layer_above(
    graph: &Graph,
    producers: &HashMap<ValueId, usize>,
    mut v: ValueId,
) -> Option<usize> {
    loop {
        let &i = producers.get(&v)?;
        let node = &graph.nodes[i];
        match node.op {
            Op::Linear {
                residual: false,
                activation: None,
            }
            | Op::Conv {
                residual: false,
                activation: None,
                ..
            } => return Some(i),
            Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } => v = node.inputs[0],
            _ => return None,
        }
    }
}

/// Rows of a layer that come to the node `reader` in the operand `part`, and nowhere else, after data
/// movement only.
fn exclusive_rows(
    graph: &Graph,
    consumers: &HashMap<ValueId, Vec<usize>>,
    layer: usize,
    part: ValueId,
    reader: usize,
) -> Option<HashSet<usize>> {
    let output = graph.nodes[layer].output;
    let rows = *graph.shape(output).last()?;
    // f32 counts rows exactly up to here; no layer is wider.
    if rows > 1 << 24 {
        return None;
    }
    let labels: Vec<f32> = (0..graph.shape(output).iter().product())
        .map(|i: usize| (i % rows) as f32)
        .collect();
    let (mut read, mut others) = (None, HashSet::new());
    let mut open = vec![(output, labels)];
    while let Some((v, labels)) = open.pop() {
        let set = || {
            labels
                .iter()
                .map(|&l| l as usize)
                .collect::<HashSet<usize>>()
        };
        if graph.outputs.iter().any(|p| p.value == v) {
            others.extend(set());
        }
        for &i in consumers.get(&v).map_or(&[][..], |c| c) {
            let node = &graph.nodes[i];
            if i == reader && v == part {
                // Both operands are the part: it would be scaled twice.
                if read.replace(set()).is_some() {
                    return None;
                }
            } else if let Some(moved) = fold::moved(&node.op, &labels, graph.shape(v)) {
                open.push((node.output, moved));
            } else {
                others.extend(set());
            }
        }
    }
    read.filter(|rows| rows.is_disjoint(&others))
}
