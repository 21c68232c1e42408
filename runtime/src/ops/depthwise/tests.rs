//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::conv::Residual;
use crate::ops::testing::{Guarded, Random, capabilities};
use std::vec::Vec;

/// Kernel, stride, dilation and padding (top, left, bottom, right).
const WINDOWS: [([u16; 2], [u16; 2], [u16; 2], [u16; 4]); 19] = [
    ([3, 3], [1, 1], [1, 1], [1, 1, 1, 1]),
    ([3, 3], [2, 2], [1, 1], [0, 0, 1, 1]),
    ([3, 3], [2, 2], [1, 1], [1, 1, 1, 1]),
    ([5, 5], [1, 1], [1, 1], [2, 2, 2, 2]),
    ([5, 5], [2, 2], [1, 1], [1, 2, 2, 1]),
    ([7, 7], [1, 1], [1, 1], [3, 3, 3, 3]),
    ([7, 7], [2, 2], [1, 1], [2, 3, 3, 2]),
    ([3, 3], [1, 1], [2, 2], [2, 2, 2, 2]),
    ([3, 3], [1, 1], [1, 1], [0, 0, 0, 0]),
    ([1, 1], [1, 1], [1, 1], [0, 0, 0, 0]),
    ([1, 7], [1, 1], [1, 1], [0, 3, 0, 3]),
    ([2, 2], [2, 2], [1, 1], [0, 0, 0, 0]),
    ([4, 3], [1, 2], [1, 1], [2, 1, 1, 1]),
    ([6, 5], [1, 1], [1, 1], [4, 4, 4, 4]),
    ([8, 8], [1, 1], [1, 1], [4, 4, 3, 3]),
    ([3, 3], [3, 3], [1, 1], [1, 1, 1, 1]),
    ([5, 4], [1, 1], [3, 4], [6, 6, 6, 6]),
    ([3, 8], [1, 1], [1, 3], [1, 11, 1, 11]),
    ([9, 9], [1, 1], [1, 1], [4, 4, 4, 4]),
];

struct Case {
    window: Window,
    input: [usize; 3],
    output: [usize; 2],
    x: Vec<i8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    weight_sums: Vec<i32>,
    multipliers: Vec<f32>,
    input_zero: i8,
    zero: i32,
    bounds: [i8; 2],
    table: Option<[i8; 256]>,
    residual: Option<(Vec<i8>, i32, f32)>,
}

impl Case {
    fn new(random: &mut Random, window: Window, input: [usize; 3], scale: f32) -> Option<Case> {
        let [h, w, c] = input;
        let output = [window.output(0, h)?, window.output(1, w)?];
        let taps = window.taps();
        let padded = c.next_multiple_of(16);
        let mut weights = random.codes(taps * c + crate::ops::conv::WEIGHT_SLACK);
        // Kernels may do better without weights of −128, which well-formed artifacts don't have.
        if random.below(2) == 0 {
            weights.iter_mut().for_each(|w| *w = (*w).max(-127));
        }
        let mut weight_sums = std::vec![0; padded];
        for (i, &w) in weights[..taps * c].iter().enumerate() {
            weight_sums[i % c] += i32::from(w);
        }
        let per_channel = |random: &mut Random, f: &dyn Fn(&mut Random) -> f32| -> Vec<f32> {
            (0..padded)
                .map(|i| if i < c { f(random) } else { 0.0 })
                .collect()
        };
        let scale = scale / (taps as f32).sqrt();
        Some(Case {
            window,
            input,
            output,
            x: random.codes(h * w * c),
            bias: per_channel(random, &|r| r.real(-20_000.0, 20_000.0))
                .iter()
                .map(|&b| b as i32)
                .collect(),
            multipliers: per_channel(random, &|r| scale * r.real(0.2, 2.0)),
            weights,
            weight_sums,
            input_zero: random.code(),
            zero: i32::from(random.code()),
            bounds: if random.below(2) == 0 {
                [-128, 127]
            } else {
                [-100, 90]
            },
            table: (random.below(3) == 0).then(|| random.table()),
            residual: (random.below(3) == 0).then(|| {
                let data = random.codes(output[0] * output[1] * c);
                (data, i32::from(random.code()), random.real(0.1, 1.5))
            }),
        })
    }

