//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};

const ROWS: [usize; 9] = [1, 2, 10, 16, 49, 64, 100, 197, 1000];

#[test]
fn int8_equals_the_reference() {
    let caps = capabilities("softmax int8");
    let mut random = Random::new(41);
    for row in ROWS {
        for scale in [1e-3, 0.05, 0.2, 3.0] {
            let table = softmax_table(scale);
            let mut x = random.codes(3 * row);
            x[..row].fill(-128);
            let mut expected = std::vec![0; x.len()];
            softmax_i8_reference(&table, row, &x, &mut expected);
            for &cap in &caps {
                let mut y = Guarded::new(x.len(), 9);
                softmax_i8(cap, &table, row, &x, y.get()).unwrap();
                assert!(
                    y.check() == expected,
                    "rows of {row} with {}",
                    cap.isa().name()
                );
                let mut y = Guarded::holding(&x, 9);
                softmax_i8_in_place(cap, &table, row, y.get()).unwrap();
                assert!(y.check() == expected, "rows of {row} in place");
            }
        }
    }
}

#[test]
fn float_is_close_to_double_precision() {
    let caps = capabilities("softmax f32");
    let mut random = Random::new(42);
    for row in ROWS {
        for width in [0.1, 5.0, 60.0] {
            let x = random.reals(3 * row, -width, width);
            let mut expected = std::vec![0.0; x.len()];
            let mut expected_log = expected.clone();
            softmax_f32_reference(row, &x, &mut expected);
            log_softmax_f32_reference(row, &x, &mut expected_log);
            for &cap in &caps {
                let mut y = Guarded::new(x.len(), 9.0);
                softmax_f32(cap, row, &x, y.get()).unwrap();
                for (got, want) in y.check().iter().zip(&expected) {
                    assert!((got - want).abs() <= 1e-6, "rows of {row}: {got} {want}");
                }
                log_softmax_f32(cap, row, &x, y.get()).unwrap();
                for (got, want) in y.check().iter().zip(&expected_log) {
                    let error = (got - want).abs();
                    assert!(
                        error <= 2e-6 * want.abs().max(1.0),
                        "rows of {row}: {got} {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_must_be_whole() {
    let table = softmax_table(0.1);
    let cap = Capability::Portable;
    assert!(softmax_i8(cap, &table, 3, &[0; 6], &mut [0; 6]).is_ok());
    assert!(softmax_i8(cap, &table, 4, &[0; 6], &mut [0; 6]).is_err());
    assert!(softmax_i8(cap, &table, 3, &[0; 6], &mut [0; 3]).is_err());
    assert!(softmax_f32(cap, 4, &[0.0; 6], &mut [0.0; 6]).is_err());
    assert!(softmax_f32(cap, 0, &[], &mut []).is_ok());
}
