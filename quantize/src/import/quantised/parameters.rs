//! Scales and zero points that the file states, and the nodes that state them from here on.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto};

use super::{CODES, Rewrite, input, number, unsupported};
use crate::calibrate::{CodeWidth, QParams};
use crate::import::error::Problem;

impl Rewrite<'_> {
    /// Parameters of an activation from the scale at operand `at` and the zero point behind it.
    pub(super) fn stated(&self, node: &NodeProto, at: usize) -> Result<QParams, Problem> {
        let (scales, zeros, kind) = self.steps(node, at)?;
        let (&[scale], &[zero]) = (&scales[..], &zeros[..]) else {
            return Err(unsupported(node, "an activation with more than one scale"));
        };
        Ok(QParams {
            scale,
            zero_point: zero - shift(kind),
            width: CodeWidth::I8,
        })
    }

    /// Scales, zero points and type of codes, from the scale at operand `at` and the zero point behind it.
    pub(super) fn steps(
        &self,
        node: &NodeProto,
        at: usize,
    ) -> Result<(Vec<f32>, Vec<i32>, DataType), Problem> {
        let Some(scales) = self.constants.get(input(node, at)) else {
            return Err(unsupported(node, "a scale that is not constant"));
        };
        let scales = self.floats(node, scales)?;
        if scales.is_empty() || scales.iter().any(|s| !s.is_normal() || *s <= 0.0) {
            return Err(unsupported(
                node,
                "a scale that is not a normal positive number",
            ));
        }
        let (zeros, kind) = match input(node, at + 1) {
            "" => {
                let given = number(node, "output_dtype").unwrap_or(0);
                let kind = match DataType::try_from(given as i32) {
                    Ok(DataType::Undefined) | Err(_) => DataType::Uint8,
                    Ok(kind) => kind,
                };
                (vec![0; scales.len()], kind)
            }
            name => {
                let Some(zeros) = self.constants.get(name) else {
                    return Err(unsupported(node, "a zero point that is not constant"));
                };
                let kind = DataType::try_from(zeros.data_type).unwrap_or_default();
                (self.integers(node, zeros)?, kind)
            }
        };
        let range = match kind {
            DataType::Int8 => -128..=127,
            DataType::Uint8 => 0..=255,
            DataType::Int32 => 0..=0,
            _ => {
                return Err(unsupported(
                    node,
                    "codes of another type than int8 and uint8",
                ));
            }
        };
        if zeros.len() != scales.len() || zeros.iter().any(|z| !range.contains(z)) {
            return Err(unsupported(
                node,
                "zero points that are not one for each scale, or outside their codes",
            ));
        }
        Ok((scales, zeros, kind))
    }

    /// The dimension that `n` scales count along.
    pub(super) fn axis(&self, node: &NodeProto, dims: &[i64], n: usize) -> Result<usize, Problem> {
        if number(node, "block_size").unwrap_or(0) != 0 {
            return Err(unsupported(node, "scales for blocks of weights"));
        }
        if n == 1 {
            return Ok(0);
        }
        // Operators on codes count along the output channels, the others say.
        let default = if node.op_type == "QLinearConv" { 0 } else { 1 };
        let axis = match &*node.op_type {
            "QLinearMatMul" => dims.len() as i64 - 1,
            "QGemm" if number(node, "transB").unwrap_or(0) == 0 => 1,
            "QGemm" => 0,
            _ => number(node, "axis").unwrap_or(default),
        };
        let axis = if axis < 0 {
            axis + dims.len() as i64
        } else {
            axis
        };
        // A bias has one dimension, whatever its axis says.
        let axis = usize::try_from(axis)
            .ok()
            .filter(|&a| dims.get(a) == Some(&(n as i64)));
        match (axis, dims) {
            (Some(axis), _) => Ok(axis),
            (None, &[size]) if size == n as i64 => Ok(0),
            _ => Err(unsupported(node, "scales that no dimension has as many of")),
        }
    }

    /// States parameters of `y`, which is `x`.
    pub(super) fn codes(&mut self, name: &str, x: &str, y: &str, params: QParams) {
        let attribute = |name: &str| AttributeProto {
            name: name.to_owned(),
            ..AttributeProto::default()
        };
        let scale = AttributeProto {
            r#type: AttributeType::Float as i32,
            f: params.scale,
            ..attribute("scale")
        };
        let zero = AttributeProto {
            r#type: AttributeType::Int as i32,
            i: params.zero_point.into(),
            ..attribute("zero_point")
        };
        self.push(CODES, name, vec![x.to_owned()], y.to_owned());
        if let Some(node) = self.nodes.last_mut() {
            node.attribute = vec![scale, zero];
        }
        self.params.insert(y.to_owned(), params);
    }
}

/// What codes of that type are more than signed ones.
pub(super) fn shift(kind: DataType) -> i32 {
    match kind {
        DataType::Uint8 => 128,
        _ => 0,
    }
}