    fn operator(&self) -> DepthwiseI8<'_> {
        DepthwiseI8 {
            window: self.window,
            input: self.input,
            output: self.output,
            weights: &self.weights,
            bias: &self.bias,
            weight_sums: &self.weight_sums,
            multipliers: &self.multipliers,
            input_zero: self.input_zero,
            epilogue: EpilogueI8 {
                zero: self.zero,
                lo: self.bounds[0],
                hi: self.bounds[1],
                table: self.table.as_ref(),
                residual: self
                    .residual
                    .as_ref()
                    .map(|(data, zero, multiplier)| Residual {
                        data,
                        zero: *zero,
                        multiplier: *multiplier,
                    }),
            },
        }
    }
}

/// Calls `f` for every window on a few maps.
fn for_each_case(scale: f32, mut f: impl FnMut(&Case, &str)) {
    let mut random = Random::new(7);
    for (kernel, stride, dilation, pad) in WINDOWS {
        let window = Window {
            kernel,
            stride,
            dilation,
            pad,
        };
        for channels in [1, 8, 16, 24, 33, 40, 48, 49, 64, 80, 112, 144, 203] {
            let size = [1 + random.below(15), 1 + random.below(15)];
            let input = [size[0], size[1], channels];
            if let Some(case) = Case::new(&mut random, window, input, scale) {
                f(&case, &std::format!("{window:?} on {input:?}"));
            }
        }
    }
}

/// Runs the operator on all rows from `first_row` on, in chunks.
fn in_chunks(cap: Capability, case: &Case, mut rows: usize) -> Vec<i8> {
    let dw = case.operator();
    let row = case.output[1] * case.input[2];
    let mut whole = Vec::new();
    while whole.len() < case.output[0] * row {
        let first = whole.len() / row;
        let n = rows.min(case.output[0] - first);
        let mut y = Guarded::new(n * row, 99);
        depthwise_i8(cap, &dw, &case.x, first, y.get()).unwrap();
        whole.extend_from_slice(y.check());
        rows += 2;
    }
    whole
}

#[test]
fn int8_equals_the_reference() {
    let caps = capabilities("depthwise int8");
    let mut cases = 0;
    for_each_case(3e-3, |case, name| {
        let mut expected = std::vec![0; case.output[0] * case.output[1] * case.input[2]];
        depthwise_i8_reference(&case.operator(), &case.x, 0, &mut expected);
        for &cap in &caps {
            let rows = if cases % 2 == 0 {
                case.output[0]
            } else {
                1 + cases % 3
            };
            assert!(
                in_chunks(cap, case, rows) == expected,
                "{name} with {}",
                cap.isa().name()
            );
        }
        cases += 1;
    });
    assert!(cases > 150, "only {cases} cases fit");
}

/// A map so large that the vector kernels take it in bands of rows.
#[test]
fn large_maps_equal_the_reference() {
    let mut random = Random::new(5);
    let window = Window {
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        pad: [1; 4],
    };
    let mut case = Case::new(&mut random, window, [19, 21, 1200], 3e-3).unwrap();
    let mut expected = std::vec![0; case.output[0] * case.output[1] * 1200];
    let residual = (random.codes(expected.len()), 3, 0.5);
    for residual in [None, Some(residual)] {
        case.residual = residual;
        depthwise_i8_reference(&case.operator(), &case.x, 0, &mut expected);
        for cap in capabilities("depthwise int8 in bands") {
            let got = in_chunks(cap, &case, case.output[0]);
            assert!(got == expected, "{}", cap.isa().name());
        }
    }
}

/// Into the input's own memory: any number of threads, bands of any height.
#[cfg(feature = "std")]
#[test]
fn in_place_equals_the_reference() {
    let caps = capabilities("depthwise in place");
    use crate::exec::Exec;
    let pools = [1, 2, 3].map(crate::pool::Pool::new);
    let (mut cases, mut refused) = (0, 0);
    for_each_case(3e-3, |case, name| {
        let dw = case.operator();
        let [height, width, c] = case.input;
        let Some(map) = in_place::InPlace::new(&case.window, case.input) else {
            assert!(case.output != [height, width] || case.window.stride != [1, 1]);
            assert_eq!(in_place_bytes(&case.window, case.input, 1, 1), None);
            refused += 1;
            return;
        };
        let mut expected = std::vec![0; case.x.len()];
        depthwise_i8_reference(&dw, &case.x, 0, &mut expected);
        let least = map.least().unwrap();
        let enough = in_place_bytes(&case.window, case.input, 1, 3).unwrap();
        assert!(least <= in_place_bytes(&case.window, case.input, 1, 1).unwrap());
        for (i, pool) in pools.iter().enumerate() {
            let exec = Exec { pool: Some(pool) };
            let cap = caps[(cases + i) % caps.len()];
            for len in [least, least + width * c + 5, enough] {
                let mut scratch = Guarded::new(len, 77);
                let mut y = Guarded::new(case.x.len(), 0);
                y.get().copy_from_slice(&case.x);
                map.run(exec, usize::MAX, y.get(), scratch.get(), |band, x, y| {
                    depthwise_i8(cap, &dw.band(&band, y.len())?, x, 0, y)
                })
                .unwrap();
                let isa = cap.isa().name();
                assert!(y.check() == expected, "{name} with {isa}, {len} bytes");
                scratch.check();
            }
            let mut y = case.x.clone();
            let short = &mut std::vec![0; least - 1];
            let run = map.run(exec, usize::MAX, &mut y, short, |_, _, _| Ok(()));
            assert!(run.is_err());
        }
        cases += 1;
    });
    assert!(cases > 100 && refused > 50, "{cases} cases, {refused} not");
}

