//! Gains and offsets, into the layers beside them.

use ampoule_quantize::graph::Op;
use ampoule_quantize::passes;
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;

use super::Build;

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
