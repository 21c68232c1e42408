//! Batch norms as part of convolutions.

use std::collections::HashMap;

use ampoule_distill_kernels::graph::{
    BatchNorm, Graph, GraphError, Kind, Node, Op, ParameterId, Value,
};

/// The same network with its batch norms, in the form for inference, inside convolutions: the convolution
/// in front of the norm, or a dense one without padding behind it, where nothing else reads what is
/// between. Norms without such a neighbour stay. Parameters stay where they are, those of folded norms
/// without a reader; biases that convolutions did not have are added.
pub(super) fn fold_norms(
    graph: &Graph,
    values: &[Vec<f32>],
) -> Result<(Graph, Vec<Vec<f32>>), GraphError> {
    let neighbours = Neighbours::of(graph);
    let (mut before, mut after) = (HashMap::new(), HashMap::new());
    let mut new = Folded {
        graph: Graph::new(),
        values: values.to_vec(),
    };
    let mut values_of: HashMap<Value, Value> = HashMap::new();
    for p in graph.parameters() {
        new.graph.parameter(&p.name, &p.shape, p.kind);
    }
    for &input in graph.inputs() {
        values_of.insert(input, new.graph.input(graph.map(input)));
    }
    let mut gone = vec![false; graph.nodes().len()];
    for (i, node) in graph.nodes().iter().enumerate() {
        if let Op::BatchNorm(norm) = &node.op {
            let affine = Affine::of(norm, values);
            if let Some(conv) = neighbours.in_front(graph, node) {
                after.insert(conv, affine);
                gone[i] = true;
            } else if let Some(conv) = neighbours.behind(graph, node) {
                before.insert(conv, affine);
                gone[i] = true;
            }
        }
    }
    for (i, node) in graph.nodes().iter().enumerate() {
        let inputs: Vec<Value> = node.inputs.iter().map(|v| values_of[v]).collect();
        let value = match gone[i] {
            true => inputs[0],
            false => {
                let op = match (before.remove(&i), after.remove(&i)) {
                    (None, None) => node.op.clone(),
                    (before, after) => new.conv(&node.op, before, after),
                };
                new.graph.push(&node.name, op, &inputs)?
            }
        };
        values_of.insert(node.output, value);
    }
    for output in graph.outputs() {
        new.graph.output(values_of[output]);
    }
    Ok((new.graph, new.values))
}

/// A factor and an addend per channel.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    /// Of a batch norm with running statistics.
    fn of(norm: &BatchNorm, values: &[Vec<f32>]) -> Affine {
        let at = |p: ParameterId, c: usize| f64::from(values[p.0][c]);
        let channels = 0..values[norm.weight.0].len();
        let scale =
            |c| at(norm.weight, c) / (at(norm.variance, c) + f64::from(norm.epsilon)).sqrt();
        let shift = |c| at(norm.bias, c) - at(norm.mean, c) * scale(c);
        Affine {
            scale: channels.clone().map(scale).collect(),
            shift: channels.map(shift).collect(),
        }
    }
}

/// Who makes and who reads values, and how often parameters are used.
struct Neighbours {
    producer: HashMap<Value, usize>,
    /// Nodes, and `None` for an output of the graph.
    readers: HashMap<Value, Vec<Option<usize>>>,
    uses: HashMap<ParameterId, usize>,
}

impl Neighbours {
    fn of(graph: &Graph) -> Self {
        let mut all = Neighbours {
            producer: HashMap::new(),
            readers: HashMap::new(),
            uses: HashMap::new(),
        };
        for (i, node) in graph.nodes().iter().enumerate() {
            all.producer.insert(node.output, i);
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

    /// The convolution that only this norm reads.
    fn in_front(&self, graph: &Graph, norm: &Node) -> Option<usize> {
        let conv = *self.producer.get(&norm.inputs[0])?;
        let alone = self.readers[&norm.inputs[0]].len() == 1;
        (alone && self.own(&graph.nodes()[conv].op)).then_some(conv)
    }

    /// The only reader of this norm, when it is a dense convolution that pads nothing.
    fn behind(&self, graph: &Graph, norm: &Node) -> Option<usize> {
        let [Some(conv)] = self.readers.get(&norm.output)?[..] else {
            return None;
        };
        let op = &graph.nodes()[conv].op;
        let bare = matches!(op, Op::Conv { window, .. } if window.pads == [0; 4]);
        (bare && self.own(op)).then_some(conv)
    }

    /// Whether it is a convolution whose parameters no other has.
    fn own(&self, op: &Op) -> bool {
        let parameters = convolution(op);
        let mut used = parameters.into_iter().flatten().map(|p| self.uses[&p]);
        matches!(op, Op::Conv { .. } | Op::Depthwise { .. }) && used.all(|n| n == 1)
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

/// The graph without the norms.
struct Folded {
    graph: Graph,
    values: Vec<Vec<f32>>,
}

impl Folded {
    /// A convolution with what is in front of and behind it.
    fn conv(&mut self, op: &Op, before: Option<Affine>, after: Option<Affine>) -> Op {
        let mut op = op.clone();
        let (Op::Conv { weight, bias, .. } | Op::Depthwise { weight, bias, .. }) = &mut op else {
            return op;
        };
        let parameter = &self.graph.parameters()[weight.0];
        let out = parameter.shape[0];
        let mut offsets: Vec<f64> = match bias {
            Some(bias) => self.values[bias.0].iter().map(|&b| b.into()).collect(),
            None => vec![0.0; out],
        };
        let kernel = &mut self.values[weight.0];
        let size = (kernel.len() / out.max(1)).max(1);
        for (o, kernel) in kernel.chunks_exact_mut(size).enumerate() {
            if let Some(Affine { scale, shift }) = &before {
                let taps = (size / scale.len().max(1)).max(1);
                for (c, kernel) in kernel.chunks_exact_mut(taps).enumerate() {
                    let sum: f64 = kernel.iter().map(|&k| f64::from(k)).sum();
                    offsets[o] += sum * shift[c];
                    scale_all(kernel, scale[c]);
                }
            }
            if let Some(Affine { scale, shift }) = &after {
                scale_all(kernel, scale[o]);
                offsets[o] = offsets[o] * scale[o] + shift[o];
            }
        }
        let offsets = offsets.into_iter().map(|b| b as f32).collect();
        match bias {
            Some(bias) => self.values[bias.0] = offsets,
            None => {
                let layer = parameter.name.strip_suffix(".weight");
                let name = format!("{}.bias", layer.unwrap_or(&parameter.name));
                *bias = Some(self.graph.parameter(name, &[out], Kind::Undecayed));
                self.values.push(offsets);
            }
        }
        op
    }
}

fn scale_all(kernel: &mut [f32], factor: f64) {
    kernel
        .iter_mut()
        .for_each(|k| *k = (f64::from(*k) * factor) as f32);
}
