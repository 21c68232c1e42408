//! The grid of every kernel: integers are compared with `==`.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::ops::Window;
use crate::ops::conv::{
    EpilogueI8, PackedShape, Residual, WEIGHT_SLACK, conv_i8_reference, pack_i8,
};
use crate::ops::testing::{Guarded, Random, capabilities};
use crate::{Capability, Error};

/// Owned data of a layer.
struct Case {
    size: [usize; 3],
    x: Vec<i8>,
    dense: Vec<i8>,
    starts: Vec<u32>,
    quads: Vec<u16>,
    weights: Vec<[i8; QUAD]>,
    bias: Vec<i32>,
    sums: Vec<i32>,
    multipliers: Vec<f32>,
    residual: Vec<i8>,
    table: [i8; 256],
}

impl Case {
    /// `size` is pixels, input and output channels; a block is there with a probability of `share`.
    fn new(size: [usize; 3], share: f32, random: &mut Random) -> Self {
        let [pixels, depth, channels] = size;
        let mut plain = random.codes(channels * depth);
        for row in plain.chunks_exact_mut(depth) {
            for block in row.chunks_mut(QUAD) {
                if random.real(0.0, 1.0) >= share {
                    block.fill(0);
                }
            }
        }
        let (mut starts, mut quads, mut weights) = (vec![0; channels + 1], vec![], vec![]);
        pack_blocks(&plain, depth, |n, quad, block| {
            starts[n + 1] += 1;
            quads.push(quad);
            weights.push(block);
        });
        for n in 0..channels {
            starts[n + 1] += starts[n];
        }
        assert_eq!(count_blocks(&plain, depth), quads.len());
        let packed = PackedShape::new(channels, depth);
        let mut dense = random.codes(packed.bytes() + WEIGHT_SLACK);
        pack_i8(packed, &plain, &mut dense[..packed.bytes()]);
        let padded = |mut v: Vec<i32>| {
            v.resize(packed.padded_channels(), 0);
            v
        };
        let scale = 60.0 / (7_000.0 * (depth as f32 * share.max(0.05)).sqrt());
        let mut multipliers = random.reals(channels, 0.2 * scale, 2.2 * scale);
        multipliers.resize(packed.padded_channels(), 0.0);
        let sum = |row: &[i8]| row.iter().map(|&w| i32::from(w)).sum();
        let bias = (0..channels)
            .map(|_| random.below(10_000) as i32 - 5_000)
            .collect();
        Case {
            size,
            x: random.codes(pixels * depth),
            sums: padded(plain.chunks_exact(depth).map(sum).collect()),
            dense,
            starts,
            quads,
            weights,
            bias: padded(bias),
            multipliers,
            residual: random.codes(pixels * channels),
            table: random.table(),
        }
    }

    fn op<'a>(&'a self, epilogue: EpilogueI8<'a>) -> SparseI8<'a> {
        let [pixels, depth, channels] = self.size;
        SparseI8 {
            conv: ConvI8 {
                window: Window::POINT,
                input: [1, pixels, depth],
                output: [1, pixels, channels],
                weights: &[],
                bias: &self.bias,
                weight_sums: &self.sums,
                multipliers: &self.multipliers,
                input_zero: 0,
                epilogue,
            },
            blocks: Blocks {
                starts: &self.starts,
                quads: &self.quads,
                weights: &self.weights,
            },
        }
    }

    fn epilogues(&self) -> [EpilogueI8<'_>; 5] {
        let plain = EpilogueI8 {
            zero: 0,
            lo: -128,
            hi: 127,
            table: None,
            residual: None,
        };
        let residual = Some(Residual {
            data: &self.residual,
            zero: -7,
            multiplier: 0.73,
        });
        let table = Some(&self.table);
        [
            plain,
            EpilogueI8 {
                zero: -128,
                hi: 90,
                ..plain
            },
            EpilogueI8 {
                zero: 3,
                residual,
                ..plain
            },
            EpilogueI8 {
                zero: 5,
                lo: -100,
                hi: 100,
                table,
                ..plain
            },
            EpilogueI8 {
                zero: 1,
                lo: -50,
                table,
                residual,
                ..plain
            },
        ]
    }
}

/// Pixels, input and output channels.
fn grid() -> Vec<[usize; 3]> {
    let mut grid = Vec::new();
    for pixels in [
        1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 25, 31, 32, 33, 47, 48, 49, 56, 57, 63, 64, 65, 68,
        72, 73, 80, 100, 137,
    ] {
        grid.push([pixels, 20, 20]);
        grid.push([pixels, 67, 37]);
    }
    for depth in [
        1, 2, 3, 4, 5, 7, 8, 31, 33, 60, 63, 64, 65, 68, 127, 128, 144, 196, 257, 672, 1100, 2048,
    ] {
        grid.push([19, depth, 24]);
        grid.push([68, depth, 17]);
    }
    for channels in [1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 48, 63, 65] {
        grid.push([21, 36, channels]);
    }
    // More than the stack holds of a single tile.
    grid.push([18, 2_300, 5]);
    grid.push([3, 9_000, 3]);
    grid
}

