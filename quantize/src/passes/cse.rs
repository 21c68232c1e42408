//! Common sub-expressions: equal constants and equal nodes become one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::edit::sweep;
use crate::graph::{Graph, GraphError, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    share_constants(graph);
    let seen: RefCell<HashMap<(String, Vec<ValueId>), ValueId>> = RefCell::new(HashMap::new());
    sweep(graph, |_, node| {
        // Operators have no hash of their own; their debug form says all there is to say.
        let key = (format!("{:?}", node.op), node.inputs.clone());
        let mut seen = seen.borrow_mut();
        match seen.get(&key) {
            Some(&earlier) => Ok(Some(earlier)),
            None => {
                seen.insert(key, node.output);
                Ok(None)
            }
        }
    })
}

/// Lets equal constants be the same value. This is not counted as a change: nothing else follows from it
/// than from the nodes that become equal.
fn share_constants(graph: &mut Graph) {
    let mut seen: HashMap<u64, Vec<ValueId>> = HashMap::new();
    let mut to: HashMap<ValueId, ValueId> = HashMap::new();
    for (i, value) in graph.values.iter().enumerate() {
        let Some(data) = &value.data else { continue };
        let id = ValueId(i as u32);
        let mut hash = DefaultHasher::new();
        value.shape.hash(&mut hash);
        data.iter().for_each(|x| x.to_bits().hash(&mut hash));
        let candidates = seen.entry(hash.finish()).or_default();
        let equal = |other: &&ValueId| {
            let other = graph.value(**other);
            let bits = |d: &[f32]| d.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            other.shape == value.shape && other.data.as_ref().is_some_and(|d| bits(d) == bits(data))
        };
        match candidates.iter().find(equal) {
            Some(&same) => {
                to.insert(id, same);
            }
            None => candidates.push(id),
        }
    }
    for v in graph.nodes.iter_mut().flat_map(|n| &mut n.inputs) {
        *v = to.get(v).copied().unwrap_or(*v);
    }
}
