//! Outputs and gradients of every layer, alone and as units fuse them, against a plain computation in
//! double precision and its central differences.

#[path = "../common/reference.rs"]
mod reference;
#[path = "../common/student.rs"]
mod student;

mod errors;
mod graphs;
mod layers;
mod tokens;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;
use student::{Layers, initial, noise, noises};

const BATCH: usize = 3;

/// Checks outputs and, at some elements of each parameter, gradients of the sum of outputs times noise.
fn check(name: &str, graph: Graph, mode: Mode) {
    let mut parameters = initial(graph.parameters());
    if !mode.batch_statistics {
        for (values, p) in parameters.iter_mut().zip(graph.parameters()) {
            if p.kind == Kind::Statistic {
                values
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x += 0.3 * noise(i as u32, 5));
            }
        }
    }
    let exact: Vec<Vec<f64>> = parameters
        .iter()
        .map(|p| p.iter().map(|&x| x as f64).collect())
        .collect();
    let inputs: Vec<Vec<f32>> = graph.inputs().iter().map(|&v| input(&graph, v)).collect();
    let given: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let wide: Vec<Vec<f64>> = inputs
        .iter()
        .map(|x| x.iter().map(|&x| x as f64).collect())
        .collect();
    let expected = reference::forward(&graph, &exact, &wide, BATCH, mode.batch_statistics);
    let mut engine = Engine::new(graph.clone(), 2).expect("threads start");
    engine
        .forward(&mut parameters, &given, BATCH, mode)
        .expect("lengths match");
    let largest = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let outputs: Vec<&[f32]> = (0..graph.outputs().len())
        .map(|i| engine.output(i))
        .collect();
    assert_eq!(outputs.concat().len(), expected.len(), "{name}");
    for (i, (&got, want)) in outputs.concat().iter().zip(&expected).enumerate() {
        assert!(
            (got as f64 - want).abs() <= 1e-5 * largest,
            "{name}: output {i}: {got} {want}"
        );
    }
    let weights = noises(expected.len(), 99);
    let mut rest = &weights[..];
    let by_output: Vec<&[f32]> = outputs
        .iter()
        .map(|output| rest.split_off(..output.len()).unwrap_or_default())
        .collect();
    let mut gradients: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.len()]).collect();
    engine
        .backward(&parameters, &by_output, &mut gradients)
        .expect("lengths match");
    let loss = |parameters: &[Vec<f64>]| -> f64 {
        let outputs = reference::forward(&graph, parameters, &wide, BATCH, mode.batch_statistics);
        outputs
            .iter()
            .zip(&weights)
            .map(|(x, &w)| x * w as f64)
            .sum()
    };
    // Gradients that cancel, as those of a bias before a batch norm, keep the rounding of their terms.
    let largest = gradients
        .iter()
        .flatten()
        .fold(0.0f64, |a, &g| a.max(g.abs() as f64));
    for (at, p) in graph.parameters().iter().enumerate() {
        if p.kind == Kind::Statistic {
            continue;
        }
        let elements: Vec<usize> = (0..p.len().min(7)).map(|i| i * 31 % p.len()).collect();
        let differences = elements.iter().map(|&i| {
            let at = |h: f64| {
                let mut moved = exact.clone();
                moved[at][i] += h;
                loss(&moved)
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        });
        let differences: Vec<f64> = differences.collect();
        let scale = differences
            .iter()
            .fold(1e-2 * largest, |a, x| a.max(x.abs()));
        for (&i, want) in elements.iter().zip(&differences) {
            let got = gradients[at][i] as f64;
            let name = format!("{name}: `{}`[{i}]: {got} {want}", p.name);
            assert!((got - want).abs() <= 1e-4 * scale, "{name}");
        }
    }
}

/// Noise; where an input picks rows of tables, rows, of which more are 0 the later the sample.
fn input(graph: &Graph, value: Value) -> Vec<f32> {
    let values = noises(graph.map(value).len() * BATCH, 77 + value.0 as u32);
    let table = graph.nodes().iter().find_map(|n| match n.op {
        Op::Embedding { table } if n.inputs[0] == value => Some(table),
        _ => None,
    });
    let Some(table) = table else { return values };
    let (rows, tokens) = (graph.parameters()[table.0].shape[0], graph.map(value).len());
    let row = |(i, x): (usize, &f32)| {
        let padding = i % tokens >= tokens - i / tokens;
        let row = ((x + 1.0) * 0.5 * (rows - 1) as f32).floor() + 1.0;
        if padding { 0.0 } else { row }
    };
    values.iter().enumerate().map(row).collect()
}

/// A graph whose first layer gives the layer under test gradients to pass on.
fn behind_conv(map: Map, channels: usize, build: impl Fn(&mut Layers, Value) -> Value) -> Graph {
    let mut l = Layers {
        graph: Graph::new(),
    };
    let x = l.graph.input(map);
    let x = l.conv(x, "first", channels, Window::POINT, true);
    let y = build(&mut l, x);
    l.graph.output(y);
    l.graph
}

fn train(name: &str, map: Map, channels: usize, build: impl Fn(&mut Layers, Value) -> Value) {
    check(name, behind_conv(map, channels, build), Mode::train(1));
}

fn window(kernel: [usize; 2], stride: [usize; 2], pads: [usize; 4]) -> Window {
    Window {
        kernel,
        stride,
        pads,
    }
}
