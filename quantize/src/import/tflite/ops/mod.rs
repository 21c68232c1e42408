//! Operators by kind.

mod elementwise;
mod layers;
mod moves;
mod pool;
mod resize;

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::unary::UnaryKind;
use tract_tflite::tflite::{ActivationFunctionType, BuiltinOperator, Padding};

use super::file::Operator;
use super::lower::Lowering;
use crate::graph::Activation;
use crate::import::error::Problem;

impl Lowering<'_, '_> {
    pub(super) fn operator(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        match op.code {
            BuiltinOperator::CONV_2D => self.conv(op),
            BuiltinOperator::DEPTHWISE_CONV_2D => self.depthwise(op),
            BuiltinOperator::FULLY_CONNECTED => self.fully_connected(op),
            BuiltinOperator::AVERAGE_POOL_2D | BuiltinOperator::MAX_POOL_2D => self.pool(op),
            BuiltinOperator::MEAN
            | BuiltinOperator::SUM
            | BuiltinOperator::REDUCE_MAX
            | BuiltinOperator::REDUCE_MIN => self.reduce(op),
            BuiltinOperator::ARG_MAX => self.arg_max(op),
            BuiltinOperator::ADD
            | BuiltinOperator::SUB
            | BuiltinOperator::MUL
            | BuiltinOperator::DIV
            | BuiltinOperator::MAXIMUM
            | BuiltinOperator::MINIMUM => self.binary(op),
            BuiltinOperator::SOFTMAX => self.softmax(op),
            BuiltinOperator::RESHAPE | BuiltinOperator::SQUEEZE | BuiltinOperator::EXPAND_DIMS => {
                self.reshape(op)
            }
            BuiltinOperator::PAD | BuiltinOperator::PADV2 => self.pad(op),
            BuiltinOperator::CONCATENATION => self.concat(op),
            BuiltinOperator::TRANSPOSE => self.transpose(op),
            BuiltinOperator::SLICE => self.slice(op),
            BuiltinOperator::STRIDED_SLICE => self.strided_slice(op),
            BuiltinOperator::RESIZE_BILINEAR => self.resize_bilinear(op),
            BuiltinOperator::RESIZE_NEAREST_NEIGHBOR => self.resize_nearest(op),
            BuiltinOperator::QUANTIZE => {
                let x = self.value(op, 0)?;
                let name = self.node_name(op);
                self.finish(op, &name, x)
            }
            BuiltinOperator::DEQUANTIZE => {
                let x = self.value(op, 0)?;
                self.pass(op, x)
            }
            _ => match self.unary_kind(op) {
                Some(kind) => self.unary(op, kind),
                None => Err(self.unsupported(
                    op,
                    "there is no counterpart; replace it or cut the model before it",
                )),
            },
        }
    }

    /// The clamp or function that an operator applies to its result.
    fn activation(
        &self,
        op: &Operator<'_>,
        kind: ActivationFunctionType,
    ) -> Result<Activation, Problem> {
        Ok(match kind {
            ActivationFunctionType::NONE => None,
            ActivationFunctionType::RELU => Some(UnaryKind::Relu),
            ActivationFunctionType::RELU_N1_TO_1 => Some(UnaryKind::Clamp(-1.0, 1.0)),
            ActivationFunctionType::RELU6 => Some(UnaryKind::Clamp(0.0, 6.0)),
            other => {
                let name = other.variant_name().unwrap_or("unknown");
                return Err(self.unsupported(op, &format!("with activation {name}")));
            }
        })
    }

    /// A window over an input of `[height, width]`.
    fn window(
        &self,
        op: &Operator<'_>,
        input: [usize; 2],
        kernel: [usize; 2],
        stride: [i32; 2],
        dilation: [i32; 2],
        padding: Padding,
    ) -> Result<Window, Problem> {
        let small = |v: usize| u16::try_from(v).ok().filter(|&v| v > 0);
        let number = |v: i32| usize::try_from(v).ok().and_then(small);
        let fail = || self.unsupported(op, "a kernel, stride or dilation that is 0 or too large");
        let mut window = Window::POINT;
        for axis in 0..2 {
            window.kernel[axis] = small(kernel[axis]).ok_or_else(fail)?;
            window.stride[axis] = number(stride[axis]).ok_or_else(fail)?;
            window.dilation[axis] = number(dilation[axis]).ok_or_else(fail)?;
            if padding == Padding::SAME {
                let (k, s, d) = (
                    kernel[axis],
                    usize::from(window.stride[axis]),
                    usize::from(window.dilation[axis]),
                );
                let last = (input[axis].div_ceil(s).max(1) - 1) * s;
                let total = (last + (k - 1) * d + 1).saturating_sub(input[axis]);
                window.pad[axis] = u16::try_from(total / 2).map_err(|_| fail())?;
                window.pad[axis + 2] = u16::try_from(total - total / 2).map_err(|_| fail())?;
            }
        }
        Ok(window)
    }

    /// Height and width of an operand that must be a map `[N, H, W, C]`, and its channels.
    fn map(&self, op: &Operator<'_>, operand: usize) -> Result<([usize; 2], usize), Problem> {
        match self.tensor(op, operand)?.shape[..] {
            [_, h, w, c] if h * w * c > 0 => Ok(([h, w], c)),
            _ => Err(self.unsupported(op, &format!("operand {operand} is no map [N, H, W, C]"))),
        }
    }

    /// An axis of an operand, negative ones counting from the end.
    fn axis(&self, op: &Operator<'_>, axis: i64, rank: usize) -> Result<usize, Problem> {
        let from_end = if axis < 0 { rank as i64 } else { 0 };
        let axis = usize::try_from(axis.saturating_add(from_end)).ok();
        axis.filter(|&a| a < rank)
            .ok_or_else(|| self.unsupported(op, "an axis that its operand does not have"))
    }

    /// An operator whose options are missing or those of another one.
    fn no_options(&self, op: &Operator<'_>) -> Problem {
        self.unsupported(op, "its options are missing or those of another operator")
    }
}
