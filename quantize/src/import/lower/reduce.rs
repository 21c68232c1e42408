//! Reductions, softmax, root-mean-square normalisation.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer, RmsNorm, Softmax, SoftmaxKind};

use super::operand::Operand;
use super::{Lowered, Lowering};
use crate::graph::{Op, ReduceKind, ValueId, inverse, is_identity};

impl Lowering<'_> {
    pub(super) fn reduce(&mut self, node: &TypedNode, op: &Reduce, inputs: &[Operand]) -> Lowered {
        let mut x = self.activation(node, &inputs[0])?;
        let kind = match op.reducer {
            Reducer::ArgMax(last) => return self.arg_max(node, x, &op.axes, last),
            Reducer::Sum => ReduceKind::Sum,
            Reducer::Max => ReduceKind::Max,
            Reducer::Min => ReduceKind::Min,
            Reducer::MeanOfSquares => {
                x = self.value(node, "square", Op::Unary(UnaryKind::Square), &[x])?;
                ReduceKind::Mean
            }
            _ => {
                return Err(self.unsupported(
                    node,
                    "only sum, mean, maximum, minimum and arg-max are supported",
                ));
            }
        };
        let mut axes = op.axes.to_vec();
        axes.sort_unstable();
        if axes.is_empty() {
            return Ok(vec![Operand::Value(x)]);
        }
        self.emit(node, "", Op::Reduce { kind, axes }, &[x])
    }

    fn arg_max(&mut self, node: &TypedNode, x: ValueId, axes: &[usize], last: bool) -> Lowered {
        let [axis] = *axes else {
            return Err(self.unsupported(node, "an arg-max over several axes"));
        };
        self.emit(node, "", Op::ArgMax { axis, last }, &[x])
    }

    /// Softmax over some axes: they are moved to the end and merged, and moved back.
    pub(super) fn softmax(
        &mut self,
        node: &TypedNode,
        op: &Softmax,
        inputs: &[Operand],
    ) -> Lowered {
        if op.quant_output_dt.is_some() {
            return Err(self.unsupported(node, "is quantized already; import the float model"));
        }
        let mut x = self.activation(node, &inputs[0])?;
        let log = op.kind == SoftmaxKind::LogSoftmax;
        let shape = self.graph.shape(x).to_vec();
        let mut axes = op.axes.to_vec();
        axes.sort_unstable();
        let kept: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
        let perm: Vec<usize> = kept.iter().chain(&axes).copied().collect();
        let moved: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
        let in_place = is_identity(&perm);
        if !in_place {
            x = self.value(node, "last", Op::Transpose(perm.clone()), &[x])?;
        }
        if axes.len() != 1 {
            let merged = [
                &moved[..kept.len()],
                &[moved[kept.len()..].iter().product()],
            ]
            .concat();
            x = self.value(node, "merge", Op::Reshape(merged), &[x])?;
        }
        x = self.value(node, "", Op::Softmax { log }, &[x])?;
        if axes.len() != 1 {
            x = self.value(node, "split", Op::Reshape(moved), &[x])?;
        }
        if !in_place {
            x = self.value(node, "back", Op::Transpose(inverse(&perm)), &[x])?;
        }
        Ok(vec![Operand::Value(x)])
    }

    /// `x / sqrt(mean(x²) + eps)` in primitive operators.
    pub(super) fn rms_norm(
        &mut self,
        node: &TypedNode,
        op: &RmsNorm,
        inputs: &[Operand],
    ) -> Lowered {
        let x = self.activation(node, &inputs[0])?;
        let eps = self.floats(node, &op.eps)?;
        let name = self.name(&node.name, "epsilon");
        let eps = self.graph.constant_value(&name, &[], eps);
        let square = self.value(node, "square", Op::Unary(UnaryKind::Square), &[x])?;
        let mean = self.value(
            node,
            "mean",
            Op::Reduce {
                kind: ReduceKind::Mean,
                axes: vec![op.axis],
            },
            &[square],
        )?;
        let safe = self.value(
            node,
            "safe",
            Op::Binary {
                kind: BinaryKind::Add,
                activation: None,
            },
            &[mean, eps],
        )?;
        let scale = self.value(node, "scale", Op::Unary(UnaryKind::Rsqrt), &[safe])?;
        self.emit(
            node,
            "",
            Op::Binary {
                kind: BinaryKind::Mul,
                activation: None,
            },
            &[x, scale],
        )
    }
}
