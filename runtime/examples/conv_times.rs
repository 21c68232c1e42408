//! Milliseconds that the convolutions of EfficientNet-Lite0 take on one core, per instruction set.
//!
//! Prints the best and the median of many slices for each layer, and the time of all layers one after
//! another, each with weights of its own, as a network would run them.
//!
//! `cargo run --release --features std --example conv_times [instruction set] [slices]`

#[path = "../benches/lite0/mod.rs"]
mod lite0;

use std::time::Instant;

use ampoule_runtime::ops::conv::{conv_f32, conv_i8, scratch_bytes};
use ampoule_runtime::{Capability, Isa};
use lite0::{LAYERS, Layer, LayerF32, LayerI8};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let slices = arguments.get(2).and_then(|s| s.parse().ok()).unwrap_or(40);
    for isa in Isa::ALL {
        let wanted = arguments.get(1).is_none_or(|name| name == isa.name());
        if let (true, Ok(cap)) = (wanted, Capability::new(isa)) {
            let mut scratch = vec![0; scratch_bytes(&LAYERS[0].window(), 3, 32)];
            report(
                &format!("int8 {}", isa.name()),
                slices,
                LayerI8::new,
                |data: &mut LayerI8| {
                    let (conv, x, y) = data.parts();
                    conv_i8(cap, &conv, x, 0, y, &mut scratch).unwrap();
                },
            );
            let mut scratch = vec![0; 4 * scratch_bytes(&LAYERS[0].window(), 3, 32)];
            report(
                &format!("f32 {}", isa.name()),
                slices,
                LayerF32::new,
                |data: &mut LayerF32| {
                    let (conv, x, y) = data.parts();
                    conv_f32(cap, &conv, x, 0, y, &mut scratch).unwrap();
                },
            );
        }
    }
}

/// Times each layer on its own, then all of them in sequence.
fn report<D>(name: &str, slices: usize, new: impl Fn(Layer) -> D, mut run: impl FnMut(&mut D)) {
    println!("{name}");
    let (mut best_total, mut median_total) = (0.0, 0.0);
    for layer in LAYERS {
        let mut data = new(layer);
        let (best, median) = time(slices, 2e-4, || run(&mut data));
        best_total += best * layer.count as f64;
        median_total += median * layer.count as f64;
        let rate = layer.macs() as f64 / best / 1e9;
        println!(
            "  {:24} x{}  best {:8.2} us  median {:8.2} us  best {rate:7.1} GMAC/s",
            layer.name(),
            layer.count,
            best * 1e6,
            median * 1e6
        );
    }
    let mut network: Vec<D> = LAYERS
        .iter()
        .flat_map(|&l| (0..l.count).map(move |_| l))
        .map(new)
        .collect();
    let (best, median) = time(slices, 0.0, || network.iter_mut().for_each(&mut run));
    println!(
        "  sum of layers: best {:.3} ms, median {:.3} ms",
        best_total * 1e3,
        median_total * 1e3
    );
    println!(
        "  in sequence:   best {:.3} ms, median {:.3} ms",
        best * 1e3,
        median * 1e3
    );
}

/// Best and median seconds of one run, over slices of at least `least` seconds.
fn time(slices: usize, least: f64, mut run: impl FnMut()) -> (f64, f64) {
    let start = Instant::now();
    run();
    let repeats = (least / start.elapsed().as_secs_f64()).ceil().max(1.0) as usize;
    let mut seconds: Vec<f64> = (0..slices)
        .map(|_| {
            let start = Instant::now();
            (0..repeats).for_each(|_| run());
            start.elapsed().as_secs_f64() / repeats as f64
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (seconds[0], seconds[slices / 2])
}
