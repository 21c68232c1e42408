//! Each pass on small graphs: what it makes of them, and that the function stays the same.

use ampoule_quantize::graph::{Graph, GraphError, Op, ReduceKind, ValueId};
use ampoule_quantize::passes::{self, Pass};
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;

use crate::fixtures::{difference, noise, run, source_shape, summary};
use crate::interpret::interpret;

const TO_NCHW: [usize; 4] = [0, 3, 1, 2];
const TO_NHWC: [usize; 4] = [0, 2, 3, 1];

/// A graph under construction; names are numbers.
#[derive(Default)]
struct Build(Graph);

impl Build {
    fn input(&mut self, shape: &[usize]) -> ValueId {
        let name = format!("x{}", self.0.inputs.len());
        self.0.input(&name, shape)
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let name = format!("n{}", self.0.nodes.len());
        self.0.push(&name, op, inputs).unwrap()
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let seed = self.0.values.len() as u64 + 7;
        let data = noise(shape.iter().product(), seed);
        self.0.constant_value("c", shape, data)
    }

    fn number(&mut self, x: f32) -> ValueId {
        self.0.constant_value("c", &[], vec![x])
    }

    fn unary(&mut self, kind: UnaryKind, x: ValueId) -> ValueId {
        self.push(Op::Unary(kind), &[x])
    }

    fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> ValueId {
        self.push(
            Op::Binary {
                kind,
                activation: None,
            },
            &[a, b],
        )
    }

    fn with(&mut self, kind: BinaryKind, x: ValueId, c: f32) -> ValueId {
        let c = self.number(c);
        self.binary(kind, x, c)
    }

    /// A convolution of an NHWC map.
    fn conv(&mut self, x: ValueId, outputs: usize, kernel: u16, pad: u16) -> ValueId {
        let channels = self.0.shape(x)[3];
        let side = usize::from(kernel);
        let w = self.constant(&[outputs, side, side, channels]);
        let b = self.constant(&[outputs]);
        let window = Window {
            kernel: [kernel; 2],
            pad: [pad; 4],
            ..Window::POINT
        };
        self.push(
            Op::Conv {
                window,
                groups: 1,
                residual: false,
                activation: None,
            },
            &[x, w, b],
        )
    }

    fn linear(&mut self, x: ValueId, outputs: usize) -> ValueId {
        let inputs = *self.0.shape(x).last().unwrap();
        let (w, b) = (self.constant(&[outputs, inputs]), self.constant(&[outputs]));
        self.push(
            Op::Linear {
                residual: false,
                activation: None,
            },
            &[x, w, b],
        )
    }

    /// [`Build::conv`] of an NCHW map, between transposes as import makes it.
    fn conv_nchw(&mut self, x: ValueId, outputs: usize) -> ValueId {
        let x = self.push(Op::Transpose(TO_NHWC.to_vec()), &[x]);
        let y = self.conv(x, outputs, 3, 1);
        self.push(Op::Transpose(TO_NCHW.to_vec()), &[y])
    }

    fn mean(&mut self, x: ValueId, axes: &[usize]) -> ValueId {
        self.push(
            Op::Reduce {
                kind: ReduceKind::Mean,
                axes: axes.to_vec(),
            },
            &[x],
        )
    }

    /// Declares the output, applies `pass` until it rests, checks the function and counts the nodes.
    fn after(mut self, pass: Pass, y: ValueId) -> String {
        self.0.output("y", y);
        let mut rounds = 0;
        self.compare(|graph| {
            while pass(graph)? > 0 {
                graph.validate()?;
                rounds += 1;
                assert!(rounds < 20, "the pass does not come to rest");
            }
            Ok(())
        })
    }

    /// The same with all passes.
    fn optimised(mut self, y: ValueId) -> String {
        self.0.output("y", y);
        self.compare(|graph| passes::optimise(graph, Some(&mut |_, graph| graph.validate())))
    }

