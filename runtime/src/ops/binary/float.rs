//! Float entry points.

use super::portable::zip;
use super::{BinaryF32, BinaryKind, Broadcast};
use crate::error::Error;
use crate::isa::Capability;

/// Expands `$call` once per kind, with `$f` bound to the kind's function followed by the clamp.
macro_rules! for_kind {
    ($op:expr, |$f:ident| $call:expr) => {{
        let (lo, hi) = ($op.lo, $op.hi);
        let clamp = move |v: f32| clamp(v, lo, hi);
        match $op.kind {
            BinaryKind::Add => {
                let $f = move |a: f32, b: f32| clamp(a + b);
                $call
            }
            BinaryKind::Sub => {
                let $f = move |a: f32, b: f32| clamp(a - b);
                $call
            }
            BinaryKind::Mul => {
                let $f = move |a: f32, b: f32| clamp(a * b);
                $call
            }
            BinaryKind::Div => {
                let $f = move |a: f32, b: f32| clamp(a / b);
                $call
            }
            BinaryKind::Max => {
                let $f = move |a: f32, b: f32| clamp(if a > b { a } else { b });
                $call
            }
            BinaryKind::Min => {
                let $f = move |a: f32, b: f32| clamp(if a < b { a } else { b });
                $call
            }
            BinaryKind::Pow => {
                let $f = move |a: f32, b: f32| clamp(libm::powf(a, b));
                $call
            }
        }
    }};
}

/// Computes `y = op(a, b)`; the lengths are those of the shapes that `layout` pairs.
pub fn binary_f32(
    cap: Capability,
    op: &BinaryF32,
    layout: &Broadcast,
    a: &[f32],
    b: &[f32],
    y: &mut [f32],
) -> Result<(), Error> {
    layout.check(a.len(), b.len(), y.len())?;
    for_kind!(op, |f| zip(cap, layout, (Some(a), b), y, f));
    Ok(())
}

/// Computes `y = op(y, b)`; `y` holds the first operand, which must have the output's shape.
pub fn binary_f32_in_place(
    cap: Capability,
    op: &BinaryF32,
    layout: &Broadcast,
    y: &mut [f32],
    b: &[f32],
) -> Result<(), Error> {
    layout.check(y.len(), b.len(), y.len())?;
    for_kind!(op, |f| zip(cap, layout, (None, b), y, f));
    Ok(())
}

/// A clamp that lets NaN pass.
#[inline(always)]
fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < lo { lo } else { v };
    if v > hi { hi } else { v }
}