/// Values beyond 2²² before the clamp, and sums of zeros and extremes.
#[test]
fn int8_extremes_equal_the_reference() {
    let caps = capabilities("depthwise int8 extremes");
    for scale in [1e-9, 10.0, 1e30] {
        for_each_case(scale, |case, name| {
            if case.input[2] > 64 {
                return;
            }
            let mut expected = std::vec![0; case.output[0] * case.output[1] * case.input[2]];
            depthwise_i8_reference(&case.operator(), &case.x, 0, &mut expected);
            for &cap in &caps {
                let got = in_chunks(cap, case, case.output[0]);
                assert!(
                    got == expected,
                    "{name} scale {scale} with {}",
                    cap.isa().name()
                );
            }
        });
    }
}

#[test]
fn float_is_close_to_double_precision() {
    let caps = capabilities("depthwise f32");
    let mut random = Random::new(3);
    for (kernel, stride, dilation, pad) in WINDOWS {
        let window = Window {
            kernel,
            stride,
            dilation,
            pad,
        };
        for channels in [1, 16, 24, 64, 80, 100] {
            let input = [1 + random.below(12), 1 + random.below(12), channels];
            let (Some(h), Some(w)) = (window.output(0, input[0]), window.output(1, input[1]))
            else {
                continue;
            };
            let x = random.reals(input.iter().product(), -2.0, 2.0);
            let weights = random.reals(window.taps() * channels, -1.0, 1.0);
            let bias = random.reals(channels, -1.0, 1.0);
            let bounds = if random.below(2) == 0 {
                [0.0, 3.0]
            } else {
                [-1e30, 1e30]
            };
            let [lo, hi] = bounds;
            let dw = DepthwiseF32 {
                window,
                input,
                output: [h, w],
                weights: &weights,
                bias: &bias,
                lo,
                hi,
            };
            let mut expected = std::vec![0.0; h * w * channels];
            depthwise_f32_reference(&dw, &x, 0, &mut expected);
            for &cap in &caps {
                let row = w * channels;
                let first = h / 2;
                let mut y = Guarded::new((h - first) * row, 99.0);
                depthwise_f32(cap, &dw, &x, first, y.get()).unwrap();
                for (got, want) in y.check().iter().zip(&expected[first * row..]) {
                    assert!(
                        (got - want).abs() <= 2e-5,
                        "{window:?} {input:?}: {got} {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let mut random = Random::new(1);
    let case = Case::new(&mut random, Window::POINT, [4, 4, 16], 1e-2).unwrap();
    let dw = case.operator();
    let mut y = std::vec![0; 4 * 4 * 16];
    let cap = Capability::Portable;
    assert!(depthwise_i8(cap, &dw, &case.x[1..], 0, &mut y).is_err());
    assert!(depthwise_i8(cap, &dw, &case.x, 1, &mut y).is_err());
    assert!(depthwise_i8(cap, &dw, &case.x, 0, &mut y[1..]).is_err());
    let short = DepthwiseI8 {
        bias: &case.bias[..8],
        ..dw
    };
    assert!(depthwise_i8(cap, &short, &case.x, 0, &mut y).is_err());
    let short = DepthwiseI8 {
        weights: &case.weights[..8],
        ..dw
    };
    assert!(depthwise_i8(cap, &short, &case.x, 0, &mut y).is_err());
    assert!(depthwise_i8(cap, &dw, &case.x, 4, &mut []).is_ok());
}
