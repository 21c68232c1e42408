//! Dead code: nodes that no output needs, and values that no node has.

use std::collections::{HashMap, HashSet};

use crate::graph::{Graph, GraphError, ValueId};

/// Drops unused nodes and values; values are numbered anew.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut needed: HashSet<ValueId> = graph.outputs.iter().map(|p| p.value).collect();
    for node in graph.nodes.iter().rev() {
        if needed.contains(&node.output) {
            needed.extend(&node.inputs);
        }
    }
    let before = graph.nodes.len();
    graph.nodes.retain(|n| needed.contains(&n.output));
    needed.extend(graph.inputs.iter().map(|p| p.value));
    if needed.len() < graph.values.len() {
        renumber(graph, &needed);
    }
    Ok(before - graph.nodes.len())
}

fn renumber(graph: &mut Graph, needed: &HashSet<ValueId>) {
    let mut to: HashMap<ValueId, ValueId> = HashMap::new();
    let values = std::mem::take(&mut graph.values);
    for (i, value) in values.into_iter().enumerate() {
        let id = ValueId(i as u32);
        if needed.contains(&id) {
            to.insert(id, ValueId(graph.values.len() as u32));
            graph.values.push(value);
        }
    }
    for node in &mut graph.nodes {
        node.output = to[&node.output];
        node.inputs.iter_mut().for_each(|v| *v = to[v]);
    }
    for port in graph.inputs.iter_mut().chain(&mut graph.outputs) {
        port.value = to[&port.value];
    }
}
