//! Nodes and values that are not needed.

use ampoule_quantize::graph::Op;
use ampoule_quantize::passes;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::Build;

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
