//! Resize, from the attributes in the file.
//!
//! Height and width of a map go to the graph's own operator where it has the filter. Everything else is
//! linear along one axis after another, so it becomes a linear layer per axis that changes, whose
//! weights [`Axis::layer`] works out.

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;

use super::operand::{Operand, floats};
use super::resize_axis::{Axis, Coordinates, Filter, Nearest, Sampling};
use super::{Lowered, Lowering, TO_NCHW, TO_NHWC};
use crate::graph::{Op, ResizeCoordinates, ResizeMode, ValueId};
use crate::import::error::Problem;

/// Most weights of an axis.
const MAX_WEIGHTS: usize = 1 << 20;

impl Lowering<'_> {
    pub(super) fn resize(&mut self, node: &TypedNode, inputs: &[Operand]) -> Lowered {
        let Some(file) = self.file.resizes.get(&node.name) else {
            return Err(self.unsupported(node, "its attributes cannot be found in the file"));
        };
        let sampling = sampling(file).map_err(|what| self.unsupported(node, &what))?;
        let x = self.activation(node, &inputs[0])?;
        let (from, to) = (self.graph.shape(x).to_vec(), self.output_shape(node)?);
        if from.len() != to.len() {
            return Err(self.unsupported(node, "the rank changes"));
        }
        let axes = self.resized_axes(node, file, inputs, &from, &to)?;
        let exact = axes.iter().all(Axis::scale_is_ratio);
        match operator(&sampling) {
            Some((mode, coordinates)) if exact && from.len() == 4 && from[..2] == to[..2] => {
                // Coordinates of PyTorch differ from the plain ones when one pixel is left.
                let single = axes.iter().any(|a| a.to == 1 && a.from > 1);
                if sampling.coordinates != Coordinates::PytorchHalfPixel || !single {
                    return self.resized_map(node, x, [to[2], to[3]], mode, coordinates);
                }
            }
            _ => (),
        }
        self.resized_by_layers(node, x, &axes, &sampling)
    }

    fn resized_map(
        &mut self,
        node: &TypedNode,
        x: ValueId,
        size: [usize; 2],
        mode: ResizeMode,
        coordinates: ResizeCoordinates,
    ) -> Lowered {
        let x = self.value(node, "nhwc", Op::Transpose(TO_NHWC.to_vec()), &[x])?;
        let op = Op::Resize {
            size,
            mode,
            coordinates,
        };
        let y = self.value(node, "", op, &[x])?;
        self.emit(node, "nchw", Op::Transpose(TO_NCHW.to_vec()), &[y])
    }

    fn resized_by_layers(
        &mut self,
        node: &TypedNode,
        x: ValueId,
        axes: &[Axis],
        sampling: &Sampling,
    ) -> Lowered {
        let mut y = x;
        let last = axes.len().saturating_sub(1);
        for (d, axis) in axes.iter().enumerate() {
            if axis.from.saturating_mul(axis.to) > MAX_WEIGHTS {
                return Err(self.unsupported(
                    node,
                    "this filter on so large a map; use nearest (floor) or linear with half_pixel",
                ));
            }
            let Some((weights, bias)) = axis.layer(sampling) else {
                continue;
            };
            let mut swap: Vec<usize> = (0..axes.len()).collect();
            swap.swap(d, last);
            let name = self.name(&node.name, "weights");
            let weights = self
                .graph
                .constant_value(&name, &[axis.to, axis.from], weights);
            let name = self.name(&node.name, "bias");
            let bias = self.graph.constant_value(&name, &[axis.to], bias);
            let linear = Op::Linear {
                residual: false,
                activation: None,
            };
            if d < last {
                y = self.value(node, "to-last", Op::Transpose(swap.clone()), &[y])?;
            }
            y = self.value(node, "", linear, &[y, weights, bias])?;
            if d < last {
                y = self.value(node, "from-last", Op::Transpose(swap), &[y])?;
            }
        }
        Ok(vec![Operand::Value(y)])
    }

    /// What happens to each dimension.
    fn resized_axes(
        &self,
        node: &TypedNode,
        file: &NodeProto,
        inputs: &[Operand],
        from: &[usize],
        to: &[usize],
    ) -> Result<Vec<Axis>, Problem> {
        let mut axes: Vec<Axis> = from
            .iter()
            .zip(to)
            .map(|(&from, &to)| Axis::new(from, to))
            .collect();
        let rank = from.len();
        let named = file.attribute.iter().find(|a| a.name == "axes");
        let order: Vec<usize> = match named {
            Some(a) => a
                .ints
                .iter()
                .map(|i| i.rem_euclid(rank as i64) as usize)
                .collect(),
            None => (0..rank).collect(),
        };
        // tract leaves out the operands without a name.
        let given = file.input.iter().enumerate().filter(|(_, n)| !n.is_empty());
        for ((number, _), operand) in given.zip(inputs).skip(1) {
            let Operand::Constant(t) = operand else {
                return Err(self.unsupported(node, "sizes that depend on data"));
            };
            let values = match number {
                1 | 2 => floats(t).map_err(|e| self.unsupported(node, &format!("{e:#}")))?,
                _ => continue,
            };
            for (i, &d) in order.iter().enumerate() {
                match (number, values.len()) {
                    (1, n) if n == 2 * order.len() => {
                        axes[d].crop = [values[i].into(), values[order.len() + i].into()];
                    }
                    (2, n) if n == order.len() => axes[d].scale = values[i].into(),
                    _ => (),
                }
            }
        }
        let sound =
            |a: &Axis| (a.scale * a.from as f64 - a.to as f64).abs() <= 1.0 && a.scale > 0.0;
        if axes.iter().all(sound) {
            Ok(axes)
        } else {
            Err(self.unsupported(node, "scales that disagree with the sizes"))
        }
    }
}

