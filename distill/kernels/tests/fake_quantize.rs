//! Fake quantisation against the runtime's integer semantics, and students trained with it.

/// The runtime's definition itself.
#[path = "../../../runtime/src/numerics.rs"]
#[allow(dead_code)]
mod numerics;
#[path = "common/student.rs"]
#[allow(dead_code)]
mod student;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::loss::{Target, cross_entropy};
use ampoule_distill_kernels::ops::Window;
use ampoule_distill_kernels::ops::fake_quantize::{self, Codes};
use ampoule_distill_kernels::optim::{AdamW, AdamWConfig, Optimizer};
use student::{Layers, Student, initial, noises};

const RANGES: [[f32; 2]; 7] = [
    [-1.0, 1.5],
    [0.0, 255.0],
    [-5.0, -1.0],
    [0.3, 0.7],
    [-1e-3, 4e4],
    [-1e-20, 1e-20],
    [0.0, 0.0],
];

/// Values inside and outside, ties and zeros of both signs.
fn values(codes: Codes) -> Vec<f32> {
    let noise = noises(5000, 3).into_iter().map(|x| 400.0 * codes.scale * x);
    let ties = (-300..300).map(|i| codes.scale * (i as f32 + 0.5));
    noise.chain(ties).chain([0.0, -0.0, 1e30, -1e30]).collect()
}

#[test]
fn activations_equal_the_runtime() {
    for [low, high] in RANGES {
        let codes = Codes::of_range(low, high);
        let x = values(codes);
        let mut rounded = x.clone();
        fake_quantize::round(codes, &mut rounded);
        let d = noises(x.len(), 4);
        let mut of_x = vec![f32::NAN; x.len()];
        fake_quantize::gradient(codes, &x, &d, &mut of_x);
        for i in 0..x.len() {
            let (inverse, zero) = (1.0 / codes.scale, codes.zero_point);
            let code = numerics::quantize(x[i], inverse, zero, -128, 127);
            let expected = codes.scale * (code - zero) as f32;
            assert_eq!(rounded[i], expected, "{} in {low}..{high}", x[i]);
            let free = numerics::quantize(x[i], inverse, zero, -4_000_000, 4_000_000);
            let passed = if code == free { d[i] } else { 0.0 };
            assert_eq!(of_x[i], passed, "{} in {low}..{high}", x[i]);
        }
    }
    let mut nan = [f32::NAN, 1.0];
    fake_quantize::round(Codes::of_range(-1.0, 1.0), &mut nan);
    assert!(nan[0].is_nan() && (nan[1] - 1.0).abs() < 0.01);
}

/// Those of the quantiser's own test.
#[test]
fn ranges_by_hand() {
    let codes = |low, high| {
        let c = Codes::of_range(low, high);
        (c.scale, c.zero_point)
    };
    assert_eq!(codes(0.0, 255.0), (1.0, -128));
    assert_eq!(codes(-1.0, 1.5), (2.5 / 255.0, -26));
    assert_eq!(codes(-5.0, -1.0), (5.0 / 255.0, 127));
    assert_eq!(codes(f32::NAN, f32::NAN), (1.0, -128));
    assert_eq!(codes(f32::NEG_INFINITY, 1.0).0, 1.0);
}

#[test]
fn weights_equal_the_runtime() {
    for (rows, len) in [(1, 1), (5, 9), (16, 64)] {
        let mut w = noises(rows * len, 8);
        w[..len].iter_mut().for_each(|w| *w *= 100.0);
        let mut rounded = Vec::new();
        fake_quantize::weights(rows, &w, &mut rounded);
        for (row, rounded) in w.chunks(len).zip(rounded.chunks(len)) {
            let scale = row.iter().fold(0.0f32, |a, w| a.max(w.abs())) / 127.0;
            let value = |&w: &f32| numerics::quantize(w, 1.0 / scale, 0, -127, 127) as f32 * scale;
            assert_eq!(rounded, row.iter().map(value).collect::<Vec<f32>>());
        }
    }
    let mut rounded = Vec::new();
    fake_quantize::weights(2, &[0.0; 6], &mut rounded);
    assert_eq!(rounded, [0.0; 6]);
}

