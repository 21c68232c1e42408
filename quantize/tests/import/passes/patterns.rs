//! Functions recognised from their parts.

use ampoule_quantize::graph::{Op, ReduceKind, ValueId};
use ampoule_quantize::passes;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::{Build, window};

/// The name of the function that a pattern of `x` becomes.
fn pattern(build: impl FnOnce(&mut Build, ValueId) -> ValueId) -> String {
    let mut b = Build::default();
    let x = b.input(&[2, 8]);
    let y = build(&mut b, x);
    b.optimised(y)
}

#[test]
fn gates_are_recognised_in_any_order() {
    use BinaryKind::{Add, Div, Mul};
    let silu = pattern(|b, x| {
        let s = b.unary(UnaryKind::Sigmoid, x);
        b.binary(Mul, s, x)
    });
    assert_eq!(silu, "Silu 1");
    let quick = pattern(|b, x| {
        let s = b.with(Mul, x, 1.702);
        let s = b.unary(UnaryKind::Sigmoid, s);
        b.binary(Mul, x, s)
    });
    assert_eq!(quick, "QuickGelu 1");
    let erf = |b: &mut Build, x: ValueId| {
        let e = b.with(Div, x, std::f32::consts::SQRT_2);
        let e = b.unary(UnaryKind::Erf, e);
        b.with(Add, e, 1.0)
    };
    let halved_last = pattern(|b, x| {
        let e = erf(b, x);
        let y = b.binary(Mul, x, e);
        b.with(Mul, y, 0.5)
    });
    let halved_first = pattern(|b, x| {
        let e = erf(b, x);
        let h = b.with(Mul, x, 0.5);
        b.binary(Mul, e, h)
    });
    let halved_gate = pattern(|b, x| {
        let e = erf(b, x);
        let h = b.with(Div, e, 2.0);
        b.binary(Mul, h, x)
    });
    assert_eq!([halved_last, halved_first, halved_gate], ["GeluErf 1"; 3]);
    let tanh = pattern(|b, x| {
        let c = b.with(BinaryKind::Pow, x, 3.0);
        let c = b.with(Mul, c, 0.044_715);
        let u = b.binary(Add, x, c);
        let u = b.with(Mul, u, 0.797_884_56);
        let t = b.unary(UnaryKind::Tanh, u);
        let t = b.with(Add, t, 1.0);
        let h = b.with(Mul, x, 0.5);
        b.binary(Mul, h, t)
    });
    assert_eq!(tanh, "GeluTanh 1");
    let mish = pattern(|b, x| {
        let s = b.unary(UnaryKind::Softplus, x);
        let t = b.unary(UnaryKind::Tanh, s);
        b.binary(Mul, t, x)
    });
    assert_eq!(mish, "Mish 1");
}

#[test]
fn almost_gates_are_left_alone() {
    let other_slope = pattern(|b, x| {
        let s = b.with(BinaryKind::Mul, x, 1.5);
        let s = b.unary(UnaryKind::Sigmoid, s);
        b.binary(BinaryKind::Mul, x, s)
    });
    assert_eq!(other_slope, "Mul 1, Mul+Sigmoid 1");
}

#[test]
fn clamps_and_hard_functions() {
    use BinaryKind::{Add, Div, Max, Min, Mul};
    let relu = pattern(|b, x| {
        let zero = b.number(0.0);
        b.binary(Max, zero, x)
    });
    assert_eq!(relu, "Relu 1");
    let relu6 = |b: &mut Build, x: ValueId| {
        let y = b.with(Max, x, 0.0);
        b.with(Min, y, 6.0)
    };
    assert_eq!(pattern(relu6), "Clamp 1");
    let sigmoid = pattern(|b, x| {
        let y = b.with(Add, x, 3.0);
        let y = relu6(b, y);
        b.with(Div, y, 6.0)
    });
    assert_eq!(sigmoid, "HardSigmoid 1");
    let swish = pattern(|b, x| {
        let y = b.with(Add, x, 3.0);
        let y = relu6(b, y);
        let y = b.binary(Mul, x, y);
        b.with(Div, y, 6.0)
    });
    assert_eq!(swish, "HardSwish 1");
    let crossed = pattern(|b, x| {
        let y = b.with(Max, x, 0.9);
        b.with(Min, y, -0.9)
    });
    assert_eq!(crossed, "Clamp 2");
}

