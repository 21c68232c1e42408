//! Outputs and gradients of every layer, alone and as units fuse them, against a plain computation in
//! double precision and its central differences.

#[path = "common/reference.rs"]
mod reference;
#[path = "common/student.rs"]
mod student;

use std::sync::Arc;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;
use student::{Layers, Student, initial, noise, noises};

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

#[test]
fn convolutions() {
    let windows = [
        Window::square(3, 1),
        Window::square(3, 2),
        Window::square(5, 2),
        window([3, 3], [2, 2], [0, 0, 1, 1]),
        window([2, 3], [1, 2], [1, 0, 0, 2]),
    ];
    for w in windows {
        for channels in [3, 17] {
            let name = format!("{w:?}, {channels} channels");
            let map = Map::new(6, 7, 2);
            train(&format!("dense {name}"), map, channels, |l, x| {
                l.conv(x, "conv", 5, w, true)
            });
            train(&format!("depthwise {name}"), map, channels, |l, x| {
                l.depthwise(x, "conv", w, true)
            });
        }
    }
    let seven = Window::square(7, 2);
    train("depthwise 7×7", Map::new(9, 8, 2), 80, |l, x| {
        l.depthwise(x, "conv", seven, false)
    });
    train("linear", Map::new(5, 5, 2), 70, |l, x| {
        l.linear(x, "linear", 33)
    });
}

#[test]
fn norms_and_activations() {
    use Activation::*;
    for f in [
        Identity,
        Relu,
        Relu6,
        Gelu,
        QuickGelu,
        Silu,
        HardSwish,
        Sigmoid,
        HardSigmoid,
        Tanh,
    ] {
        for mode in [Mode::train(1), Mode::EVAL] {
            let graph = behind_conv(Map::new(4, 4, 3), 19, |l, x| {
                let x = l.batch_norm(x, "norm");
                let x = l.activation(x, f);
                l.linear(x, "last", 4)
            });
            check(&format!("{f:?} in {mode:?}"), graph, mode);
        }
    }
    let map = Map::new(4, 3, 2);
    for channels in [5, 40] {
        train("layer norm", map, channels, |l, x| l.layer_norm(x, "norm"));
        train("layer norm, GELU, linear", map, channels, |l, x| {
            let x = l.layer_norm(x, "norm");
            let x = l.activation(x, Activation::Gelu);
            l.linear(x, "last", 6)
        });
    }
    train("activation twice", map, 6, |l, x| {
        let x = l.activation(x, Activation::Gelu);
        let x = l.activation(x, Activation::Tanh);
        l.depthwise(x, "last", Window::square(3, 1), false)
    });
}

/// A norm whose input others read too, as before MOAT's bottlenecks.
#[test]
fn shared_values() {
    let map = Map::new(4, 4, 3);
    train("norm and shortcut", map, 8, |l, x| {
        let y = l.batch_norm(x, "norm");
        let y = l.linear(y, "branch", 8);
        l.add(x, y)
    });
    train("two norms", map, 8, |l, x| {
        let (a, b) = (l.batch_norm(x, "a"), l.batch_norm(x, "b"));
        let a = l.activation(a, Activation::Relu);
        l.add(a, b)
    });
    train("a norm with two activations", map, 8, |l, x| {
        let x = l.batch_norm(x, "norm");
        let (a, b) = (
            l.activation(x, Activation::Gelu),
            l.activation(x, Activation::Silu),
        );
        let (a, b) = (l.linear(a, "a", 5), l.linear(b, "b", 5));
        l.add(a, b)
    });
    train("one value twice", map, 8, |l, x| l.add(x, x));
    let mut l = Layers {
        graph: Graph::new(),
    };
    let x = l.graph.input(map);
    let x = l.batch_norm(x, "of pictures");
    let x = l.linear(x, "last", 4);
    l.graph.output(x);
    check("norm of pictures", l.graph, Mode::train(1));
}

