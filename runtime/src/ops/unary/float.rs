//! Float slices.

use super::UnaryKind;
use super::fast::{erf, exp, gated, gelu, sigmoid, tanh};
use super::kind::{
    GELU_TANH_CUBE, GELU_TANH_SCALE, QUICK_GELU, clamp, hard_swish, leaky_relu, relu,
};
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::expect;
use crate::ops::vectorize::{Loop, run};

/// Elements that are copied at a time.
const BLOCK: usize = 4096;

/// Applies `kind` to each element of `x`.
pub fn unary_f32(cap: Capability, kind: UnaryKind, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    expect(x.len(), y.len())?;
    // In blocks that stay in the first-level cache between the copy and the function.
    for (x, y) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)) {
        y.copy_from_slice(x);
        unary_f32_in_place(cap, kind, y)?;
    }
    Ok(())
}

/// Applies `kind` to each element of `y`.
pub fn unary_f32_in_place(cap: Capability, kind: UnaryKind, y: &mut [f32]) -> Result<(), Error> {
    match kind {
        UnaryKind::Relu => map(cap, y, relu),
        UnaryKind::LeakyRelu(slope) => map(cap, y, |x| leaky_relu(x, slope)),
        UnaryKind::Sigmoid => map(cap, y, sigmoid),
        UnaryKind::HardSigmoid(alpha, beta) => {
            map(cap, y, |x| clamp(alpha * x + beta, 0.0, 1.0));
        }
        UnaryKind::HardSwish => map(cap, y, hard_swish),
        UnaryKind::Silu => map(cap, y, |x| gated(x, x)),
        UnaryKind::Tanh => map(cap, y, tanh),
        UnaryKind::GeluErf => map(cap, y, gelu),
        UnaryKind::GeluTanh => {
            map(cap, y, |x| {
                gated(x, 2.0 * GELU_TANH_SCALE * (x + GELU_TANH_CUBE * x * x * x))
            });
        }
        UnaryKind::QuickGelu => map(cap, y, |x| gated(x, QUICK_GELU * x)),
        UnaryKind::Exp => map(cap, y, exp),
        UnaryKind::Erf => map(cap, y, erf),
        UnaryKind::Neg => map(cap, y, |x| -x),
        UnaryKind::Abs => map(cap, y, |x| x.abs()),
        UnaryKind::Reciprocal => map(cap, y, |x| 1.0 / x),
        UnaryKind::Softsign => map(cap, y, |x| x / (1.0 + x.abs())),
        UnaryKind::Clamp(lo, hi) => map(cap, y, |x| clamp(x, lo, hi)),
        UnaryKind::Square => map(cap, y, |x| x * x),
        _ => y.iter_mut().for_each(|y| *y = kind.eval(*y)),
    }
    Ok(())
}

struct Map<'a, F> {
    y: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32) -> f32> Loop for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for y in self.y {
            *y = (self.f)(*y);
        }
    }
}

fn map(cap: Capability, y: &mut [f32], f: impl Fn(f32) -> f32) {
    run(cap, Map { y, f });
}