/// A linear layer, codes, and a linear layer: outputs and gradients by hand.
#[test]
fn layers_see_codes() {
    let mut l = Layers {
        graph: Graph::new(),
    };
    let x = l.graph.input(Map::new(2, 3, 4));
    let x = l.linear(x, "first", 5);
    let range = l.graph.parameter("range", &[2], Kind::Statistic);
    let op = Op::FakeQuantize {
        range,
        momentum: 0.25,
    };
    let x = l.push("codes", op, &[x]);
    let x = l.linear(x, "last", 3);
    l.graph.output(x);
    let graph = l.graph;
    let mut parameters = initial(graph.parameters());
    // Half of the values are clipped.
    parameters[range.0] = vec![-0.3, 0.4];
    let batch = 6;
    let input = noises(batch * 24, 1);
    let mode = Mode::EVAL.quantized();
    let mut engine = Engine::new(graph.clone(), 2).expect("threads start");
    engine
        .forward(&mut parameters, &[&input], batch, mode)
        .expect("lengths match");
    assert_eq!(
        parameters[range.0],
        [-0.3, 0.4],
        "evaluation keeps the range"
    );
    let output = engine.output(0).to_vec();
    let d = noises(output.len(), 2);
    let mut gradients: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.len()]).collect();
    engine
        .backward(&parameters, &[&d], &mut gradients)
        .expect("lengths match");

    let [w1, b1, w2, b2] = [0, 1, 3, 4].map(|i| &parameters[i]);
    assert_eq!([w1.len(), b1.len(), w2.len(), b2.len()], [20, 5, 15, 3]);
    let (mut q1, mut q2) = (Vec::new(), Vec::new());
    fake_quantize::weights(5, w1, &mut q1);
    fake_quantize::weights(3, w2, &mut q2);
    let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
    let codes = Codes::of_range(-0.3, 0.4);
    let (mut of_b1, mut of_w2, mut clipped) = (vec![0.0f32; 5], vec![0.0f32; 15], 0);
    for (pixel, x) in input.chunks(4).enumerate() {
        let hidden: Vec<f32> = (0..5).map(|i| dot(&q1[4 * i..][..4], x) + b1[i]).collect();
        let mut rounded = hidden.clone();
        fake_quantize::round(codes, &mut rounded);
        let d = &d[3 * pixel..][..3];
        for o in 0..3 {
            let y = dot(&q2[5 * o..][..5], &rounded) + b2[o];
            assert!((output[3 * pixel + o] - y).abs() < 1e-6);
            (0..5).for_each(|i| of_w2[5 * o + i] += d[o] * rounded[i]);
        }
        for i in 0..5 {
            let code = hidden[i] / codes.scale + codes.zero_point as f32;
            if (-128.5..=127.5).contains(&code) {
                of_b1[i] += (0..3).map(|o| d[o] * q2[5 * o + i]).sum::<f32>();
            } else {
                clipped += 1;
            }
        }
    }
    assert!(clipped > 50, "{clipped}");
    for (got, want) in [(&gradients[1], &of_b1), (&gradients[3], &of_w2)] {
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }

    engine
        .forward(&mut parameters, &[&input], batch, Mode::train(0))
        .expect("lengths match");
    let [low, high] = [0, 1].map(|i| parameters[range.0][i]);
    assert!(
        low < -0.3 && high > 0.4,
        "training widens it: {low}..{high}"
    );
}