#[test]
fn pooling_and_gates() {
    let map = Map::new(5, 6, 3);
    train("mean", map, 9, |l, x| l.push("mean", Op::Mean, &[x]));
    for w in [window([2, 2], [2, 2], [0, 0, 1, 0]), Window::square(3, 2)] {
        train("average", map, 9, |l, x| {
            l.push("pool", Op::AveragePool(w), &[x])
        });
        train("largest", map, 9, |l, x| {
            let x = l.batch_norm(x, "norm");
            let x = l.activation(x, Activation::Gelu);
            l.push("pool", Op::MaxPool(w), &[x])
        });
    }
    train("squeeze-excite", map, 20, |l, x| {
        let x = l.batch_norm(x, "norm");
        let x = l.activation(x, Activation::Gelu);
        let gate = l.push("mean", Op::Mean, &[x]);
        let gate = l.linear(gate, "reduce", 3);
        let gate = l.activation(gate, Activation::Silu);
        let gate = l.linear(gate, "expand", 20);
        let gate = l.activation(gate, Activation::Sigmoid);
        l.push("gate", Op::Gate, &[x, gate])
    });
    train("product of maps", map, 9, |l, x| {
        let gate = l.linear(x, "gate", 9);
        let gate = l.activation(gate, Activation::Gelu);
        l.push("gate", Op::Gate, &[x, gate])
    });
    train("pad and crop", map, 4, |l, x| {
        let x = l.push("pad", Op::Pad([3, 2]), &[x]);
        let x = l.linear(x, "inside", 6);
        l.push("crop", Op::Crop([2, 1]), &[x])
    });
}

#[test]
fn attentions() {
    let lane = |input: usize, offset: usize, stride: usize| Lane {
        input,
        offset,
        stride,
    };
    let plain = |heads: usize, d: usize, lanes: [Lane; 3]| Attention {
        heads,
        head_size: d,
        scale: 0.4,
        lanes,
        window: None,
        bias: None,
        causal: false,
        mask: None,
    };
    let map = Map::new(4, 6, 3);
    // Packed per head, in windows, with a table.
    train("windows", map, 3 * 2 * 5, |l, x| {
        let table = l.parameter("attention", "table", &[2, 7]);
        let index: Arc<[u32]> = (0..36u32).map(|i| i * i % 7).collect();
        let a = Attention {
            window: Some([2, 3]),
            bias: Some(PositionBias { table, index }),
            ..plain(2, 5, [lane(0, 0, 15), lane(0, 5, 15), lane(0, 10, 15)])
        };
        l.push("attention", Op::Attention(a), &[x])
    });
    train("separate projections", map, 12, |l, x| {
        let parts = ["q", "k", "v"].map(|p| l.linear(x, p, 32));
        let a = plain(2, 16, [lane(0, 0, 16), lane(1, 0, 16), lane(2, 0, 16)]);
        l.push("attention", Op::Attention(a), &parts)
    });
    train(
        "causal, some channels unused",
        Map::new(1, 9, 3),
        3 * 16 + 2,
        |l, x| {
            let a = Attention {
                causal: true,
                ..plain(2, 8, [lane(0, 0, 8), lane(0, 17, 8), lane(0, 34, 8)])
            };
            l.push("attention", Op::Attention(a), &[x])
        },
    );
}

#[test]
fn tokens() {
    let map = Map::new(1, 7, 1);
    let graph = |build: &dyn Fn(&mut Layers, Value, Value) -> Value| {
        let mut l = Layers {
            graph: Graph::new(),
        };
        let ids = l.graph.input(map);
        let table = l.parameter("tokens", "weight", &[11, 12]);
        let x = l.push("tokens", Op::Embedding { table }, &[ids]);
        let y = build(&mut l, x, ids);
        l.graph.output(y);
        l.graph
    };
    check("embedding", graph(&|_, x, _| x), Mode::EVAL);
    let positions = graph(&|l, x, _| {
        let table = l.parameter("positions", "weight", &[7, 12]);
        let x = l.layer_norm(x, "norm");
        l.push("positions", Op::Positions { table }, &[x])
    });
    check("positions", positions, Mode::EVAL);
    let tokens = graph(&|l, x, _| {
        let table = l.parameter("class", "weight", &[2, 12]);
        let x = l.activation(x, Activation::Gelu);
        let x = l.push("class", Op::Tokens { table }, &[x]);
        let x = l.linear(x, "mixed", 5);
        l.push("first", Op::Crop([0, 6]), &[x])
    });
    check("tokens", tokens, Mode::EVAL);
    let queries = graph(&|l, x, ids| {
        let table = l.parameter("queries", "weight", &[7, 12]);
        let size = [1, 7];
        let q = l.push("queries", Op::Queries { table, size }, &[ids]);
        let q = l.linear(q, "q", 8);
        let kv = l.linear(x, "kv", 16);
        let lane = |input, offset| Lane {
            input,
            offset,
            stride: 4,
        };
        let a = Attention {
            heads: 2,
            head_size: 4,
            scale: 0.5,
            lanes: [lane(0, 0), lane(1, 0), lane(1, 8)],
            window: None,
            bias: None,
            causal: false,
            mask: Some(2),
        };
        l.push("attention", Op::Attention(a), &[q, kv, ids])
    });
    check("queries", queries, Mode::EVAL);
    let normalize = graph(&|l, x, _| {
        let x = l.activation(x, Activation::Gelu);
        let x = l.push("normalize", Op::Normalize, &[x]);
        l.linear(x, "last", 3)
    });
    check("normalize", normalize, Mode::EVAL);
    let mean = graph(&|l, x, ids| l.push("mean", Op::MaskedMean, &[x, ids]));
    check("masked mean", mean, Mode::EVAL);
    let weighted = graph(&|l, x, ids| {
        let x = l.linear(x, "first", 5);
        let x = l.activation(x, Activation::Tanh);
        let table = l.parameter("weights", "weight", &[11, 1]);
        let weights = l.push("weights", Op::Embedding { table }, &[ids]);
        l.push("mean", Op::MaskedMean, &[x, ids, weights])
    });
    check("weighted mean", weighted, Mode::EVAL);
    let lane = |input: usize, offset: usize| Lane {
        input,
        offset,
        stride: 4,
    };
    let attention = graph(&|l, x, ids| {
        let qkv = l.linear(x, "qkv", 24);
        let a = Attention {
            heads: 2,
            head_size: 4,
            scale: 0.5,
            lanes: [lane(0, 0), lane(0, 8), lane(0, 16)],
            window: None,
            bias: None,
            causal: false,
            mask: Some(1),
        };
        let x = l.push("attention", Op::Attention(a), &[qkv, ids]);
        l.push("mean", Op::MaskedMean, &[x, ids])
    });
    check("padding is not seen", attention, Mode::EVAL);
}

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

