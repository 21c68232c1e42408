//! Resizing of NHWC maps inside a network (not preprocessing): nearest and bilinear.
//!
//! Contract: the output position `(oy, ox)` maps to an input position by [`Coordinates`]; nearest
//! takes one pixel, bilinear weighs four. All position arithmetic is integer or f32 in one fixed
//! order, so every target computes the same codes. For i8 the weighted sum of codes is rounded half
//! to even: the output shares the input's scale and zero point.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::numerics::round_to_code;

/// Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Interpolation {
    /// Nearest pixel, ties towards the lower index.
    Nearest,
    /// The pixel at the floor of the position.
    NearestFloor,
    /// Bilinear.
    Linear,
}

/// Mapping from output to input positions, as ONNX names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Coordinates {
    /// `(o + 0.5) · in/out − 0.5`.
    HalfPixel,
    /// `o · (in − 1)/(out − 1)`.
    AlignCorners,
    /// `o · in/out`.
    Asymmetric,
}

/// A resize between two maps `[height, width, channels]`.
#[derive(Debug, Clone, Copy)]
pub struct Resize {
    /// Input height, width, channels.
    pub input: [usize; 3],
    /// Output height and width.
    pub output: [usize; 2],
    /// Filter.
    pub interpolation: Interpolation,
    /// Position mapping.
    pub coordinates: Coordinates,
}

/// Element types that can be resized.
pub trait Element: Copy {
    /// `Σ wᵢ · xᵢ` over four pixels, rounded to the type.
    fn blend(x: [Self; 4], w: [f32; 4]) -> Self;
}

impl Element for i8 {
    fn blend(x: [Self; 4], w: [f32; 4]) -> Self {
        let t = f32::from(x[0]) * w[0]
            + f32::from(x[1]) * w[1]
            + f32::from(x[2]) * w[2]
            + f32::from(x[3]) * w[3];
        round_to_code(t, 0, -128, 127) as i8
    }
}

impl Element for i16 {
    fn blend(x: [Self; 4], w: [f32; 4]) -> Self {
        let t = f32::from(x[0]) * w[0]
            + f32::from(x[1]) * w[1]
            + f32::from(x[2]) * w[2]
            + f32::from(x[3]) * w[3];
        round_to_code(t, 0, -32768, 32767) as i16
    }
}

impl Element for f32 {
    fn blend(x: [Self; 4], w: [f32; 4]) -> Self {
        x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3]
    }
}

/// Resizes one map.
pub fn resize<T: Element>(r: &Resize, x: &[T], y: &mut [T]) -> Result<(), Error> {
    let ([h, w, c], [oh, ow]) = (r.input, r.output);
    if x.len() != h * w * c || y.len() != oh * ow * c || x.is_empty() || y.is_empty() {
        return Err(Error::Length {
            expected: h * w * c,
            got: x.len(),
        });
    }
    for (row, out_row) in y.chunks_exact_mut(ow * c).enumerate() {
        let (y0, y1, fy) = taps(r, row, h, oh);
        for (col, out) in out_row.chunks_exact_mut(c).enumerate() {
            let (x0, x1, fx) = taps(r, col, w, ow);
            let pixel = |py: usize, px: usize| &x[(py * w + px) * c..][..c];
            if r.interpolation != Interpolation::Linear {
                out.copy_from_slice(pixel(y0, x0));
                continue;
            }
            let corners = [pixel(y0, x0), pixel(y0, x1), pixel(y1, x0), pixel(y1, x1)];
            let weights = [
                (1.0 - fy) * (1.0 - fx),
                (1.0 - fy) * fx,
                fy * (1.0 - fx),
                fy * fx,
            ];
            for (ch, o) in out.iter_mut().enumerate() {
                *o = T::blend(corners.map(|p| p[ch]), weights);
            }
        }
    }
    Ok(())
}

/// Lower tap, upper tap and the share of the upper one for output index `o`.
fn taps(r: &Resize, o: usize, input: usize, output: usize) -> (usize, usize, f32) {
    let last = input - 1;
    // The position as an exact fraction: numerator over denominator.
    let (numerator, denominator) = match r.coordinates {
        Coordinates::HalfPixel => (
            (2 * o as i64 + 1) * input as i64 - output as i64,
            2 * output as i64,
        ),
        Coordinates::AlignCorners if output > 1 => (o as i64 * last as i64, output as i64 - 1),
        Coordinates::AlignCorners => (0, 1),
        Coordinates::Asymmetric => (o as i64 * input as i64, output as i64),
    };
    let clamp = |i: i64| i.clamp(0, last as i64) as usize;
    match r.interpolation {
        Interpolation::Nearest => {
            // ceil(p − 1/2): the nearest index, ties towards the lower one.
            let i = (2 * numerator - denominator + 2 * denominator - 1).div_euclid(2 * denominator);
            (clamp(i), clamp(i), 0.0)
        }
        Interpolation::NearestFloor => {
            let i = clamp(numerator.div_euclid(denominator));
            (i, i, 0.0)
        }
        Interpolation::Linear => {
            let numerator = numerator.clamp(0, last as i64 * denominator);
            let (i, rest) = (numerator / denominator, numerator % denominator);
            (clamp(i), clamp(i + 1), rest as f32 / denominator as f32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_nearest_and_linear() {
        let r = Resize {
            input: [1, 2, 1],
            output: [1, 4],
            interpolation: Interpolation::Nearest,
            coordinates: Coordinates::Asymmetric,
        };
        let mut y = [0i8; 4];
        resize(
            &Resize {
                interpolation: Interpolation::NearestFloor,
                ..r
            },
            &[10, 20],
            &mut y,
        )
        .unwrap();
        assert_eq!(y, [10, 10, 20, 20]);
        resize(&r, &[10, 20], &mut y).unwrap(); // positions 0, .5, 1, 1.5: ties go down
        assert_eq!(y, [10, 10, 20, 20]);
        let linear = Resize {
            interpolation: Interpolation::Linear,
            coordinates: Coordinates::HalfPixel,
            ..r
        };
        let mut y = [0f32; 4];
        resize(&linear, &[10.0, 20.0], &mut y).unwrap();
        assert_eq!(y, [10.0, 12.5, 17.5, 20.0]);
        let corners = Resize {
            coordinates: Coordinates::AlignCorners,
            ..linear
        };
        resize(&corners, &[0.0, 3.0], &mut y).unwrap();
        assert_eq!(y, [0.0, 1.0, 2.0, 3.0]);
    }
}
