//! Slices rise towards the layer whose result they take apart.
//!
//! Queries, keys and values come out of one linear layer in two packings, and exporters cut them with
//! reshapes and slices along several axes. Afterwards each is one slice of the layer's last axis, followed by a
//! reshape.

use super::edit::{Edit, Verdict, sweep};
use super::layout::Groups;
use crate::graph::{Graph, GraphError, Node, Op, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    Ok(unpack(graph)? + sweep(graph, rise)?)
}

fn slice(axis: usize, start: usize, len: usize) -> Op {
    Op::Slice {
        axis,
        start,
        len,
        step: 1,
    }
}

/// A slice of a slice or of a reshape.
fn rise(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Op::Slice {
        axis,
        start,
        len,
        step: 1,
    } = node.op
    else {
        return Ok(None);
    };
    let Some(earlier) = edit.producer(node.inputs[0]).cloned() else {
        return Ok(None);
    };
    let x = *earlier.inputs.first().unwrap_or(&node.inputs[0]);
    match earlier.op {
        Op::Slice {
            axis: other,
            start: first,
            step: 1,
            ..
        } if other == axis => edit
            .push(&node.name, slice(axis, first + start, len), &[x])
            .map(Some),
        // The outer axis comes first.
        Op::Slice { axis: other, .. } if axis < other => {
            let x = edit.push(&node.name, slice(axis, start, len), &[x])?;
            edit.push(&earlier.name, earlier.op, &[x]).map(Some)
        }
        Op::Reshape(to) => {
            let Some((from, unit)) = outermost(edit.shape(x), &to, axis) else {
                return Ok(None);
            };
            if from + 1 != edit.shape(x).len() {
                return Ok(None);
            }
            let shape = edit.shape(node.output).to_vec();
            let x = edit.push(&node.name, slice(from, start * unit, len * unit), &[x])?;
            edit.push(&format!("{}.shape", node.name), Op::Reshape(shape), &[x])
                .map(Some)
        }
        _ => Ok(None),
    }
}

/// Where an axis of a reshape's result is the outermost of those that one dimension is split into: that
/// dimension, and how many of its elements one index of the axis stands for.
fn outermost(from: &[usize], to: &[usize], axis: usize) -> Option<(usize, usize)> {
    let groups = Groups::of(from, to);
    let (source, result) = groups.with(axis)?;
    let outer: usize = to[result.start..axis].iter().product();
    let inner: usize = to[axis + 1..result.end].iter().product();
    (source.len() == 1 && outer == 1 && to[axis] > 1).then_some((source.start, inner))
}

/// Layers that pack their parts head by head get them one after the other: `[.., h, q | k | v]` becomes
/// `[.., q | k | v]` with heads inside, by another order of the weights' rows.
fn unpack(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    while let Some(packed) = (0..graph.nodes.len()).find_map(|at| Packed::find(graph, at)) {
        packed.apply(graph)?;
        changes += 1;
    }
    Ok(changes)
}

/// A linear layer, its reshape to `[.., heads, size]`, and slices of the last axis only.
struct Packed {
    layer: usize,
    reshape: usize,
    slices: Vec<usize>,
    heads: usize,
    /// Ranges of the last axis, ascending; together they are all of it.
    parts: Vec<(usize, usize)>,
}

impl Packed {
    fn find(graph: &Graph, reshape: usize) -> Option<Packed> {
        let node = &graph.nodes[reshape];
        let Op::Reshape(to) = &node.op else {
            return None;
        };
        let [.., heads, size] = to[..] else {
            return None;
        };
        let consumers = graph.consumers();
        let is_output = |v: ValueId| graph.outputs.iter().any(|p| p.value == v);
        let layer = graph.producers().get(&node.inputs[0]).copied()?;
        let plain = matches!(
            graph.nodes[layer].op,
            Op::Linear {
                residual: false,
                activation: None
            }
        );
        let packs = heads > 1 && graph.shape(node.inputs[0]).last() == Some(&(heads * size));
        let private = consumers[&node.inputs[0]].len() == 1
            && !is_output(node.inputs[0])
            && !is_output(node.output);
        let slices = consumers.get(&node.output)?.clone();
        let mut parts = Vec::new();
        for &i in &slices {
            match graph.nodes[i].op {
                Op::Slice {
                    axis,
                    start,
                    len,
                    step: 1,
                } if axis + 1 == to.len() && len < size => parts.push((start, start + len)),
                _ => return None,
            }
        }
        parts.sort_unstable();
        parts.dedup();
        let mut end = 0;
        for &(from, to) in &parts {
            if from != end {
                return None;
            }
            end = to;
        }
        (plain && packs && private && end == size).then_some(Packed {
            layer,
            reshape,
            slices,
            heads,
            parts,
        })
    }

    fn apply(self, graph: &mut Graph) -> Result<(), GraphError> {
        let size = self.parts.last().map_or(0, |p| p.1);
        // Rows in their new order.
        let order: Vec<usize> = self
            .parts
            .iter()
            .flat_map(|&(from, to)| {
                (0..self.heads).flat_map(move |h| (from..to).map(move |i| h * size + i))
            })
            .collect();
        for operand in 1..3 {
            let value = graph.value(graph.nodes[self.layer].inputs[operand]).clone();
            let Some(data) = &value.data else { continue };
            let row = data.len() / order.len();
            let rows = order.iter().flat_map(|&r| &data[r * row..(r + 1) * row]);
            let moved = graph.constant_value(&value.name, &value.shape, rows.copied().collect());
            graph.nodes[self.layer].inputs[operand] = moved;
        }
        // Each slice becomes one of the layer, and a reshape in its place.
        let x = graph.nodes[self.layer].output;
        let axis = graph.shape(x).len() - 1;
        let mut added = Vec::new();
        for &i in &self.slices {
            let Op::Slice { start, len, .. } = graph.nodes[i].op else {
                continue;
            };
            let name = format!("{}.part", graph.nodes[i].name);
            let op = slice(axis, self.heads * start, self.heads * len);
            let part = graph.push(&name, op, &[x])?;
            added.extend(graph.nodes.pop());
            let shape = graph.shape(graph.nodes[i].output).to_vec();
            graph.nodes[i].op = Op::Reshape(shape);
            graph.nodes[i].inputs = vec![part];
        }
        graph.nodes.splice(self.reshape..=self.reshape, added);
        Ok(())
    }
}
