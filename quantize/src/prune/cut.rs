//! Cutting channels out of a graph.

use std::collections::HashSet;

use super::{Coupling, PruneError};
use crate::graph::{Graph, Node, Op, ValueId};

/// The graph without some channels: weights, biases and norms lose their indices, and sizes in operators follow.
///
/// What is left computes what the whole graph would if nothing read the channels that are gone.
///
/// # Errors
///
/// [`PruneError::Inconsistent`] when the channels are not those of `coupling`'s groups.
pub fn cut(
    graph: &Graph,
    coupling: &Coupling,
    channels: &HashSet<usize>,
) -> Result<Graph, PruneError> {
    let cut = Cut {
        graph,
        coupling,
        channels,
    };
    let mut out = Graph {
        values: graph.values.clone(),
        ..Graph::default()
    };
    let read: HashSet<ValueId> = graph.nodes.iter().flat_map(|n| n.inputs.clone()).collect();
    for id in read {
        if let Some(data) = graph.constant(id) {
            let (shape, data) = cut.constant(id, data);
            let value = out.value_mut(id);
            value.shape = shape;
            value.data = Some(data.into());
        }
    }
    out.inputs = graph.inputs.clone();
    for node in &graph.nodes {
        let op = cut.op(node, &out)?;
        let shape = crate::graph::infer_shape(&out, &node.name, &op, &node.inputs)?;
        if shape != cut.shape(node.output) {
            return Err(PruneError::Inconsistent {
                node: node.name.clone(),
                expected: cut.shape(node.output),
                got: shape,
            });
        }
        out.value_mut(node.output).shape = shape;
        out.nodes.push(Node { op, ..node.clone() });
    }
    out.outputs = graph.outputs.clone();
    Ok(out)
}

struct Cut<'a> {
    graph: &'a Graph,
    coupling: &'a Coupling,
    channels: &'a HashSet<usize>,
}

impl Cut<'_> {
    /// Which indices of an axis stay.
    fn stay(&self, value: ValueId, axis: usize) -> Vec<bool> {
        let of = self.coupling.of(value, axis).iter();
        of.map(|channels| !channels.iter().any(|c| self.channels.contains(c)))
            .collect()
    }

    /// How many of the first `n` indices of an axis stay.
    fn before(&self, value: ValueId, axis: usize, n: usize) -> usize {
        self.stay(value, axis)[..n].iter().filter(|&&s| s).count()
    }

    fn shape(&self, value: ValueId) -> Vec<usize> {
        let shape = self.graph.shape(value).iter().enumerate();
        shape
            .map(|(axis, &n)| self.before(value, axis, n))
            .collect()
    }

    /// A constant's elements whose indices all stay.
    fn constant(&self, value: ValueId, data: &[f32]) -> (Vec<usize>, Vec<f32>) {
        let shape = self.graph.shape(value);
        let (mut data, mut done) = (data.to_vec(), 1);
        // Axis by axis, the last first, so that the stride of the next is known.
        for axis in (0..shape.len()).rev() {
            let stay = self.stay(value, axis);
            if stay.iter().any(|s| !s) {
                let rows = data.chunks_exact(done).zip(stay.iter().cycle());
                data = rows
                    .filter(|(_, s)| **s)
                    .flat_map(|(row, _)| row.to_vec())
                    .collect();
            }
            done *= stay.iter().filter(|&&s| s).count();
        }
        (self.shape(value), data)
    }

    /// The operator with the sizes of what is left.
    fn op(&self, node: &Node, out: &Graph) -> Result<Op, PruneError> {
        let mut op = node.op.clone();
        match &mut op {
            Op::Conv { groups, .. } if *groups > 1 => {
                let per_group = out.shape(node.inputs[1])[3];
                *groups = out.shape(node.inputs[0])[3] / per_group.max(1);
            }
            Op::Reshape(to) | Op::Broadcast(to) => *to = self.shape(node.output),
            Op::Slice {
                axis,
                start,
                len,
                step,
            } => {
                let x = node.inputs[0];
                let last = (*start as isize + (*len as isize - 1) * *step) as usize;
                let (from, to) = ((*start).min(last), (*start).max(last));
                if *step == 1 {
                    let first = self.before(x, *axis, from);
                    *len = self.before(x, *axis, to + 1) - first;
                    *start = first;
                } else if self.stay(x, *axis).contains(&false) {
                    return Err(PruneError::Strided {
                        node: node.name.clone(),
                    });
                }
            }
            _ => {}
        }
        Ok(op)
    }
}
