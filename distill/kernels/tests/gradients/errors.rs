//! What is refused.

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;

use crate::student::{Layers, initial};
use crate::{behind_conv, window};

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
