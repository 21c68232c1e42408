//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};

const SHAPES: [&[usize]; 9] = [
    &[1],
    &[100],
    &[5, 7],
    &[1, 7, 7, 96],
    &[2, 5, 3, 144],
    &[1, 4, 6, 203],
    &[2, 3, 4, 5, 6],
    &[2, 3, 2, 3, 2, 3],
    &[3, 1, 65],
];

fn for_each_case(mut f: impl FnMut(&Reduce, &mut Random)) {
    let mut random = Random::new(61);
    for dims in SHAPES {
        for axes in 0..1u8 << dims.len() {
            let reduce = Reduce {
                shape: Shape::new(dims).unwrap(),
                axes,
            };
            f(&reduce, &mut random);
        }
    }
}

#[test]
fn int8_mean_equals_the_reference() {
    let caps = capabilities("mean int8");
    for_each_case(|reduce, random| {
        let x = random.codes(reduce.shape.elements());
        let op = MeanI8 {
            reduce: *reduce,
            x_zero: i32::from(random.code()),
            multiplier: random.real(0.2, 3.0),
            zero: i32::from(random.code()),
            lo: -120,
            hi: 127,
        };
        let mut expected = std::vec![0; reduce.output_len()];
        mean_i8_reference(&op, &x, &mut expected);
        for &cap in &caps {
            let mut y = Guarded::new(expected.len(), 9);
            mean_i8(cap, &op, &x, y.get()).unwrap();
            assert!(y.check() == expected, "{op:?} with {}", cap.isa().name());
        }
    });
}

#[test]
fn float_is_close_to_double_precision_and_the_same_everywhere() {
    let caps = capabilities("reduce f32");
    for_each_case(|reduce, random| {
        let x = random.reals(reduce.shape.elements(), -2.0, 2.0);
        for kind in [
            ReduceKind::Mean,
            ReduceKind::Sum,
            ReduceKind::Max,
            ReduceKind::Min,
        ] {
            let mut expected = std::vec![0.0; reduce.output_len()];
            reduce_f32_reference(kind, reduce, &x, &mut expected);
            let mut first = None;
            for &cap in &caps {
                let mut y = Guarded::new(expected.len(), 9.0);
                reduce_f32(cap, kind, reduce, &x, y.get()).unwrap();
                let y = y.check();
                for (got, want) in y.iter().zip(&expected) {
                    let error = (got - want).abs();
                    assert!(error <= 1e-6 * want.abs().max(1.0), "{kind:?} {reduce:?}");
                }
                let first = first.get_or_insert_with(|| y.to_vec());
                assert!(
                    *first == y,
                    "{kind:?} {reduce:?} differs with {}",
                    cap.isa().name()
                );
            }
        }
    });
}

#[test]
fn wrong_lengths_are_refused() {
    let reduce = Reduce {
        shape: Shape::new(&[2, 3]).unwrap(),
        axes: 1,
    };
    let cap = Capability::Portable;
    let x = [0.0; 6];
    assert!(reduce_f32(cap, ReduceKind::Sum, &reduce, &x, &mut [0.0; 3]).is_ok());
    assert!(reduce_f32(cap, ReduceKind::Sum, &reduce, &x, &mut [0.0; 2]).is_err());
    assert!(reduce_f32(cap, ReduceKind::Sum, &reduce, &x[1..], &mut [0.0; 3]).is_err());
}
