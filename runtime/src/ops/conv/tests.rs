//! One grid of shapes, windows and epilogues for every kernel: integers are compared with `==`.

use std::vec;
use std::vec::Vec;

use half::f16;

use super::*;
use crate::{Capability, Error};

/// Deterministic values.
struct Lcg(u32);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// Codes, every eighth of them an extreme.
    fn codes(&mut self, n: usize) -> Vec<i8> {
        let mut code = || match self.next() {
            v if v % 16 == 0 => i8::MIN,
            v if v % 16 == 1 => i8::MAX,
            v => (v >> 4) as i8,
        };
        (0..n).map(|_| code()).collect()
    }

    /// Values in −1..1.
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| (self.next() as f32 / (1 << 23) as f32) - 1.0)
            .collect()
    }
}

fn capabilities() -> Vec<Capability> {
    crate::ops::testing::capabilities("convolution")
}

fn window(kernel: u16, stride: u16, dilation: u16, pad: u16) -> Window {
    Window {
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [dilation; 2],
        pad: [pad; 4],
    }
}

/// Window, input height, width, channels, output channels.
fn grid() -> Vec<(Window, [usize; 3], usize)> {
    let mut grid = Vec::new();
    for channels in [
        1, 3, 4, 5, 7, 8, 12, 15, 16, 17, 23, 24, 33, 40, 47, 48, 63, 64, 65, 100,
    ] {
        grid.push((Window::POINT, [1, 3, 8], channels));
        grid.push((Window::POINT, [5, 7, 36], channels));
    }
    for depth in [
        1, 2, 3, 4, 5, 7, 8, 15, 16, 20, 27, 31, 33, 60, 63, 64, 65, 68, 72, 96, 100, 127, 144,
        148, 196, 257, 672,
    ] {
        grid.push((Window::POINT, [3, 6, depth], 24));
        grid.push((Window::POINT, [1, 17, depth], 33));
    }
    for pixels in [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 34, 47, 49, 63, 64, 65, 81, 97,
    ] {
        grid.push((Window::POINT, [1, pixels, 20], 20));
        grid.push((Window::POINT, [1, pixels, 67], 70));
    }
    for (w, channels) in [
        (window(3, 1, 1, 1), 3),
        (window(3, 2, 1, 1), 3),
        (window(3, 2, 1, 0), 3),
        (window(3, 1, 1, 1), 16),
        (window(3, 1, 2, 2), 5),
        (window(5, 2, 1, 2), 4),
        (window(5, 3, 2, 4), 2),
        (window(1, 2, 1, 0), 12),
        (window(1, 1, 1, 1), 6),
        (window(4, 4, 1, 0), 3),
        (window(2, 1, 7, 5), 1),
        (window(7, 1, 1, 6), 1),
    ] {
        grid.push((w, [11, 13, channels], 10));
        grid.push((w, [9, 9, channels], 35));
    }
    let uneven = Window {
        kernel: [1, 3],
        stride: [2, 1],
        dilation: [1, 3],
        pad: [0, 3, 2, 1],
    };
    grid.push((uneven, [6, 9, 5], 18));
    grid.push((window(3, 1, 1, 1), [4, 4, 130], 20));
    // Several panels, with the last shorter than the others; patches in several strips.
    grid.push((Window::POINT, [29, 31, 16], 12));
    grid.push((Window::POINT, [20, 33, 7], 24));
    grid.push((window(3, 2, 1, 1), [50, 51, 3], 9));
    grid.push((Window::POINT, [3, 9, 515], 24));
    grid.push((Window::POINT, [5, 14, 1040], 18));
    grid.push((window(3, 1, 1, 1), [5, 6, 132], 20));
    grid
}

fn output(window: &Window, input: [usize; 3], channels: usize) -> [usize; 3] {
    [
        window.output(0, input[0]).unwrap(),
        window.output(1, input[1]).unwrap(),
        channels,
    ]
}

/// Owned data of an int8 convolution.
struct Case {
    window: Window,
    input: [usize; 3],
    output: [usize; 3],
    x: Vec<i8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    sums: Vec<i32>,
    multipliers: Vec<f32>,
    residual: Vec<i8>,
    table: [i8; 256],
}

