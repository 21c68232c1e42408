//! Int8 depthwise layers of EfficientNet-Lite0 at 224 × 224, one core, per instruction set.

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::conv::{EpilogueI8, WEIGHT_SLACK};
use ampoule_runtime::ops::depthwise::{DepthwiseI8, depthwise_i8};
use ampoule_runtime::{Capability, Isa};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

/// Map size, channels, kernel, stride, and how often the network has the layer.
const LAYERS: [(usize, usize, u16, u16, usize); 12] = [
    (112, 32, 3, 1, 1),
    (112, 96, 3, 2, 1),
    (56, 144, 3, 1, 1),
    (56, 144, 5, 2, 1),
    (28, 240, 5, 1, 1),
    (28, 240, 3, 2, 1),
    (14, 480, 3, 1, 2),
    (14, 480, 5, 1, 1),
    (14, 672, 5, 1, 2),
    (14, 672, 5, 2, 1),
    (7, 1152, 5, 1, 3),
    (7, 1152, 3, 1, 1),
];

struct Layer {
    name: String,
    count: usize,
    window: Window,
    input: [usize; 3],
    output: [usize; 2],
    x: Vec<i8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    weight_sums: Vec<i32>,
    multipliers: Vec<f32>,
    y: Vec<i8>,
}

impl Layer {
    fn new((size, channels, kernel, stride, count): (usize, usize, u16, u16, usize)) -> Self {
        let pad = (kernel - 1) / 2;
        let before = if stride == 1 {
            pad
        } else {
            pad - 1 + (size % 2) as u16
        };
        let window = Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            pad: [before, before, pad, pad],
        };
        let output = [0, 1].map(|axis| window.output(axis, size).expect("the window fits"));
        let byte = |i: usize| (i.wrapping_mul(0x9e37_79b1) >> 13) as i8;
        let taps = window.taps();
        let weights: Vec<i8> = (0..taps * channels + WEIGHT_SLACK).map(byte).collect();
        let mut weight_sums = vec![0; channels.next_multiple_of(16)];
        for (i, &w) in weights[..taps * channels].iter().enumerate() {
            weight_sums[i % channels] += i32::from(w);
        }
        Layer {
            name: format!("{size}x{size}x{channels}_k{kernel}s{stride}"),
            count,
            window,
            input: [size, size, channels],
            output,
            x: (0..size * size * channels).map(byte).collect(),
            weights,
            bias: vec![1234; weight_sums.len()],
            multipliers: vec![2.0e-4; weight_sums.len()],
            weight_sums,
            y: vec![0; output[0] * output[1] * channels],
        }
    }

    fn run(&mut self, cap: Capability) {
        let dw = DepthwiseI8 {
            window: self.window,
            input: self.input,
            output: self.output,
            weights: &self.weights,
            bias: &self.bias,
            weight_sums: &self.weight_sums,
            multipliers: &self.multipliers,
            input_zero: -3,
            epilogue: EpilogueI8 {
                zero: -128,
                lo: -128,
                hi: 127,
                table: None,
                residual: None,
            },
        };
        depthwise_i8(cap, &dw, black_box(&self.x), 0, black_box(&mut self.y)).expect("lengths");
    }
}

fn depthwise(c: &mut Criterion) {
    let mut layers = LAYERS.map(Layer::new);
    for isa in Isa::ALL {
        let Ok(cap) = Capability::new(isa) else {
            continue;
        };
        let mut group = c.benchmark_group(format!("depthwise/{}", isa.name()));
        for layer in &mut layers {
            let name = layer.name.clone();
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| layer.run(cap))
            });
        }
        group.bench_function("efficientnet_lite0", |b| {
            b.iter(|| {
                for layer in &mut layers {
                    (0..layer.count).for_each(|_| layer.run(cap));
                }
            });
        });
    }
}

criterion_group!(benches, depthwise);
criterion_main!(benches);