    fn compare(mut self, f: impl FnOnce(&mut Graph) -> Result<(), GraphError>) -> String {
        self.0.validate().unwrap();
        let shapes = |g: &Graph| {
            g.inputs
                .iter()
                .map(|p| source_shape(g, p))
                .collect::<Vec<_>>()
        };
        let before = shapes(&self.0);
        let inputs: Vec<Vec<f32>> = before
            .iter()
            .enumerate()
            .map(|(i, s)| noise(s.iter().product(), i as u64))
            .collect();
        let expected = run(&self.0, interpret, &inputs).unwrap();
        f(&mut self.0).unwrap();
        self.0.validate().unwrap();
        assert_eq!(shapes(&self.0), before);
        let got = run(&self.0, interpret, &inputs).unwrap();
        let d = got
            .iter()
            .zip(&expected)
            .map(|(g, e)| difference(g, e))
            .fold(0.0, f32::max);
        assert!(d < 1e-5, "differs by {d}: {}", summary(&self.0));
        summary(&self.0)
    }
}

#[test]
fn layout_cancels_transposes_between_convolutions() {
    let mut b = Build::default();
    let x = b.input(&[1, 3, 5, 4]);
    let y = b.conv_nchw(x, 6);
    let y = b.unary(UnaryKind::Relu, y);
    let c = b.constant(&[6, 1, 1]);
    let y = b.binary(BinaryKind::Mul, y, c);
    let y = b.push(
        Op::Pad {
            before: vec![0, 0, 1, 0],
            after: vec![0, 0, 0, 2],
            value: 0.5,
        },
        &[y],
    );
    let z = b.conv_nchw(y, 6);
    let y = b.push(Op::Concat { axis: 1 }, &[y, z]);
    let y = b.push(
        Op::Slice {
            axis: 1,
            start: 2,
            len: 8,
            step: 1,
        },
        &[y],
    );
    assert_eq!(
        b.after(passes::layout::run, y),
        "Concat 1, Conv 2, Mul 1, Pad 1, Relu 1, Slice 1"
    );
}

#[test]
fn layout_makes_global_pooling_and_squeeze_excite_plain() {
    let mut b = Build::default();
    let x = b.input(&[1, 4, 3, 3]);
    let y = b.conv_nchw(x, 4);
    let s = b.mean(y, &[2, 3]);
    let s = b.conv_nchw(s, 4);
    let s = b.unary(UnaryKind::Sigmoid, s);
    let y = b.binary(BinaryKind::Mul, y, s);
    let y = b.mean(y, &[2, 3]);
    let y = b.push(Op::Reshape(vec![1, 4]), &[y]);
    let y = b.linear(y, 3);
    assert_eq!(
        b.optimised(y),
        "Conv 1, Conv+Sigmoid 1, Linear 1, Mul 1, ReduceMean 2, Reshape 1"
    );
}

#[test]
fn layout_permutes_weights_behind_a_flattened_map() {
    let mut b = Build::default();
    let x = b.input(&[1, 4, 3, 2]);
    let y = b.conv_nchw(x, 4);
    let y = b.push(Op::Reshape(vec![1, 24]), &[y]);
    let y = b.linear(y, 5);
    assert_eq!(
        b.after(passes::layout::run, y),
        "Conv 1, Linear 1, Reshape 1"
    );
}

#[test]
fn layout_takes_patches_to_tokens_without_a_transpose() {
    let mut b = Build::default();
    let x = b.input(&[1, 3, 4, 4]);
    let y = b.conv_nchw(x, 6);
    let y = b.push(Op::Reshape(vec![1, 6, 16]), &[y]);
    let y = b.push(Op::Transpose(vec![0, 2, 1]), &[y]);
    let y = b.linear(y, 5);
    assert_eq!(b.optimised(y), "Conv 1, Linear 1, Reshape 1");
}

#[test]
fn layout_keeps_what_does_not_cancel() {
    let mut b = Build::default();
    let x = b.input(&[2, 3, 4]);
    let t = b.push(Op::Transpose(vec![0, 2, 1]), &[x]);
    let y = b.push(Op::MatMul, &[x, t]);
    assert_eq!(b.after(passes::layout::run, y), "MatMul 1, Transpose 1");
}

#[test]
fn softmax_over_channels_loses_its_transposes() {
    let mut b = Build::default();
    let x = b.input(&[1, 3, 4, 4]);
    let y = b.conv_nchw(x, 6);
    let y = b.push(Op::Transpose(TO_NHWC.to_vec()), &[y]);
    let y = b.push(Op::Softmax { log: false }, &[y]);
    let y = b.push(Op::Transpose(TO_NCHW.to_vec()), &[y]);
    assert_eq!(b.after(passes::layout::run, y), "Conv 1, Softmax 1");
}

