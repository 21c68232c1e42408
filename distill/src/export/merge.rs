//! Convolutions side by side as one ("structural re-parameterisation", Ding et al., "RepVGG: Making
//! VGG-style ConvNets Great Again", 2021).

use ampoule_distill_kernels::graph::{Graph, GraphError, Op, Value};
use ampoule_distill_kernels::ops::Window;

use super::fold::Affine;
use super::rewrite::{Neighbours, Rewrite};

/// The same network with one convolution for each sum of convolutions, norms and shortcuts of one value:
/// smaller kernels sit inside the largest, norms and shortcuts in its centre.
pub(super) fn run(
    graph: &Graph,
    values: &[Vec<f32>],
) -> Result<(Graph, Vec<Vec<f32>>), GraphError> {
    let neighbours = Neighbours::of(graph);
    let mut gone = vec![false; graph.nodes().len()];
    let mut merged: Vec<Option<Merged<'_>>> = Vec::new();
    for (i, node) in graph.nodes().iter().enumerate() {
        let sum = matches!(node.op, Op::Add { .. });
        let found = sum.then(|| Merged::of(graph, &neighbours, i)).flatten();
        for branch in found.iter().flat_map(|m| &m.branches) {
            branch.node.iter().for_each(|&n| gone[n] = true);
        }
        merged.push(found);
    }
    let mut new = Rewrite::of(graph, values);
    for (i, node) in graph.nodes().iter().enumerate() {
        if gone[i] {
            continue;
        }
        let value = match &merged[i] {
            None => {
                let inputs = new.inputs(node);
                new.graph.push(&node.name, node.op.clone(), &inputs)?
            }
            Some(m) => {
                let op = m.op(graph, &node.name, &mut new);
                let source = new.get(m.source);
                let conv = new.graph.push(&node.name, op, &[source])?;
                match &m.others[..] {
                    [] => conv,
                    others => {
                        let mut inputs: Vec<Value> = others.iter().map(|&v| new.get(v)).collect();
                        inputs.push(conv);
                        new.graph.push(&node.name, node.op.clone(), &inputs)?
                    }
                }
            }
        };
        new.set(node.output, value);
    }
    Ok(new.finish(graph))
}

/// Branches of a sum that become one convolution.
struct Merged<'a> {
    source: Value,
    branches: Vec<Branch<'a>>,
    /// What else is added.
    others: Vec<Value>,
    window: Window,
}

/// A convolution, norm or, without node, the value itself.
struct Branch<'a> {
    node: Option<usize>,
    op: Option<&'a Op>,
    window: Window,
}

impl<'a> Merged<'a> {
    /// Of a sum, where it has two or more such branches.
    fn of(graph: &'a Graph, neighbours: &Neighbours, sum: usize) -> Option<Self> {
        let inputs = &graph.nodes()[sum].inputs;
        let branch = |value: Value| -> Option<(Value, Branch<'a>)> {
            let i = neighbours.producer(value)?;
            let node = &graph.nodes()[i];
            let window = match &node.op {
                Op::Conv { window, .. } | Op::Depthwise { window, .. } => *window,
                Op::BatchNorm(_) => Window::POINT,
                _ => return None,
            };
            let own = matches!(node.op, Op::BatchNorm(_)) || neighbours.owns_kernel(&node.op);
            let alone = neighbours.readers(value) == [Some(sum)];
            (own && alone).then_some((
                node.inputs[0],
                Branch {
                    node: Some(i),
                    op: Some(&node.op),
                    window,
                },
            ))
        };
        let found: Vec<_> = inputs.iter().map(|&v| branch(v)).collect();
        let source = found.iter().flatten().next()?.0;
        let mut merged = Merged {
            source,
            branches: Vec::new(),
            others: Vec::new(),
            window: Window::POINT,
        };
        for (&value, branch) in inputs.iter().zip(found) {
            match branch {
                Some((from, branch)) if from == source => merged.branches.push(branch),
                _ if value == source => merged.branches.push(Branch {
                    node: None,
                    op: None,
                    window: Window::POINT,
                }),
                _ => merged.others.push(value),
            }
        }
        let windows = merged.branches.iter().map(|b| b.window);
        merged.window = windows.max_by_key(Window::taps)?;
        let fit = merged
            .branches
            .iter()
            .all(|b| b.place(&merged.window).is_some());
        (merged.branches.len() > 1 && fit).then_some(merged)
    }

