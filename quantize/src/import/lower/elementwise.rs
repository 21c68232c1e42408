//! Element-wise operators.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::math::PowConst;
use tract_onnx::tract_core::ops::nn::{LeakyRelu, gelu_approximate::GeluApproximate};

use super::operand::{self, Operand};
use super::{Lowered, Lowering};
use crate::graph::Op;

impl Lowering<'_> {
    pub(super) fn binary(
        &mut self,
        node: &TypedNode,
        op: &TypedBinOp,
        inputs: &[Operand],
    ) -> Lowered {
        let (kind, swap) = match op.0.name() {
            "Add" => (BinaryKind::Add, false),
            "Sub" => (BinaryKind::Sub, false),
            "SubF" => (BinaryKind::Sub, true),
            "Mul" => (BinaryKind::Mul, false),
            "Div" => (BinaryKind::Div, false),
            "Min" => (BinaryKind::Min, false),
            "Max" => (BinaryKind::Max, false),
            "Pow" => (BinaryKind::Pow, false),
            _ => {
                return Err(self.unsupported(
                    node,
                    "comparisons, logic and integers exist only between constants",
                ));
            }
        };
        if let Some(same) = unchanged_index(node, kind, inputs) {
            return Ok(vec![same]);
        }
        if node.outputs[0].fact.datum_type != DatumType::F32 {
            return Err(self.unsupported(node, "is not in f32"));
        }
        let (mut a, mut b) = (
            self.activation(node, &inputs[0])?,
            self.activation(node, &inputs[1])?,
        );
        if swap {
            std::mem::swap(&mut a, &mut b);
        }
        self.emit(
            node,
            "",
            Op::Binary {
                kind,
                activation: None,
            },
            &[a, b],
        )
    }

    pub(super) fn unary(
        &mut self,
        node: &TypedNode,
        op: &ElementWiseOp,
        inputs: &[Operand],
    ) -> Lowered {
        if node.outputs[0].fact.datum_type != DatumType::F32 {
            return Err(self.unsupported(node, "is not in f32"));
        }
        let x = self.activation(node, &inputs[0])?;
        if let Some(PowConst { exponent }) = op.0.downcast_ref() {
            let name = self.name(&node.name, "exponent");
            let exponent = self.graph.constant_value(&name, &[], vec![*exponent]);
            return self.emit(
                node,
                "",
                Op::Binary {
                    kind: BinaryKind::Pow,
                    activation: None,
                },
                &[x, exponent],
            );
        }
        let kind = match &*op.0.name() {
            "LeakyRelu" => match op.0.downcast_ref::<LeakyRelu>() {
                Some(leaky) => UnaryKind::LeakyRelu(leaky.alpha),
                None => return Err(self.unsupported(node, "an unknown kind of LeakyRelu")),
            },
            "GeluApproximate"
                if op
                    .0
                    .downcast_ref::<GeluApproximate>()
                    .is_some_and(|g| !g.fast_impl) =>
            {
                UnaryKind::GeluTanh
            }
            "GeluExact" => UnaryKind::GeluErf,
            "Sigmoid" => UnaryKind::Sigmoid,
            "HardSwish" => UnaryKind::HardSwish,
            "Silu" => UnaryKind::Silu,
            "Tanh" => UnaryKind::Tanh,
            "Exp" => UnaryKind::Exp,
            "Ln" => UnaryKind::Log,
            "Sqrt" => UnaryKind::Sqrt,
            "Rsqrt" => UnaryKind::Rsqrt,
            "Recip" => UnaryKind::Reciprocal,
            "Abs" => UnaryKind::Abs,
            "Neg" => UnaryKind::Neg,
            "Square" => UnaryKind::Square,
            "Floor" => UnaryKind::Floor,
            "Ceil" => UnaryKind::Ceil,
            "RoundHalfToEven" => UnaryKind::Round,
            "Erf" => UnaryKind::Erf,
            _ => return Err(self.unsupported(node, "has no counterpart")),
        };
        self.emit(node, "", Op::Unary(kind), &[x])
    }

    /// A selection by a constant mask: `a·mask + b·(1 − mask)`, where a constant branch is masked here so
    /// that its infinities stay where they are selected.
    pub(super) fn select(&mut self, node: &TypedNode, _: &Iff, inputs: &[Operand]) -> Lowered {
        let [Operand::Constant(mask), a, b] = inputs else {
            return Err(self.unsupported(node, "the condition must be constant"));
        };
        let mask_data = self.floats(node, mask)?;
        if mask_data.iter().all(|&m| m != 0.0) || mask_data.iter().all(|&m| m == 0.0) {
            let taken = if mask_data[0] != 0.0 { a } else { b };
            let x = self.activation(node, taken)?;
            let shape = self.output_shape(node)?;
            return self.emit(node, "", Op::Broadcast(shape), &[x]);
        }
        let mut branches = Vec::with_capacity(2);
        for (operand, keep) in [(a, true), (b, false)] {
            let value = match operand {
                Operand::Constant(t) => {
                    let t = self.masked(node, t, mask, keep)?;
                    self.activation(node, &t)?
                }
                Operand::Value(v) => {
                    let factor = mask_data
                        .iter()
                        .map(|&m| f32::from((m != 0.0) == keep))
                        .collect();
                    let name = self.name(&node.name, "mask");
                    let factor = self.graph.constant_value(&name, mask.shape(), factor);
                    self.value(
                        node,
                        "keep",
                        Op::Binary {
                            kind: BinaryKind::Mul,
                            activation: None,
                        },
                        &[*v, factor],
                    )?
                }
            };
            branches.push(value);
        }
        self.emit(
            node,
            "",
            Op::Binary {
                kind: BinaryKind::Add,
                activation: None,
            },
            &branches,
        )
    }

    /// A constant branch with zeros where the mask does not select it.
    fn masked(
        &self,
        node: &TypedNode,
        t: &Tensor,
        mask: &Tensor,
        keep: bool,
    ) -> Result<Operand, crate::import::Problem> {
        use tract_onnx::tract_hir::internal::{EvalOp, tensor0};
        let fill = tensor0(0f32)
            .broadcast_into_rank(t.rank())
            .and_then(|zero| {
                let mut branches = [t.clone().into_tvalue(), zero.into_tvalue()];
                if !keep {
                    branches.reverse();
                }
                let [a, b] = branches;
                Iff.eval_out_of_plan(tvec!(mask.clone().into_tvalue(), a, b))
            });
        match fill.map(|t| t.and_then(|mut t| t.pop())) {
            Ok(Some(t)) => Ok(Operand::Constant(t.into_arc_tensor())),
            _ => Err(self.unsupported(node, "a constant branch cannot be masked")),
        }
    }
}

/// The operand of an integer addition of 0 or multiplication by 1: what is left of index arithmetic with
/// batch 1.
fn unchanged_index(node: &TypedNode, kind: BinaryKind, inputs: &[Operand]) -> Option<Operand> {
    let neutral = match kind {
        BinaryKind::Add => 0,
        BinaryKind::Mul => 1,
        _ => return None,
    };
    let (value, constant) = match inputs {
        [v @ Operand::Value(_), Operand::Constant(c)]
        | [Operand::Constant(c), v @ Operand::Value(_)] => (v, c),
        _ => return None,
    };
    let numbers = operand::is_integer(node.outputs[0].fact.datum_type)
        .then(|| operand::integers(constant).ok())??;
    let same_shape =
        node.outputs[0].fact.shape.rank() == constant.rank().max(1) && constant.len() == 1;
    (same_shape && numbers.iter().all(|&n| n == neutral)).then(|| value.clone())
}
