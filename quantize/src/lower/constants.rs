//! Constants in the layouts that kernels read.

use ampoule_runtime::ops::conv::{PackedShape, WIDTH, pack_i8};
use ampoule_runtime::{DType, Shape, TensorId};

use super::{LowerError, Lowering};
use crate::calibrate::QParams;
use crate::graph::ValueId;
use crate::program::{Stage, VirtualTensor};

impl Lowering<'_> {
    /// A constant as an operand of an element-wise step.
    pub(super) fn constant_operand(
        &mut self,
        value: ValueId,
        dtype: DType,
    ) -> Result<TensorId, LowerError> {
        let data = self.graph.constant(value);
        let (lo, hi) = data.map_or((0.0, 0.0), |d| bounds(d));
        let stated = self
            .scheme
            .and_then(|s| s.values.get(&(value, Stage::Post)).copied());
        let (scale, zero_point) = match dtype {
            DType::I8 => {
                let q = stated.unwrap_or_else(|| QParams::from_range(lo, hi));
                (q.scale, q.zero_point)
            }
            DType::I16 => (QParams::symmetric_i16(hi.max(-lo)).scale, 0),
            _ => (1.0, 0),
        };
        let id = self.constant_with(value, dtype, scale, zero_point)?;
        self.tensors.insert((value, Stage::Post, dtype), id);
        Ok(id)
    }

    /// A constant with given quantisation parameters.
    pub(super) fn constant_with(
        &mut self,
        value: ValueId,
        dtype: DType,
        scale: f32,
        zero_point: i32,
    ) -> Result<TensorId, LowerError> {
        let data = self.graph.constant(value).cloned().unwrap_or_default();
        self.constant_of(value, &data, dtype, scale, zero_point)
    }

    /// Other int8 values in the place of a constant's.
    pub(super) fn replaced_operand(
        &mut self,
        value: ValueId,
        data: &[f32],
    ) -> Result<TensorId, LowerError> {
        let (lo, hi) = bounds(data);
        let q = QParams::from_range(lo, hi);
        self.constant_of(value, data, DType::I8, q.scale, q.zero_point)
    }

    fn constant_of(
        &mut self,
        value: ValueId,
        data: &[f32],
        dtype: DType,
        scale: f32,
        zero_point: i32,
    ) -> Result<TensorId, LowerError> {
        let v = self.graph.value(value);
        let shape = Shape::new(&v.shape).ok_or_else(|| LowerError::Shape {
            name: v.name.clone(),
            shape: v.shape.clone(),
        })?;
        let code = |x: f32, lo: f32, hi: f32| {
            ((x / scale).round_ties_even() + zero_point as f32).clamp(lo, hi)
        };
        let bytes: Vec<u8> = match dtype {
            DType::I8 => data
                .iter()
                .map(|&x| code(x, -128.0, 127.0) as i8 as u8)
                .collect(),
            DType::I16 => data
                .iter()
                .flat_map(|&x| (code(x, -32767.0, 32767.0) as i16).to_le_bytes())
                .collect(),
            DType::I32 => data
                .iter()
                .flat_map(|&x| (x as i32).to_le_bytes())
                .collect(),
            _ => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let blob = self.program.constants.add(&bytes);
        Ok(self.program.add_tensor(VirtualTensor {
            name: v.name.clone(),
            dtype,
            shape,
            scale,
            zero_point,
            constant: Some(blob),
            origin: None,
            view: None,
        }))
    }
}

/// Smallest and largest value, 0 included.
fn bounds(data: &[f32]) -> (f32, f32) {
    data.iter()
        .fold((0.0, 0.0), |(lo, hi), &x| (lo.min(x), hi.max(x)))
}

/// Pads a per-channel vector with zeros to a whole number of blocks.
pub(super) fn padded<T: Copy + Default>(values: &[T]) -> Vec<T> {
    let mut out = values.to_vec();
    out.resize(values.len().div_ceil(WIDTH) * WIDTH, T::default());
    out
}

/// Packs i8 weights `[n][k]`.
pub(super) fn packed_i8(channels: usize, depth: usize, codes: &[i8]) -> Vec<u8> {
    let shape = PackedShape::new(channels, depth);
    let mut out = vec![0i8; shape.bytes()];
    pack_i8(shape, codes, &mut out);
    out.into_iter().map(|c| c as u8).collect()
}

/// Packs float weights `[n][k]` as `[block][k][channel in block]`.
pub(super) fn packed_f32(channels: usize, depth: usize, weights: &[f32]) -> Vec<f32> {
    let shape = PackedShape::new(channels, depth);
    let mut out = Vec::with_capacity(channels * depth);
    for block in 0..shape.blocks() {
        for k in 0..depth {
            out.extend((0..shape.block_width(block)).map(|lane| {
                let n = block * WIDTH + lane;
                if n < channels {
                    weights[n * depth + k]
                } else {
                    0.0
                }
            }));
        }
    }
    out
}