    /// The convolution, with its parameters.
    fn op(&self, graph: &Graph, name: &str, new: &mut Rewrite) -> Op {
        let c = graph.map(self.source).channels;
        let dense = |b: &&Branch<'_>| matches!(b.op, Some(Op::Conv { .. }));
        // Channels that each result reads, and results.
        let dense = self.branches.iter().find(dense).and_then(|b| b.node);
        let (inner, out) = match dense {
            Some(conv) => (c, graph.map(graph.nodes()[conv].output).channels),
            None => (1, c),
        };
        let taps = self.window.taps();
        let mut kernel = vec![0.0; out * inner * taps];
        let mut offsets = vec![0.0; out];
        for branch in &self.branches {
            branch.add(&self.window, inner, &new.values, &mut kernel, &mut offsets);
        }
        let [height, width] = self.window.kernel;
        let narrow = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect();
        let shape = [out, inner, height, width];
        let weight = new.parameter(&format!("{name}.weight"), &shape, narrow(kernel));
        let bias = Some(new.parameter(&format!("{name}.bias"), &[out], narrow(offsets)));
        let window = self.window;
        match dense {
            Some(_) => Op::Conv {
                weight,
                bias,
                window,
            },
            None => Op::Depthwise {
                weight,
                bias,
                window,
            },
        }
    }
}

impl Branch<'_> {
    /// Row and column of the branch's first place within a larger window, where the one is in the other.
    fn place(&self, within: &Window) -> Option<[usize; 2]> {
        let along = |i: usize| {
            let first = within.pads[i].checked_sub(self.window.pads[i])?;
            (first + self.window.kernel[i] <= within.kernel[i]).then_some(first)
        };
        let place = [along(0)?, along(1)?];
        (self.window.stride == within.stride).then_some(place)
    }

    /// Adds the branch to a kernel `[out, inner, taps]` and to the biases.
    fn add(
        &self,
        within: &Window,
        inner: usize,
        values: &[Vec<f32>],
        kernel: &mut [f64],
        offsets: &mut [f64],
    ) {
        let taps = within.taps();
        let [row, column] = self.place(within).unwrap_or_default();
        let at = |o: usize, i: usize, tap: usize| {
            let width = self.window.kernel[1];
            let place = (row + tap / width) * within.kernel[1] + column + tap % width;
            (o * inner + i) * taps + place
        };
        // The channel of its own that a result reads.
        let own = |o: usize| if inner == 1 { 0 } else { o };
        match self.op {
            Some(Op::Conv { weight, bias, .. }) => {
                let count = self.window.taps();
                for (n, &w) in values[weight.0].iter().enumerate() {
                    let (o, i) = (n / (inner * count), n / count % inner);
                    kernel[at(o, i, n % count)] += f64::from(w);
                }
                add_all(offsets, bias.map(|b| &values[b.0]));
            }
            Some(Op::Depthwise { weight, bias, .. }) => {
                let count = self.window.taps();
                for (n, &w) in values[weight.0].iter().enumerate() {
                    let o = n / count;
                    kernel[at(o, own(o), n % count)] += f64::from(w);
                }
                add_all(offsets, bias.map(|b| &values[b.0]));
            }
            Some(op) => {
                let affine = Affine::of(op, values);
                if let Some(Affine { scale, shift }) = affine {
                    for (o, (scale, shift)) in scale.into_iter().zip(shift).enumerate() {
                        kernel[at(o, own(o), 0)] += scale;
                        offsets[o] += shift;
                    }
                }
            }
            None => (0..offsets.len()).for_each(|o| kernel[at(o, own(o), 0)] += 1.0),
        }
    }
}

fn add_all(to: &mut [f64], from: Option<&Vec<f32>>) {
    for (to, from) in to.iter_mut().zip(from.into_iter().flatten()) {
        *to += f64::from(*from);
    }
}