#[test]
fn affine_goes_into_the_layer_before() {
    let mut b = Build::default();
    let x = b.input(&[1, 4, 4, 3]);
    let y = b.conv(x, 5, 3, 1);
    let (s, t) = (b.constant(&[5]), b.constant(&[1, 1, 1, 5]));
    let y = b.binary(BinaryKind::Mul, y, s);
    let y = b.binary(BinaryKind::Add, y, t);
    let one = b.number(1.0);
    let y = b.binary(BinaryKind::Sub, one, y);
    assert_eq!(b.after(passes::affine::run, y), "Conv 1");
}

#[test]
fn affine_takes_differences_either_way() {
    for constant_first in [false, true] {
        let mut b = Build::default();
        let x = b.input(&[1, 4, 4, 3]);
        let y = b.conv(x, 5, 3, 1);
        let c = b.constant(&[5]);
        let (p, q) = if constant_first { (c, y) } else { (y, c) };
        let y = b.binary(BinaryKind::Sub, p, q);
        assert_eq!(b.after(passes::affine::run, y), "Conv 1");
    }
}

#[test]
fn affine_stays_behind_a_shared_layer() {
    let mut b = Build::default();
    let x = b.input(&[1, 4, 4, 3]);
    let y = b.conv(x, 3, 1, 0);
    let s = b.constant(&[3]);
    let z = b.binary(BinaryKind::Mul, y, s);
    let y = b.binary(BinaryKind::Max, y, z);
    assert_eq!(b.after(passes::affine::run, y), "Conv 1, Max 1, Mul 1");
}

#[test]
fn affine_goes_forwards_where_padding_allows() {
    let offset_before = |pad: u16| {
        let mut b = Build::default();
        let x = b.input(&[1, 4, 4, 3]);
        let (s, t) = (b.constant(&[3]), b.constant(&[3]));
        let y = b.binary(BinaryKind::Add, x, t);
        let y = b.binary(BinaryKind::Mul, y, s);
        let y = b.conv(y, 5, 3, pad);
        b.after(passes::affine::run, y)
    };
    assert_eq!(offset_before(0), "Conv 1");
    assert_eq!(offset_before(1), "Add 1, Conv 1");
}

#[test]
fn affine_goes_forwards_into_grouped_convolutions() {
    let mut b = Build::default();
    let x = b.input(&[1, 4, 4, 6]);
    let s = b.constant(&[6]);
    let y = b.binary(BinaryKind::Mul, x, s);
    let (w, bias) = (b.constant(&[4, 3, 3, 3]), b.constant(&[4]));
    let window = Window {
        kernel: [3; 2],
        ..Window::POINT
    };
    let y = b.push(
        Op::Conv {
            window,
            groups: 2,
            residual: false,
            activation: None,
        },
        &[y, w, bias],
    );
    assert_eq!(b.after(passes::affine::run, y), "Conv 1");
}

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

#[test]
fn identities_vanish() {
    let mut b = Build::default();
    let x = b.input(&[2, 6]);
    let y = b.push(Op::Reshape(vec![3, 4]), &[x]);
    let y = b.push(Op::Reshape(vec![2, 6]), &[y]);
    let y = b.push(Op::Transpose(vec![0, 1]), &[y]);
    let y = b.push(
        Op::Slice {
            axis: 1,
            start: 0,
            len: 6,
            step: 1,
        },
        &[y],
    );
    let y = b.push(
        Op::Pad {
            before: vec![0; 2],
            after: vec![0; 2],
            value: 1.0,
        },
        &[y],
    );
    let y = b.push(Op::Broadcast(vec![2, 6]), &[y]);
    let y = b.with(BinaryKind::Mul, y, 1.0);
    let y = b.with(BinaryKind::Sub, y, 0.0);
    let y = b.unary(UnaryKind::Relu, y);
    let y = b.unary(UnaryKind::Relu, y);
    assert_eq!(b.after(passes::simplify::run, y), "Relu 1");
}

#[test]
fn chains_of_constants_become_one() {
    let mut b = Build::default();
    let x = b.input(&[2, 6]);
    let c = b.constant(&[6]);
    let y = b.binary(BinaryKind::Mul, c, x);
    let y = b.with(BinaryKind::Div, y, 4.0);
    let y = b.with(BinaryKind::Sub, y, 1.0);
    let y = b.with(BinaryKind::Add, y, 3.0);
    assert_eq!(b.after(passes::simplify::run, y), "Add 1, Mul 1");
}

