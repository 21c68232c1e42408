//! Resizing of maps.

use super::super::file::Operator;
use super::super::lower::Lowering;
use crate::graph::{Op, ResizeCoordinates, ResizeMode};
use crate::import::error::Problem;

/// Largest side of a map that is resized.
const MAX_SIDE: usize = 1 << 15;

impl Lowering<'_, '_> {
    pub(super) fn resize_bilinear(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op.options.builtin_options_as_resize_bilinear_options() else {
            return Err(self.no_options(op));
        };
        let (_, size) = self.sizes(op)?;
        let coordinates = coordinates(options.align_corners(), options.half_pixel_centers());
        let x = self.value(op, 0)?;
        let resize = Op::Resize {
            size,
            mode: ResizeMode::Linear,
            coordinates,
        };
        self.emit(op, resize, &[x])
    }

    pub(super) fn resize_nearest(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op
            .options
            .builtin_options_as_resize_nearest_neighbor_options()
        else {
            return Err(self.no_options(op));
        };
        let (from, size) = self.sizes(op)?;
        let (corners, centres) = (options.align_corners(), options.half_pixel_centers());
        // With half-pixel centres TFLite takes the pixel that the centre falls into, which is the nearest
        // one unless the centre falls on the border of two; with aligned corners it rounds up there.
        let on_border = |axis: usize| {
            (0..size[axis]).any(|o| match (corners, centres) {
                (_, true) => (2 * o + 1) * from[axis] % (2 * size[axis]) == 0 && o > 0,
                (true, false) => {
                    let steps = size[axis].max(2) - 1;
                    2 * o * (from[axis] - 1) % (2 * steps) == steps
                }
                _ => false,
            })
        };
        if (corners && centres) || on_border(0) || on_border(1) {
            return Err(
                self.unsupported(op, "sizes whose pixels fall between two of its operand's")
            );
        }
        let x = self.value(op, 0)?;
        let resize = Op::Resize {
            size,
            mode: ResizeMode::Nearest {
                floor: !corners && !centres,
            },
            coordinates: coordinates(corners, centres),
        };
        self.emit(op, resize, &[x])
    }

    /// Height and width of the operand and of the result.
    fn sizes(&self, op: &Operator<'_>) -> Result<([usize; 2], [usize; 2]), Problem> {
        let (from, _) = self.map(op, 0)?;
        let side = |v: i64| {
            usize::try_from(v)
                .ok()
                .filter(|v| (1..=MAX_SIDE).contains(v))
        };
        match self.integers(op, 1)?[..] {
            [h, w] => match (side(h), side(w)) {
                (Some(h), Some(w)) => Ok((from, [h, w])),
                _ => Err(self.unsupported(op, "a size that is 0 or too large")),
            },
            _ => Err(self.unsupported(op, "its size is not a height and a width")),
        }
    }
}

fn coordinates(corners: bool, centres: bool) -> ResizeCoordinates {
    match (corners, centres) {
        (true, _) => ResizeCoordinates::AlignCorners,
        (_, true) => ResizeCoordinates::HalfPixel,
        _ => ResizeCoordinates::Asymmetric,
    }
}
