//! Each convolution of EfficientNet-Lite0 on each instruction set; throughput is in
//! multiply-accumulates.

mod lite0;

use ampoule_runtime::ops::conv::{conv_f32, conv_i8, scratch_bytes};
use ampoule_runtime::{Capability, Isa};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lite0::{LAYERS, LayerF32, LayerI8};

fn capabilities() -> Vec<Capability> {
    Isa::ALL
        .into_iter()
        .filter_map(|isa| Capability::new(isa).ok())
        .collect()
}

fn int8(c: &mut Criterion) {
    for layer in LAYERS {
        let mut group = c.benchmark_group(format!("conv_i8/{}", layer.name()));
        group.throughput(Throughput::Elements(layer.macs() as u64));
        let mut data = LayerI8::new(layer);
        let mut scratch = vec![0; scratch_bytes(&layer.window(), layer.input, 32)];
        for cap in capabilities() {
            group.bench_function(BenchmarkId::from_parameter(cap.isa().name()), |b| {
                let (conv, x, y) = data.parts();
                b.iter(|| conv_i8(cap, &conv, x, 0, y, &mut scratch).unwrap());
            });
        }
    }
}

fn float(c: &mut Criterion) {
    for layer in LAYERS {
        let mut group = c.benchmark_group(format!("conv_f32/{}", layer.name()));
        group.throughput(Throughput::Elements(layer.macs() as u64));
        let mut data = LayerF32::new(layer);
        let mut scratch = vec![0; 4 * scratch_bytes(&layer.window(), layer.input, 32)];
        for cap in capabilities() {
            group.bench_function(BenchmarkId::from_parameter(cap.isa().name()), |b| {
                let (conv, x, y) = data.parts();
                b.iter(|| conv_f32(cap, &conv, x, 0, y, &mut scratch).unwrap());
            });
        }
    }
}

criterion_group!(benches, int8, float);
criterion_main!(benches);
