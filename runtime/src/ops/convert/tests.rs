//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};
use std::vec::Vec;

const LENGTHS: [usize; 12] = [0, 1, 7, 8, 15, 16, 17, 31, 64, 65, 130, 1001];

/// All 65 536 codes of 16 bits, and the 256 of 8 bits.
fn wide_codes() -> Vec<i16> {
    (i16::MIN..=i16::MAX).collect()
}

#[test]
fn floats_become_codes() {
    let caps = capabilities("quantize");
    let mut random = Random::new(51);
    for n in LENGTHS {
        for (inverse_scale, zero) in [(1.0, 0), (16.0, -128), (0.37, 5), (1e20, 127), (2.0, -1)] {
            let mut x = random.reals(n, -70.0, 70.0);
            let special = [
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                0.25,
                -0.75,
                1e30,
                -0.0,
            ];
            x.iter_mut()
                .step_by(5)
                .zip(special)
                .for_each(|(x, v)| *x = v);
            let code = |lo, hi| move |&x: &f32| quantize_reference(inverse_scale, zero, lo, hi, x);
            let expected: Vec<i8> = x.iter().map(code(-128, 127)).map(|q| q as i8).collect();
            for &cap in &caps {
                let mut y = Guarded::new(n, 9);
                quantize_i8(cap, inverse_scale, zero, &x, y.get()).unwrap();
                assert!(
                    y.check() == expected,
                    "{n} values with {}",
                    cap.isa().name()
                );
                let mut y = Guarded::new(n, 9);
                quantize_i16(cap, inverse_scale, &x, y.get()).unwrap();
                for (got, x) in y.check().iter().zip(&x) {
                    let want = quantize_reference(inverse_scale, 0, -32767, 32767, *x);
                    assert_eq!(i32::from(*got), want, "{x}");
                }
            }
        }
    }
}

#[test]
fn codes_become_floats() {
    let caps = capabilities("dequantize");
    let mut random = Random::new(52);
    for n in LENGTHS {
        let x = random.codes(n);
        for (scale, zero) in [(1.0, 0), (0.0123, -128), (3.7, 99)] {
            for &cap in &caps {
                let mut y = Guarded::new(n, 9.0);
                dequantize_i8(cap, scale, zero, &x, y.get()).unwrap();
                for (got, &q) in y.check().iter().zip(&x) {
                    assert_eq!(*got, dequantize_reference(scale, zero, i32::from(q)));
                }
            }
        }
    }
    let x = wide_codes();
    for cap in caps {
        let mut y = Guarded::new(x.len(), 9.0);
        dequantize_i16(cap, 0.7, &x, y.get()).unwrap();
        for (got, &q) in y.check().iter().zip(&x) {
            assert_eq!(*got, dequantize_reference(0.7, 0, i32::from(q)));
        }
    }
}

#[test]
fn codes_become_codes() {
    let caps = capabilities("rescale");
    let mut random = Random::new(53);
    for (multiplier, lo, hi) in [
        (1.0, -128, 127),
        (0.5, -128, 127),
        (3.0, -10, 90),
        (1e30, -128, 127),
    ] {
        let op = Rescale {
            x_zero: i32::from(random.code()),
            multiplier,
            zero: i32::from(random.code()),
            lo,
            hi,
        };
        for n in LENGTHS {
            let x = random.codes(n);
            let expected: Vec<i8> = x
                .iter()
                .map(|&q| rescale_reference(&op, q.into()) as i8)
                .collect();
            for &cap in &caps {
                let mut y = Guarded::new(n, 9);
                rescale_i8(cap, &op, &x, y.get()).unwrap();
                assert!(y.check() == expected, "{op:?} with {}", cap.isa().name());
                let mut y = Guarded::holding(&x, 9);
                rescale_i8_in_place(cap, &op, y.get()).unwrap();
                assert!(
                    y.check() == expected,
                    "{op:?} in place with {}",
                    cap.isa().name()
                );
            }
        }
        let wide = wide_codes();
        let codes: Vec<i8> = (i8::MIN..=i8::MAX).collect();
        let widening = Rescale {
            zero: 0,
            lo: -32767,
            hi: 32767,
            ..op
        };
        let narrowing = Rescale {
            x_zero: 0,
            multiplier: multiplier / 256.0,
            ..op
        };
        for &cap in &caps {
            let mut y = Guarded::new(codes.len(), 9);
            widen_i8_i16(cap, &widening, &codes, y.get()).unwrap();
            for (&got, &q) in y.check().iter().zip(&codes) {
                assert_eq!(i32::from(got), rescale_reference(&widening, q.into()));
            }
            let mut y = Guarded::new(wide.len(), 9);
            narrow_i16_i8(cap, &narrowing, &wide, y.get()).unwrap();
            for (&got, &q) in y.check().iter().zip(&wide) {
                assert_eq!(i32::from(got), rescale_reference(&narrowing, q.into()));
            }
        }
    }
    let op = Rescale {
        x_zero: 0,
        multiplier: 1.0,
        zero: 0,
        lo: 0,
        hi: 1,
    };
    assert!(rescale_i8(Capability::Portable, &op, &[0; 3], &mut [0; 4]).is_err());
}
