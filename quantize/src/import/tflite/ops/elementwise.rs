//! Element-wise operators and softmax.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;
use tract_tflite::tflite::{ActivationFunctionType, BuiltinOperator};

use super::super::file::Operator;
use super::super::lower::Lowering;
use crate::graph::Op;
use crate::import::error::Problem;

impl Lowering<'_, '_> {
    pub(super) fn binary(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let options = &op.options;
        let (kind, function) = match op.code {
            BuiltinOperator::ADD => (
                BinaryKind::Add,
                options
                    .builtin_options_as_add_options()
                    .map(|o| o.fused_activation_function()),
            ),
            BuiltinOperator::SUB => (
                BinaryKind::Sub,
                options
                    .builtin_options_as_sub_options()
                    .map(|o| o.fused_activation_function()),
            ),
            BuiltinOperator::MUL => (
                BinaryKind::Mul,
                options
                    .builtin_options_as_mul_options()
                    .map(|o| o.fused_activation_function()),
            ),
            BuiltinOperator::DIV => (
                BinaryKind::Div,
                options
                    .builtin_options_as_div_options()
                    .map(|o| o.fused_activation_function()),
            ),
            BuiltinOperator::MAXIMUM => (BinaryKind::Max, None),
            _ => (BinaryKind::Min, None),
        };
        let activation = self.activation(op, function.unwrap_or(ActivationFunctionType::NONE))?;
        let inputs = [self.value(op, 0)?, self.value(op, 1)?];
        self.emit(op, Op::Binary { kind, activation }, &inputs)
    }

    /// The function of an operator that has one operand and no more to it.
    pub(super) fn unary_kind(&self, op: &Operator<'_>) -> Option<UnaryKind> {
        Some(match op.code {
            BuiltinOperator::RELU => UnaryKind::Relu,
            BuiltinOperator::RELU6 => UnaryKind::Clamp(0.0, 6.0),
            BuiltinOperator::RELU_N1_TO_1 => UnaryKind::Clamp(-1.0, 1.0),
            BuiltinOperator::LOGISTIC => UnaryKind::Sigmoid,
            BuiltinOperator::TANH => UnaryKind::Tanh,
            BuiltinOperator::HARD_SWISH => UnaryKind::HardSwish,
            BuiltinOperator::ELU => UnaryKind::Elu(1.0),
            BuiltinOperator::EXP => UnaryKind::Exp,
            BuiltinOperator::ABS => UnaryKind::Abs,
            BuiltinOperator::NEG => UnaryKind::Neg,
            BuiltinOperator::SQRT => UnaryKind::Sqrt,
            BuiltinOperator::LEAKY_RELU => {
                let alpha = op.options.builtin_options_as_leaky_relu_options()?.alpha();
                UnaryKind::LeakyRelu(Some(alpha).filter(|a| a.is_finite())?)
            }
            BuiltinOperator::GELU => {
                match op.options.builtin_options_as_gelu_options()?.approximate() {
                    true => UnaryKind::GeluTanh,
                    false => UnaryKind::GeluErf,
                }
            }
            _ => return None,
        })
    }

    pub(super) fn unary(&mut self, op: &Operator<'_>, kind: UnaryKind) -> Result<(), Problem> {
        let x = self.value(op, 0)?;
        self.emit(op, Op::Unary(kind), &[x])
    }

    pub(super) fn softmax(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let beta = op.options.builtin_options_as_softmax_options();
        if beta.is_none_or(|o| o.beta() != 1.0) {
            return Err(self.unsupported(op, "with another beta than 1"));
        }
        let x = self.value(op, 0)?;
        self.emit(op, Op::Softmax { log: false }, &[x])
    }
}