#[test]
fn equal_nodes_and_constants_become_one() {
    let mut b = Build::default();
    let x = b.input(&[2, 6]);
    let (p, q) = (
        b.with(BinaryKind::Add, x, 2.0),
        b.with(BinaryKind::Add, x, 2.0),
    );
    let (p, q) = (b.unary(UnaryKind::Exp, p), b.unary(UnaryKind::Exp, q));
    let y = b.binary(BinaryKind::Mul, p, q);
    assert_eq!(b.after(passes::cse::run, y), "Add 1, Exp 1, Mul 1");
}

#[test]
fn constants_fold() {
    let mut b = Build::default();
    let x = b.input(&[4, 2]);
    let c = b.constant(&[2, 3]);
    let c = b.push(Op::Transpose(vec![1, 0]), &[c]);
    let c = b.push(
        Op::Slice {
            axis: 0,
            start: 2,
            len: 2,
            step: -2,
        },
        &[c],
    );
    let d = b.constant(&[1, 2]);
    let d = b.push(Op::Broadcast(vec![2, 2]), &[d]);
    let c = b.push(Op::Concat { axis: 0 }, &[c, d]);
    let c = b.unary(UnaryKind::Exp, c);
    let c = b.with(BinaryKind::Pow, c, 2.0);
    let y = b.binary(BinaryKind::Add, x, c);
    assert_eq!(b.after(passes::fold::run, y), "Add 1");
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

/// Queries, keys and their scores from one layer, `scale` times queries, keys or scores.
fn attention(scale: [Option<f32>; 3], share: bool) -> String {
    let mut b = Build::default();
    let x = b.input(&[1, 5, 8]);
    let qkv = b.linear(x, 16);
    let qkv = b.push(Op::Reshape(vec![1, 5, 2, 2, 4]), &[qkv]);
    let qkv = b.push(Op::Transpose(vec![2, 0, 3, 1, 4]), &[qkv]);
    let part = |b: &mut Build, start: usize, factor: Option<f32>| {
        let y = b.push(
            Op::Slice {
                axis: 0,
                start,
                len: 1,
                step: 1,
            },
            &[qkv],
        );
        let y = b.push(Op::Reshape(vec![1, 2, 5, 4]), &[y]);
        factor.map_or(y, |f| b.with(BinaryKind::Mul, y, f))
    };
    let q = part(&mut b, 0, scale[0]);
    let k = part(&mut b, usize::from(!share), scale[1]);
    let k = b.push(Op::Transpose(vec![0, 1, 3, 2]), &[k]);
    let y = b.push(Op::MatMul, &[q, k]);
    let y = scale[2].map_or(y, |f| b.with(BinaryKind::Mul, y, f));
    b.after(passes::scale::run, y)
}

#[test]
fn attention_scales_go_into_weights() {
    let plain = "Linear 1, MatMul 1, Reshape 3, Slice 2, Transpose 2";
    for scale in [
        [Some(0.5), None, None],
        [Some(0.7), Some(0.7), None],
        [None, None, Some(0.5)],
    ] {
        assert_eq!(attention(scale, false), plain, "{scale:?}");
    }
    // Queries that are keys too cannot be scaled alone.
    let shared = "Linear 1, MatMul 1, Mul 1, Reshape 3, Slice 2, Transpose 2";
    assert_eq!(attention([Some(0.5), None, None], true), shared);
    assert_eq!(attention([None, None, Some(0.5)], true), shared);
}

/// A transformer's attention block over an 8 × 6 map in windows of 4 × 3, as exporters spell it out:
/// `packed` is `[head][q | k | v]`, else `[q | k | v][head]`.
fn windowed_attention(b: &mut Build, packed: bool, bias: &[&[usize]]) -> ValueId {
    let (heads, depth, channels) = (2, 5, 10);
    let x = b.input(&[1, 8, 6, channels]);
    let y = b.push(Op::Reshape(vec![1, 2, 4, 2, 3, channels]), &[x]);
    let y = b.push(Op::Transpose(vec![0, 1, 3, 2, 4, 5]), &[y]);
    let y = b.push(Op::Reshape(vec![4, 12, channels]), &[y]);
    let (gain, offset) = (b.constant(&[channels]), b.constant(&[channels]));
    let y = b.push(Op::LayerNorm { epsilon: 1e-5 }, &[y, gain, offset]);
    let y = b.linear(y, 3 * channels);
    let part = |b: &mut Build, which: usize, perm: &[usize]| {
        let part = if packed {
            let y = b.push(Op::Reshape(vec![4, 12, heads, 3 * depth]), &[y]);
            let slice = Op::Slice {
                axis: 3,
                start: which * depth,
                len: depth,
                step: 1,
            };
            b.push(slice, &[y])
        } else {
            let y = b.push(Op::Reshape(vec![4, 12, 3, heads, depth]), &[y]);
            let y = b.push(
                Op::Slice {
                    axis: 2,
                    start: which,
                    len: 1,
                    step: 1,
                },
                &[y],
            );
            b.push(Op::Reshape(vec![4, 12, heads, depth]), &[y])
        };
        b.push(Op::Transpose(perm.to_vec()), &[part])
    };
    let q = part(b, 0, &[0, 2, 1, 3]);
    let k = part(b, 1, &[0, 2, 3, 1]);
    let v = part(b, 2, &[0, 2, 1, 3]);
    let mut scores = b.push(Op::MatMul, &[q, k]);
    scores = b.with(BinaryKind::Mul, scores, 0.4);
    for shape in bias {
        let c = b.constant(shape);
        scores = b.binary(BinaryKind::Add, scores, c);
    }
    let weights = b.push(Op::Softmax { log: false }, &[scores]);
    let y = b.push(Op::MatMul, &[weights, v]);
    let y = b.push(Op::Transpose(vec![0, 2, 1, 3]), &[y]);
    let y = b.push(Op::Reshape(vec![4, 12, channels]), &[y]);
    let y = b.linear(y, channels);
    let y = b.push(Op::Reshape(vec![1, 2, 2, 4, 3, channels]), &[y]);
    let y = b.push(Op::Transpose(vec![0, 1, 3, 2, 4, 5]), &[y]);
    let y = b.push(Op::Reshape(vec![1, 8, 6, channels]), &[y]);
    b.binary(BinaryKind::Add, x, y)
}

#[test]
fn attention_in_windows_is_one_node_that_addresses_the_map() {
    let (head, window): (&[usize], &[usize]) = (&[1, 2, 12, 12], &[4, 1, 12, 12]);
    for packed in [false, true] {
        for bias in [&[][..], &[head], &[window], &[head, window], &[&[12]]] {
            let mut b = Build::default();
            let y = windowed_attention(&mut b, packed, bias);
            let nodes = "Attention 1, LayerNorm 1, Linear 1, Linear+r 1";
            assert_eq!(b.optimised(y), nodes, "{packed} {bias:?}");
        }
    }
}

/// Queries, keys and values of 4 windows of 12 tokens with 2 heads of 5, each a tensor of its own.
fn separate_attention(
    b: &mut Build,
    scores: impl FnOnce(&mut Build, ValueId) -> ValueId,
) -> ValueId {
    let [q, k, v] = [0; 3].map(|_| b.input(&[4, 2, 12, 5]));
    // Without it the transpose would become the layout of an input.
    let (gain, offset) = (b.constant(&[5]), b.constant(&[5]));
    let k = b.push(Op::LayerNorm { epsilon: 1e-5 }, &[k, gain, offset]);
    let k = b.push(Op::Transpose(vec![0, 1, 3, 2]), &[k]);
    let y = b.push(Op::MatMul, &[q, k]);
    let y = scores(b, y);
    let weights = b.push(Op::Softmax { log: false }, &[y]);
    b.push(Op::MatMul, &[weights, v])
}

#[test]
fn biases_follow_windows_that_are_put_together() {
    let biases: [&[usize]; 5] = [
        &[4, 1, 12, 12],
        &[1, 2, 12, 12],
        &[4, 2, 12, 12],
        &[4, 1, 1, 12],
        &[12],
    ];
    for shape in biases {
        let mut b = Build::default();
        let y = separate_attention(&mut b, |b, y| {
            let c = b.constant(shape);
            b.binary(BinaryKind::Add, y, c)
        });
        let y = b.push(Op::Transpose(vec![0, 2, 1, 3]), &[y]);
        let y = b.push(Op::Reshape(vec![1, 2, 2, 4, 3, 10]), &[y]);
        let y = b.push(Op::Transpose(vec![0, 1, 3, 2, 4, 5]), &[y]);
        let y = b.push(Op::Reshape(vec![1, 8, 6, 10]), &[y]);
        assert_eq!(b.optimised(y), "Attention 1, LayerNorm 1", "{shape:?}");
    }
}

#[test]
fn masks_by_selection_are_biases() {
    // What import makes of `Where(causal, scores, fill)`.
    let masked = |fill: f32| {
        let mut b = Build::default();
        let y = separate_attention(&mut b, |b, y| {
            let kept = |i: usize| i % 12 <= i / 12;
            let number = |yes: f32, no: f32| (0..144).map(move |i| if kept(i) { yes } else { no });
            let keep = number(1.0, 0.0).collect();
            let keep = b.0.constant_value("keep", &[12, 12], keep);
            let fill = number(0.0, fill).collect();
            let fill = b.0.constant_value("fill", &[12, 12], fill);
            let y = b.binary(BinaryKind::Mul, y, keep);
            let y = b.binary(BinaryKind::Add, y, fill);
            b.with(BinaryKind::Mul, y, 0.5)
        });
        b.optimised(y)
    };
    for fill in [-1e4, -1e9, f32::MIN, f32::NEG_INFINITY] {
        assert_eq!(masked(fill), "Attention 1, LayerNorm 1", "{fill}");
    }
    // A selected score that keeps its weight.
    assert_eq!(
        masked(-2.0),
        "Add 1, LayerNorm 1, MatMul 2, Mul 2, Softmax 1, Transpose 1"
    );
}

#[test]
fn scores_of_no_positive_scale_stay() {
    for scale in [-0.7, 0.0] {
        let mut b = Build::default();
        let y = separate_attention(&mut b, |b, y| b.with(BinaryKind::Mul, y, scale));
        let nodes = b.optimised(y);
        assert!(nodes.contains("Softmax 1"), "{scale}: {nodes}");
    }
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
fn weights_that_others_read_stay() {
    let mut b = Build::default();
    let x = b.input(&[2, 7, 6]);
    let k = b.push(Op::Transpose(vec![0, 2, 1]), &[x]);
    let scores = b.push(Op::MatMul, &[x, k]);
    let weights = b.push(Op::Softmax { log: false }, &[scores]);
    let y = b.push(Op::MatMul, &[weights, x]);
    let z = b.unary(UnaryKind::Square, weights);
    b.0.output("z", z);
    assert_eq!(b.optimised(y), "MatMul 2, Softmax 1, Square 1, Transpose 1");
}

#[test]
fn unused_nodes_and_values_go() {
    let mut b = Build::default();
    let x = b.input(&[2]);
    let unused = b.unary(UnaryKind::Exp, x);
    b.unary(UnaryKind::Log, unused);
    let y = b.unary(UnaryKind::Neg, x);
    b.0.output("y", y);
    let removed = passes::dead::run(&mut b.0).unwrap();
    b.0.validate().unwrap();
    assert_eq!((removed, b.0.nodes.len(), b.0.values.len()), (2, 1, 2));
}

/// A convolution of an NHWC map with as many outputs as inputs.
fn branch(b: &mut Build, x: ValueId, window: Window, depthwise: bool) -> ValueId {
    let channels = b.0.shape(x)[3];
    let [height, width] = window.kernel.map(usize::from);
    let depth = if depthwise { 1 } else { channels };
    let w = b.constant(&[channels, height, width, depth]);
    let bias = b.constant(&[channels]);
    let op = Op::Conv {
        window,
        groups: channels / depth,
        residual: false,
        activation: None,
    };
    b.push(op, &[x, w, bias])
}

fn window(kernel: u16, stride: u16, pad: [u16; 4]) -> Window {
    Window {
        kernel: [kernel; 2],
        stride: [stride; 2],
        pad,
        ..Window::POINT
    }
}

/// A batch norm as import leaves it.
fn gain_and_offset(b: &mut Build, x: ValueId) -> ValueId {
    let channels = *b.0.shape(x).last().unwrap();
    let (gain, offset) = (b.constant(&[channels]), b.constant(&[channels]));
    let y = b.binary(BinaryKind::Mul, x, gain);
    b.binary(BinaryKind::Add, y, offset)
}

#[test]
fn branches_of_one_value_become_one_convolution() {
    for depthwise in [false, true] {
        let mut b = Build::default();
        let x = b.input(&[1, 5, 4, 3]);
        let large = branch(&mut b, x, window(3, 1, [1; 4]), depthwise);
        let small = branch(&mut b, x, window(1, 1, [0; 4]), depthwise);
        let skip = gain_and_offset(&mut b, x);
        let y = b.binary(BinaryKind::Add, small, large);
        let y = b.binary(BinaryKind::Add, skip, y);
        assert_eq!(b.after(passes::branches::run, y), "Conv 1");
    }
}

#[test]
fn branches_of_other_reshapes_stay() {
    let tall = |kernel: [u16; 2], pad| Window {
        kernel,
        pad,
        ..Window::POINT
    };
    // A window that makes 8 × 8 of 16 × 4, and the same elements as 8 × 8.
    let mut b = Build::default();
    let x = b.input(&[1, 64, 3]);
    let map = b.push(Op::Reshape(vec![1, 16, 4, 3]), &[x]);
    let y = branch(&mut b, map, tall([9, 3], [0, 3, 0, 3]), true);
    let skip = b.push(Op::Reshape(vec![1, 8, 8, 3]), &[x]);
    let y = b.binary(BinaryKind::Add, y, skip);
    assert_eq!(
        b.after(passes::branches::run, y),
        "Add 1, Conv 1, Reshape 2"
    );
    // Windows of two maps of the same elements.
    let mut b = Build::default();
    let x = b.input(&[1, 64, 3]);
    let square = b.push(Op::Reshape(vec![1, 8, 8, 3]), &[x]);
    let map = b.push(Op::Reshape(vec![1, 16, 4, 3]), &[x]);
    let p = branch(&mut b, square, tall([9, 3], [4, 1, 4, 1]), true);
    let q = branch(&mut b, map, tall([9, 3], [0, 3, 0, 3]), true);
    let y = b.binary(BinaryKind::Add, p, q);
    assert_eq!(
        b.after(passes::branches::run, y),
        "Add 1, Conv 2, Reshape 2"
    );
}

#[test]
fn two_heads_on_one_value_become_one() {
    let mut b = Build::default();
    let x = b.input(&[1, 4]);
    let (p, q) = (b.linear(x, 3), b.linear(x, 3));
    let y = b.binary(BinaryKind::Sub, p, q);
    let y = b.with(BinaryKind::Mul, y, 0.5);
    assert_eq!(b.optimised(y), "Linear 1");
}

/// FastViT's token mixer: `x + s · (mixer(x) − norm(x))`.
#[test]
fn a_rep_mixer_becomes_one_convolution() {
    let mut b = Build::default();
    let x = b.input(&[1, 5, 4, 3]);
    let mixer = branch(&mut b, x, window(3, 1, [1; 4]), true);
    let skip = gain_and_offset(&mut b, x);
    let mixed = b.binary(BinaryKind::Add, skip, mixer);
    let norm = gain_and_offset(&mut b, x);
    let y = b.binary(BinaryKind::Sub, mixed, norm);
    let scale = b.constant(&[3]);
    let y = b.binary(BinaryKind::Mul, y, scale);
    let y = b.binary(BinaryKind::Add, x, y);
    assert_eq!(b.optimised(y), "Conv 1");
}

#[test]
fn strided_branches_merge_where_their_places_agree() {
    let mut b = Build::default();
    let x = b.input(&[1, 9, 8, 2]);
    let large = branch(&mut b, x, window(7, 2, [3; 4]), true);
    let small = branch(&mut b, x, window(3, 2, [1; 4]), true);
    let y = b.binary(BinaryKind::Add, large, small);
    assert_eq!(b.after(passes::branches::run, y), "Conv 1");

    // TensorFlow's padding: the small window is the first column of the large one.
    let mut b = Build::default();
    let x = b.input(&[1, 8, 8, 2]);
    let large = branch(&mut b, x, window(3, 2, [0, 0, 1, 1]), true);
    let small = branch(&mut b, x, window(1, 2, [0; 4]), true);
    let y = b.binary(BinaryKind::Add, large, small);
    assert_eq!(b.after(passes::branches::run, y), "Conv 1");

    // Neither window lies in the other.
    let mut b = Build::default();
    let x = b.input(&[1, 8, 8, 2]);
    let large = branch(&mut b, x, window(3, 1, [2, 2, 0, 0]), true);
    let small = branch(&mut b, x, window(3, 1, [0, 0, 2, 2]), true);
    let y = b.binary(BinaryKind::Add, large, small);
    assert_eq!(b.after(passes::branches::run, y), "Add 1, Conv 2");
}

#[test]
fn branches_stay_where_merging_would_be_wrong_or_no_gain() {
    // Of different values.
    let mut b = Build::default();
    let (x, z) = (b.input(&[1, 5, 4, 3]), b.input(&[1, 5, 4, 3]));
    let p = branch(&mut b, x, window(3, 1, [1; 4]), false);
    let q = branch(&mut b, z, window(3, 1, [1; 4]), false);
    let y = b.binary(BinaryKind::Add, p, q);
    assert_eq!(b.after(passes::branches::run, y), "Add 1, Conv 2");

    // Depthwise and dense.
    let mut b = Build::default();
    let x = b.input(&[1, 5, 4, 3]);
    let p = branch(&mut b, x, window(3, 1, [1; 4]), false);
    let q = branch(&mut b, x, window(3, 1, [1; 4]), true);
    let y = b.binary(BinaryKind::Add, p, q);
    assert_eq!(b.after(passes::branches::run, y), "Add 1, Conv 2");

    // A branch that something else reads.
    let mut b = Build::default();
    let x = b.input(&[1, 5, 4, 3]);
    let p = branch(&mut b, x, window(3, 1, [1; 4]), false);
    let q = branch(&mut b, x, window(1, 1, [0; 4]), false);
    let y = b.binary(BinaryKind::Add, p, q);
    let y = b.binary(BinaryKind::Mul, y, p);
    assert_eq!(b.after(passes::branches::run, y), "Add 1, Conv 2, Mul 1");

    // A plain residual of a dense convolution.
    let mut b = Build::default();
    let x = b.input(&[1, 5, 4, 3]);
    let p = branch(&mut b, x, window(3, 1, [1; 4]), false);
    let y = b.binary(BinaryKind::Add, x, p);
    assert_eq!(b.after(passes::branches::run, y), "Add 1, Conv 1");
}

/// Both packings of queries, keys and values: `[3][heads][size]` and `[heads][3][size]`.
#[test]
fn packed_parts_are_slices_of_the_layer() {
    for per_head in [false, true] {
        let mut b = Build::default();
        let x = b.input(&[2, 5, 6]);
        let y = b.linear(x, 18);
        let (shape, axis, len) = if per_head {
            (vec![2, 5, 3, 6], 3, 2)
        } else {
            (vec![2, 5, 3, 3, 2], 2, 1)
        };
        let y = b.push(Op::Reshape(shape), &[y]);
        let parts: Vec<ValueId> = (0..3)
            .map(|i| {
                let start = i * len;
                let step = 1;
                let op = Op::Slice {
                    axis,
                    start,
                    len,
                    step,
                };
                let part = b.push(op, &[y]);
                b.push(Op::Reshape(vec![2, 5, 3, 2]), &[part])
            })
            .collect();
        let y = b.binary(BinaryKind::Mul, parts[0], parts[1]);
        let y = b.binary(BinaryKind::Sub, y, parts[2]);
        let mut graph = b;
        graph.0.output("y", y);
        let summary = graph.compare(|g| {
            passes::optimise(g, None)?;
            for node in &g.nodes {
                if let Op::Slice { axis, len, .. } = node.op {
                    assert_eq!((axis, len), (2, 6));
                }
            }
            Ok::<(), GraphError>(())
        });
        assert_eq!(summary, "Linear 1, Mul 1, Reshape 1, Slice 3, Sub 1");
    }
}

#[test]
fn bias_and_mask_of_attention_are_one_addend() {
    let mut b = Build::default();
    let (q, k) = (b.input(&[4, 2, 5, 3]), b.input(&[4, 2, 3, 5]));
    let logits = b.push(Op::MatMul, &[q, k]);
    let bias = b.constant(&[1, 2, 5, 5]);
    let y = b.binary(BinaryKind::Add, logits, bias);
    let y = b.push(Op::Reshape(vec![1, 4, 2, 5, 5]), &[y]);
    let mask = b.constant(&[1, 4, 1, 5, 5]);
    let y = b.binary(BinaryKind::Add, y, mask);
    let y = b.push(Op::Reshape(vec![4, 2, 5, 5]), &[y]);
    let y = b.push(Op::Softmax { log: false }, &[y]);
    assert_eq!(b.optimised(y), "Add 1, MatMul 1, Softmax 1");
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
