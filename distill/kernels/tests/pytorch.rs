//! A small student trained for ten steps, against PyTorch 2.15 (`benches/training/student.py fixture`).

#[path = "common/student.rs"]
mod student;

use std::collections::HashMap;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::Kind;
use ampoule_distill_kernels::loss::{Target, cross_entropy};
use ampoule_distill_kernels::optim::{AdamW, AdamWConfig, Optimizer};
use student::{Student, initial, noises};

const FIXTURE: &str = include_str!("fixtures/student.txt");
const BATCH: usize = 8;
const CLASSES: usize = 10;

/// What training leaves.
#[derive(Debug, PartialEq)]
struct Run {
    losses: Vec<f64>,
    /// Of the first step.
    gradients: Vec<Vec<f32>>,
    parameters: Vec<Vec<f32>>,
    /// Loss after training with running statistics.
    eval: f64,
    names: Vec<(String, Kind)>,
}

fn train(threads: usize) -> Run {
    let student = Student {
        size: 32,
        widths: [8, 12, 16],
        heads: 2,
        blocks: 2,
        classes: CLASSES,
        table: true,
    };
    let graph = student.build();
    let names = graph
        .parameters()
        .iter()
        .map(|p| (p.name.clone(), p.kind))
        .collect();
    let mut parameters = initial(graph.parameters());
    let mut optimizer = AdamW::new(graph.parameters(), &[], AdamWConfig::default());
    let mut engine = Engine::new(graph, threads).expect("threads start");
    let images = noises(BATCH * 32 * 32 * 3, 1000);
    let labels: Vec<u32> = (0..BATCH as u32).map(|i| i * 7 % CLASSES as u32).collect();
    let target = Target::Labels {
        labels: &labels,
        smoothing: 0.0,
    };
    let mut of_logits = vec![0.0; BATCH * CLASSES];
    let mut fresh = parameters.clone();
    for mode in [Mode::train(0), Mode::EVAL] {
        engine
            .forward(&mut fresh, &[&images], BATCH, mode)
            .expect("lengths match");
    }
    let eval = cross_entropy(engine.output(0), CLASSES, target, &mut of_logits);
    let (mut losses, mut first) = (Vec::new(), Vec::new());
    for step in 0..10 {
        engine
            .forward(&mut parameters, &[&images], BATCH, Mode::train(step))
            .expect("lengths match");
        losses.push(cross_entropy(
            engine.output(0),
            CLASSES,
            target,
            &mut of_logits,
        ));
        let mut gradients: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.len()]).collect();
        engine
            .backward(&parameters, &[&of_logits], &mut gradients)
            .expect("lengths match");
        optimizer.step(&mut parameters, &gradients, 1e-3);
        if step == 0 {
            first = gradients;
        }
    }
    Run {
        losses,
        gradients: first,
        parameters,
        eval,
        names,
    }
}

#[test]
fn ten_steps_equal_pytorch() {
    let run = train(2);
    let field = |line: &str, i: usize| line.split(' ').nth(i).and_then(|x| x.parse::<f64>().ok());
    let of = |kind: &'static str| FIXTURE.lines().filter(move |l| l.starts_with(kind));
    let losses: Vec<f64> = of("loss ").filter_map(|l| field(l, 1)).collect();
    assert_eq!(losses.len(), 10);
    for (got, want) in run.losses.iter().zip(&losses) {
        assert!(
            (got - want).abs() < 1e-5 * want,
            "{:?} {losses:?}",
            run.losses
        );
    }
    let eval = of("eval ")
        .find_map(|l| field(l, 1))
        .expect("the fixture has it");
    assert!((run.eval - eval).abs() < 1e-5 * eval, "{} {eval}", run.eval);
    let by_name: HashMap<&str, &Vec<f32>> = run
        .names
        .iter()
        .map(|(n, _)| n.as_str())
        .zip(&run.gradients)
        .collect();
    let mut compared = 0;
    for line in of("gradient ") {
        let name = line.split(' ').nth(1).expect("a name");
        let (norm, along) = (
            field(line, 2).expect("a norm"),
            field(line, 3).expect("a product"),
        );
        let gradient = by_name[name];
        let squares: f64 = gradient.iter().map(|&g| (g as f64).powi(2)).sum();
        let product: f64 = gradient
            .iter()
            .zip(noises(gradient.len(), 500))
            .map(|(&g, n)| g as f64 * n as f64)
            .sum();
        // The bias of keys has no gradient but rounding, and is a third of its parameter.
        assert!(
            (squares.sqrt() - norm).abs() < 2e-5 * norm + 1e-6,
            "{name}: {} {norm}",
            squares.sqrt()
        );
        assert!(
            (product - along).abs() < 2e-5 * norm + 1e-6,
            "{name}: {product} {along}"
        );
        compared += 1;
    }
    assert_eq!(
        compared,
        run.names
            .iter()
            .filter(|(_, k)| *k != Kind::Statistic)
            .count()
    );
}

/// Bit for bit.
#[test]
fn threads_do_not_matter() {
    let one = train(1);
    for threads in [2, 3] {
        assert!(train(threads) == one, "{threads} threads");
    }
}