/// A student, and what it loses by codes before and after training with them.
#[test]
fn students_learn_with_codes() {
    let student = Student {
        size: 32,
        widths: [8, 12, 16],
        heads: 2,
        blocks: 1,
        classes: 5,
        table: true,
    };
    let float = student.build();
    let graph = float.quantization_aware(0.1).expect("it fits");
    assert_eq!(
        graph.parameters()[..float.parameters().len()],
        *float.parameters()
    );
    let added: Vec<&Node> = graph
        .nodes()
        .iter()
        .filter(|n| matches!(n.op, Op::FakeQuantize { .. }))
        .collect();
    // After each fused layer once, nothing between a convolution and its norm.
    assert!(added.iter().any(|n| n.name == "input.codes"));
    let convolutions = graph
        .nodes()
        .iter()
        .filter(|n| matches!(n.op, Op::Conv { .. } | Op::Depthwise { .. }));
    assert!(added.len() > 10 && convolutions.count() > 10);
    for node in graph
        .nodes()
        .iter()
        .filter(|n| matches!(n.op, Op::BatchNorm(_)))
    {
        let source = graph.nodes().iter().find(|n| n.output == node.inputs[0]);
        assert!(matches!(
            source.map(|n| &n.op),
            Some(Op::Conv { .. } | Op::Depthwise { .. })
        ));
    }
    let run = |threads: usize| {
        let mut parameters = initial(graph.parameters());
        for (p, of) in parameters.iter_mut().zip(graph.parameters()) {
            if of.name.ends_with(".range") {
                p.fill(0.0);
            }
        }
        let mut engine = Engine::new(graph.clone(), threads).expect("threads start");
        let mut optimizer = AdamW::new(graph.parameters(), &[], AdamWConfig::default());
        let images = noises(10 * 32 * 32 * 3, 1000);
        let labels: Vec<u32> = (0..10).map(|i| i % 5).collect();
        let target = Target::Labels {
            labels: &labels,
            smoothing: 0.0,
        };
        let (mut losses, mut of_logits) = (Vec::new(), vec![0.0; 50]);
        for step in 0..12 {
            let mode = Mode::train(step).quantized();
            engine
                .forward(&mut parameters, &[&images], 10, mode)
                .expect("lengths match");
            losses.push(cross_entropy(engine.output(0), 5, target, &mut of_logits));
            let mut gradients: Vec<Vec<f32>> =
                parameters.iter().map(|p| vec![0.0; p.len()]).collect();
            engine
                .backward(&parameters, &[&of_logits], &mut gradients)
                .expect("lengths match");
            optimizer.step(&mut parameters, &gradients, 3e-3);
        }
        // Logits are on the grid of their codes.
        let range = &parameters[parameters.len() - 1];
        let codes = Codes::of_range(range[0], range[1]);
        let mut logits = engine.output(0).to_vec();
        fake_quantize::round(codes, &mut logits);
        assert_eq!(logits, engine.output(0));
        (losses, parameters)
    };
    let (losses, parameters) = run(1);
    assert!(losses[11] < 0.2 * losses[0], "{losses:?}");
    assert!(parameters.iter().flatten().all(|p| p.is_finite()));
    assert!(run(3) == (losses, parameters), "three threads");
}

/// Depthwise weights have a scale per channel.
#[test]
fn depthwise_weights_are_rounded_by_channel() {
    let mut l = Layers {
        graph: Graph::new(),
    };
    let x = l.graph.input(Map::new(3, 3, 2));
    let x = l.depthwise(x, "conv", Window::square(3, 1), false);
    l.graph.output(x);
    let mut parameters = initial(l.graph.parameters());
    parameters[0][..9].iter_mut().for_each(|w| *w *= 50.0);
    let mut rounded = parameters.clone();
    fake_quantize::weights(2, &parameters[0], &mut rounded[0]);
    assert_ne!(parameters, rounded);
    let input = noises(18, 1);
    let mut engine = Engine::new(l.graph, 1).expect("no threads");
    let mut run = |p: &mut Vec<Vec<f32>>, mode| {
        engine
            .forward(p, &[&input], 1, mode)
            .expect("lengths match");
        engine.output(0).to_vec()
    };
    let expected = run(&mut rounded, Mode::EVAL);
    assert_eq!(run(&mut parameters, Mode::EVAL.quantized()), expected);
}
