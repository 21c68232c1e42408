use std::collections::HashMap;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::{Kind, Map};
use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};
use serde::Deserialize;

use super::*;
use crate::export::{self, Settings};
use crate::zoo;

const CASE: &str = include_str!("../../../tests/fixtures/scalekd/scalekd.json");

#[derive(Deserialize)]
struct Case {
    student: Vec<f32>,
    teacher: Vec<f32>,
    parameters: HashMap<String, Vec<f32>>,
    output: Vec<f32>,
    loss: f64,
    gradients: HashMap<String, Vec<f32>>,
}

/// A map of 2 × 3 for one of 3 × 3, so that keys are padded.
#[test]
fn the_projector_is_pytorchs() {
    const BATCH: usize = 3;
    let case: Case = serde_json::from_str(CASE).unwrap();
    let mut net = Builder::default();
    let x = net.graph.input(Map::new(2, 3, 6));
    let mut masks = Vec::new();
    let y = projector::add(&mut net, x, None, Map::new(3, 3, 8), "p", &mut masks).unwrap();
    net.graph.output(y);
    let of = |name: &str| case.parameters.get(name.trim_start_matches("p."));
    let parameters = net.graph.parameters().iter().enumerate();
    let mut values: Vec<Vec<f32>> = parameters
        .map(
            |(i, p)| match (of(&p.name), masks.iter().find(|(m, _)| m.0 == i)) {
                (Some(values), _) => values.clone(),
                (None, Some((_, mask))) => mask.clone(),
                (None, None) => {
                    assert_eq!(p.kind, Kind::Statistic, "{}", p.name);
                    vec![0.0; p.len()]
                }
            },
        )
        .collect();
    let mut engine = Engine::new(net.graph.clone(), 1).unwrap();
    engine
        .forward(&mut values, &[&case.student], BATCH, Mode::train(0))
        .unwrap();
    let output = engine.output(0).to_vec();
    let near = |got: &[f32], want: &[f32], what: &str| {
        assert_eq!(got.len(), want.len(), "{what}");
        let scale = want.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 2e-5 * scale, "{what}: {got} {want}");
        }
    };
    near(&output, &case.output, "output");
    let views = [View::Direct, View::Alternative];
    let comparisons = views.map(|view| Comparison {
        view,
        stage: 0,
        shape: [9, 8],
    });
    // Both views of one output, each with the paper's weight taken out again.
    let (mut total, mut gradient) = (0.0, vec![0.0; output.len()]);
    for c in comparisons {
        let parts = Parts {
            second_view: true,
            teacher_stage: false,
            weight: 1.0 / c.view.weight(),
        };
        let maps = [case.teacher.clone(), Vec::new()];
        let gradients = std::slice::from_mut(&mut gradient);
        let loss = compare(&[c], &parts, BATCH, &[&output], &maps, gradients);
        total += loss.unwrap();
    }
    assert!(
        (total - case.loss).abs() < 1e-5 * case.loss,
        "{total} {}",
        case.loss
    );
    let mut gradients: Vec<Vec<f32>> = values.iter().map(|v| vec![0.0; v.len()]).collect();
    engine
        .backward(&values, &[&gradient], &mut gradients)
        .unwrap();
    let mut checked = 0;
    for (p, got) in net.graph.parameters().iter().zip(&gradients) {
        // A bias of keys moves all logits of a query alike.
        if let Some(want) = case.gradients.get(p.name.trim_start_matches("p."))
            && p.name != "p.k.bias"
        {
            near(got, want, &p.name);
            checked += 1;
        }
    }
    assert_eq!(checked, case.gradients.len() - 1);
}

