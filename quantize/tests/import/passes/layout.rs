//! Transposes between layouts.

use ampoule_quantize::graph::Op;
use ampoule_quantize::passes;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::{Build, TO_NCHW, TO_NHWC};

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
