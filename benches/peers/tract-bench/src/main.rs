//! tract-onnx as a peer of `peers.py`: `tract-bench MODEL.onnx`, then the worker protocol on standard
//! input and output (see ../README.md). Batch 1, f32, one thread.

use std::io::{BufRead, Write};
use std::time::Instant;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;

/// The driver's input: a fixed xorshift sequence, uniform in [-1, 1). peers.py has the same.
fn noise(n: usize) -> Vec<f32> {
    let mut s: u32 = 0x9e37_79b9;
    (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 17;
            s ^= s << 5;
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn main() -> TractResult<()> {
    let path = std::env::args().nth(1).expect("usage: tract-bench MODEL.onnx");
    let model = tract_onnx::onnx().model_for_path(path)?;
    let mut fact = model.input_fact(0)?.clone();
    let dims: Vec<usize> = fact
        .shape
        .dims()
        .map(|d| d.concretize().and_then(|d| d.to_i64().ok()).map_or(1, |d| d as usize))
        .collect();
    fact = fact.with_shape(dims.clone());
    let model = model.with_input_fact(0, fact)?.into_optimized()?.into_runnable()?;
    let input = Tensor::from_shape(&dims, &noise(dims.iter().product()))?.into_tvalue();
    let mut state = model.spawn()?;

    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let reply = if let Some(n) = line.strip_prefix("run ") {
            let mut times = Vec::new();
            for _ in 0..n.trim().parse::<usize>()? {
                let t = Instant::now();
                let r = state.run(tvec!(input.clone()))?;
                let t = t.elapsed();
                std::hint::black_box(r);
                times.push(format!("{:.1}", t.as_nanos() as f64 / 1e3));
            }
            times
        } else if line == "output" {
            let r = state.run(tvec!(input.clone()))?;
            let r = r[0].cast_to::<f32>()?;
            r.try_as_plain_ram()?.as_slice::<f32>()?.iter().map(|v| v.to_string()).collect()
        } else {
            continue;
        };
        writeln!(out, "[{}]", reply.join(","))?;
        out.flush()?;
    }
    Ok(())
}
