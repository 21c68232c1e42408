//! Element-wise operators, pooling, reductions, normalisation, resizing.

use ampoule_runtime::artifact::{Binary, Blob, Step};
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::reduce::ReduceKind as StepReduce;
use ampoule_runtime::ops::resize::{Coordinates, Interpolation};
use ampoule_runtime::ops::softmax::softmax_table;
use ampoule_runtime::ops::unary::UnaryKind;
use ampoule_runtime::{DType, TensorId};

use super::{LowerError, Lowering};
use crate::graph::{Node, Op, ReduceKind, ResizeCoordinates, ResizeMode};
use crate::program::Stage;

impl Lowering<'_> {
    pub(super) fn binary(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let Op::Binary { kind, activation } = node.op else {
            return Ok(());
        };
        let a = self.term(node, kind, [0, 1], dtype)?;
        let b = self.term(node, kind, [1, 0], dtype)?;
        let target = self.target(node, activation, dtype)?;
        let table = self.activation_table(node, activation, dtype, &target)?;
        let step = Binary {
            kind,
            a,
            b,
            y: target.y,
            zero: target.zero,
            lo: target.lo,
            hi: target.hi,
            scale: target.scale,
            table,
        };
        self.program.push(&node.name, 0, Step::Binary(step));
        self.float_activation(node, activation, dtype)
    }

    /// An operand. Of a constant that an int8 sum adds, what takes every code of the other operand below
    /// the result's range needs be no lower: masks would leave the rest of the constant no codes.
    fn term(
        &mut self,
        node: &Node,
        kind: BinaryKind,
        [this, other]: [usize; 2],
        dtype: DType,
    ) -> Result<TensorId, LowerError> {
        let (value, other) = (node.inputs[this], node.inputs[other]);
        let data = match self.graph.constant(value) {
            Some(data) if kind == BinaryKind::Add && dtype == DType::I8 => data.clone(),
            _ => return self.operand(value, dtype),
        };
        let known = |v| self.scheme?.values.get(&(v, Stage::Post));
        let (Some(x), Some(y)) = (known(other), known(node.output)) else {
            return self.operand(value, dtype);
        };
        let enough = y.extent().0 - x.extent().1;
        if node.op.activation().is_some() || data.iter().all(|&c| c >= enough) {
            return self.operand(value, dtype);
        }
        let raised: Vec<f32> = data.iter().map(|&c| c.max(enough)).collect();
        self.replaced_operand(value, &raised)
    }

    pub(super) fn unary(
        &mut self,
        node: &Node,
        kind: UnaryKind,
        dtype: DType,
    ) -> Result<(), LowerError> {
        let x = self.operand(node.inputs[0], dtype)?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        let step = if dtype == DType::I8 {
            let (from, to) = (self.program.tensor(x), self.program.tensor(y));
            let (from, to) = ((from.scale, from.zero_point), (to.scale, to.zero_point));
            Step::Table {
                x,
                y,
                table: self.table(kind, from, to),
            }
        } else {
            Step::Unary { x, y, kind }
        };
        self.program.push(&node.name, 0, step);
        Ok(())
    }

    /// A change of parameters, from codes or from float. Float lowering passes the operand on.
    pub(super) fn quantize(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        if dtype != DType::I8 {
            return self.movement(node, dtype);
        }
        let value = node.inputs[0];
        let from = [DType::I8, DType::I16, DType::F32]
            .into_iter()
            .find(|&d| self.find(value, Stage::Post, d).is_some());
        let x = self.operand(value, from.unwrap_or(DType::F32))?;
        let y = self.result(node.output, Stage::Post, DType::I8)?;
        self.program.push(&node.name, 0, Step::Convert { x, y });
        Ok(())
    }

    /// The 256 output codes of a function, indexed by the bits of the input code.
    pub(super) fn table(&mut self, kind: UnaryKind, from: (f32, i32), to: (f32, i32)) -> Blob {
        let codes: Vec<u8> = (0..=255u8)
            .map(|bits| {
                let x = f64::from(i32::from(bits as i8) - from.1) * f64::from(from.0);
                let y = f64::from(kind.eval(x as f32));
                let code = (y / f64::from(to.0)).round_ties_even() + f64::from(to.1);
                // A function that is undefined at some code (a logarithm below 0) gives 0.0 there.
                if code.is_nan() {
                    to.1 as u8
                } else {
                    code.clamp(-128.0, 127.0) as i8 as u8
                }
            })
            .collect();
        self.program.constants.add(&codes)
    }

    pub(super) fn pool(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let Op::Pool {
            kind,
            window,
            include_pad,
        } = node.op
        else {
            return Ok(());
        };
        let x = self.operand(node.inputs[0], dtype)?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        self.program.push(
            &node.name,
            0,
            Step::Pool {
                x,
                y,
                kind,
                window,
                include_pad,
            },
        );
        Ok(())
    }

    pub(super) fn reduce(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let Op::Reduce { kind, axes } = &node.op else {
            return Ok(());
        };
        let x = self.operand(node.inputs[0], dtype)?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        let kind = match kind {
            ReduceKind::Mean => StepReduce::Mean,
            ReduceKind::Sum => StepReduce::Sum,
            ReduceKind::Max => StepReduce::Max,
            ReduceKind::Min => StepReduce::Min,
        };
        let axes = axes.iter().fold(0u8, |mask, &a| mask | 1 << a);
        self.program
            .push(&node.name, 0, Step::Reduce { x, y, kind, axes });
        Ok(())
    }

    pub(super) fn softmax(
        &mut self,
        node: &Node,
        log: bool,
        dtype: DType,
    ) -> Result<(), LowerError> {
        let x = self.operand(node.inputs[0], dtype)?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        let table = (dtype == DType::I8).then(|| {
            let bytes: Vec<u8> = softmax_table(self.program.tensor(x).scale)
                .iter()
                .flat_map(|e| e.to_le_bytes())
                .collect();
            self.program.constants.add(&bytes)
        });
        self.program
            .push(&node.name, 0, Step::Softmax { x, y, log, table });
        Ok(())
    }

    pub(super) fn layer_norm(
        &mut self,
        node: &Node,
        epsilon: f32,
        dtype: DType,
    ) -> Result<(), LowerError> {
        let x = self.operand(node.inputs[0], dtype)?;
        let constant = |operand: usize| {
            self.graph
                .constant(node.inputs[operand])
                .cloned()
                .ok_or_else(|| LowerError::NotConstant {
                    node: node.name.clone(),
                    op: node.op.name(),
                    operand,
                })
        };
        let (gain, offset) = (constant(1)?, constant(2)?);
        let y = self.result(node.output, Stage::Post, dtype)?;
        // Integers: over the output's scale, and ε in units of the exact sums.
        let scale = f64::from(self.program.tensor(y).scale);
        let over =
            |v: &[f32]| -> Vec<f32> { v.iter().map(|&v| (f64::from(v) / scale) as f32).collect() };
        let epsilon = match dtype {
            DType::F32 => epsilon,
            _ => {
                let step = gain.len() as f64 / f64::from(self.program.tensor(x).scale);
                ((step * step * f64::from(epsilon)) as f32).clamp(f32::MIN_POSITIVE, f32::MAX)
            }
        };
        let gain = self.program.constants.add_f32(&over(&gain));
        let offset = self.program.constants.add_f32(&over(&offset));
        self.program.push(
            &node.name,
            0,
            Step::LayerNorm {
                x,
                y,
                gain,
                offset,
                epsilon,
            },
        );
        Ok(())
    }

    pub(super) fn matmul(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let a = self.operand(node.inputs[0], dtype)?;
        let b = self.operand(node.inputs[1], dtype)?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        self.program.push(
            &node.name,
            self.graph.node_macs(node),
            Step::MatMul { a, b, y },
        );
        Ok(())
    }

    pub(super) fn resize(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let Op::Resize {
            mode, coordinates, ..
        } = node.op
        else {
            return Ok(());
        };
        let x = self.operand(node.inputs[0], dtype)?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        let interpolation = match mode {
            ResizeMode::Nearest { floor: false } => Interpolation::Nearest,
            ResizeMode::Nearest { floor: true } => Interpolation::NearestFloor,
            ResizeMode::Linear => Interpolation::Linear,
        };
        let coordinates = match coordinates {
            ResizeCoordinates::HalfPixel => Coordinates::HalfPixel,
            ResizeCoordinates::AlignCorners => Coordinates::AlignCorners,
            ResizeCoordinates::Asymmetric => Coordinates::Asymmetric,
        };
        self.program.push(
            &node.name,
            0,
            Step::Resize {
                x,
                y,
                interpolation,
                coordinates,
            },
        );
        Ok(())
    }
}
