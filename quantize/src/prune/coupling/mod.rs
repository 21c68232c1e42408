//! Which channels of a graph can only be cut together.
//!
//! An axis of a tensor is a product of *factors*: the result of a packed projection has three lanes times heads times
//! channels of a head, and a reshape shows which. Operators make factors of several tensors one
//! (an addition all, a convolution its channels, a product of matrices what it sums over). What is known of one
//! index is then known of all tensors that have the factor: a *channel* is all that goes with an index, over
//! weights, biases, norms and activations. Concatenation and slices tie single indices instead of whole factors.
//! After "DepGraph: Towards Any Structural Pruning" (Fang et al., 2023), by axes in place of pairs of layers.

mod factors;
mod spread;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::graph::{Graph, ValueId};
use spread::Spread;

/// What can be cut of a graph.
#[derive(Debug)]
pub struct Coupling {
    /// Groups of channels of which all but one can go, in order of the first node that has them.
    pub groups: Vec<Group>,
    /// Per value and axis, the channels that each index belongs to.
    indices: Vec<Vec<Vec<Vec<usize>>>>,
}

/// Channels that stand side by side: hidden units of a layer, heads of an attention, channels of a map with all
/// that adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name of the first node whose result has them.
    pub name: String,
    /// What they are.
    pub kind: GroupKind,
    /// Their numbers, which [`cut`](super::cut()) takes.
    pub channels: Vec<usize>,
}

/// What the channels of a group are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupKind {
    /// Channels of maps, or hidden units of linear layers.
    Channels,
    /// Heads of an attention.
    Heads,
    /// Channels of each head's queries and keys, or of its values.
    HeadChannels,
}

impl Coupling {
    /// Of a graph before fusion ([`passes::rewrite`](crate::passes::rewrite)): what is fused keeps all it has.
    pub fn new(graph: &Graph) -> Self {
        let mut spread = Spread::new(graph);
        let mut indices = vec![Vec::new(); graph.values.len()];
        let used: BTreeSet<ValueId> = graph
            .nodes
            .iter()
            .flat_map(|n| n.inputs.iter().copied().chain([n.output]))
            .collect();
        let mut sets: BTreeMap<Vec<usize>, (String, GroupKind)> = BTreeMap::new();
        let mut order = Vec::new();
        for node in &graph.nodes {
            let axes = spread.of(node.output);
            for axis in axes {
                let factors = spread.factors.resolved(&axis);
                let kind = |i: usize| match factors.len() {
                    1 => GroupKind::Channels,
                    n if i + 1 == n => GroupKind::HeadChannels,
                    _ => GroupKind::Heads,
                };
                for (i, &f) in factors.iter().enumerate() {
                    let Some(channels) = spread.factors.free(f) else {
                        continue;
                    };
                    if !sets.contains_key(&channels) {
                        order.push(channels.clone());
                    }
                    let known = sets
                        .entry(channels)
                        .or_insert_with(|| (node.name.clone(), kind(i)));
                    known.1 = known.1.max(kind(i));
                }
            }
        }
        for &value in &used {
            let axes = spread.of(value);
            let channels = |axis| spread.factors.channels(axis);
            indices[value.0 as usize] = axes.iter().map(channels).collect();
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut seen = BTreeSet::new();
        for all in order {
            let (name, kind) = &sets[&all];
            // A concatenation of groups has no channels of its own.
            let own = all.iter().copied().filter(|&c| seen.insert(c));
            let channels: Vec<usize> = own.collect();
            if channels.len() > 1 {
                groups.push(Group {
                    name: name.clone(),
                    kind: *kind,
                    channels,
                });
            }
        }
        Coupling { groups, indices }
    }

    /// For each index of an axis of a value the channels that it goes with: it stays while none of them is cut.
    pub fn of(&self, value: ValueId, axis: usize) -> &[Vec<usize>] {
        &self.indices[value.0 as usize][axis]
    }

    /// Group and place of each channel.
    pub fn places(&self) -> HashMap<usize, (usize, usize)> {
        let groups = self.groups.iter().enumerate();
        let place = |(g, group): (usize, &Group)| {
            let channels = group.channels.iter().enumerate();
            channels.map(|(i, &c)| (c, (g, i))).collect::<Vec<_>>()
        };
        groups.flat_map(place).collect()
    }
}
