//! Matrix products of the measured student: GFLOP/s of one thread best of many runs.
//!
//!     cargo run --release -p ampoule-distill-kernels --example gemm_speed

use std::time::Instant;

use ampoule_distill_kernels::gemm::{Packed, Panels, Start, accumulate_transposed, product};

/// Rows of a chunk, input channels, output channels.
const SHAPES: [(&str, [usize; 3]); 8] = [
    ("stem 1", [1024, 27, 32]),
    ("stem 2", [256, 288, 64]),
    ("expand", [256, 64, 256]),
    ("project", [256, 256, 64]),
    ("project 2", [256, 256, 128]),
    ("queries, keys, values", [170, 128, 384]),
    ("projection", [512, 128, 128]),
    ("first of MLP", [128, 128, 512]),
];

fn main() {
    println!(
        "{:24} {:>14} {:>9} {:>9} {:>9}",
        "product", "rows, I, O", "forward", "backward", "weights"
    );
    for (name, [rows, k, n]) in SHAPES {
        let fill = |len: usize| {
            (0..len)
                .map(|i| (i % 17) as f32 * 0.1)
                .collect::<Vec<f32>>()
        };
        let (x, w, d) = (fill(rows * k), fill(n * k), fill(rows * n));
        let (mut forward, mut backward) = (Packed::default(), Packed::default());
        forward.pack(&w, [k, n], [1, k]);
        backward.pack(&w, [n, k], [k, 1]);
        let (mut y, mut of_x, mut of_w) = (d.clone(), x.clone(), w.clone());
        let mut panel = Panels::default();
        let flops = 2.0 * (rows * k * n) as f64;
        let speeds = [
            speed(flops, || {
                product(rows, &x, k, &forward, Start::Zero, &mut y, n)
            }),
            speed(flops, || {
                product(rows, &d, n, &backward, Start::Zero, &mut of_x, k)
            }),
            speed(flops, || {
                accumulate_transposed(rows, &d, [n, n], &x, [k, k], &mut of_w, &mut panel)
            }),
        ];
        let shape = format!("{rows}, {k}, {n}");
        let [a, b, c] = speeds;
        println!("{name:24} {shape:>14} {a:9.1} {b:9.1} {c:9.1}");
    }
}

/// GFLOP/s of the best of many runs of about half a millisecond, which other programs seldom interrupt.
fn speed(flops: f64, mut run: impl FnMut()) -> f64 {
    let times = (1e8 / flops).ceil() as usize;
    let one = |_| {
        let start = Instant::now();
        (0..times).for_each(|_| run());
        times as f64 * flops / start.elapsed().as_secs_f64() / 1e9
    };
    (0..200).map(one).fold(0.0, f64::max)
}