#[test]
fn lengths_are_checked() {
    use ampoule_distill_kernels::engine::EngineError;
    let graph = behind_conv(Map::new(2, 2, 3), 4, |_, x| x);
    let mut parameters = initial(graph.parameters());
    let mut engine = Engine::new(graph, 1).expect("one thread");
    let mut gradients = parameters.clone();
    let early = engine.backward(&parameters, &[&[0.0; 16]], &mut gradients);
    assert_eq!(early, Err(EngineError::NothingToDifferentiate));
    let short = engine.forward(&mut parameters, &[&[0.0; 11]], 1, Mode::EVAL);
    assert_eq!(
        short.expect_err("too short").to_string(),
        "input has 11 values, expected 12"
    );
    parameters[1].pop();
    let lost = engine.forward(&mut parameters, &[&[0.0; 12]], 1, Mode::EVAL);
    let text = lost.expect_err("too short").to_string();
    assert_eq!(text, "parameter `first.bias` has 3 values, expected 4");
}

#[test]
fn layers_that_do_not_fit() {
    let mut l = Layers {
        graph: Graph::new(),
    };
    let x = l.graph.input(Map::new(4, 6, 3));
    let narrow = l.graph.input(Map::new(4, 5, 3));
    let weight = l.parameter("conv", "weight", &[2, 4, 3, 3]);
    let conv = Op::Conv {
        weight,
        bias: None,
        window: Window::square(3, 1),
    };
    let mut fails = |op: Op, inputs: &[Value]| {
        l.graph
            .push("bad", op, inputs)
            .expect_err("it does not fit")
            .to_string()
    };
    assert_eq!(
        fails(conv, &[x]),
        "layer `bad`: `conv.weight` has shape [2, 4, 3, 3], expected 54 elements"
    );
    assert_eq!(
        fails(Op::Gate, &[x]),
        "layer `bad`: expected 2 inputs, got 1"
    );
    assert_eq!(
        fails(Op::Gate, &[x, narrow]),
        "layer `bad`: gate of [4, 5, 3] for [4, 6, 3]"
    );
    assert!(fails(Op::Mean, &[Value(9)]).contains("not a value"));
    assert!(fails(Op::Crop([4, 0]), &[x]).contains("crop"));
    assert!(fails(Op::AveragePool(window([9, 9], [1, 1], [0; 4])), &[x]).contains("does not fit"));
    assert!(fails(Op::AveragePool(window([2, 2], [0, 1], [0; 4])), &[x]).contains("does not fit"));
    let lane = Lane {
        input: 0,
        offset: 0,
        stride: 1,
    };
    let a = Attention {
        heads: 1,
        head_size: 3,
        scale: 1.0,
        lanes: [lane; 3],
        window: Some([3, 3]),
        bias: None,
        causal: false,
        mask: None,
    };
    assert!(fails(Op::Attention(a.clone()), &[x]).contains("do not divide"));
    let a = Attention {
        window: None,
        mask: Some(1),
        ..a
    };
    assert!(fails(Op::Attention(a), &[x, x]).contains("mask of"));
    assert!(fails(Op::MaskedMean, &[x, x]).contains("mask or weights of"));
    assert_eq!(
        fails(Op::Embedding { table: weight }, &[x]),
        "layer `bad`: `conv.weight` has shape [2, 4, 3, 3], expected 8 elements"
    );
    let table = l.parameter("table", "weight", &[8, 2]);
    let mut fails = |op: Op| {
        l.graph
            .push("bad", op, &[x])
            .expect_err("it does not fit")
            .to_string()
    };
    assert!(fails(Op::Embedding { table }).contains("with one channel"));
    assert!(fails(Op::Positions { table }).contains("expected 72 elements"));
    assert!(fails(Op::Tokens { table }).contains("expected 15 elements"));
}

