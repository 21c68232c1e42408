//! Convolutions and linear layers.

use ampoule_runtime::artifact::{Conv, Step};
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::conv::WEIGHT_SLACK;
use ampoule_runtime::ops::unary::UnaryKind;
use ampoule_runtime::{DType, Shape, TensorId};

use super::constants::{packed_f32, packed_i8, padded};
use super::{FloatWeights, LowerError, Lowering, sparse};
use crate::graph::{Activation, Node, Op};
use crate::program::{Stage, VirtualTensor};
use crate::scheme::NodeWeights;

/// A convolution's shape, the same for linear layers.
struct Form {
    window: Window,
    residual: bool,
    activation: Activation,
    /// Output channels.
    channels: usize,
    /// Weights per output channel after expansion of groups.
    depth: usize,
    depthwise: bool,
    groups: usize,
}

/// Where a convolution's result goes before a separate activation step.
pub(super) struct Target {
    pub(super) y: TensorId,
    pub(super) lo: f32,
    pub(super) hi: f32,
    pub(super) zero: i32,
    pub(super) scale: f32,
}

impl Lowering<'_> {
    pub(super) fn conv(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let form = self.form(node)?;
        let x = self.operand(node.inputs[0], dtype)?;
        let residual = if form.residual {
            Some(self.operand(node.inputs[3], dtype)?)
        } else {
            None
        };
        let weights = self.constant_data(node, 1)?;
        let bias = self.constant_data(node, 2)?;
        let scratch = self.scratch(&form, dtype, &node.name);
        let (conv, blocks) = match dtype {
            DType::F32 => (
                self.float_conv(node, &form, x, residual, &weights, &bias)?,
                None,
            ),
            _ => self.integer_conv(node, &form, dtype, x, residual)?,
        };
        let conv = Conv { scratch, ..conv };
        let mut macs = self.graph.node_macs(node);
        let step = match blocks {
            _ if form.depthwise => Step::Depthwise(conv),
            None => Step::Conv(conv),
            Some(sparse::Blocks { starts, quads, .. }) => {
                let scratch = sparse::scratch(form.depth)
                    .map(|bytes| self.working_memory(node, bytes))
                    .transpose()?;
                macs = sparse::pixels(self.graph, node) as u64 * u64::from(conv.weights.len);
                Step::Sparse {
                    layer: Conv { scratch, ..conv },
                    starts,
                    quads,
                }
            }
        };
        self.program.push(&node.name, macs, step);
        self.float_activation(node, form.activation, dtype)
    }

    fn form(&self, node: &Node) -> Result<Form, LowerError> {
        let w = self.graph.shape(node.inputs[1]);
        Ok(match node.op {
            Op::Conv {
                window,
                groups,
                residual,
                activation,
            } => {
                let depthwise = groups > 1 && w[3] == 1 && w[0] == groups;
                let depth = if depthwise {
                    window.taps()
                } else {
                    window.taps() * w[3] * groups
                };
                Form {
                    window,
                    residual,
                    activation,
                    channels: w[0],
                    depth,
                    depthwise,
                    groups,
                }
            }
            Op::Linear {
                residual,
                activation,
            } => Form {
                window: Window::POINT,
                residual,
                activation,
                channels: w[0],
                depth: w[1],
                depthwise: false,
                groups: 1,
            },
            _ => return Err(LowerError::NoProducer(node.name.clone())),
        })
    }

    fn constant_data(&self, node: &Node, operand: usize) -> Result<Vec<f32>, LowerError> {
        self.graph
            .constant(node.inputs[operand])
            .map(|d| d.to_vec())
            .ok_or_else(|| LowerError::NotConstant {
                node: node.name.clone(),
                op: node.op.name(),
                operand,
            })
    }

    /// Working memory for windows that need patches gathered.
    fn scratch(&mut self, form: &Form, dtype: DType, name: &str) -> Option<TensorId> {
        if form.depthwise || form.window.is_point() || self.options.panel_rows == 0 {
            return None;
        }
        let bytes = self.options.panel_rows * form.depth.next_multiple_of(64) * dtype.size();
        Some(self.program.add_tensor(VirtualTensor {
            name: format!("{name}:panel"),
            dtype: DType::I8,
            shape: Shape::new(&[bytes])?,
            scale: 1.0,
            zero_point: 0,
            constant: None,
            origin: None,
            view: None,
        }))
    }

    fn float_conv(
        &mut self,
        node: &Node,
        form: &Form,
        x: TensorId,
        residual: Option<TensorId>,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<Conv, LowerError> {
        let target = self.target(node, form.activation, DType::F32)?;
        let values = if form.depthwise {
            transposed(weights, form.channels)
        } else {
            packed_f32(form.channels, form.depth, &dense(weights, form))
        };
        // Depthwise filters are tiny; halving them gains nothing.
        let half = self.options.float_weights == FloatWeights::F16 && !form.depthwise;
        let (bytes, weight_type): (Vec<u8>, _) = if half {
            (
                values
                    .iter()
                    .flat_map(|&v| half::f16::from_f32(v).to_le_bytes())
                    .collect(),
                DType::F16,
            )
        } else {
            (
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                DType::F32,
            )
        };
        let constants = &mut self.program.constants;
        Ok(Conv {
            x,
            y: target.y,
            window: form.window,
            weights: constants.add_with_slack(bytes, WEIGHT_SLACK),
            weight_type,
            bias: constants.add_f32(&padded(bias)),
            sums: None,
            multipliers: None,
            zero: 0,
            lo: target.lo,
            hi: target.hi,
            table: None,
            residual: residual.map(|r| (r, 1.0)),
            scratch: None,
        })
    }

    fn integer_conv(
        &mut self,
        node: &Node,
        form: &Form,
        dtype: DType,
        x: TensorId,
        residual: Option<TensorId>,
    ) -> Result<(Conv, Option<sparse::Blocks>), LowerError> {
        let scheme = self
            .scheme
            .ok_or_else(|| LowerError::NotCalibrated(node.name.clone()))?;
        let missing = || LowerError::NotCalibrated(node.name.clone());
        let NodeWeights {
            codes,
            scales,
            bias,
        } = scheme.weights.get(&self.node).ok_or_else(missing)?;
        let target = self.target(node, form.activation, dtype)?;
        let table = self.activation_table(node, form.activation, dtype, &target)?;
        let (x_scale, x_zero) = {
            let t = self.program.tensor(x);
            (t.scale, t.zero_point)
        };
        let rows: Vec<i8> = if form.depthwise {
            codes.clone()
        } else {
            dense(codes, form)
        };
        let sums: Vec<i32> = rows
            .chunks_exact(form.depth)
            .map(|row| row.iter().map(|&w| i32::from(w)).sum())
            .collect();
        let integer_bias: Vec<i32> = bias
            .iter()
            .zip(scales)
            .zip(&sums)
            .map(|((&b, &s), &sum)| {
                let real = f64::from(b) / (f64::from(x_scale) * f64::from(s));
                // Half of the range the verifier allows; the zero-point term takes the rest.
                let code =
                    real.round_ties_even()
                        .clamp(-f64::from(1 << 29), f64::from(1 << 29)) as i32;
                code - x_zero * sum
            })
            .collect();
        let multipliers: Vec<f32> = scales
            .iter()
            .map(|&s| (f64::from(x_scale) * f64::from(s) / f64::from(target.scale)) as f32)
            .collect();
        let pixels = sparse::pixels(self.graph, node);
        let can = dtype == DType::I8 && sparse::runs_sparse(self.graph, node);
        let is_sparse = self
            .options
            .sparse
            .is_some_and(|isa| can && sparse::pays(isa, pixels, &rows, form.depth));
        let residual = residual.map(|r| {
            let scale = self.program.tensor(r).scale;
            (r, (f64::from(scale) / f64::from(target.scale)) as f32)
        });
        let constants = &mut self.program.constants;
        let blocks = is_sparse.then(|| sparse::store(constants, &rows, form.depth));
        let weights = blocks.as_ref().map_or_else(
            || {
                let packed = if form.depthwise {
                    let codes = transposed(&rows, form.channels).into_iter();
                    codes.map(|c| c as u8).collect()
                } else {
                    packed_i8(form.channels, form.depth, &rows)
                };
                constants.add_with_slack(packed, WEIGHT_SLACK)
            },
            |blocks| blocks.weights,
        );
        let conv = Conv {
            x,
            y: target.y,
            window: form.window,
            weights,
            weight_type: DType::I8,
            bias: constants.add_i32(&padded(&integer_bias)),
            sums: Some(constants.add_i32(&padded(&sums))),
            multipliers: Some(constants.add_f32(&padded(&multipliers))),
            zero: target.zero,
            lo: target.lo,
            hi: target.hi,
            table,
            residual,
            scratch: None,
        };
        Ok((conv, blocks))
    }

    /// The tensor a product writes and the clamp it applies.
    ///
    /// A clamp-like activation is fused. Another one is a table (int8) or a step of its own (float):
    /// then the product's codes are those of the value before the activation.
    pub(super) fn target(
        &mut self,
        node: &Node,
        activation: Activation,
        dtype: DType,
    ) -> Result<Target, LowerError> {
        let range = match activation {
            None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Some(a) => clamp_of(a),
        };
        let fused_table = range.is_none() && dtype == DType::I8;
        let stage = if range.is_some() || fused_table {
            Stage::Post
        } else {
            Stage::Pre
        };
        let y = self.result(node.output, stage, dtype)?;
        let (scale, zero) = if fused_table {
            self.parameters(node.output, Stage::Pre, dtype)?
        } else {
            let t = self.program.tensor(y);
            (t.scale, t.zero_point)
        };
        let (lo, hi) = range.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let code = |v: f32, limit: f32| {
            let c = (f64::from(v) / f64::from(scale)).round_ties_even() as f32 + zero as f32;
            if v.is_infinite() { limit } else { c }
        };
        let (lo, hi) = match dtype {
            DType::I8 => (
                code(lo, -128.0).clamp(-128.0, 127.0),
                code(hi, 127.0).clamp(-128.0, 127.0),
            ),
            DType::I16 => (
                code(lo, -32767.0).clamp(-32767.0, 32767.0),
                code(hi, 32767.0).clamp(-32767.0, 32767.0),
            ),
            _ => (lo, hi),
        };
        Ok(Target {
            y,
            lo,
            hi,
            zero,
            scale,
        })
    }

    /// The table of an activation that is no clamp.
    pub(super) fn activation_table(
        &mut self,
        node: &Node,
        activation: Activation,
        dtype: DType,
        target: &Target,
    ) -> Result<Option<ampoule_runtime::artifact::Blob>, LowerError> {
        match activation {
            Some(kind) if dtype == DType::I8 && clamp_of(kind).is_none() => {
                let to = self.parameters(node.output, Stage::Post, DType::I8)?;
                Ok(Some(self.table(kind, (target.scale, target.zero), to)))
            }
            _ => Ok(None),
        }
    }

    /// The separate activation step of float products.
    pub(super) fn float_activation(
        &mut self,
        node: &Node,
        activation: Activation,
        dtype: DType,
    ) -> Result<(), LowerError> {
        let Some(kind) = activation.filter(|&a| dtype == DType::F32 && clamp_of(a).is_none())
        else {
            return Ok(());
        };
        let x = self
            .find(node.output, Stage::Pre, dtype)
            .ok_or_else(|| LowerError::NoProducer(node.name.clone()))?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        self.program.push(
            &format!("{}:{}", node.name, kind.name()),
            0,
            Step::Unary { x, y, kind },
        );
        Ok(())
    }
}

