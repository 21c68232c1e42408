//! Parallel layers that become one.

use ampoule_quantize::graph::{Op, ValueId};
use ampoule_quantize::passes;
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;

use super::{Build, window};

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
    let y = branch(&mut b, map, tall([9, 3], [0, 2, 0, 4]), true);
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
    let p = branch(&mut b, square, tall([13, 3], [4, 1, 8, 1]), true);
    let q = branch(&mut b, map, tall([9, 3], [0, 1, 0, 5]), true);
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
