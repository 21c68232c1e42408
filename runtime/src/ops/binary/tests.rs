//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};
use crate::tensor::Shape;
use std::vec::Vec;

/// Pairs of shapes: equal, per channel, per pixel, scalar, on either side, and mixed.
const SHAPES: [(&[usize], &[usize]); 18] = [
    (&[1], &[1]),
    (&[7], &[7]),
    (&[3, 5, 64], &[3, 5, 64]),
    (&[1, 4, 5, 33], &[1, 4, 5, 33]),
    (&[1, 4, 5, 24], &[24]),
    (&[1, 4, 5, 96], &[1, 1, 1, 96]),
    (&[1, 7, 3, 144], &[1, 1, 1, 144]),
    (&[2, 3, 3, 17], &[2, 1, 1, 17]),
    (&[2, 6, 40], &[1, 6, 1]),
    (&[2, 6, 40], &[1]),
    (&[24], &[1, 4, 5, 24]),
    (&[1], &[130]),
    (&[5, 1, 8], &[1, 9, 1]),
    (&[2, 1, 3, 1, 5], &[4, 1, 6, 5]),
    (&[2, 3, 2, 3, 2, 3], &[2, 1, 2, 1, 2, 1]),
    (&[1, 1, 200], &[200]),
    (&[3, 1, 1], &[3, 2, 67]),
    (&[], &[12]),
];

fn for_each_layout(mut f: impl FnMut(&Shape, &Shape, &Broadcast)) {
    for (a, b) in SHAPES {
        let (a, b) = (Shape::new(a).unwrap(), Shape::new(b).unwrap());
        f(&a, &b, &Broadcast::new(&a, &b).unwrap());
    }
}

/// Runs both forms, out of place and, where the shapes allow it, in place.
fn both_forms<T: Copy + PartialEq + core::fmt::Debug>(
    layout: &Broadcast,
    a: &[T],
    poison: T,
    run: impl Fn(&mut [T]),
    run_in_place: impl Fn(&mut [T]),
) -> Vec<Vec<T>> {
    let mut y = Guarded::new(layout.output().elements(), poison);
    run(y.get());
    let mut results = std::vec![y.check().to_vec()];
    if layout.in_place() {
        let mut y = Guarded::holding(a, poison);
        run_in_place(y.get());
        results.push(y.check().to_vec());
    }
    results
}

fn int8_equals_the_reference(op: &BinaryI8<'_>, caps: &[Capability], random: &mut Random) {
    for_each_layout(|sa, sb, layout| {
        let (a, b) = (random.codes(sa.elements()), random.codes(sb.elements()));
        let mut expected = std::vec![0; layout.output().elements()];
        binary_i8_reference(op, (sa, &a), (sb, &b), &mut expected);
        for &cap in caps {
            let results = both_forms(
                layout,
                &a,
                77,
                |y| binary_i8(cap, op, layout, &a, &b, y).unwrap(),
                |y| binary_i8_in_place(cap, op, layout, y, &b).unwrap(),
            );
            for got in results {
                assert!(
                    got == expected,
                    "{op:?} {sa:?} {sb:?} with {}",
                    cap.isa().name()
                );
            }
        }
    });
}

#[test]
fn int8_kinds_equal_the_reference() {
    let caps = capabilities("binary int8");
    let mut random = Random::new(11);
    let table = random.table();
    for kind in [BinaryKindInt::Add, BinaryKindInt::Sub, BinaryKindInt::Mul] {
        for case in 0..12 {
            // The last cases leave the range in which rounding by addition is exact.
            let scale = [1.0, 1.0, 0.05, 3.0, 1e6, 1e30][case % 6];
            let [lo, hi] = if case % 2 == 0 {
                [-128, 127]
            } else {
                [-90, 60]
            };
            let op = BinaryI8 {
                kind,
                a_zero: i32::from(random.code()),
                a_multiplier: scale * random.real(0.1, 2.0),
                b_zero: i32::from(random.code()),
                b_multiplier: scale * random.real(-2.0, 2.0),
                multiplier: scale * random.real(0.001, 0.05),
                zero: i32::from(random.code()),
                lo,
                hi,
                table: (case % 3 == 0).then_some(&table),
            };
            int8_equals_the_reference(&op, &caps, &mut random);
        }
    }
}