/// The range of an activation that only clamps.
pub(crate) fn clamp_of(kind: UnaryKind) -> Option<(f32, f32)> {
    match kind {
        UnaryKind::Relu => Some((0.0, f32::INFINITY)),
        UnaryKind::Clamp(lo, hi) => Some((lo, hi)),
        _ => None,
    }
}

/// Weights `[channel][tap]` as `[tap][channel]`.
fn transposed<T: Copy>(rows: &[T], channels: usize) -> Vec<T> {
    let taps = rows.len() / channels;
    (0..taps)
        .flat_map(|t| (0..channels).map(move |c| rows[c * taps + t]))
        .collect()
}

/// Grouped weights `[n][tap][c / groups]` as dense rows `[n][tap][c]` with zeros outside the group.
fn dense<T: Copy + Default>(weights: &[T], form: &Form) -> Vec<T> {
    if form.groups == 1 {
        return weights.to_vec();
    }
    let taps = form.window.taps();
    let c = form.depth / taps;
    let per_group = c / form.groups;
    let mut out = vec![T::default(); form.channels * form.depth];
    for n in 0..form.channels {
        let group = n / (form.channels / form.groups);
        for tap in 0..taps {
            let from = &weights[(n * taps + tap) * per_group..][..per_group];
            out[n * form.depth + tap * c + group * per_group..][..per_group].copy_from_slice(from);
        }
    }
    out
}
