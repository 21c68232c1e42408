//! Entry points.

use super::{Rescale, reference};
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::expect;
use crate::ops::vectorize::{Loop, run};

/// Float to 8-bit codes.
pub fn quantize_i8(
    cap: Capability,
    inverse_scale: f32,
    zero: i32,
    x: &[f32],
    y: &mut [i8],
) -> Result<(), Error> {
    map(cap, x, y, |x| {
        reference::quantize(inverse_scale, zero, -128, 127, x) as i8
    })
}

/// Float to 16-bit codes.
pub fn quantize_i16(
    cap: Capability,
    inverse_scale: f32,
    x: &[f32],
    y: &mut [i16],
) -> Result<(), Error> {
    map(cap, x, y, |x| {
        reference::quantize(inverse_scale, 0, -32767, 32767, x) as i16
    })
}

/// 8-bit codes to float.
pub fn dequantize_i8(
    cap: Capability,
    scale: f32,
    zero: i32,
    x: &[i8],
    y: &mut [f32],
) -> Result<(), Error> {
    map(cap, x, y, |q| {
        reference::dequantize(scale, zero, i32::from(q))
    })
}

/// 16-bit codes to float.
pub fn dequantize_i16(cap: Capability, scale: f32, x: &[i16], y: &mut [f32]) -> Result<(), Error> {
    map(cap, x, y, |q| reference::dequantize(scale, 0, i32::from(q)))
}

/// 8-bit codes to 8-bit codes of another scale.
pub fn rescale_i8(cap: Capability, op: &Rescale, x: &[i8], y: &mut [i8]) -> Result<(), Error> {
    map(cap, x, y, |q| reference::rescale(op, i32::from(q)) as i8)
}

/// 8-bit codes to 8-bit codes of another scale, which replace them.
pub fn rescale_i8_in_place(cap: Capability, op: &Rescale, y: &mut [i8]) -> Result<(), Error> {
    run(
        cap,
        MapInPlace {
            y,
            f: |q: i8| reference::rescale(op, i32::from(q)) as i8,
        },
    );
    Ok(())
}

/// 8-bit codes to 16-bit codes.
pub fn widen_i8_i16(cap: Capability, op: &Rescale, x: &[i8], y: &mut [i16]) -> Result<(), Error> {
    map(cap, x, y, |q| reference::rescale(op, i32::from(q)) as i16)
}

/// 16-bit codes to 8-bit codes.
pub fn narrow_i16_i8(cap: Capability, op: &Rescale, x: &[i16], y: &mut [i8]) -> Result<(), Error> {
    map(cap, x, y, |q| reference::rescale(op, i32::from(q)) as i8)
}

fn map<S: Copy, D>(cap: Capability, x: &[S], y: &mut [D], f: impl Fn(S) -> D) -> Result<(), Error> {
    expect(x.len(), y.len())?;
    run(cap, Map { x, y, f });
    Ok(())
}

struct Map<'a, S, D, F> {
    x: &'a [S],
    y: &'a mut [D],
    f: F,
}

impl<S: Copy, D, F: Fn(S) -> D> Loop for Map<'_, S, D, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = (self.f)(x);
        }
    }
}

struct MapInPlace<'a, T, F> {
    y: &'a mut [T],
    f: F,
}

impl<T: Copy, F: Fn(T) -> T> Loop for MapInPlace<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for y in self.y {
            *y = (self.f)(*y);
        }
    }
}