/// Halves tie to the even code, whatever the parity of the zero point.
#[test]
fn int8_ties_go_to_even() {
    let caps = capabilities("binary int8 ties");
    let mut random = Random::new(5);
    for kind in [BinaryKindInt::Add, BinaryKindInt::Sub, BinaryKindInt::Mul] {
        for zero in [-128, -3, 0, 1, 127] {
            let op = BinaryI8 {
                kind,
                a_zero: 1,
                a_multiplier: 0.5,
                b_zero: -2,
                b_multiplier: 0.25,
                multiplier: 0.5,
                zero,
                lo: -128,
                hi: 127,
                table: None,
            };
            int8_equals_the_reference(&op, &caps, &mut random);
        }
    }
}

#[test]
fn int16_kinds_equal_the_reference() {
    let caps = capabilities("binary int16");
    let mut random = Random::new(12);
    for kind in [BinaryKindInt::Add, BinaryKindInt::Sub, BinaryKindInt::Mul] {
        let op = BinaryI16 {
            kind,
            a_multiplier: random.real(0.1, 1.5),
            b_multiplier: random.real(0.1, 1.5),
            multiplier: random.real(1e-5, 4e-5),
        };
        for_each_layout(|sa, sb, layout| {
            let mut codes =
                |n: usize| -> Vec<i16> { (0..n).map(|_| random.bits() as i16).collect() };
            let (a, b) = (codes(sa.elements()), codes(sb.elements()));
            let mut expected = std::vec![0; layout.output().elements()];
            binary_i16_reference(&op, (sa, &a), (sb, &b), &mut expected);
            for &cap in &caps {
                let results = both_forms(
                    layout,
                    &a,
                    77,
                    |y| binary_i16(cap, &op, layout, &a, &b, y).unwrap(),
                    |y| binary_i16_in_place(cap, &op, layout, y, &b).unwrap(),
                );
                assert!(
                    results.iter().all(|got| *got == expected),
                    "{op:?} {sa:?} {sb:?}"
                );
            }
        });
    }
}

#[test]
fn float_kinds_equal_the_reference() {
    let caps = capabilities("binary f32");
    let mut random = Random::new(13);
    use BinaryKind::{Add, Div, Max, Min, Mul, Pow, Sub};
    for kind in [Add, Sub, Mul, Div, Max, Min, Pow] {
        for [lo, hi] in [[f32::NEG_INFINITY, f32::INFINITY], [0.0, 6.0]] {
            let op = BinaryF32 { kind, lo, hi };
            for_each_layout(|sa, sb, layout| {
                let mut a = random.reals(sa.elements(), -3.0, 3.0);
                let b = random.reals(sb.elements(), -3.0, 3.0);
                a[0] = f32::NAN;
                let mut expected = std::vec![0.0; layout.output().elements()];
                binary_f32_reference(&op, (sa, &a), (sb, &b), &mut expected);
                for &cap in &caps {
                    let results = both_forms(
                        layout,
                        &a,
                        77.0,
                        |y| binary_f32(cap, &op, layout, &a, &b, y).unwrap(),
                        |y| binary_f32_in_place(cap, &op, layout, y, &b).unwrap(),
                    );
                    for (got, want) in results.iter().flat_map(|got| got.iter().zip(&expected)) {
                        let same = got == want || got.is_nan() && want.is_nan();
                        assert!(same, "{op:?} {sa:?} {sb:?}: {got} {want}");
                    }
                }
            });
        }
    }
}

#[test]
fn shapes_that_do_not_pair_are_refused() {
    let shape = |dims: &[usize]| Shape::new(dims).unwrap();
    assert!(Broadcast::new(&shape(&[2, 3]), &shape(&[2, 4])).is_none());
    assert!(Broadcast::new(&shape(&[5]), &shape(&[5, 4])).is_none());
    let layout = Broadcast::new(&shape(&[2, 3]), &shape(&[3])).unwrap();
    let op = BinaryF32 {
        kind: BinaryKind::Add,
        lo: -1.0,
        hi: 1.0,
    };
    let (a, b) = ([0.0; 6], [0.0; 3]);
    let cap = Capability::Portable;
    assert!(binary_f32(cap, &op, &layout, &a, &b, &mut [0.0; 5]).is_err());
    assert!(binary_f32(cap, &op, &layout, &a[1..], &b, &mut [0.0; 6]).is_err());
    assert!(binary_f32(cap, &op, &layout, &a, &b[1..], &mut [0.0; 6]).is_err());
    let swapped = Broadcast::new(&shape(&[3]), &shape(&[2, 3])).unwrap();
    assert!(binary_f32_in_place(cap, &op, &swapped, &mut [0.0; 3], &a).is_err());
}
