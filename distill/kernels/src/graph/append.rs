//! Several networks in one graph.

use super::{Graph, Op, ParameterId, Value};

impl Graph {
    /// Adds all of another graph, with `prefix` in front of its names: parameters, inputs and outputs come
    /// behind those that are there.
    pub fn append(&mut self, other: &Graph, prefix: &str) {
        let (values, parameters) = (self.values.len(), self.parameters.len());
        let moved = |v: &Value| Value(v.0 + values);
        self.values.extend(&other.values);
        self.inputs.extend(other.inputs.iter().map(moved));
        self.outputs.extend(other.outputs.iter().map(moved));
        for parameter in &other.parameters {
            let mut parameter = parameter.clone();
            parameter.name.insert_str(0, prefix);
            self.parameters.push(parameter);
        }
        for node in &other.nodes {
            let mut node = node.clone();
            node.name.insert_str(0, prefix);
            node.inputs.iter_mut().for_each(|v| *v = moved(v));
            node.output = moved(&node.output);
            node.op.parameters(|p| p.0 += parameters);
            self.nodes.push(node);
        }
    }

    /// Makes values no outputs any more, and gives them.
    pub fn take_outputs(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.outputs)
    }
}

impl Op {
    /// Calls `visit` with all parameters.
    fn parameters(&mut self, mut visit: impl FnMut(&mut ParameterId)) {
        match self {
            Op::Conv { weight, bias, .. } | Op::Depthwise { weight, bias, .. } => {
                visit(weight);
                bias.iter_mut().for_each(visit);
            }
            Op::BatchNorm(n) => {
                let all = [&mut n.weight, &mut n.bias, &mut n.mean, &mut n.variance];
                all.into_iter().for_each(visit);
            }
            Op::LayerNorm { weight, bias, .. } => {
                visit(weight);
                visit(bias);
            }
            Op::Attention(a) => a.bias.iter_mut().for_each(|b| visit(&mut b.table)),
            Op::Embedding { table } | Op::Positions { table } | Op::Tokens { table } => {
                visit(table)
            }
            Op::FakeQuantize { range, .. } => visit(range),
            Op::Activation(_)
            | Op::Add { .. }
            | Op::Gate
            | Op::AveragePool(_)
            | Op::MaxPool(_)
            | Op::Mean
            | Op::MaskedMean
            | Op::Normalize
            | Op::Pad(_)
            | Op::Crop(_) => {}
        }
    }
}