/// The sparsity term of attention weights and its gradients are PyTorch's (`fixtures/attention_sparsity.py`), on
/// any number of threads, and add to those of the outputs.
#[test]
fn sparse_attention() {
    let mut l = Layers {
        graph: Graph::new(),
    };
    let map = Map::new(4, 6, 3);
    let mut x = l.graph.input(map);
    for (name, window) in [("first", Some([2, 3])), ("second", None)] {
        let shape = [24, l.graph.map(x).channels];
        let weight = l.parameter(name, "weight", &shape);
        let op = Op::Conv {
            weight,
            bias: None,
            window: Window::POINT,
        };
        x = l.push(name, op, &[x]);
        let lane = |i: usize| Lane {
            input: 0,
            offset: 8 * i,
            stride: 4,
        };
        let a = Attention {
            heads: 2,
            head_size: 4,
            scale: 2.0,
            lanes: [lane(0), lane(1), lane(2)],
            window,
            bias: None,
            causal: false,
            mask: None,
        };
        x = l.push(name, Op::Attention(a), &[x]);
    }
    l.graph.output(x);
    let (first, second) = (noises(24 * 3, 1), noises(24 * 8, 2));
    let parameters = vec![first, second];
    let input = noises(2 * map.len(), 7);
    let run = |threads: usize, weight: f32, of_output: f32| {
        let mut parameters = parameters.clone();
        let mut engine = Engine::new(l.graph.clone(), threads).unwrap();
        engine.regularise_attention(weight);
        engine
            .forward(&mut parameters, &[&input], 2, Mode::train(1))
            .unwrap();
        let by_output = vec![of_output; engine.output(0).len()];
        let mut gradients: Vec<_> = parameters.iter().map(|p| vec![0.0; p.len()]).collect();
        engine
            .backward(&parameters, &[&by_output], &mut gradients)
            .unwrap();
        (engine.attention_sparsity(), gradients)
    };
    let (term, gradients) = run(1, 100.0, 0.0);
    let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let along = |x: &[f32]| {
        let pairs = x.iter().zip(noises(x.len(), 500));
        pairs.map(|(x, n)| f64::from(*x) * f64::from(n)).sum()
    };
    let got = [
        [term, 0.0],
        [norm(&gradients[0]), along(&gradients[0])],
        [norm(&gradients[1]), along(&gradients[1])],
    ];
    let lines = include_str!("fixtures/attention_sparsity.txt").lines();
    for (line, got) in lines.zip(got) {
        for (want, got) in line.split(' ').skip(1).zip(got) {
            let want: f64 = want.parse().unwrap();
            assert!((want - got).abs() <= 1e-5 * want.abs(), "{line}: {got}");
        }
    }
    assert_eq!(run(2, 100.0, 0.0), (term, gradients.clone()));
    // The same along all noise by a central difference of the term itself.
    let directions = [noises(24 * 3, 500), noises(24 * 8, 500)];
    let moved = |by: f32| {
        let mut parameters = parameters.clone();
        for (p, d) in parameters.iter_mut().zip(&directions) {
            p.iter_mut().zip(d).for_each(|(p, d)| *p += by * d);
        }
        let mut engine = Engine::new(l.graph.clone(), 1).unwrap();
        engine.regularise_attention(1.0);
        let forward = engine.forward(&mut parameters, &[&input], 2, Mode::EVAL);
        forward.unwrap();
        engine.attention_sparsity()
    };
    let difference = 100.0 * (moved(5e-3) - moved(-5e-3)) / 1e-2;
    let expected = along(&gradients[0]) + along(&gradients[1]);
    assert!(
        (difference - expected).abs() < 1e-3,
        "{difference} {expected}"
    );
    // Beside a loss of the outputs; nothing is measured without a weight.
    let (nothing, of_output) = run(1, 0.0, 1.0);
    assert_eq!(nothing, 0.0);
    let both = run(1, 100.0, 1.0).1;
    for i in 0..2 {
        for ((both, a), b) in both[i].iter().zip(&of_output[i]).zip(&gradients[i]) {
            assert!(
                (both - a - b).abs() <= 1e-4 * (1.0 + both.abs()),
                "{both} {a} {b}"
            );
        }
    }
}
