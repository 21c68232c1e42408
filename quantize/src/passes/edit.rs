//! How passes rewrite a graph: one sweep over the nodes in execution order.

use std::collections::{HashMap, HashSet};

use super::dead;
use crate::graph::{Graph, GraphError, Node, Op, ValueId};

/// A graph while a sweep rewrites it: the nodes so far, and what is known of the others.
///
/// A rule sees each node with its operands already rewritten. It may add nodes before it, change nodes
/// before it, and give the value that takes the place of the node's result.
pub(super) struct Edit<'g> {
    graph: &'g mut Graph,
    producers: HashMap<ValueId, usize>,
    /// Readers of each value, outputs of the graph included. Never too small.
    uses: HashMap<ValueId, usize>,
    replaced: HashMap<ValueId, ValueId>,
    changes: usize,
}

/// What a rule says about a node: the value that replaces its result, or nothing.
pub(super) type Verdict = Result<Option<ValueId>, GraphError>;

/// Applies `rule` to each node once, in order, and drops what it leaves unused. Gives the number of
/// changes.
pub(super) fn sweep(
    graph: &mut Graph,
    rule: impl Fn(&mut Edit<'_>, &Node) -> Verdict,
) -> Result<usize, GraphError> {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut uses = HashMap::new();
    for &v in nodes
        .iter()
        .flat_map(|n| &n.inputs)
        .chain(graph.outputs.iter().map(|p| &p.value))
    {
        *uses.entry(v).or_insert(0) += 1;
    }
    let mut edit = Edit {
        graph,
        producers: HashMap::new(),
        uses,
        replaced: HashMap::new(),
        changes: 0,
    };
    for mut node in nodes {
        for v in &mut node.inputs {
            *v = edit.current(*v);
        }
        match rule(&mut edit, &node)? {
            Some(value) => edit.replace(&node, value),
            None => edit.keep(node),
        }
    }
    let (changes, replaced) = (edit.changes, edit.replaced);
    for port in &mut graph.outputs {
        port.value = resolve(&replaced, port.value);
    }
    if changes > 0 {
        unique_names(graph);
        dead::run(graph)?;
    }
    Ok(changes)
}

impl Edit<'_> {
    pub fn shape(&self, v: ValueId) -> &[usize] {
        self.graph.shape(v)
    }

    pub fn len(&self, v: ValueId) -> usize {
        self.shape(v).iter().product()
    }

    pub fn constant(&self, v: ValueId) -> Option<&[f32]> {
        self.graph.constant(v).map(|d| &d[..])
    }

    /// The node that produces a value.
    pub fn producer(&self, v: ValueId) -> Option<&Node> {
        self.producers.get(&v).map(|&i| &self.graph.nodes[i])
    }

    /// The node that produces a value, to change. The result's shape must stay.
    pub fn producer_mut(&mut self, v: ValueId) -> Option<&mut Node> {
        self.changes += 1;
        self.producers.get(&v).map(|&i| &mut self.graph.nodes[i])
    }

    /// Whether a value has one reader only.
    pub fn is_private(&self, v: ValueId) -> bool {
        self.uses.get(&v).is_some_and(|&n| n == 1)
    }

    /// Adds a node.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        let value = self.graph.push(name, op, inputs)?;
        self.producers.insert(value, self.graph.nodes.len() - 1);
        inputs.iter().for_each(|&v| self.read(v));
        Ok(value)
    }

    /// Counts a reader that a changed node has gained.
    pub fn read(&mut self, v: ValueId) {
        *self.uses.entry(v).or_insert(0) += 1;
    }

    /// Adds a constant.
    pub fn constant_value(&mut self, name: &str, shape: &[usize], data: Vec<f32>) -> ValueId {
        self.graph.constant_value(name, shape, data)
    }

    /// Takes the node that produces `v` to the end of the nodes so far, after anything it is to read.
    pub fn postpone(&mut self, v: ValueId) {
        let Some(&at) = self.producers.get(&v) else {
            return;
        };
        let node = self.graph.nodes.remove(at);
        self.graph.nodes.push(node);
        for index in self.producers.values_mut().filter(|i| **i > at) {
            *index -= 1;
        }
        self.producers.insert(v, self.graph.nodes.len() - 1);
    }

    /// Index of the node that produces `v` among the nodes so far.
    pub fn position(&self, v: ValueId) -> Option<usize> {
        self.producers.get(&v).copied()
    }

    /// The value that `v` has been replaced by, or itself.
    fn current(&self, v: ValueId) -> ValueId {
        resolve(&self.replaced, v)
    }

    fn replace(&mut self, node: &Node, value: ValueId) {
        debug_assert_eq!(
            self.shape(node.output),
            self.shape(value),
            "replacement of {}",
            node.name
        );
        for v in &node.inputs {
            if let Some(n) = self.uses.get_mut(v) {
                *n -= 1;
            }
        }
        let readers = self.uses.remove(&node.output).unwrap_or(0);
        *self.uses.entry(value).or_insert(0) += readers;
        self.replaced.insert(node.output, value);
        self.changes += 1;
    }

    fn keep(&mut self, node: Node) {
        self.producers.insert(node.output, self.graph.nodes.len());
        self.graph.nodes.push(node);
    }
}

fn resolve(replaced: &HashMap<ValueId, ValueId>, mut v: ValueId) -> ValueId {
    while let Some(&next) = replaced.get(&v) {
        v = next;
    }
    v
}

fn unique_names(graph: &mut Graph) {
    let mut taken: HashSet<String> = HashSet::with_capacity(graph.nodes.len());
    for node in &mut graph.nodes {
        let base = node.name.clone();
        for n in 2.. {
            if taken.insert(node.name.clone()) {
                break;
            }
            node.name = format!("{base}.{n}");
        }
    }
}
