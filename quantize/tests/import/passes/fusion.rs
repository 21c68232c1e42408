//! Padding, activations and residuals, into the layer that they belong to.

use ampoule_quantize::graph::Op;
use ampoule_quantize::passes;
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::Build;

#[test]
fn padding_goes_into_windows_that_treat_it_alike() {
    let padded = |value: f32, op: fn(Window) -> Option<Op>| {
        let mut b = Build::default();
        let x = b.input(&[1, 4, 4, 3]);
        let y = b.push(
            Op::Pad {
                before: vec![0, 1, 0, 0],
                after: vec![0, 1, 2, 0],
                value,
            },
            &[x],
        );
        let window = Window {
            kernel: [2; 2],
            stride: [2; 2],
            ..Window::POINT
        };
        let y = match op(window) {
            Some(op) => b.push(op, &[y]),
            None => b.conv(y, 2, 3, 1),
        };
        b.after(passes::padding::run, y)
    };
    let max = |window| {
        Some(Op::Pool {
            kind: PoolKind::Max,
            window,
            include_pad: false,
        })
    };
    let average = |window| {
        Some(Op::Pool {
            kind: PoolKind::Average,
            window,
            include_pad: false,
        })
    };
    assert_eq!(padded(0.0, |_| None), "Conv 1");
    assert_eq!(padded(1.0, |_| None), "Conv 1, Pad 1");
    assert_eq!(padded(0.0, average), "AveragePool 1");
    assert_eq!(padded(f32::NEG_INFINITY, max), "MaxPool 1");
    assert_eq!(padded(0.0, max), "MaxPool 1, Pad 1");
}

#[test]
fn activations_fuse_into_private_layers() {
    let mut b = Build::default();
    let x = b.input(&[1, 4]);
    let y = b.linear(x, 4);
    let y = b.unary(UnaryKind::Silu, y);
    let z = b.linear(y, 4);
    let r = b.unary(UnaryKind::Relu, z);
    let y = b.binary(BinaryKind::Mul, z, r);
    let y = b.unary(UnaryKind::Tanh, y);
    assert_eq!(
        b.after(passes::activation::run, y),
        "Linear 1, Linear+Silu 1, Mul+Tanh 1, Relu 1"
    );
}

#[test]
fn residuals_fuse_and_wait_for_their_addend() {
    let mut b = Build::default();
    let x = b.input(&[1, 4, 4, 3]);
    let main = b.conv(x, 3, 3, 1);
    // The addend comes later, and is no layer: the convolution must run after it.
    let side = b.push(Op::Unary(UnaryKind::Tanh), &[x]);
    let y = b.push(
        Op::Binary {
            kind: BinaryKind::Add,
            activation: Some(UnaryKind::Relu),
        },
        &[main, side],
    );
    let z = b.conv(y, 3, 1, 0);
    let y = b.binary(BinaryKind::Add, y, z);
    assert_eq!(
        b.after(passes::residual::run, y),
        "Conv+r 1, Conv+r+Relu 1, Tanh 1"
    );
}

#[test]
fn additions_that_are_no_residuals_stay() {
    let mut b = Build::default();
    let x = b.input(&[1, 4, 4, 3]);
    let y = b.conv(x, 3, 1, 0);
    let doubled = b.binary(BinaryKind::Add, y, y);
    let row = b.mean(x, &[1]);
    let z = b.conv(doubled, 3, 1, 0);
    let y = b.binary(BinaryKind::Add, z, row);
    assert_eq!(
        b.after(passes::residual::run, y),
        "Add 2, Conv 2, ReduceMean 1"
    );
}