/// Runs the layer at once and in parts, with scratch of some lengths.
fn check(cap: Capability, op: &SparseI8<'_>, x: &[i8], expected: &[i8]) {
    let [pixels, channels] = [op.conv.output[1], op.conv.output[2]];
    let full = scratch_bytes(op.conv.input[2]);
    for (scratch, part) in [
        (0, pixels),
        (full.max(33_000), pixels),
        (40_000, pixels.div_ceil(2).next_multiple_of(16)),
        (100, 7),
    ] {
        let mut scratch = vec![0xa5; scratch];
        let mut y = Guarded::new(expected.len(), 0x55);
        for (i, y) in y.get().chunks_mut(part * channels).enumerate() {
            sparse_i8(cap, op, x, i * part, y, &mut scratch).unwrap();
        }
        let y = y.check();
        if let Some(at) = (0..y.len()).find(|&i| y[i] != expected[i]) {
            panic!(
                "{:?}, {:?} to {channels}, scratch {}, parts of {part}: value {at} is {}, not {}",
                cap.isa(),
                op.conv.input,
                scratch.len(),
                y[at],
                expected[at]
            );
        }
    }
}

#[test]
fn every_kernel_equals_the_reference() {
    let capabilities = capabilities("sparse layer");
    let mut random = Random::new(5);
    for (i, size) in grid().into_iter().enumerate() {
        let share = [0.5, 0.25, 0.125, 1.0, 0.0][i % 5];
        let case = Case::new(size, share, &mut random);
        let epilogues = case.epilogues();
        for epilogue in [epilogues[0], epilogues[1 + i % 4]] {
            let op = case.op(epilogue);
            assert!(op.blocks.are_sound(size[2], size[1]));
            let mut expected = vec![0; case.residual.len()];
            sparse_i8_reference(&op, &case.x, 0, &mut expected);
            // The dense layer's reference is the definition.
            let conv = ConvI8 {
                weights: &case.dense,
                ..op.conv
            };
            let mut dense = vec![0; expected.len()];
            conv_i8_reference(&conv, &case.x, 0, &mut dense);
            assert_eq!(expected, dense);
            for &cap in &capabilities {
                check(cap, &op, &case.x, &expected);
            }
        }
    }
}

#[test]
fn extreme_sums_do_not_saturate() {
    let mut random = Random::new(6);
    for (x, w) in [(-128, -128), (-128, 127), (127, 127), (127, -128)] {
        let mut case = Case::new([21, 1280, 20], 0.5, &mut random);
        case.x.fill(x);
        case.weights.fill([w; QUAD]);
        for n in 0..20 {
            let count = case.starts[n + 1] - case.starts[n];
            case.sums[n] = count as i32 * 4 * i32::from(w);
        }
        case.multipliers.fill(1.0 / (640.0 * 150.0));
        let op = case.op(case.epilogues()[0]);
        let mut expected = vec![0; case.residual.len()];
        sparse_i8_reference(&op, &case.x, 0, &mut expected);
        for cap in capabilities("sparse extremes") {
            check(cap, &op, &case.x, &expected);
        }
    }
}

#[test]
fn damaged_lists_are_found_and_harmless() {
    let case = Case::new([37, 30, 20], 0.5, &mut Random::new(7));
    let good = case.op(case.epilogues()[0]);
    let found = |case: &Case| {
        let op = case.op(good.conv.epilogue);
        assert!(!op.blocks.are_sound(20, 30));
        // What is computed has no meaning, but stays within the slices.
        for cap in capabilities("sparse damaged") {
            let mut y = Guarded::new(37 * 20, 9);
            sparse_i8(cap, &op, &case.x, 0, y.get(), &mut []).unwrap();
            y.check();
        }
    };
    let damaged = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::new([37, 30, 20], 0.5, &mut Random::new(7));
        change(&mut case);
        found(&case);
    };
    damaged(&|c| c.quads[3] = 8);
    damaged(&|c| c.quads[3] = u16::MAX);
    damaged(&|c| c.quads[1] = c.quads[0]);
    damaged(&|c| c.starts[0] = 1);
    damaged(&|c| c.starts[4] = u32::MAX);
    damaged(&|c| c.starts[4] = c.starts[5] + 1);
    damaged(&|c| c.starts[20] -= 1);
    damaged(&|c| {
        c.quads.pop();
    });
    damaged(&|c| {
        c.weights.pop();
    });
    damaged(&|c| {
        let at = c.quads.iter().position(|&q| q == 7).unwrap();
        c.weights[at] = [1; QUAD];
    });
}

#[test]
fn short_slices_and_windows_are_refused() {
    let case = Case::new([5, 8, 20], 0.5, &mut Random::new(8));
    let good = case.op(case.epilogues()[0]);
    let refused = |op: &SparseI8<'_>, x: &[i8], first: usize, y: usize| {
        for cap in capabilities("sparse lengths") {
            let result = sparse_i8(cap, op, x, first, &mut vec![0; y], &mut []);
            assert!(matches!(result, Err(Error::Length { .. })));
        }
    };
    refused(&good, &case.x[1..], 0, 100);
    refused(&good, &case.x, 1, 100);
    refused(&good, &case.x, 0, 99);
    let mut short = good;
    short.blocks.starts = &case.starts[1..];
    refused(&short, &case.x, 0, 100);
    let mut short = good;
    short.conv.bias = &case.bias[..20];
    refused(&short, &case.x, 0, 100);
    let mut wide = good;
    wide.conv.window.kernel = [1, 2];
    wide.conv.output[1] = 4;
    refused(&wide, &case.x, 0, 80);
}
