//! Transposes at the border of the graph become part of its ports.

use crate::graph::{Graph, GraphError, Op, inverse};
use crate::passes::dead;

/// Absorbs transposes into input and output ports; gives their number.
pub(super) fn absorb(graph: &mut Graph) -> Result<usize, GraphError> {
    let changes = outputs(graph) + inputs(graph);
    if changes > 0 {
        dead::run(graph)?;
    }
    Ok(changes)
}

fn outputs(graph: &mut Graph) -> usize {
    let producers = graph.producers();
    let mut changes = 0;
    for port in &mut graph.outputs {
        let Some(node) = producers.get(&port.value).map(|&i| &graph.nodes[i]) else {
            continue;
        };
        if let Op::Transpose(perm) = &node.op {
            port.layout.iter_mut().for_each(|d| *d = perm[*d]);
            port.value = node.inputs[0];
            changes += 1;
        }
    }
    changes
}

/// An input that only equal transposes read is stored as they give it.
fn inputs(graph: &mut Graph) -> usize {
    let consumers = graph.consumers();
    let mut changes = 0;
    for i in 0..graph.inputs.len() {
        let value = graph.inputs[i].value;
        let readers = consumers.get(&value).map_or(&[][..], |r| r);
        let perm = match readers.first().map(|&r| &graph.nodes[r].op) {
            Some(Op::Transpose(perm)) => perm.clone(),
            _ => continue,
        };
        let equal = readers
            .iter()
            .all(|&r| graph.nodes[r].op == Op::Transpose(perm.clone()));
        if !equal || graph.outputs.iter().any(|p| p.value == value) {
            continue;
        }
        let back = inverse(&perm);
        graph.inputs[i]
            .layout
            .iter_mut()
            .for_each(|d| *d = back[*d]);
        let shape: Vec<usize> = perm.iter().map(|&p| graph.shape(value)[p]).collect();
        graph.value_mut(value).shape = shape;
        let results: Vec<_> = readers.iter().map(|&r| graph.nodes[r].output).collect();
        for v in graph
            .nodes
            .iter_mut()
            .flat_map(|n| &mut n.inputs)
            .chain(graph.outputs.iter_mut().map(|p| &mut p.value))
        {
            if results.contains(v) {
                *v = value;
            }
        }
        graph.nodes.retain(|n| !results.contains(&n.output));
        changes += 1;
        // Node indices have moved; the next round of the pass takes the next input.
        return changes;
    }
    changes
}