#[test]
fn layer_normalisation_from_its_parts() {
    let parts = |root_first: bool| {
        let mut b = Build::default();
        let x = b.input(&[2, 3, 8]);
        let m = b.mean(x, &[2]);
        let d = b.binary(BinaryKind::Sub, x, m);
        let s = b.with(BinaryKind::Pow, d, 2.0);
        let v = b.push(
            Op::Reduce {
                kind: ReduceKind::Sum,
                axes: vec![2],
            },
            &[s],
        );
        let v = b.with(BinaryKind::Div, v, 8.0);
        let v = b.with(BinaryKind::Add, v, 1e-5);
        let y = if root_first {
            let r = b.unary(UnaryKind::Sqrt, v);
            b.binary(BinaryKind::Div, d, r)
        } else {
            let r = b.unary(UnaryKind::Rsqrt, v);
            b.binary(BinaryKind::Mul, r, d)
        };
        let (g, o) = (b.constant(&[8]), b.constant(&[1, 1, 8]));
        let y = b.binary(BinaryKind::Mul, y, g);
        let y = b.binary(BinaryKind::Add, y, o);
        b.optimised(y)
    };
    assert_eq!([parts(true), parts(false)], ["LayerNorm 1"; 2]);
}

#[test]
fn products_with_a_constant_matrix_are_linear_layers() {
    let mut b = Build::default();
    let x = b.input(&[2, 3, 4]);
    let w = b.constant(&[4, 5]);
    let y = b.push(Op::MatMul, &[x, w]);
    let c = b.constant(&[5]);
    let y = b.binary(BinaryKind::Add, y, c);
    let y = b.unary(UnaryKind::GeluErf, y);
    assert_eq!(b.optimised(y), "Linear+GeluErf 1");
}

#[test]
fn logarithms_of_softmax_come_from_its_operand() {
    let mut b = Build::default();
    let x = b.input(&[2, 7]);
    let y = b.push(Op::Softmax { log: false }, &[x]);
    let y = b.unary(UnaryKind::Log, y);
    assert_eq!(b.optimised(y), "LogSoftmax 1");
}

#[test]
fn normalisation_over_the_channels_of_an_nchw_map_is_recognised() {
    let mut b = Build::default();
    let x = b.input(&[1, 6, 3, 2]);
    let mean = b.mean(x, &[1]);
    let d = b.binary(BinaryKind::Sub, x, mean);
    let square = b.unary(UnaryKind::Square, d);
    let variance = b.mean(square, &[1]);
    let variance = b.with(BinaryKind::Add, variance, 1e-6);
    let deviation = b.unary(UnaryKind::Sqrt, variance);
    let y = b.binary(BinaryKind::Div, d, deviation);
    let (gain, offset) = (b.constant(&[6, 1, 1]), b.constant(&[6, 1, 1]));
    let y = b.binary(BinaryKind::Mul, y, gain);
    let y = b.binary(BinaryKind::Add, y, offset);
    assert_eq!(b.optimised(y), "LayerNorm 1");
}

#[test]
fn a_channel_multiplier_becomes_repeated_channels() {
    let mut b = Build::default();
    let x = b.input(&[1, 6, 5, 3]);
    let (w, bias) = (b.constant(&[6, 3, 3, 1]), b.constant(&[6]));
    let op = Op::Conv {
        window: window(3, 2, [1; 4]),
        groups: 3,
        residual: false,
        activation: None,
    };
    let y = b.push(op, &[x, w, bias]);
    assert_eq!(
        b.after(passes::multiplier::run, y),
        "Broadcast 1, Conv 1, Reshape 2"
    );
}
