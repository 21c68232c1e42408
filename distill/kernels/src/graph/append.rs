//! Several networks in one graph, whole or in part.

use std::collections::HashMap;

use super::{Graph, GraphError, Op, ParameterId, Value};

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

    /// Adds the layers of another graph that lead from its value `from` to its value `to`, with `at` in the place
    /// of `from` and `prefix` in front of their names. `known` has the other graph's parameters that are here
    /// already, which are shared, and gets those that are added.
    ///
    /// # Errors
    ///
    /// When these layers read more than `from`, or do not fit `at`.
    pub fn append_between(
        &mut self,
        other: &Graph,
        [from, to]: [Value; 2],
        at: Value,
        prefix: &str,
        known: &mut HashMap<ParameterId, ParameterId>,
    ) -> Result<Value, GraphError> {
        let mut needed = vec![false; other.nodes.len()];
        let mut wanted = vec![to];
        while let Some(value) = wanted.pop() {
            if value == from {
                continue;
            }
            let producer = other.nodes.iter().position(|n| n.output == value);
            let node = producer.ok_or_else(|| GraphError {
                layer: prefix.to_owned(),
                what: format!("value {} is read beside value {}", value.0, from.0),
            })?;
            if !std::mem::replace(&mut needed[node], true) {
                wanted.extend(&other.nodes[node].inputs);
            }
        }
        let mut values = HashMap::from([(from, at)]);
        for (node, _) in other
            .nodes
            .iter()
            .zip(&needed)
            .filter(|(_, needed)| **needed)
        {
            let mut op = node.op.clone();
            op.parameters(|id| {
                let own = known.entry(*id).or_insert_with(|| {
                    let p = &other.parameters[id.0];
                    self.parameter(format!("{prefix}{}", p.name), &p.shape, p.kind)
                });
                *id = *own;
            });
            let inputs: Vec<Value> = node.inputs.iter().map(|v| values[v]).collect();
            let value = self.push(format!("{prefix}{}", node.name), op, &inputs)?;
            values.insert(node.output, value);
        }
        Ok(values[&to])
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
            Op::Embedding { table }
            | Op::Positions { table }
            | Op::Queries { table, .. }
            | Op::Tokens { table } => visit(table),
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