fn preprocess(size: u16) -> Preprocess {
    Preprocess {
        resize: Resize::Exact,
        filter: Filter::Bicubic,
        antialias: true,
        width: size,
        height: size,
        channels: Channels::Rgb,
        scale: 1.0 / 255.0,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

/// A zoo network as a teacher's file, and what is read of it.
fn teacher(name: &str) -> (zoo::Network, Weights, Features) {
    let network = zoo::find(name).unwrap().config.build().unwrap();
    let weights = Weights::random(&network, 3);
    let file = export::onnx(network.graph(), weights.values(), &Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.onnx");
    std::fs::write(&path, file).unwrap();
    let features = Features::load(&path, preprocess(64), 1).unwrap();
    (network, weights, features)
}

/// The maps that a file's graph shows are those of the network that was written.
#[test]
fn a_teachers_maps() {
    let (network, weights, mut features) = teacher("tiny-moat-mini");
    assert_eq!(features.maps(), [Map::new(4, 4, 64), Map::new(2, 2, 96)]);
    let mut graph = network.graph().clone();
    graph.take_outputs();
    for value in stages(&graph).unwrap() {
        graph.output(value);
    }
    let pictures: Vec<Vec<u8>> = (0..2usize)
        .map(|n| {
            (0..64 * 64 * 3)
                .map(|i| (i * (7 + n) % 251) as u8)
                .collect()
        })
        .collect();
    let maps = features.see(&pictures, [64, 64]).unwrap();
    let input: Vec<f32> = pictures
        .concat()
        .iter()
        .map(|&x| f32::from(x) / 255.0)
        .collect();
    let mut engine = Engine::new(graph, 1).unwrap();
    let mut values = weights.into_values();
    engine
        .forward(&mut values, &[&input], 2, Mode::EVAL)
        .unwrap();
    for (i, map) in maps.iter().enumerate() {
        let expected = engine.output(i);
        assert_eq!(map.len(), expected.len());
        let scale = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        let pairs = map.iter().zip(expected);
        let worst = pairs.fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(worst < 1e-4 * scale, "{worst} of {scale}");
    }
}

/// A student keeps its layers and what it computes; the teacher's stage is the teacher's.
#[test]
fn students_are_extended() {
    let (_, _, mut features) = teacher("tiny-moat-mini");
    let student = zoo::find("tinyvit-mini").unwrap().config.build().unwrap();
    let first = Weights::initial(&student, 0).into_values();
    let plain = Parts {
        second_view: false,
        teacher_stage: false,
        weight: 1.0,
    };
    for (parts, outputs) in [
        (plain, 3),
        (
            Parts {
                second_view: true,
                ..plain
            },
            5,
        ),
        (
            Parts {
                teacher_stage: true,
                ..plain
            },
            4,
        ),
        (
            Parts {
                second_view: true,
                teacher_stage: true,
                ..plain
            },
            7,
        ),
    ] {
        let graph = student.graph();
        let extended = extend(graph, first.clone(), &features, &parts, 5).unwrap();
        assert_eq!(extended.graph.outputs().len(), outputs);
        assert_eq!(extended.comparisons.len(), outputs - 1);
        let own = graph.parameters().len();
        assert_eq!(extended.graph.parameters()[..own], *graph.parameters());
        assert_eq!(extended.first[..own], first[..]);
        let mut added = extended.graph.parameters()[own..].iter();
        assert!(added.all(|p| p.name.starts_with(PREFIX)));
        let frozen = extended.graph.parameters().iter().zip(&extended.first);
        let frozen: Vec<_> = frozen.filter(|(p, _)| p.name.starts_with(FROZEN)).collect();
        assert_eq!(frozen.is_empty(), !parts.teacher_stage);
        for (p, values) in frozen {
            let theirs = features.last_stage().graph.parameters().iter();
            let theirs = theirs.zip(features.weights());
            let mut theirs = theirs.filter(|(t, _)| p.name == format!("{FROZEN}{}", t.name));
            assert_eq!(theirs.next().unwrap().1, values, "{}", p.name);
        }
        let input: Vec<f32> = (0..64 * 64 * 3).map(|i| (i % 97) as f32 / 97.0).collect();
        let run = |graph: Graph, mut values: Vec<Vec<f32>>| {
            let mut engine = Engine::new(graph, 1).unwrap();
            let forward = engine.forward(&mut values, &[&input], 1, Mode::EVAL);
            forward.unwrap();
            engine.output(0).to_vec()
        };
        let logits = run(extended.graph.clone(), extended.first);
        assert_eq!(logits, run(graph.clone(), first.clone()));
    }
    // What does not fit is said.
    let mut flat = Graph::new();
    let x = flat.input(Map::new(1, 1, 3));
    flat.output(x);
    let error = extend(&flat, Vec::new(), &features, &plain, 0).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the student has no maps of two sizes"),
        "{error}"
    );
    assert!(features.see(&[vec![0; 5]], [64, 64]).is_err());
}
