//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};
use std::vec::Vec;

#[test]
fn tables_are_looked_up() {
    let caps = capabilities("table int8");
    let mut random = Random::new(21);
    for n in [0, 1, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 200, 1000] {
        let table = random.table();
        let x: Vec<i8> = if n == 1000 {
            (0..n).map(|i| i as u8 as i8).collect()
        } else {
            random.codes(n)
        };
        let expected: Vec<i8> = x.iter().map(|&q| table[q as u8 as usize]).collect();
        for &cap in &caps {
            let mut y = Guarded::new(n, 55);
            table_i8(cap, &table, &x, y.get()).unwrap();
            assert!(y.check() == expected, "{n} codes with {}", cap.isa().name());
            let mut y = Guarded::holding(&x, 55);
            table_i8_in_place(cap, &table, y.get()).unwrap();
            assert!(
                y.check() == expected,
                "{n} codes in place with {}",
                cap.isa().name()
            );
        }
    }
    assert!(table_i8(Capability::Portable, &[0; 256], &[1, 2], &mut [0]).is_err());
}

const KINDS: [UnaryKind; 28] = [
    UnaryKind::Relu,
    UnaryKind::LeakyRelu(0.1),
    UnaryKind::Elu(0.7),
    UnaryKind::Selu,
    UnaryKind::Sigmoid,
    UnaryKind::HardSigmoid(0.2, 0.5),
    UnaryKind::HardSwish,
    UnaryKind::Silu,
    UnaryKind::Tanh,
    UnaryKind::GeluErf,
    UnaryKind::GeluTanh,
    UnaryKind::QuickGelu,
    UnaryKind::Exp,
    UnaryKind::Log,
    UnaryKind::Sqrt,
    UnaryKind::Neg,
    UnaryKind::Abs,
    UnaryKind::Reciprocal,
    UnaryKind::Erf,
    UnaryKind::Softplus,
    UnaryKind::Softsign,
    UnaryKind::Floor,
    UnaryKind::Ceil,
    UnaryKind::Round,
    UnaryKind::Clamp(-1.5, 2.5),
    UnaryKind::Mish,
    UnaryKind::Square,
    UnaryKind::Rsqrt,
];

/// Every function within 1e-6 of its truth, relative to the larger of 1 and the value, and the same
/// to the bit on every instruction set.
#[test]
fn functions_follow_their_truth() {
    let caps = capabilities("unary f32");
    let mut random = Random::new(22);
    let mut x: Vec<f32> = (-200_000..=200_000).map(|i| i as f32 * 1e-4).collect();
    x.extend(random.reals(1003, -1.0, 1.0));
    for kind in KINDS {
        let expected: Vec<f32> = x.iter().map(|&x| kind.eval(x)).collect();
        let mut first: Option<Vec<u32>> = None;
        for &cap in &caps {
            let mut y = Guarded::new(x.len(), 55.0);
            unary_f32(cap, kind, &x, y.get()).unwrap();
            let y = y.check();
            let mut worst = (0.0, 0.0);
            for ((&x, &want), &got) in x.iter().zip(&expected).zip(y) {
                if want.is_nan() && got.is_nan() || want == got {
                    continue;
                }
                let error = f64::from(got - want).abs() / f64::from(want.abs().max(1.0));
                if error > worst.0 || error.is_nan() {
                    worst = (error, x);
                }
            }
            assert!(
                worst.0 <= 1e-6,
                "{kind:?} is off by {} at {}",
                worst.0,
                worst.1
            );
            let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
            let first = first.get_or_insert_with(|| bits.clone());
            assert!(*first == bits, "{kind:?} differs with {}", cap.isa().name());
        }
    }
}

#[test]
fn functions_have_their_limits() {
    let far = [f32::NEG_INFINITY, -1e30, -100.0, 100.0, 1e30, f32::INFINITY];
    for cap in capabilities("unary f32 limits") {
        for (kind, want) in [
            (UnaryKind::Sigmoid, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
            (UnaryKind::Tanh, [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]),
            (UnaryKind::Erf, [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]),
            (
                UnaryKind::Exp,
                [0.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY, f32::INFINITY],
            ),
            (UnaryKind::Relu, [0.0, 0.0, 0.0, 100.0, 1e30, f32::INFINITY]),
            (
                UnaryKind::Clamp(-1.0, 2.0),
                [-1.0, -1.0, -1.0, 2.0, 2.0, 2.0],
            ),
        ] {
            let mut y = far;
            unary_f32_in_place(cap, kind, &mut y).unwrap();
            for (got, want) in y.iter().zip(want) {
                let close = *got == want || (got - want).abs() < 1e-6;
                assert!(close, "{kind:?}: {y:?}");
            }
        }
        for kind in KINDS {
            let mut y = [f32::NAN; 3];
            unary_f32_in_place(cap, kind, &mut y).unwrap();
            assert!(y.iter().all(|y| y.is_nan()), "{kind:?} hides NaN");
        }
    }
}
