//! Activations of an affine function per channel, with their slopes.

use crate::isa::{Simd, kernel};
use crate::math;

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activation {
    /// x
    #[default]
    Identity,
    /// max(0, x)
    Relu,
    /// min(max(0, x), 6)
    Relu6,
    /// x·Φ(x) with the exact erf.
    Gelu,
    /// x·σ(1.702·x), CLIP's.
    QuickGelu,
    /// x·σ(x)
    Silu,
    /// x·min(max(0, x + 3), 6)/6
    HardSwish,
    /// σ(x)
    Sigmoid,
    /// min(max(0, x + 3), 6)/6
    HardSigmoid,
    /// tanh(x)
    Tanh,
}

/// Value and slope at a point.
trait Function {
    fn both<S: Simd>(simd: S, x: f32) -> [f32; 2];
}

macro_rules! function {
    ($name:ident, |$simd:ident, $x:ident| $body:expr) => {
        struct $name;
        impl Function for $name {
            #[inline(always)]
            fn both<S: Simd>($simd: S, $x: f32) -> [f32; 2] {
                let _ = $simd;
                $body
            }
        }
    };
}

function!(Identity, |simd, x| [x, 1.0]);
function!(Relu, |simd, x| if x > 0.0 {
    [x, 1.0]
} else {
    [0.0 * x, 0.0]
});
function!(Relu6, |simd, x| [clamp(x, 0.0, 6.0), inside(x, 0.0, 6.0)]);
function!(Gelu, |simd, x| {
    let (below, bell) = (math::distribution(simd, x), math::density(simd, x));
    [x * below, simd.mul_add(x, bell, below)]
});
function!(QuickGelu, |simd, x| {
    let s = math::sigmoid(simd, 1.702 * x);
    [x * s, s * (1.0 + 1.702 * x * (1.0 - s))]
});
function!(Silu, |simd, x| {
    let s = math::sigmoid(simd, x);
    [x * s, s * (1.0 + x * (1.0 - s))]
});
function!(HardSwish, |simd, x| {
    let gate = clamp(x + 3.0, 0.0, 6.0) / 6.0;
    [x * gate, gate + x / 6.0 * inside(x, -3.0, 3.0)]
});
function!(Sigmoid, |simd, x| {
    let s = math::sigmoid(simd, x);
    [s, s * (1.0 - s)]
});
function!(HardSigmoid, |simd, x| [
    clamp(x + 3.0, 0.0, 6.0) / 6.0,
    inside(x, -3.0, 3.0) / 6.0
]);
function!(Tanh, |simd, x| {
    let t = 2.0 * math::sigmoid(simd, 2.0 * x) - 1.0;
    [t, 1.0 - t * t]
});

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// 1 strictly between `low` and `high`, else 0.
#[inline(always)]
fn inside(x: f32, low: f32, high: f32) -> f32 {
    if x > low && x < high { 1.0 } else { 0.0 }
}

macro_rules! dispatch {
    ($activation:expr, $f:ident => $body:expr) => {{
        macro_rules! with {
            ($name:ident) => {{
                type $f = $name;
                $body
            }};
        }
        match $activation {
            Activation::Identity => with!(Identity),
            Activation::Relu => with!(Relu),
            Activation::Relu6 => with!(Relu6),
            Activation::Gelu => with!(Gelu),
            Activation::QuickGelu => with!(QuickGelu),
            Activation::Silu => with!(Silu),
            Activation::HardSwish => with!(HardSwish),
            Activation::Sigmoid => with!(Sigmoid),
            Activation::HardSigmoid => with!(HardSigmoid),
            Activation::Tanh => with!(Tanh),
        }
    }};
}

kernel! {
    /// `y = f(scale · x + shift)`, with one scale and shift per channel.
    pub fn forward<'a, S, simd>(f: Activation, affine: [&'a [f32]; 2], x: &'a [f32], y: &'a mut [f32]) {
        let c = affine[0].len().max(1);
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            dispatch!(f, F => value::<S, F>(simd, affine, x, y));
        }
    }
}

kernel! {
    /// As [`forward`], and `slope = f'(scale · x + shift)`.
    pub fn forward_with_slope<'a, S, simd>(
        f: Activation,
        affine: [&'a [f32]; 2],
        x: &'a [f32],
        y: &'a mut [f32],
        slope: &'a mut [f32],
    ) {
        let c = affine[0].len().max(1);
        let rows = x.chunks_exact(c).zip(y.chunks_exact_mut(c)).zip(slope.chunks_exact_mut(c));
        for ((x, y), slope) in rows {
            dispatch!(f, F => both::<S, F>(simd, affine, x, y, slope));
        }
    }
}

#[inline(always)]
fn value<S: Simd, F: Function>(simd: S, [scale, shift]: [&[f32]; 2], x: &[f32], y: &mut [f32]) {
    let n = x.len();
    let (scale, shift, y) = (&scale[..n], &shift[..n], &mut y[..n]);
    for i in 0..n {
        y[i] = F::both(simd, simd.mul_add(x[i], scale[i], shift[i]))[0];
    }
}

#[inline(always)]
fn both<S: Simd, F: Function>(
    simd: S,
    [scale, shift]: [&[f32]; 2],
    x: &[f32],
    y: &mut [f32],
    slope: &mut [f32],
) {
    let n = x.len();
    let (scale, shift, y, slope) = (&scale[..n], &shift[..n], &mut y[..n], &mut slope[..n]);
    for i in 0..n {
        [y[i], slope[i]] = F::both(simd, simd.mul_add(x[i], scale[i], shift[i]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_equal_differences() {
        use Activation::*;
        for f in [
            Identity,
            Relu,
            Relu6,
            Gelu,
            QuickGelu,
            Silu,
            HardSwish,
            Sigmoid,
            HardSigmoid,
            Tanh,
        ] {
            let x: Vec<f32> = (-40..40).map(|i| i as f32 * 0.17 + 0.013).collect();
            let n = x.len();
            let (one, zero) = (vec![1.0; n], vec![0.0; n]);
            let at = |delta: f32| {
                let shift = vec![delta; n];
                let mut y = vec![0.0; n];
                forward(f, [&one, &shift], &x, &mut y);
                y
            };
            let (mut y, mut slope) = (vec![0.0; n], vec![0.0; n]);
            forward_with_slope(f, [&one, &zero], &x, &mut y, &mut slope);
            assert_eq!(y, at(0.0), "{f:?}");
            let (up, down) = (at(5e-3), at(-5e-3));
            for i in 0..n {
                let difference = (up[i] - down[i]) / 1e-2;
                assert!(
                    (slope[i] - difference).abs() < 3e-4,
                    "{f:?} at {}: {} {difference}",
                    x[i],
                    slope[i]
                );
            }
        }
    }
}
