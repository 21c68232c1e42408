//! A graph whose values are rounded as the runtime's int8 codes are.

use super::{Graph, GraphError, Kind, Op, Value};

impl Graph {
    /// The graph with [`Op::FakeQuantize`] wherever the runtime keeps int8 codes: after each layer, or after
    /// the norm and the activation that are computed with it, and on inputs that convolutions read. The
    /// parameters of this graph keep their places, and the ranges, of momentum `momentum`, follow.
    ///
    /// # Errors
    ///
    /// None that a graph whose layers fit would give.
    pub fn quantization_aware(&self, momentum: f32) -> Result<Graph, GraphError> {
        let mut graph = Graph {
            parameters: self.parameters.clone(),
            ..Graph::new()
        };
        // Per value: as it is, and as codes.
        let mut values: Vec<[Option<Value>; 2]> = vec![[None; 2]; self.values.len()];
        for &input in &self.inputs {
            let value = graph.input(self.map(input));
            let convolves = self.readers(input).any(|op| op.is_convolution());
            let codes = match convolves {
                true => graph.quantize("input", value, momentum)?,
                false => value,
            };
            values[input.0] = [Some(value), Some(codes)];
        }
        for node in &self.nodes {
            let get = |v: &Value| {
                let as_codes = !self.inputs.contains(v) || node.op.is_convolution();
                values[v.0][usize::from(as_codes)].ok_or_else(|| GraphError {
                    layer: node.name.clone(),
                    what: format!("input {} comes later", v.0),
                })
            };
            let inputs: Vec<Value> = node.inputs.iter().map(get).collect::<Result<_, _>>()?;
            let value = graph.push(node.name.clone(), node.op.clone(), &inputs)?;
            let fused = |op: &Op| matches!(op, Op::BatchNorm(_) | Op::Activation(_));
            let kept = self.outputs.contains(&node.output)
                || !self.readers(node.output).all(fused)
                || !node.op.takes_epilogue();
            let codes = match kept {
                true => graph.quantize(&node.name, value, momentum)?,
                false => value,
            };
            values[node.output.0] = [Some(value), Some(codes)];
        }
        for output in &self.outputs {
            graph.outputs.extend(values[output.0][1]);
        }
        Ok(graph)
    }

    /// Adds rounding to int8 codes.
    fn quantize(&mut self, name: &str, x: Value, momentum: f32) -> Result<Value, GraphError> {
        let range = format!("{name}.range");
        let range = self.parameter(range, &[2], Kind::Statistic);
        let op = Op::FakeQuantize { range, momentum };
        self.push(format!("{name}.codes"), op, &[x])
    }

    fn readers(&self, value: Value) -> impl Iterator<Item = &Op> {
        let nodes = self.nodes.iter();
        let reading = nodes.filter(move |n| n.inputs.contains(&value));
        reading.map(|n| &n.op)
    }
}

impl Op {
    fn is_convolution(&self) -> bool {
        matches!(self, Op::Conv { .. } | Op::Depthwise { .. })
    }

    /// Whether a norm and an activation behind it are computed before its result becomes codes.
    fn takes_epilogue(&self) -> bool {
        self.is_convolution() || matches!(self, Op::BatchNorm(_) | Op::Add { .. })
    }
}
