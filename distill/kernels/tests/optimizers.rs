//! Optimisers against PyTorch and the papers' formulas (`fixtures/optimizers.py`), and continued from their
//! states.

#[path = "common/student.rs"]
#[allow(dead_code)]
mod student;

use ampoule_distill_kernels::graph::{Kind, Parameter};
use ampoule_distill_kernels::optim::*;
use student::{noise, noises};

const FIXTURE: &str = include_str!("fixtures/optimizers.txt");
const STEPS: u64 = 8;

fn parameters() -> Vec<Parameter> {
    let parameter = |(name, shape): (&str, &[usize])| Parameter {
        name: name.into(),
        shape: shape.to_vec(),
        kind: if shape.len() > 1 {
            Kind::Weight
        } else {
            Kind::Undecayed
        },
    };
    let shapes: [(&str, &[usize]); 5] = [
        ("body.weight", &[24, 16]),
        ("body.bias", &[24]),
        ("body.scale", &[1]),
        ("head.weight", &[10, 24]),
        ("head.bias", &[10]),
    ];
    let statistic = Parameter {
        name: "body.mean".into(),
        shape: vec![7],
        kind: Kind::Statistic,
    };
    shapes
        .into_iter()
        .map(parameter)
        .chain([statistic])
        .collect()
}

fn gradients(step: u64) -> Vec<Vec<f32>> {
    let one = |(i, p): (usize, Parameter)| -> Vec<f32> {
        let (n, i) = (p.len(), i as u32);
        let size = |at: u32| 1e-3 + noise(at, 50 + i).abs().powi(3);
        match p.name.as_str() {
            "head.bias" => vec![0.25; n],
            "body.bias" if step < 2 => vec![0.0; n],
            "body.mean" => Vec::new(),
            _ => (0..n as u32)
                .map(|at| noise(at, 2 + 100 * step as u32 + i) * size(at))
                .collect(),
        }
    };
    parameters().into_iter().enumerate().map(one).collect()
}

fn build(kind: &str) -> Box<dyn Optimizer> {
    let adamw = AdamWConfig {
        betas: [0.9, 0.99],
        weight_decay: 0.05,
        ..AdamWConfig::default()
    };
    let config = match kind {
        "adamw" => OptimizerConfig::AdamW(adamw),
        "coat" => OptimizerConfig::CoatAdamW(adamw),
        "sgd_sai" => OptimizerConfig::SgdSai(SgdSaiConfig {
            weight_decay: 0.05,
            ..SgdSaiConfig::default()
        }),
        other => panic!("{other}"),
    };
    let parameters = parameters();
    config.build(&parameters, &layer_decay(&parameters, 0.75))
}

fn first() -> Vec<Vec<f32>> {
    let noises = |(i, p): (usize, Parameter)| noises(p.len(), i as u32);
    parameters().into_iter().enumerate().map(noises).collect()
}

fn step(optimizer: &mut dyn Optimizer, weights: &mut [Vec<f32>], step: u64) {
    let schedule = WarmupCosine {
        peak: 1e-2,
        floor: 1e-3,
        warmup: 3,
        total: STEPS,
    };
    optimizer.step(weights, &gradients(step), schedule.rate(step));
}

/// The largest distance from the fixture, relative to the norm.
fn distance(kind: &str) -> f64 {
    let (mut optimizer, mut weights) = (build(kind), first());
    let lines: Vec<Vec<&str>> = FIXTURE
        .lines()
        .map(|l| l.split(' ').collect())
        .filter(|l: &Vec<&str>| l[0] == kind)
        .collect();
    assert_eq!(lines.len(), 5 * STEPS as usize);
    let mut worst = 0.0f64;
    for (at, lines) in lines.chunks(5).enumerate() {
        step(&mut *optimizer, &mut weights, at as u64);
        for (line, weights) in lines.iter().zip(&weights) {
            let number = |i: usize| line[i].parse::<f64>().expect("a number");
            let squares: f64 = weights.iter().map(|&w| (w as f64).powi(2)).sum();
            let along: f64 = weights
                .iter()
                .zip(noises(weights.len(), 500))
                .map(|(&w, n)| w as f64 * n as f64)
                .sum();
            for error in [squares.sqrt() - number(3), along - number(4)] {
                worst = worst.max(error.abs() / number(3));
            }
        }
    }
    assert_eq!(weights[5], first()[5], "statistics stay");
    worst
}

#[test]
fn adamw_equals_pytorch() {
    let worst = distance("adamw");
    assert!(worst < 2e-6, "{worst:e}");
}

#[test]
fn sgd_sai_equals_its_formula() {
    let worst = distance("sgd_sai");
    assert!(worst < 2e-6, "{worst:e}");
}

#[test]
fn coat_equals_its_formula() {
    let worst = distance("coat");
    assert!(worst < 2e-6, "{worst:e}");
}

#[test]
fn continues_from_its_state() {
    for kind in ["adamw", "coat", "sgd_sai"] {
        let (mut whole, mut weights) = (build(kind), first());
        for at in 0..5 {
            step(&mut *whole, &mut weights, at);
        }
        let (mut resumed, mut copy) = (build(kind), weights.clone());
        resumed.restore(whole.state()).expect("its own state");
        for at in 5..STEPS {
            step(&mut *whole, &mut weights, at);
            step(&mut *resumed, &mut copy, at);
        }
        assert_eq!(weights, copy, "{kind}");
        assert_eq!(whole.state(), resumed.state(), "{kind}");
        let bytes = |state: &StateArray| match &state.data {
            StateData::F32(x) => 4 * x.len(),
            StateData::U8(x) => x.len(),
            _ => 0,
        };
        let total: usize = whole.state().iter().map(bytes).sum();
        let expected = match kind {
            "adamw" => 8 * 659,
            // Groups of 128: 3, 1, 1, 2 and 1.
            "coat" => 2 * (659 + 8 * 8),
            _ => 4 * (659 + 6),
        };
        assert_eq!(total, expected, "{kind}");
    }
}

#[test]
fn refuses_another_state() {
    let mut optimizer = build("adamw");
    let error = |e: Result<(), StateError>| e.expect_err("refused").to_string();
    let before = optimizer.state();
    assert!(error(optimizer.restore(build("sgd_sai").state())).contains("no `steps`"));
    assert!(
        error(optimizer.restore(build("coat").state()))
            .contains("384 values u8, expected 384 values f32")
    );
    let mut more = before.clone();
    more.push(StateArray {
        name: "x".into(),
        data: StateData::U8(vec![]),
    });
    assert!(error(optimizer.restore(more)).contains("`x`"));
    assert_eq!(optimizer.state(), before);
}