impl Case {
    fn new(window: Window, input: [usize; 3], channels: usize, lcg: &mut Lcg) -> Self {
        let depth = window.taps() * input[2];
        let mut plain = lcg.codes(channels * depth);
        // Kernels may do better without weights of −128, which well-formed artifacts don't have.
        if lcg.next() % 2 == 0 {
            plain.iter_mut().for_each(|w| *w = (*w).max(-127));
        }
        Case::of(
            window,
            input,
            channels,
            lcg.codes(input.iter().product()),
            &plain,
            lcg,
        )
    }

    fn of(
        window: Window,
        input: [usize; 3],
        channels: usize,
        x: Vec<i8>,
        plain: &[i8],
        lcg: &mut Lcg,
    ) -> Self {
        let depth = window.taps() * input[2];
        let packed = PackedShape::new(channels, depth);
        // What follows the weights must not matter.
        let mut weights = lcg.codes(packed.bytes() + WEIGHT_SLACK);
        pack_i8(packed, plain, &mut weights[..packed.bytes()]);
        let padded = packed.padded_channels();
        let mut sums: Vec<i32> = plain
            .chunks(depth)
            .map(|w| w.iter().map(|&w| i32::from(w)).sum())
            .collect();
        sums.resize(padded, 0);
        let mut bias: Vec<i32> = (0..channels)
            .map(|_| lcg.next() as i32 % 10_000 - 5_000)
            .collect();
        bias.resize(padded, 0);
        let scale = 60.0 / (7_000.0 * (depth as f32).sqrt());
        let mut multipliers: Vec<f32> = lcg
            .floats(channels)
            .iter()
            .map(|m| scale * (1.2 + m))
            .collect();
        multipliers.resize(padded, 0.0);
        let output = output(&window, input, channels);
        let residual = lcg.codes(output.iter().product());
        let table = lcg.codes(256).try_into().unwrap();
        Case {
            window,
            input,
            output,
            x,
            weights,
            bias,
            sums,
            multipliers,
            residual,
            table,
        }
    }

    fn conv<'a>(&'a self, input_zero: i8, epilogue: EpilogueI8<'a>) -> ConvI8<'a> {
        ConvI8 {
            window: self.window,
            input: self.input,
            output: self.output,
            weights: &self.weights,
            bias: &self.bias,
            weight_sums: &self.sums,
            multipliers: &self.multipliers,
            input_zero,
            epilogue,
        }
    }

    fn plain(&self) -> EpilogueI8<'_> {
        EpilogueI8 {
            zero: 0,
            lo: -128,
            hi: 127,
            table: None,
            residual: None,
        }
    }

    fn epilogues(&self) -> [EpilogueI8<'_>; 5] {
        let residual = Some(Residual {
            data: &self.residual,
            zero: -7,
            multiplier: 0.73,
        });
        let table = Some(&self.table);
        [
            self.plain(),
            EpilogueI8 {
                zero: -128,
                lo: -128,
                hi: 90,
                ..self.plain()
            },
            EpilogueI8 {
                zero: 3,
                residual,
                ..self.plain()
            },
            EpilogueI8 {
                zero: 5,
                lo: -100,
                hi: 100,
                table,
                ..self.plain()
            },
            EpilogueI8 {
                zero: 1,
                lo: -50,
                table,
                residual,
                ..self.plain()
            },
        ]
    }
}

/// Runs a convolution with slices of exact length, and again in chunks with other bytes behind `x`.
fn check(cap: Capability, conv: &ConvI8<'_>, x: &[i8], scratch: usize, expected: &[i8]) {
    let mut scratch = vec![0xa5; scratch];
    let mut y = vec![0x55; expected.len()].into_boxed_slice();
    conv_i8(cap, conv, x, 0, &mut y, &mut scratch).unwrap();
    assert_same(cap, conv, scratch.len(), expected, &y);

    let channels = conv.output[2];
    for chunk in [1, 5, 32] {
        let mut poisoned = x.to_vec();
        poisoned.extend([0x77; 256]);
        let mut y = vec![0x55; expected.len() + 128];
        let chunks = y[..expected.len()].chunks_mut(chunk * channels);
        for (i, part) in chunks.enumerate() {
            conv_i8(
                cap,
                conv,
                &poisoned[..x.len()],
                i * chunk,
                part,
                &mut scratch,
            )
            .unwrap();
        }
        assert_same(cap, conv, scratch.len(), expected, &y[..expected.len()]);
        assert!(y[expected.len()..].iter().all(|&v| v == 0x55));
    }
}

