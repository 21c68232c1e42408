//! What rewriting of graphs needs: who reads what, and a copy that grows.

use std::collections::HashMap;

use ampoule_distill_kernels::graph::{Graph, Kind, Node, Op, ParameterId, Value};

/// Who makes and who reads values, and how often parameters are used.
pub(super) struct Neighbours {
    producers: HashMap<Value, usize>,
    /// Nodes, and `None` for an output of the graph.
    readers: HashMap<Value, Vec<Option<usize>>>,
    uses: HashMap<ParameterId, usize>,
}

impl Neighbours {
    pub fn of(graph: &Graph) -> Self {
        let mut all = Neighbours {
            producers: HashMap::new(),
            readers: HashMap::new(),
            uses: HashMap::new(),
        };
        for (i, node) in graph.nodes().iter().enumerate() {
            all.producers.insert(node.output, i);
            for &input in &node.inputs {
                all.readers.entry(input).or_default().push(Some(i));
            }
            for parameter in convolution(&node.op).into_iter().flatten() {
                *all.uses.entry(parameter).or_default() += 1;
            }
        }
        for &output in graph.outputs() {
            all.readers.entry(output).or_default().push(None);
        }
        all
    }

    /// The node that makes a value.
    pub fn producer(&self, value: Value) -> Option<usize> {
        self.producers.get(&value).copied()
    }

    /// Who reads a value, `None` for the user of the graph.
    pub fn readers(&self, value: Value) -> &[Option<usize>] {
        self.readers.get(&value).map_or(&[], Vec::as_slice)
    }

    /// Whether it is a convolution whose parameters no other has.
    pub fn owns_kernel(&self, op: &Op) -> bool {
        let parameters = convolution(op);
        let mut used = parameters.into_iter().flatten().map(|p| self.uses[&p]);
        parameters[0].is_some() && used.all(|n| n == 1)
    }
}

/// Weight and bias of a convolution.
fn convolution(op: &Op) -> [Option<ParameterId>; 2] {
    match op {
        Op::Conv { weight, bias, .. } | Op::Depthwise { weight, bias, .. } => {
            [Some(*weight), *bias]
        }
        _ => [None, None],
    }
}

/// A copy of a graph that grows node by node. Parameters stay where they are, also those that lose their
/// readers.
pub(super) struct Rewrite {
    pub graph: Graph,
    pub values: Vec<Vec<f32>>,
    map: HashMap<Value, Value>,
}

impl Rewrite {
    /// With the inputs and parameters of a graph.
    pub fn of(old: &Graph, values: &[Vec<f32>]) -> Self {
        let mut graph = Graph::new();
        for p in old.parameters() {
            graph.parameter(&p.name, &p.shape, p.kind);
        }
        let inputs = old.inputs().iter();
        let map = inputs.map(|&v| (v, graph.input(old.map(v)))).collect();
        Rewrite {
            graph,
            values: values.to_vec(),
            map,
        }
    }

    /// What the inputs of an old node are by now.
    pub fn inputs(&self, node: &Node) -> Vec<Value> {
        node.inputs.iter().map(|&v| self.get(v)).collect()
    }

    /// What an old value is by now.
    pub fn get(&self, old: Value) -> Value {
        self.map[&old]
    }

    /// Says what an old value is from now on.
    pub fn set(&mut self, old: Value, new: Value) {
        self.map.insert(old, new);
    }

    /// Adds a parameter, under a name with a number where it is taken.
    pub fn parameter(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> ParameterId {
        let taken = |name: &str| self.graph.parameters().iter().any(|p| p.name == name);
        let numbered = (1..).map(|i| format!("{name}_{i}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let free = names.find(|n| !taken(n)).unwrap_or_default();
        self.values.push(values);
        self.graph.parameter(free, shape, Kind::Undecayed)
    }

    /// The copy, with the outputs of the old graph.
    pub fn finish(mut self, old: &Graph) -> (Graph, Vec<Vec<f32>>) {
        for output in old.outputs() {
            self.graph.output(self.map[output]);
        }
        (self.graph, self.values)
    }
}
