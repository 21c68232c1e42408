//! Attention and layers over tokens.

use std::sync::Arc;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;

use crate::student::{Layers, noises};
use crate::{check, train};

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
    let lines = include_str!("../fixtures/attention_sparsity.txt").lines();
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