fn assert_same(cap: Capability, conv: &ConvI8<'_>, scratch: usize, expected: &[i8], y: &[i8]) {
    if let Some(at) = (0..y.len()).find(|&i| y[i] != expected[i]) {
        panic!(
            "{:?}, {:?} to {:?} through {:?}, scratch {scratch}: value {at} is {}, not {}",
            cap.isa(),
            conv.input,
            conv.output,
            conv.window,
            y[at],
            expected[at]
        );
    }
}

#[test]
fn every_kernel_equals_the_reference() {
    let capabilities = capabilities();
    let mut lcg = Lcg(1);
    for (i, (window, input, channels)) in grid().into_iter().enumerate() {
        let case = Case::new(window, input, channels, &mut lcg);
        let epilogues = case.epilogues();
        // The grid is long enough to meet each epilogue with each kind of shape.
        for epilogue in [epilogues[0], epilogues[1 + i % 4]] {
            let conv = case.conv(-9, epilogue);
            let mut expected = vec![0; case.residual.len()];
            conv_i8_reference(&conv, &case.x, 0, &mut expected);
            for &cap in &capabilities {
                for scratch in [0, 70, 100_000] {
                    check(cap, &conv, &case.x, scratch, &expected);
                }
            }
        }
    }
}

#[test]
fn extreme_sums_do_not_saturate() {
    let mut lcg = Lcg(2);
    for (x, w) in [(-128, -128), (-128, 127), (127, 127), (127, -128)] {
        for depth in [4, 64, 1280] {
            let (input, channels) = ([1, 9, depth], 20);
            let (x, plain) = (vec![x; 9 * depth], vec![w; channels * depth]);
            let mut case = Case::of(Window::POINT, input, channels, x, &plain, &mut lcg);
            case.multipliers.fill(1.0 / (depth as f32 * 150.0));
            let conv = case.conv(0, case.plain());
            let mut expected = vec![0; 9 * channels];
            conv_i8_reference(&conv, &case.x, 0, &mut expected);
            for cap in capabilities() {
                check(cap, &conv, &case.x, 0, &expected);
            }
        }
    }
}

#[test]
fn ties_and_overflows_round_alike() {
    let mut lcg = Lcg(3);
    for multiplier in [0.5, 0.25, 1e-20, 1e20, f32::MIN_POSITIVE] {
        let mut case = Case::new(Window::POINT, [4, 4, 12], 40, &mut lcg);
        case.multipliers.fill(multiplier);
        case.bias[0] = i32::MAX;
        case.bias[1] = i32::MIN;
        for epilogue in case.epilogues() {
            let conv = case.conv(0, epilogue);
            let mut expected = vec![0; 16 * 40];
            conv_i8_reference(&conv, &case.x, 0, &mut expected);
            for cap in capabilities() {
                check(cap, &conv, &case.x, 0, &expected);
            }
        }
    }
}

#[test]
fn patches_larger_than_the_stack_are_computed() {
    let mut lcg = Lcg(4);
    for (window, input) in [
        (Window::POINT, [1, 2, 20_000]),
        (window(3, 1, 1, 1), [3, 3, 2_000]),
    ] {
        let case = Case::new(window, input, 5, &mut lcg);
        let conv = case.conv(1, case.plain());
        let mut expected = vec![0; case.residual.len()];
        conv_i8_reference(&conv, &case.x, 0, &mut expected);
        for cap in capabilities() {
            for scratch in [0, 20_000, 200_000] {
                check(cap, &conv, &case.x, scratch, &expected);
            }
        }
    }
}

