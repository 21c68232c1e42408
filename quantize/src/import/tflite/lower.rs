//! From the file's operators to our graph, in order.

use std::collections::HashSet;

use tract_tflite::tflite::TensorType;

use super::file::{File, MAX_ELEMENTS, Operator, Tensor, invalid};
use crate::graph::{Graph, Op, ValueId};
use crate::import::error::Problem;
use crate::import::symmetric;
use crate::scheme::WeightSteps;

/// Most operands that a message shows.
const SHOWN: usize = 8;

/// What lowering gives.
pub(super) struct Lowered {
    pub graph: Graph,
    pub steps: WeightSteps,
    pub warnings: Vec<String>,
}

/// State of one lowering.
pub(super) struct Lowering<'f, 'b> {
    pub file: &'f File<'b>,
    pub graph: Graph,
    pub steps: WeightSteps,
    /// Output channels whose weights got a wider step, of all that are quantised.
    pub widened: [usize; 2],
    /// The value of each tensor that is known.
    values: Vec<Option<ValueId>>,
    names: HashSet<String>,
}

/// Lowers the main subgraph.
pub(super) fn lower(file: &File<'_>) -> Result<Lowered, Problem> {
    let mut lowering = Lowering {
        file,
        graph: Graph::default(),
        steps: WeightSteps::new(),
        widened: [0; 2],
        values: vec![None; file.tensors.len()],
        names: HashSet::new(),
    };
    for &index in &file.inputs {
        lowering.input(index)?;
    }
    for op in &file.operators {
        lowering.operator(op)?;
    }
    for &index in &file.outputs {
        let tensor = &file.tensors[index];
        let Some(value) = lowering.values[index] else {
            return Err(invalid(format!(
                "nothing produces output `{}`",
                tensor.name
            )));
        };
        lowering.graph.output(&tensor.name, value);
    }
    let warnings = symmetric::warning(lowering.widened).into_iter().collect();
    Ok(Lowered {
        graph: lowering.graph,
        steps: lowering.steps,
        warnings,
    })
}

impl Lowering<'_, '_> {
    fn input(&mut self, index: usize) -> Result<(), Problem> {
        let file = self.file;
        let tensor = &file.tensors[index];
        if self.values[index].is_some() || tensor.data.is_some() {
            return Err(invalid(format!(
                "input `{}` is listed twice, or constant",
                tensor.name
            )));
        }
        if tensor.elements() == 0 {
            return Err(Problem::Tensor {
                tensor: tensor.name.clone(),
                dims: tensor.shape.iter().map(|&d| d as i64).collect(),
                what: "an input without elements".into(),
            });
        }
        let name = self.name(&tensor.name);
        let value = match tensor.kind {
            TensorType::INT32 | TensorType::INT64 => self.graph.index_input(&name, &tensor.shape),
            TensorType::FLOAT32 => self.graph.input(&name, &tensor.shape),
            TensorType::INT8 | TensorType::UINT8 if tensor.params().is_some() => {
                self.graph.input(&name, &tensor.shape)
            }
            kind => {
                return Err(invalid(format!(
                    "input `{}` is {kind:?}; only float32, quantised int8 and uint8, and indices (int32, int64) are supported",
                    tensor.name
                )));
            }
        };
        let value = self.stored(&name, tensor, value)?;
        self.values[index] = Some(value);
        Ok(())
    }

    /// `value` as the file stores it: as codes, where it has parameters.
    fn stored(
        &mut self,
        name: &str,
        tensor: &Tensor<'_>,
        value: ValueId,
    ) -> Result<ValueId, Problem> {
        let Some(params) = tensor.params() else {
            return Ok(value);
        };
        let name = self.name(&format!("{name}.codes"));
        Ok(self.graph.push(&name, Op::Quantize(params), &[value])?)
    }

