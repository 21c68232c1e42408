//! Convolution and pooling: channels-last between two transposes.

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::pool::PoolKind;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cnn::{self, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::operand::Operand;
use super::{Lowered, Lowering, TO_NCHW, TO_NHWC};
use crate::graph::{Op, ValueId};
use crate::import::error::Problem;

impl Lowering<'_> {
    pub(super) fn conv(&mut self, node: &TypedNode, op: &cnn::Conv, inputs: &[Operand]) -> Lowered {
        let [x, Operand::Constant(kernel), Operand::Constant(bias)] = inputs else {
            return Err(self.unsupported(node, "weights and bias must be constants"));
        };
        if op.q_params.is_some() {
            return Err(self.unsupported(node, "is quantized already; import the float model"));
        }
        let (weights, shape) = self.ohwi(node, op, kernel)?;
        let bias = match &*self.floats(node, bias)? {
            [one] => vec![*one; shape[0]],
            many => many.to_vec(),
        };
        let (x, window) = self.map(node, &op.pool_spec, x)?;
        let w = self.name(&node.name, "weight");
        let w = self.graph.constant_value(&w, &shape, weights);
        let b = self.name(&node.name, "bias");
        let b = self.graph.constant_value(&b, &[bias.len()], bias);
        let op = Op::Conv {
            window,
            groups: op.group,
            residual: false,
            activation: None,
        };
        let y = self.value(node, "", op, &[x, w, b])?;
        self.unmap(node, y)
    }

    /// Weights as `[O, kh, kw, I/groups]`.
    fn ohwi(
        &self,
        node: &TypedNode,
        op: &cnn::Conv,
        kernel: &Tensor,
    ) -> Result<(Vec<f32>, Vec<usize>), Problem> {
        let spatial = kernel.rank() - 2;
        let order: Vec<usize> = match op.kernel_fmt {
            KernelFormat::OIHW => std::iter::once(0)
                .chain(2..2 + spatial)
                .chain([1])
                .collect(),
            KernelFormat::OHWI => (0..2 + spatial).collect(),
            KernelFormat::HWIO => std::iter::once(1 + spatial)
                .chain(0..spatial)
                .chain([spatial])
                .collect(),
        };
        let moved = kernel.clone().permute_axes(&order);
        let moved = moved.map_err(|e| {
            self.unsupported(node, &format!("its weights cannot be permuted: {e:#}"))
        })?;
        let mut shape = moved.shape().to_vec();
        if spatial == 1 {
            shape.insert(1, 1);
        }
        Ok((self.floats(node, &moved)?, shape))
    }

    pub(super) fn max_pool(
        &mut self,
        node: &TypedNode,
        op: &cnn::MaxPool,
        inputs: &[Operand],
    ) -> Lowered {
        if op.with_index_outputs.is_some() && self.is_read(node, 1) {
            return Err(self.unsupported(node, "the indices of the maxima are used"));
        }
        let (x, window) = self.map(node, &op.pool_spec, &inputs[0])?;
        let y = self.value(
            node,
            "",
            Op::Pool {
                kind: PoolKind::Max,
                window,
                include_pad: false,
            },
            &[x],
        )?;
        let mut outputs = self.unmap(node, y)?;
        // Nothing reads the second output, but its slot must exist.
        outputs.resize(node.outputs.len(), Operand::Value(y));
        Ok(outputs)
    }

    pub(super) fn sum_pool(
        &mut self,
        node: &TypedNode,
        op: &cnn::SumPool,
        inputs: &[Operand],
    ) -> Lowered {
        if !op.normalize {
            return Err(self.unsupported(node, "sum pooling; only averages are supported"));
        }
        let (x, window) = self.map(node, &op.pool_spec, &inputs[0])?;
        let overhang = match &op.pool_spec.padding {
            PaddingSpec::ExplicitOnnxPool(_, after, true) => {
                let pads = [window.pad[2] as usize, window.pad[3] as usize];
                pads[2 - after.len()..]
                    .iter()
                    .zip(after)
                    .any(|(p, a)| p > a)
            }
            _ => false,
        };
        if overhang && op.count_include_pad {
            return Err(self.unsupported(node, "ceil_mode with count_include_pad, whose windows overhang the padding; export with ceil_mode=False"));
        }
        let op = Op::Pool {
            kind: PoolKind::Average,
            window,
            include_pad: op.count_include_pad,
        };
        let y = self.value(node, "", op, &[x])?;
        self.unmap(node, y)
    }

    /// The operand as an NHWC map, and the window over it.
    fn map(
        &mut self,
        node: &TypedNode,
        spec: &PoolSpec,
        x: &Operand,
    ) -> Result<(ValueId, Window), Problem> {
        if spec.data_format != DataFormat::NCHW || !(1..=2).contains(&spec.rank()) {
            return Err(
                self.unsupported(node, "only one- and two-dimensional windows are supported")
            );
        }
        let mut x = self.activation(node, x)?;
        let mut shape = self.graph.shape(x).to_vec();
        let window = self.window(node, spec, &shape[2..])?;
        if spec.rank() == 1 {
            shape.insert(2, 1);
            x = self.value(node, "height", Op::Reshape(shape), &[x])?;
        }
        let x = self.value(node, "nhwc", Op::Transpose(TO_NHWC.to_vec()), &[x])?;
        Ok((x, window))
    }

    /// The result in the layout and rank of the model.
    fn unmap(&mut self, node: &TypedNode, y: ValueId) -> Lowered {
        let y = self.value(node, "nchw", Op::Transpose(TO_NCHW.to_vec()), &[y])?;
        let shape = self.output_shape(node)?;
        if shape == self.graph.shape(y) {
            return Ok(vec![Operand::Value(y)]);
        }
        self.emit(node, "squeeze", Op::Reshape(shape), &[y])
    }

    fn window(
        &self,
        node: &TypedNode,
        spec: &PoolSpec,
        input: &[usize],
    ) -> Result<Window, Problem> {
        let padding = spec.computed_padding(input);
        let small = |n: usize| {
            u16::try_from(n).map_err(|_| self.unsupported(node, "a window size above 65535"))
        };
        let mut window = Window::POINT;
        let first = 2 - spec.rank();
        for (axis, pad) in padding.iter().enumerate() {
            window.kernel[first + axis] = small(spec.kernel_shape[axis])?;
            window.stride[first + axis] = small(spec.stride(axis))?;
            window.dilation[first + axis] = small(spec.dilation(axis))?;
            window.pad[first + axis] = small(pad.pad_before)?;
            window.pad[2 + first + axis] = small(pad.pad_after)?;
            // tract's ceil mode may ask for more positions than its padding gives, or drop one.
            let (n, k, s) = (
                input[axis] + pad.pad_before,
                spec.kernel_shape[axis],
                spec.stride(axis),
            );
            let reach = (k.max(1) - 1) * spec.dilation(axis) + 1;
            let needed = (pad.convoluted.max(1) - 1) * s + reach;
            if window.output(first + axis, input[axis]) != Some(pad.convoluted) {
                window.pad[2 + first + axis] = small(needed.saturating_sub(n))?;
            }
            if window.output(first + axis, input[axis]) != Some(pad.convoluted) {
                return Err(self.unsupported(node, "a window that does not fit its map"));
            }
        }
        Ok(window)
    }
}
