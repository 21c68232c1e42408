//! Whole and partial graphs, and what training changes in them.

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;

use crate::student::{Layers, Student, initial, noises};
use crate::{BATCH, behind_conv, check};

/// A graph in two pieces, the second of them twice with the same weights.
#[test]
fn pieces_of_a_graph() {
    let mut l = Layers {
        graph: Graph::new(),
    };
    let picture = l.graph.input(Map::new(4, 4, 3));
    let x = l.conv(picture, "first", 6, Window::square(3, 2), true);
    let y = l.conv(x, "second", 6, Window::POINT, true);
    let y = l.push("sum", Op::Add { drop_path: 0.0 }, &[x, y]);
    let z = l.linear(y, "third", 5);
    l.graph.output(z);
    let mut pieces = Graph::new();
    let at = pieces.input(Map::new(4, 4, 3));
    let mut known = std::collections::HashMap::new();
    let mut add =
        |ends, at, prefix: &str| pieces.append_between(&l.graph, ends, at, prefix, &mut known);
    let middle = add([picture, y], at, "").unwrap();
    let ends = [0, 1].map(|_| add([y, z], middle, "twice.").unwrap());
    assert!(add([x, z], middle, "").is_ok());
    // The sum reads both.
    let behind = l.graph.nodes()[1].output;
    let error = add([behind, z], middle, "late.").unwrap_err();
    assert!(error.to_string().contains("beside"), "{error}");
    ends.iter().for_each(|&end| pieces.output(end));
    let names: Vec<_> = pieces.parameters().iter().map(|p| &*p.name).collect();
    let own = ["first.weight", "first.bias", "second.weight", "second.bias"];
    assert_eq!(names[..4], own);
    assert_eq!(names[4..], ["twice.third.weight", "twice.third.bias"]);
    let mut parameters = initial(l.graph.parameters());
    let input = noises(2 * 48, 5);
    let mut engines = [l.graph, pieces].map(|g| Engine::new(g, 1).unwrap());
    for engine in &mut engines {
        let run = engine.forward(&mut parameters, &[&input], 2, Mode::EVAL);
        run.unwrap();
    }
    assert_eq!(engines[0].output(0), engines[1].output(0));
    assert_eq!(engines[0].output(0), engines[1].output(1));
}

/// Two towers in one graph.
#[test]
fn two_inputs_and_outputs() {
    let mut l = Layers {
        graph: Graph::new(),
    };
    let (picture, ids) = (
        l.graph.input(Map::new(4, 4, 3)),
        l.graph.input(Map::new(1, 5, 1)),
    );
    let x = l.conv(picture, "conv", 6, Window::square(3, 2), false);
    let x = l.batch_norm(x, "norm");
    let x = l.push("mean", Op::Mean, &[x]);
    let x = l.linear(x, "picture", 4);
    let table = l.parameter("tokens", "weight", &[9, 6]);
    let y = l.push("tokens", Op::Embedding { table }, &[ids]);
    let y = l.push("mean", Op::MaskedMean, &[y, ids]);
    let y = l.linear(y, "text", 4);
    for (x, name) in [(x, "picture"), (y, "text")] {
        let x = l.push(name, Op::Normalize, &[x]);
        l.graph.output(x);
    }
    check("towers", l.graph.clone(), Mode::train(1));
    let mut parameters = initial(l.graph.parameters());
    let mut engine = Engine::new(l.graph, 1).expect("one thread");
    let error = engine.forward(
        &mut parameters,
        &[&[0.0; 48], &[1.0, 0.0, 9.0, 0.0, 0.0]],
        1,
        Mode::EVAL,
    );
    assert_eq!(
        error.expect_err("row 9 of 9").to_string(),
        "input 1, place 2: 9 is no row of a table of 9, expected 0 to 8"
    );
}

#[test]
fn whole_student() {
    let student = Student {
        size: 16,
        widths: [4, 6, 8],
        heads: 2,
        blocks: 1,
        classes: 5,
        table: true,
    };
    check("student", student.build(), Mode::train(1));
}

/// Running statistics are those of PyTorch: momentum 0.1, unbiased variance.
#[test]
fn running_statistics() {
    let graph = behind_conv(Map::new(2, 3, 2), 4, |l, x| l.batch_norm(x, "norm"));
    let mut parameters = initial(graph.parameters());
    let input = noises(BATCH * 12, 77);
    let (w, b) = (parameters[0].clone(), parameters[1].clone());
    let mut engine = Engine::new(graph, 1).expect("one thread");
    engine
        .forward(&mut parameters, &[&input], BATCH, Mode::train(1))
        .expect("lengths match");
    for c in 0..4 {
        let column: Vec<f64> = input
            .chunks(2)
            .map(|x| (x[0] * w[2 * c] + x[1] * w[2 * c + 1] + b[c]) as f64)
            .collect();
        let n = column.len() as f64;
        let mean = column.iter().sum::<f64>() / n;
        let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!((parameters[4][c] as f64 - 0.1 * mean).abs() < 1e-6);
        assert!((parameters[5][c] as f64 - 0.9 - 0.1 * variance).abs() < 1e-6);
    }
}

/// A dropped branch leaves the shortcut, a kept one is scaled up, and gradients follow.
#[test]
fn drop_path() {
    let build = |drop_path: f32| {
        behind_conv(Map::new(2, 2, 3), 4, |l, x| {
            let y = l.linear(x, "branch", 4);
            l.push("add", Op::Add { drop_path }, &[x, y])
        })
    };
    let (batch, rate) = (400, 0.25);
    let run = |graph: Graph, mode: Mode| {
        let mut parameters = initial(graph.parameters());
        let mut engine = Engine::new(graph, 2).expect("threads start");
        let input = noises(batch * 12, 3);
        engine
            .forward(&mut parameters, &[&input], batch, mode)
            .expect("lengths match");
        let out = engine.output(0).to_vec();
        let mut gradients: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.len()]).collect();
        engine
            .backward(&parameters, &[&vec![1.0; out.len()]], &mut gradients)
            .expect("lengths match");
        (out, gradients)
    };
    let (whole, whole_gradients) = run(build(0.0), Mode::train(9));
    assert_eq!(run(build(rate), Mode::EVAL).0, whole);
    let (dropped, gradients) = run(build(rate), Mode::train(9));
    assert_eq!(run(build(rate), Mode::train(9)).0, dropped);
    assert_ne!(run(build(rate), Mode::train(10)).0, dropped);
    let shortcut = run(behind_conv(Map::new(2, 2, 3), 4, |_, x| x), Mode::EVAL).0;
    let mut kept = 0;
    for ((got, whole), shortcut) in dropped
        .chunks(16)
        .zip(whole.chunks(16))
        .zip(shortcut.chunks(16))
    {
        let is_kept = got != shortcut;
        kept += is_kept as usize;
        for i in 0..16 {
            let factor = if is_kept { 1.0 / (1.0 - rate) } else { 0.0 };
            assert!((got[i] - shortcut[i] - factor * (whole[i] - shortcut[i])).abs() < 1e-5);
        }
    }
    assert!((270..330).contains(&kept), "{kept} of {batch} kept");
    // That of the branch's bias counts the samples.
    let share = kept as f32 / batch as f32 / (1.0 - rate);
    assert!((gradients[3][0] / whole_gradients[3][0] - share).abs() < 1e-5);
}