    /// The tensor of an operand.
    pub fn tensor(&self, op: &Operator<'_>, operand: usize) -> Result<&Tensor<'_>, Problem> {
        match op.inputs.get(operand) {
            Some(&Some(index)) => Ok(&self.file.tensors[index]),
            _ => Err(self.unsupported(op, &format!("operand {operand} is missing"))),
        }
    }

    /// Whether an optional operand is there.
    pub fn has(&self, op: &Operator<'_>, operand: usize) -> bool {
        matches!(op.inputs.get(operand), Some(Some(_)))
    }

    /// The value of an operand; constants become constants of the graph.
    pub fn value(&mut self, op: &Operator<'_>, operand: usize) -> Result<ValueId, Problem> {
        let file = self.file;
        let index = match op.inputs.get(operand) {
            Some(&Some(index)) => index,
            _ => return Err(self.unsupported(op, &format!("operand {operand} is missing"))),
        };
        if let Some(value) = self.values[index] {
            return Ok(value);
        }
        let tensor = &file.tensors[index];
        let Some(data) = tensor.floats().filter(|d| !d.is_empty()) else {
            let what = format!("nothing that it can read produces `{}`", tensor.name);
            return Err(self.unsupported(op, &what));
        };
        self.finite(op, tensor, &data)?;
        let name = self.name(&tensor.name);
        let value = self.graph.constant_value(&name, &tensor.shape, data);
        let value = self.stored(&name, tensor, value)?;
        self.values[index] = Some(value);
        Ok(value)
    }

    /// Refuses constants that are not finite.
    pub fn finite(
        &self,
        op: &Operator<'_>,
        tensor: &Tensor<'_>,
        data: &[f32],
    ) -> Result<(), Problem> {
        match data.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(i) => Err(self.unsupported(
                op,
                &format!("element {i} of constant `{}` is {}", tensor.name, data[i]),
            )),
        }
    }

    /// Integers of a constant operand.
    pub fn integers(&self, op: &Operator<'_>, operand: usize) -> Result<Vec<i64>, Problem> {
        let tensor = self.tensor(op, operand)?;
        tensor.integers().ok_or_else(|| {
            self.unsupported(
                op,
                &format!("operand `{}` must be a constant of integers", tensor.name),
            )
        })
    }

    /// The tensor of the result.
    pub fn result(&self, op: &Operator<'_>) -> &Tensor<'_> {
        &self.file.tensors[op.output]
    }

    /// A name for the operator: that of its result, which the file has names for.
    pub fn node_name(&mut self, op: &Operator<'_>) -> String {
        let wanted = self.result(op).name.clone();
        self.name(&wanted)
    }

    /// Adds a node and makes its result the operator's.
    pub fn emit(
        &mut self,
        op: &Operator<'_>,
        graph_op: Op,
        inputs: &[ValueId],
    ) -> Result<(), Problem> {
        let name = self.node_name(op);
        let value = self.graph.push(&name, graph_op, inputs)?;
        self.finish(op, &name, value)
    }

    /// Makes a value the operator's result: codes where the file has codes, and in the file's shape.
    pub fn finish(&mut self, op: &Operator<'_>, name: &str, value: ValueId) -> Result<(), Problem> {
        let file = self.file;
        let tensor = &file.tensors[op.output];
        let mut value = self.stored(name, tensor, value)?;
        let shape = self.graph.shape(value);
        let elements: usize = shape.iter().product();
        if elements > MAX_ELEMENTS || elements != tensor.elements() {
            let what = format!(
                "its result has shape {shape:?}, the file says {:?}",
                tensor.shape
            );
            return Err(self.unsupported(op, &what));
        }
        if shape != tensor.shape {
            let name = self.name(&format!("{name}.shape"));
            value = self
                .graph
                .push(&name, Op::Reshape(tensor.shape.clone()), &[value])?;
        }
        self.pass(op, value)
    }

    /// Makes a value the operator's result as it is.
    pub fn pass(&mut self, op: &Operator<'_>, value: ValueId) -> Result<(), Problem> {
        match self.values[op.output].replace(value) {
            None => Ok(()),
            Some(_) => Err(self.unsupported(op, "its result has a producer already")),
        }
    }

    /// A unique name.
    pub fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2u64;
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}.{number}");
            number += 1;
        }
        name
    }

    pub fn unsupported(&self, op: &Operator<'_>, what: &str) -> Problem {
        let tensors = op.inputs.iter().flatten().take(SHOWN);
        let show = |&t: &usize| {
            let tensor = &self.file.tensors[t];
            let kind = tensor.kind.variant_name().unwrap_or("unknown");
            format!("{kind} {:?}", tensor.shape)
        };
        Problem::Unsupported {
            node: format!("operator {} `{}`", op.index, self.result(op).name),
            operator: op.name.clone(),
            what: what.to_owned(),
            shapes: tensors.map(show).collect(),
        }
    }
}
