//! Resize of maps, from the attributes in the file.

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;

use super::operand::Operand;
use super::{Lowered, Lowering, TO_NCHW, TO_NHWC};
use crate::graph::{Op, ResizeCoordinates, ResizeMode};

impl Lowering<'_> {
    pub(super) fn resize(&mut self, node: &TypedNode, inputs: &[Operand]) -> Lowered {
        let Some(file) = self.file.resizes.get(&node.name) else {
            return Err(self.unsupported(node, "its attributes cannot be found in the file"));
        };
        let text =
            |name: &str, default: &str| attribute(file, name).unwrap_or_else(|| default.to_owned());
        let mode = match (
            &*text("mode", "nearest"),
            &*text("nearest_mode", "round_prefer_floor"),
        ) {
            ("nearest", "floor") => ResizeMode::Nearest { floor: true },
            ("nearest", "round_prefer_floor") => ResizeMode::Nearest { floor: false },
            ("linear", _) => ResizeMode::Linear,
            (mode, ties) => {
                return Err(self.unsupported(
                    node,
                    &format!("mode {mode} with {ties}; use nearest (floor) or linear"),
                ));
            }
        };
        let coordinates = match &*text("coordinate_transformation_mode", "half_pixel") {
            "half_pixel" => ResizeCoordinates::HalfPixel,
            "align_corners" => ResizeCoordinates::AlignCorners,
            "asymmetric" => ResizeCoordinates::Asymmetric,
            "pytorch_half_pixel" => ResizeCoordinates::HalfPixel,
            other => {
                return Err(self.unsupported(node, &format!("coordinates {other}; use half_pixel")));
            }
        };
        let set = |name: &str| file.attribute.iter().any(|a| a.name == name && a.i != 0);
        if set("antialias") || set("exclude_outside") {
            return Err(self.unsupported(node, "antialias and exclude_outside"));
        }
        let x = self.activation(node, &inputs[0])?;
        let (from, to) = (self.graph.shape(x).to_vec(), self.output_shape(node)?);
        if from.len() != 4 || from[..2] != to[..2] {
            return Err(self.unsupported(node, "only height and width of a map in NCHW can change"));
        }
        if attribute(file, "coordinate_transformation_mode").as_deref()
            == Some("pytorch_half_pixel")
            && (to[2] == 1 || to[3] == 1)
        {
            return Err(self.unsupported(
                node,
                "coordinates pytorch_half_pixel to size 1; use half_pixel",
            ));
        }
        let axes = file
            .attribute
            .iter()
            .find(|a| a.name == "axes")
            .map(|a| &a.ints[..]);
        if !self.scale_is_ratio(&inputs[1..], axes, &from, &to) {
            return Err(self.unsupported(
                node,
                "scales that are not the ratio of the sizes; give sizes",
            ));
        }
        let x = self.value(node, "nhwc", Op::Transpose(TO_NHWC.to_vec()), &[x])?;
        let y = self.value(
            node,
            "",
            Op::Resize {
                size: [to[2], to[3]],
                mode,
                coordinates,
            },
            &[x],
        )?;
        self.emit(node, "nchw", Op::Transpose(TO_NCHW.to_vec()), &[y])
    }

    /// Whether a scales operand, where there is one, says the same as the two shapes. The graph's Resize
    /// derives its scale from them.
    fn scale_is_ratio(
        &self,
        parameters: &[Operand],
        axes: Option<&[i64]>,
        from: &[usize],
        to: &[usize],
    ) -> bool {
        parameters.iter().all(|operand| {
            let Operand::Constant(t) = operand else {
                return false;
            };
            if t.datum_type() != DatumType::F32 || t.len() < 2 || t.len() > 4 {
                return true;
            }
            let Ok(scales) = super::operand::floats(t) else {
                return false;
            };
            let first = 4 - scales.len();
            let matches = |(i, &s): (usize, &f32)| {
                let axis = match axes.and_then(|a| a.get(i)) {
                    Some(a) => a.rem_euclid(4) as usize,
                    None => first + i,
                };
                (to[axis] as f32 / from[axis] as f32 - s).abs() < 1e-5 * s
            };
            scales.iter().enumerate().all(matches)
        })
    }
}

fn attribute(node: &NodeProto, name: &str) -> Option<String> {
    let found = node.attribute.iter().find(|a| a.name == name)?;
    String::from_utf8(found.s.clone()).ok()
}
