//! Convolutions and fully connected layers.

use ampoule_runtime::ops::Window;

use super::super::constants::weights;
use super::super::file::{MAX_ELEMENTS, Operator};
use super::super::lower::Lowering;
use crate::graph::{Activation, Op, ValueId};
use crate::import::error::Problem;
use tract_tflite::tflite::FullyConnectedOptionsWeightsFormat;

impl Lowering<'_, '_> {
    pub(super) fn conv(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op.options.builtin_options_as_conv_2_doptions() else {
            return Err(self.no_options(op));
        };
        let (input, c) = self.map(op, 0)?;
        let (kernel, per_group) = self.map(op, 1)?;
        let channels = self.tensor(op, 1)?.shape[0];
        let window = self.window(
            op,
            input,
            kernel,
            [options.stride_h(), options.stride_w()],
            [options.dilation_h_factor(), options.dilation_w_factor()],
            options.padding(),
        )?;
        if c % per_group != 0 {
            return Err(self.unsupported(op, "its weights' channels do not divide its operand's"));
        }
        let activation = self.activation(op, options.fused_activation_function())?;
        let row = kernel[0] * kernel[1] * per_group;
        let shape = [channels, kernel[0], kernel[1], per_group];
        let layer = Layer {
            channels,
            row,
            axis: 0,
            at: &|n, i| n * row + i,
        };
        self.convolution(op, window, c / per_group, activation, &shape, &layer)
    }

    pub(super) fn depthwise(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op.options.builtin_options_as_depthwise_conv_2_doptions() else {
            return Err(self.no_options(op));
        };
        let (input, c) = self.map(op, 0)?;
        let (kernel, channels) = self.map(op, 1)?;
        let window = self.window(
            op,
            input,
            kernel,
            [options.stride_h(), options.stride_w()],
            [options.dilation_h_factor(), options.dilation_w_factor()],
            options.padding(),
        )?;
        if channels % c != 0 || self.tensor(op, 1)?.shape[0] != 1 {
            return Err(
                self.unsupported(op, "its weights' channels are no multiple of its operand's")
            );
        }
        let activation = self.activation(op, options.fused_activation_function())?;
        // The file has `[tap][channel]`.
        let layer = Layer {
            channels,
            row: kernel[0] * kernel[1],
            axis: 3,
            at: &|n, i| i * channels + n,
        };
        let shape = [channels, kernel[0], kernel[1], 1];
        self.convolution(op, window, c, activation, &shape, &layer)
    }

    fn convolution(
        &mut self,
        op: &Operator<'_>,
        window: Window,
        groups: usize,
        activation: Activation,
        shape: &[usize; 4],
        layer: &Layer<'_>,
    ) -> Result<(), Problem> {
        // Kernels of groups are dense unless they are depthwise.
        let dense = layer
            .channels
            .saturating_mul(layer.row)
            .saturating_mul(groups);
        if dense > MAX_ELEMENTS {
            return Err(self.unsupported(op, "more than 2^29 weights"));
        }
        let x = self.value(op, 0)?;
        let name = self.node_name(op);
        let [w, b] = self.constants(op, &name, shape, layer)?;
        let conv = Op::Conv {
            window,
            groups,
            residual: false,
            activation,
        };
        let y = self.graph.push(&name, conv, &[x, w, b])?;
        self.finish(op, &name, y)
    }