/// The graph's own operator for a sampling.
fn operator(s: &Sampling) -> Option<(ResizeMode, ResizeCoordinates)> {
    let mode = match s.filter {
        Filter::Nearest(Nearest::Floor) => ResizeMode::Nearest { floor: true },
        Filter::Nearest(Nearest::PreferFloor) => ResizeMode::Nearest { floor: false },
        Filter::Linear if !s.antialias && !s.exclude_outside => ResizeMode::Linear,
        _ => return None,
    };
    let coordinates = match s.coordinates {
        Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => ResizeCoordinates::HalfPixel,
        // With scales that are the ratio of the sizes, both centres are the same.
        Coordinates::HalfPixelSymmetric => ResizeCoordinates::HalfPixel,
        Coordinates::AlignCorners => ResizeCoordinates::AlignCorners,
        Coordinates::Asymmetric => ResizeCoordinates::Asymmetric,
        Coordinates::Crop => return None,
    };
    Some((mode, coordinates))
}

fn sampling(file: &NodeProto) -> Result<Sampling, String> {
    let text =
        |name: &str, default: &str| attribute(file, name).unwrap_or_else(|| default.to_owned());
    let number = |name: &str, default: f32| {
        let found = file.attribute.iter().find(|a| a.name == name);
        f64::from(found.map_or(default, |a| a.f))
    };
    let set = |name: &str| file.attribute.iter().any(|a| a.name == name && a.i != 0);
    let filter = match &*text("mode", "nearest") {
        "nearest" => Filter::Nearest(match &*text("nearest_mode", "round_prefer_floor") {
            "floor" => Nearest::Floor,
            "ceil" => Nearest::Ceil,
            "round_prefer_floor" => Nearest::PreferFloor,
            "round_prefer_ceil" => Nearest::PreferCeil,
            other => return Err(format!("nearest_mode {other}")),
        }),
        "linear" => Filter::Linear,
        "cubic" => Filter::Cubic(number("cubic_coeff_a", -0.75)),
        other => return Err(format!("mode {other}; use nearest, linear or cubic")),
    };
    let coordinates = match &*text("coordinate_transformation_mode", "half_pixel") {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_crop_and_resize" => Coordinates::Crop,
        other => return Err(format!("coordinates {other}; use half_pixel")),
    };
    Ok(Sampling {
        filter,
        coordinates,
        antialias: set("antialias"),
        exclude_outside: set("exclude_outside"),
        extrapolation: number("extrapolation_value", 0.0),
    })
}

fn attribute(node: &NodeProto, name: &str) -> Option<String> {
    let found = node.attribute.iter().find(|a| a.name == name)?;
    String::from_utf8(found.s.clone()).ok()
}
