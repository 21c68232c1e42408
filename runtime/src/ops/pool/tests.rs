//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};
use std::vec::Vec;

/// Kernel, stride, dilation and padding (top, left, bottom, right).
const WINDOWS: [([u16; 2], [u16; 2], [u16; 2], [u16; 4]); 10] = [
    ([2, 2], [2, 2], [1, 1], [0; 4]),
    ([3, 3], [2, 2], [1, 1], [1; 4]),
    ([3, 3], [1, 1], [1, 1], [1; 4]),
    ([3, 3], [1, 1], [2, 2], [2; 4]),
    ([5, 3], [1, 2], [1, 1], [2, 1, 2, 1]),
    ([7, 7], [1, 1], [1, 1], [0; 4]),
    ([1, 9], [1, 3], [1, 1], [0, 4, 0, 4]),
    ([2, 2], [1, 1], [3, 3], [3; 4]),
    ([3, 3], [2, 2], [1, 1], [0, 0, 1, 1]),
    ([13, 11], [1, 1], [1, 1], [0; 4]),
];

fn for_each_pool(mut f: impl FnMut(&Pool, &mut Random)) {
    let mut random = Random::new(31);
    for (kernel, stride, dilation, pad) in WINDOWS {
        let window = Window {
            kernel,
            stride,
            dilation,
            pad,
        };
        for channels in [1, 3, 16, 24, 63, 64, 65, 130, 200] {
            for include_pad in [false, true] {
                let (h, w) = (kernel[0] as usize + random.below(9), 11 + random.below(9));
                let (Some(oh), Some(ow)) = (window.output(0, h), window.output(1, w)) else {
                    continue;
                };
                let pool = Pool {
                    window,
                    input: [h, w, channels],
                    output: [oh, ow],
                    include_pad,
                };
                f(&pool, &mut random);
            }
        }
    }
}

/// The output in two calls, rows before and from the middle.
fn in_halves<T: Copy + PartialEq + core::fmt::Debug>(
    pool: &Pool,
    poison: T,
    run: impl Fn(usize, &mut [T]),
) -> Vec<T> {
    let row = pool.output[1] * pool.input[2];
    let middle = pool.output[0] / 2;
    let mut whole = Vec::new();
    for rows in [0..middle, middle..pool.output[0]] {
        let mut y = Guarded::new(rows.len() * row, poison);
        run(rows.start, y.get());
        whole.extend_from_slice(y.check());
    }
    whole
}

#[test]
fn int8_equals_the_reference() {
    let caps = capabilities("pool int8");
    for_each_pool(|pool, random| {
        let n = pool.input.iter().product();
        let x = random.codes(n);
        let [lo, hi] = if n % 2 == 0 { [-128, 127] } else { [-60, 100] };
        let op = AveragePoolI8 {
            pool: *pool,
            x_zero: i32::from(random.code()),
            multiplier: random.real(0.3, 2.0),
            zero: i32::from(random.code()),
            lo,
            hi,
        };
        let len = pool.output[0] * pool.output[1] * pool.input[2];
        let (mut max, mut average) = (std::vec![0; len], std::vec![0; len]);
        max_pool_i8_reference(pool, &x, 0, &mut max);
        average_pool_i8_reference(&op, &x, 0, &mut average);
        for &cap in &caps {
            let got = in_halves(pool, 9, |row, y| {
                max_pool_i8(cap, pool, &x, row, y).unwrap()
            });
            assert!(got == max, "maximum {pool:?} with {}", cap.isa().name());
            let got = in_halves(pool, 9, |row, y| {
                average_pool_i8(cap, &op, &x, row, y).unwrap()
            });
            assert!(got == average, "{op:?} with {}", cap.isa().name());
        }
    });
}

#[test]
fn float_is_close_to_the_reference() {
    let caps = capabilities("pool f32");
    for_each_pool(|pool, random| {
        let x = random.reals(pool.input.iter().product(), -2.0, 2.0);
        let len = pool.output[0] * pool.output[1] * pool.input[2];
        let (mut max, mut average) = (std::vec![0.0; len], std::vec![0.0; len]);
        max_pool_f32_reference(pool, &x, 0, &mut max);
        average_pool_f32_reference(pool, &x, 0, &mut average);
        for &cap in &caps {
            let got = in_halves(pool, 9.0, |row, y| {
                max_pool_f32(cap, pool, &x, row, y).unwrap()
            });
            assert!(got == max, "maximum {pool:?} with {}", cap.isa().name());
            let got = in_halves(pool, 9.0, |row, y| {
                average_pool_f32(cap, pool, &x, row, y).unwrap()
            });
            for (got, want) in got.iter().zip(&average) {
                assert!((got - want).abs() <= 1e-5, "{pool:?}: {got} {want}");
            }
        }
    });
}

#[test]
fn wrong_lengths_are_refused() {
    let pool = Pool {
        window: Window {
            kernel: [2, 2],
            stride: [2, 2],
            ..Window::POINT
        },
        input: [4, 4, 3],
        output: [2, 2],
        include_pad: false,
    };
    let cap = Capability::Portable;
    let x = [0i8; 48];
    assert!(max_pool_i8(cap, &pool, &x, 0, &mut [0; 12]).is_ok());
    assert!(max_pool_i8(cap, &pool, &x[1..], 0, &mut [0; 12]).is_err());
    assert!(max_pool_i8(cap, &pool, &x, 1, &mut [0; 12]).is_err());
    assert!(max_pool_i8(cap, &pool, &x, 0, &mut [0; 11]).is_err());
}
