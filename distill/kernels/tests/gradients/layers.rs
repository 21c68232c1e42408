//! Convolutions, norms, activations, pooling.

use ampoule_distill_kernels::engine::Mode;
use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;

use crate::student::Layers;
use crate::{behind_conv, check, train, window};

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