#[test]
fn short_slices_are_refused() {
    let case = Case::new(window(3, 1, 1, 1), [5, 5, 4], 20, &mut Lcg(5));
    let good = case.conv(0, case.plain());
    let refused = |conv: &ConvI8<'_>, x: &[i8], first: usize, y: usize| {
        for cap in capabilities() {
            let result = conv_i8(cap, conv, x, first, &mut vec![0; y], &mut []);
            assert!(
                matches!(result, Err(Error::Length { .. })),
                "{:?}",
                cap.isa()
            );
        }
    };
    refused(&good, &case.x[1..], 0, 500);
    refused(&good, &case.x, 1, 500);
    refused(&good, &case.x, usize::MAX, 20);
    refused(&good, &case.x, 0, 19);
    refused(&good, &case.x, 0, 0);
    refused(
        &ConvI8 {
            weights: &case.weights[1..],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            bias: &case.bias[..20],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            weight_sums: &case.sums[..20],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            multipliers: &case.multipliers[..20],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            input: [5, usize::MAX, 4],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            input: [0, usize::MAX, 4],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            output: [6, 5, 20],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            output: [5, 5, 0],
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            window: window(0, 1, 1, 1),
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            window: window(3, 0, 1, 1),
            ..good
        },
        &case.x,
        0,
        500,
    );
    refused(
        &ConvI8 {
            window: window(9, 1, 1, 1),
            ..good
        },
        &case.x,
        0,
        500,
    );
    let residual = Some(Residual {
        data: &case.residual[1..],
        zero: 0,
        multiplier: 1.0,
    });
    let epilogue = EpilogueI8 {
        residual,
        ..case.plain()
    };
    refused(&ConvI8 { epilogue, ..good }, &case.x, 0, 500);
}

/// Packs row-major float weights as [`WeightsF32`] says.
fn pack_floats(w: &[f32], channels: usize, depth: usize) -> Vec<f32> {
    let mut packed = vec![0.0; depth * channels.next_multiple_of(4)];
    for (n, row) in w.chunks(depth).enumerate() {
        let block = n / WIDTH * WIDTH;
        let width = (channels - block).next_multiple_of(4).min(WIDTH);
        for (k, &v) in row.iter().enumerate() {
            packed[block * depth + k * width + n % WIDTH] = v;
        }
    }
    packed
}

#[test]
fn float_kernels_stay_close_to_the_reference() {
    let capabilities = capabilities();
    let mut lcg = Lcg(6);
    for (i, (window, input, channels)) in grid().into_iter().enumerate() {
        let depth = window.taps() * input[2];
        let output = output(&window, input, channels);
        let x = lcg.floats(input.iter().product());
        let mut weights = pack_floats(&lcg.floats(channels * depth), channels, depth);
        weights.extend([f32::NAN; WEIGHT_SLACK / 4]);
        let mut halves: Vec<u16> = weights
            .iter()
            .map(|&w| f16::from_f32(w).to_bits())
            .collect();
        halves.extend([0x7e00; WEIGHT_SLACK / 4]);
        let mut bias = lcg.floats(channels);
        bias.resize(channels.next_multiple_of(WIDTH), 0.0);
        let residual = lcg.floats(output.iter().product());
        let limit = if i % 3 == 0 { 0.5 } else { f32::INFINITY };
        for weights in [WeightsF32::F32(&weights), WeightsF32::F16(&halves)] {
            let residual = (i % 2 == 0).then_some(&residual[..]);
            let conv = ConvF32 {
                window,
                input,
                output,
                weights,
                bias: &bias,
                lo: -limit,
                hi: limit,
                residual,
            };
            let mut expected = vec![0.0; output.iter().product()];
            conv_f32_reference(&conv, &x, 0, &mut expected);
            for &cap in &capabilities {
                for (scratch, chunk) in [(0, 1000), (300, 5), (100_003, 32)] {
                    let mut y = vec![0.0; expected.len()];
                    let mut scratch = vec![0xa5; scratch];
                    for (i, y) in y.chunks_mut(chunk * channels).enumerate() {
                        conv_f32(cap, &conv, &x, i * chunk, y, &mut scratch).unwrap();
                    }
                    // The sum of magnitudes is what rounding errors are relative to.
                    let scale = (depth as f32).max(1.0);
                    for (&y, &e) in y.iter().zip(&expected) {
                        assert!(
                            (y - e).abs() <= 1e-5 * scale.sqrt().max(e.abs()),
                            "{:?} {conv:?}: {y} {e}",
                            cap.isa()
                        );
                    }
                }
            }
        }
    }
}
