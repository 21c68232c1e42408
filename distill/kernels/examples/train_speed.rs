//! Steps of the measured student: losses, then images per second.
//!
//!     cargo run --release -p ampoule-distill-kernels --example train_speed -- THREADS SECONDS [BATCH] [layers] [other]
//!
//! With `layers`, also the shortest time of each layer, in ms; with `other`, another student, whose sizes suit
//! no vectors.

#[path = "../tests/common/student.rs"]
mod student;

use std::time::Instant;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::loss::{Target, cross_entropy};
use ampoule_distill_kernels::optim::{AdamW, AdamWConfig, Optimizer};
use student::{MEASURED, Student, initial, noises};

/// Sizes that suit no vectors, and more attention.
const OTHER: Student = Student {
    size: 96,
    widths: [20, 44, 132],
    heads: 3,
    blocks: 4,
    classes: 10,
    table: false,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = |name: &str| std::env::args().any(|a| a == name);
    let student = if given("other") { OTHER } else { MEASURED };
    let numbers = std::env::args().skip(1);
    let numbers = numbers.filter(|a| !["layers", "other"].contains(&a.as_str()));
    let mut arguments = numbers.map(|a| a.parse::<f64>());
    let threads = arguments.next().transpose()?.unwrap_or(2.0) as usize;
    let seconds = arguments.next().transpose()?.unwrap_or(4.0);
    let batch = arguments.next().transpose()?.unwrap_or(64.0) as usize;
    let graph = student.build();
    let mut parameters = initial(graph.parameters());
    let mut gradients: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.len()]).collect();
    let mut optimizer = AdamW::new(graph.parameters(), &[], AdamWConfig::default());
    let count = graph.parameter_count();
    let mut engine = Engine::new(graph, threads)?;
    if given("layers") {
        engine.measure();
    }
    let images = noises(batch * student.size * student.size * 3, 1000);
    let classes = student.classes;
    let labels: Vec<u32> = (0..batch as u32).map(|i| i * 7 % classes as u32).collect();
    let mut of_logits = vec![0.0; batch * classes];
    let mut step = |seed: u64| -> Result<f64, Box<dyn std::error::Error>> {
        engine.forward(&mut parameters, &[&images], batch, Mode::train(seed))?;
        let target = Target::Labels {
            labels: &labels,
            smoothing: 0.0,
        };
        let loss = cross_entropy(engine.output(0), classes, target, &mut of_logits);
        gradients.iter_mut().for_each(|g| g.fill(0.0));
        engine.backward(&parameters, &[&of_logits], &mut gradients)?;
        optimizer.step(&mut parameters, &gradients, 1e-3);
        Ok(loss)
    };
    let losses: Result<Vec<f64>, _> = (0..10).map(&mut step).collect();
    let losses: Vec<String> = losses?.iter().map(|l| format!("{l:.6}")).collect();
    let (start, cpu, mut times) = (Instant::now(), cpu_seconds(), Vec::new());
    while start.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        step(10 + times.len() as u64)?;
        times.push(start.elapsed().as_secs_f64());
    }
    let cpu = 1e3 * (cpu_seconds() - cpu) / times.len() as f64;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times
            .get((share * times.len() as f64) as usize)
            .map_or(0.0, |t| batch as f64 / t)
    };
    println!(
        "{{\"engine\":\"ampoule\",\"threads\":{threads},\"batch\":{batch},\"parameters\":{count},\
         \"median\":{:.1},\"p10\":{:.1},\"best\":{:.1},\"steps\":{},\"cpu_ms\":{cpu:.1},\"memory_mb\":{},\"peak_rss_mb\":{},\"losses\":[{}]}}",
        at(0.5),
        at(0.1),
        at(0.0),
        times.len(),
        engine.memory() >> 20,
        peak_rss() >> 10,
        losses.join(",")
    );
    for layer in engine.times() {
        let ms = |time: std::time::Duration| 1e3 * time.as_secs_f64();
        let (forward, backward) = (ms(layer.forward), ms(layer.backward));
        println!(
            "{:24} forward {forward:6.2}  backward {backward:6.2}",
            layer.name
        );
    }
    Ok(())
}

/// Processor time so far, of all threads, where the system tells.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

/// Highest resident memory in KiB, where the system tells.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
