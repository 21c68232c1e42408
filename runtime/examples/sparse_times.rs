//! How much faster layers run whose weights are mostly zero, stored as 1×4 blocks, than the same layers dense.
//!
//! Dense and sparse layers take turns; prints the medians of many slices and their ratio, for each share of blocks that
//! are gone. The last columns have 2:4: two of each four weights, which leaves hardly a block empty.
//!
//! `cargo run --release --features std --example sparse_times [instruction set] [slices] [PIXELS,INPUT,OUTPUT …]`

use std::time::Instant;

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::conv::{
    ConvI8, EpilogueI8, PackedShape, QUAD, WEIGHT_SLACK, conv_i8, pack_i8,
};
use ampoule_runtime::ops::sparse::{Blocks, SparseI8, pack_blocks, scratch_bytes, sparse_i8};
use ampoule_runtime::{Capability, Isa};

/// Pixels, input and output channels of layers of TinyViT and EfficientNet-Lite0.
const LAYERS: [[usize; 3]; 9] = [
    [3136, 64, 256],
    [3136, 144, 24],
    [784, 240, 40],
    [196, 80, 480],
    [196, 192, 768],
    [196, 768, 192],
    [49, 320, 1280],
    [49, 1152, 192],
    [1, 1280, 1000],
];
const SHARES: [f32; 6] = [0.0, 0.25, 0.5, 0.625, 0.75, 0.875];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let slices = arguments.get(2).and_then(|s| s.parse().ok()).unwrap_or(60);
    let mut layers: Vec<[usize; 3]> = arguments.iter().skip(3).filter_map(|s| sizes(s)).collect();
    if layers.is_empty() {
        layers = LAYERS.to_vec();
    }
    for isa in Isa::ALL {
        let wanted = arguments.get(1).is_none_or(|name| name == isa.name());
        if let (true, Ok(cap)) = (wanted, Capability::new(isa)) {
            report(cap, slices, &layers);
        }
    }
}

fn sizes(text: &str) -> Option<[usize; 3]> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn report(cap: Capability, slices: usize, layers: &[[usize; 3]]) {
    println!(
        "{}: dense over sparse, by the share of blocks that are gone",
        cap.isa().name()
    );
    print!("{:>18} {:>10}", "layer", "dense us");
    SHARES.iter().for_each(|s| print!(" {:>6.1}%", 100.0 * s));
    println!(" {:>7}", "2:4");
    for &size in layers {
        let [pixels, depth, channels] = size;
        let mut dense_us = Vec::new();
        let mut ratios = Vec::new();
        for share in SHARES {
            let layer = Layer::new(size, |random, block| {
                if random.real() < share {
                    *block = [0; QUAD];
                }
            });
            let [dense, sparse] = layer.times(cap, slices);
            dense_us.push(dense * 1e6);
            ratios.push(dense / sparse);
        }
        let layer = Layer::new(size, |random, block| {
            let at = random.below(QUAD);
            block[at] = 0;
            block[(at + 1 + random.below(QUAD - 1)) % QUAD] = 0;
        });
        let [dense, sparse] = layer.times(cap, slices);
        ratios.push(dense / sparse);
        dense_us.sort_by(f64::total_cmp);
        print!(
            "{:>18} {:>10.2}",
            format!("{pixels},{depth},{channels}"),
            dense_us[SHARES.len() / 2]
        );
        ratios.iter().for_each(|r| print!(" {r:>7.2}"));
        println!();
    }
}

/// A layer in both forms.
struct Layer {
    size: [usize; 3],
    x: Aligned,
    dense: Aligned,
    starts: Vec<u32>,
    quads: Vec<u16>,
    weights: Vec<[i8; QUAD]>,
    sums: Vec<i32>,
    bias: Vec<i32>,
    multipliers: Vec<f32>,
}