    pub(super) fn fully_connected(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op.options.builtin_options_as_fully_connected_options() else {
            return Err(self.no_options(op));
        };
        if options.weights_format() != FullyConnectedOptionsWeightsFormat::DEFAULT {
            return Err(self.unsupported(op, "shuffled weights"));
        }
        let (elements, [channels, row]) = match self.tensor(op, 1)?.shape[..] {
            [n, k] if n * k > 0 => (self.tensor(op, 0)?.elements(), [n, k]),
            _ => return Err(self.unsupported(op, "its weights are no matrix")),
        };
        if elements % row != 0 {
            return Err(self.unsupported(op, "its operand does not split into rows of its weights"));
        }
        let activation = self.activation(op, options.fused_activation_function())?;
        let mut x = self.value(op, 0)?;
        let name = self.node_name(op);
        if self.graph.shape(x).last() != Some(&row) {
            let flat = Op::Reshape(vec![elements / row, row]);
            let name = self.name(&format!("{name}.rows"));
            x = self.graph.push(&name, flat, &[x])?;
        }
        let layer = Layer {
            channels,
            row,
            axis: 0,
            at: &|n, i| n * row + i,
        };
        let [w, b] = self.constants(op, &name, &[channels, row], &layer)?;
        let linear = Op::Linear {
            residual: false,
            activation,
        };
        let y = self.graph.push(&name, linear, &[x, w, b])?;
        self.finish(op, &name, y)
    }

    /// Weights and bias of a layer as constants; the steps of int8 weights are noted under its name.
    fn constants(
        &mut self,
        op: &Operator<'_>,
        name: &str,
        shape: &[usize],
        layer: &Layer<'_>,
    ) -> Result<[ValueId; 2], Problem> {
        let file = self.file;
        let of = |operand: usize| op.inputs.get(operand).copied().flatten();
        let Some(tensor) = of(1).map(|t| &file.tensors[t]) else {
            return Err(self.unsupported(op, "it has no weights"));
        };
        let per_channel = |s: &super::super::file::Steps| {
            s.scales.len() == 1 || (s.axis == layer.axis && s.scales.len() == layer.channels)
        };
        if !tensor.steps.as_ref().is_none_or(per_channel) {
            return Err(self.unsupported(
                op,
                "weights with steps along another dimension than output channels",
            ));
        }
        let count = layer.channels * layer.row;
        let (values, steps) = match weights(tensor, layer.channels, layer.row, layer.at) {
            Some(found) => {
                self.widened[0] += found.widened;
                self.widened[1] += layer.channels;
                (found.values, Some(found.steps))
            }
            None => {
                let floats = tensor.floats().filter(|f| f.len() == count);
                let Some(data) = floats else {
                    return Err(self.unsupported(op, "its weights are not constant numbers"));
                };
                let place = |i: usize| (layer.at)(i / layer.row, i % layer.row);
                ((0..count).map(|i| data[place(i)]).collect(), None)
            }
        };
        self.finite(op, tensor, &values)?;
        let bias = match of(2).map(|t| &file.tensors[t]) {
            None => vec![0.0; layer.channels],
            Some(bias) => {
                let data = match (bias.integers(), &tensor.steps, self.tensor(op, 0)?.params()) {
                    // Sums of products, whatever scale the file says.
                    (Some(codes), Some(steps), Some(x)) => {
                        let step = |n: usize| steps.scales[n.min(steps.scales.len() - 1)];
                        let real = |(n, &code): (usize, &i64)| {
                            (code as f64 * f64::from(x.scale) * f64::from(step(n))) as f32
                        };
                        Some(codes.iter().enumerate().map(real).collect())
                    }
                    (None, _, _) => bias.floats(),
                    _ => None,
                };
                let data: Option<Vec<f32>> = data;
                let Some(data) = data.filter(|d| d.len() == layer.channels) else {
                    return Err(self.unsupported(
                        op,
                        "its bias is not one constant number for each output channel",
                    ));
                };
                self.finite(op, bias, &data)?;
                data
            }
        };
        if let Some(steps) = steps {
            self.steps.insert(name.to_owned(), steps);
        }
        let w = self.name(&format!("{name}.weights"));
        let b = self.name(&format!("{name}.bias"));
        Ok([
            self.graph.constant_value(&w, shape, values),
            self.graph.constant_value(&b, &[layer.channels], bias),
        ])
    }
}

/// Where the weights of a layer are in the file.
struct Layer<'l> {
    channels: usize,
    /// Weights of an output channel.
    row: usize,
    /// Dimension of output channels.
    axis: usize,
    /// Place of an element of a channel's row.
    at: &'l dyn Fn(usize, usize) -> usize,
}