impl Layer {
    fn new(size: [usize; 3], mut change: impl FnMut(&mut Random, &mut [i8; QUAD])) -> Self {
        let [pixels, depth, channels] = size;
        let mut random = Random(1);
        let codes = |random: &mut Random, n| -> Vec<i8> {
            (0..n)
                .map(|_| (random.below(254) as i32 - 127) as i8)
                .collect()
        };
        let mut plain = codes(&mut random, channels * depth);
        for row in plain.chunks_exact_mut(depth) {
            let blocks = row.as_chunks_mut::<QUAD>().0;
            blocks
                .iter_mut()
                .for_each(|block| change(&mut random, block));
        }
        let (mut starts, mut quads, mut weights) = (vec![0; channels + 1], vec![], vec![]);
        pack_blocks(&plain, depth, |n, quad, block| {
            starts[n + 1] += 1;
            quads.push(quad);
            weights.push(block);
        });
        (0..channels).for_each(|n| starts[n + 1] += starts[n]);
        let packed = PackedShape::new(channels, depth);
        let mut dense = vec![0; packed.bytes() + WEIGHT_SLACK];
        pack_i8(packed, &plain, &mut dense[..packed.bytes()]);
        let sum = |row: &[i8]| row.iter().map(|&w| i32::from(w)).sum();
        let mut sums: Vec<i32> = plain.chunks_exact(depth).map(sum).collect();
        sums.resize(packed.padded_channels(), 0);
        Layer {
            size,
            x: Aligned::new(&codes(&mut random, pixels * depth)),
            dense: Aligned::new(&dense),
            starts,
            quads,
            weights,
            sums,
            bias: vec![0; packed.padded_channels()],
            multipliers: vec![1e-3; packed.padded_channels()],
        }
    }

    /// Median seconds of the dense and of the sparse form, which take turns.
    fn times(&self, cap: Capability, slices: usize) -> [f64; 2] {
        let [pixels, depth, channels] = self.size;
        let conv = ConvI8 {
            window: Window::POINT,
            input: [1, pixels, depth],
            output: [1, pixels, channels],
            weights: self.dense.get(),
            bias: &self.bias,
            weight_sums: &self.sums,
            multipliers: &self.multipliers,
            input_zero: 0,
            epilogue: EpilogueI8 {
                zero: 0,
                lo: -128,
                hi: 127,
                table: None,
                residual: None,
            },
        };
        let blocks = Blocks {
            starts: &self.starts,
            quads: &self.quads,
            weights: &self.weights,
        };
        let sparse = SparseI8 { conv, blocks };
        let mut y = [vec![0; pixels * channels], vec![0; pixels * channels]];
        let mut scratch = vec![0; scratch_bytes(depth)];
        let [a, b] = &mut y;
        let mut run = [
            &mut (|| conv_i8(cap, &conv, self.x.get(), 0, a, &mut []).unwrap())
                as &mut dyn FnMut(),
            &mut || sparse_i8(cap, &sparse, self.x.get(), 0, b, &mut scratch).unwrap(),
        ];
        let start = Instant::now();
        run.iter_mut().for_each(|run| run());
        let repeats = (4e-4 / start.elapsed().as_secs_f64()).ceil().max(1.0) as usize;
        let mut seconds = [Vec::new(), Vec::new()];
        for _ in 0..slices {
            for (run, seconds) in run.iter_mut().zip(&mut seconds) {
                let start = Instant::now();
                (0..repeats).for_each(|_| run());
                seconds.push(start.elapsed().as_secs_f64() / repeats as f64);
            }
        }
        assert_eq!(y[0], y[1], "both forms are the same layer");
        seconds.map(|mut s| {
            s.sort_by(f64::total_cmp);
            s[s.len() / 2]
        })
    }
}

/// Values that start on a cache line, as tensors of an arena and of an artifact do.
struct Aligned {
    memory: Vec<i8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(values: &[i8]) -> Self {
        let mut memory = vec![0; values.len() + 64];
        let start = memory.as_ptr().align_offset(64);
        memory[start..start + values.len()].copy_from_slice(values);
        let len = values.len();
        Aligned { memory, start, len }
    }

    fn get(&self) -> &[i8] {
        &self.memory[self.start..self.start + self.len]
    }
}

struct Random(u32);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    fn real(&mut self) -> f32 {
        self.bits() as f32 / (1 << 24) as f32
    }
}
