//! The float output stays and the ranges meet, checked with a naive evaluator.

use std::collections::HashMap;

use ampoule_runtime::ops::Window;

use super::*;
use crate::calibrate::testing::Lcg;
use crate::graph::{Activation, ReduceKind};

const RELU: Activation = Some(UnaryKind::Relu);
const SAME: Window = Window {
    kernel: [3, 3],
    pad: [1; 4],
    ..Window::POINT
};

/// Builds graphs with random weights whose rows differ by up to three orders of magnitude.
struct Builder {
    graph: Graph,
    rng: Lcg,
}

impl Builder {
    fn new(seed: u32) -> Builder {
        Builder {
            graph: Graph::default(),
            rng: Lcg(seed),
        }
    }

    fn constants(&mut self, shape: &[usize]) -> [ValueId; 2] {
        let (rows, row_len) = (shape[0], shape[1..].iter().product::<usize>());
        let mut data = self.rng.gaussians(rows * row_len);
        for row in data.chunks_exact_mut(row_len) {
            let spread = 10f32.powf(self.rng.uniform() * 3.0 - 1.5) / row_len as f32;
            row.iter_mut().for_each(|w| *w *= spread);
        }
        let bias = self.rng.gaussians(rows).iter().map(|b| b * 0.1).collect();
        [
            self.graph.constant_value("w", shape, data),
            self.graph.constant_value("b", &[rows], bias),
        ]
    }

    fn conv(
        &mut self,
        x: ValueId,
        rows: usize,
        groups: usize,
        window: Window,
        activation: Activation,
    ) -> ValueId {
        let channels = self.graph.shape(x)[3] / groups;
        let [w, b] = self.constants(&[
            rows,
            window.kernel[0].into(),
            window.kernel[1].into(),
            channels,
        ]);
        self.node(
            Op::Conv {
                window,
                groups,
                residual: false,
                activation,
            },
            &[x, w, b],
        )
    }

    fn linear(&mut self, x: ValueId, rows: usize, activation: Activation) -> ValueId {
        let channels = *self.graph.shape(x).last().unwrap();
        let [w, b] = self.constants(&[rows, channels]);
        self.node(
            Op::Linear {
                residual: false,
                activation,
            },
            &[x, w, b],
        )
    }

    fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.push(&name, op, inputs).unwrap()
    }
}

/// conv → depthwise → conv → mean → linear, every link homogeneous.
fn chain(seed: u32) -> Graph {
    let mut b = Builder::new(seed);
    let x = b.graph.input("x", &[1, 5, 6, 3]);
    let y = b.conv(x, 8, 1, SAME, RELU);
    let y = b.conv(
        y,
        8,
        8,
        Window {
            stride: [2, 1],
            ..SAME
        },
        None,
    );
    let y = b.node(Op::Unary(UnaryKind::Relu), &[y]);
    let y = b.conv(y, 6, 2, Window::POINT, RELU);
    let y = b.node(
        Op::Reduce {
            kind: ReduceKind::Mean,
            axes: vec![1, 2],
        },
        &[y],
    );
    let y = b.node(Op::Reshape(vec![1, 6]), &[y]);
    let y = b.linear(y, 4, None);
    b.graph.output("y", y);
    b.graph
}

#[test]
fn chains_keep_their_output_and_even_out() {
    for seed in 1..20 {
        let mut graph = chain(seed);
        let before = evaluate(&graph, seed);
        let done = equalise(&mut graph);
        graph.validate().unwrap();
        assert_eq!(done.pairs, 3);
        assert!(done.sweeps > 1 && done.largest_factor > 1.5, "{done:?}");
        assert_close(&before, &evaluate(&graph, seed));
    }
}

#[test]
fn ranges_meet_where_no_bias_holds_them_back() {
    let mut graph = chain(5);
    for bias in (0..graph.nodes.len())
        .filter_map(|n| graph.nodes[n].inputs.get(2).copied())
        .collect::<Vec<_>>()
    {
        let rows = graph.shape(bias)[0];
        graph.value_mut(bias).data = Some(vec![0.0; rows].into());
    }
    let done = equalise(&mut graph);
    assert!(done.sweeps < MOST_SWEEPS, "{done:?}");
    for (a, b) in find_pairs(&graph) {
        let (a, b) = (
            Layer::of(&graph, a).unwrap().row_ranges(),
            Layer::of(&graph, b).unwrap().column_ranges(),
        );
        for (a, b) in a.iter().zip(&b) {
            assert!((a / b).ln().abs() < 0.01, "{a} {b}");
        }
    }
}

#[test]
fn biases_do_not_outgrow_the_layer() {
    let mut b = Builder::new(1);
    let x = b.graph.input("x", &[1, 2]);
    let w = b
        .graph
        .constant_value("w", &[2, 2], vec![1e-5, 1e-5, 1.0, 1.0]); // row 0 is nearly dead
    let bias = b.graph.constant_value("b", &[2], vec![0.5, 2.0]);
    let y = b.node(
        Op::Linear {
            residual: false,
            activation: RELU,
        },
        &[x, w, bias],
    );
    let y = b.linear(y, 3, None);
    b.graph.output("y", y);
    let before = evaluate(&b.graph, 1);
    equalise(&mut b.graph);
    assert_close(&before, &evaluate(&b.graph, 1));
    assert!(
        b.graph
            .constant(bias)
            .unwrap()
            .iter()
            .all(|b| b.abs() <= 2.0)
    );
}

#[test]
fn what_is_not_homogeneous_or_has_other_readers_stays() {
    let relu6 = Some(UnaryKind::Clamp(0.0, 6.0));
    let mut b = Builder::new(3);
    let x = b.graph.input("x", &[1, 4, 4, 3]);
    let a = b.conv(x, 4, 1, SAME, relu6); // not homogeneous
    let c = b.conv(a, 4, 1, SAME, RELU); // read twice
    let d = b.conv(c, 4, 1, SAME, None); // read only as a residual
    let [w, bias] = b.constants(&[4, 3, 3, 4]);
    let conv = Op::Conv {
        window: SAME,
        groups: 1,
        residual: true,
        activation: RELU,
    };
    let e = b.node(conv, &[c, w, bias, d]); // its own residual does not scale
    let f = b.conv(e, 4, 1, SAME, RELU); // a graph output
    let g = b.conv(f, 4, 4, SAME, None); // goes through a function that does not scale
    let h = b.node(Op::Unary(UnaryKind::Silu), &[g]);
    let y = b.conv(h, 2, 1, SAME, None);
    b.graph.output("f", f);
    b.graph.output("y", y);
    let before: Vec<_> = b.graph.values.iter().map(|v| v.data.clone()).collect();
    assert_eq!(
        equalise(&mut b.graph),
        Equalised {
            pairs: 0,
            sweeps: 0,
            largest_factor: 1.0
        }
    );
    assert!(
        before
            .iter()
            .zip(&b.graph.values)
            .all(|(a, v)| *a == v.data)
    );
}

#[test]
fn shared_constants_are_copied() {
    let mut b = Builder::new(9);
    let x = b.graph.input("x", &[1, 4]);
    let [w, bias] = b.constants(&[4, 4]);
    let op = Op::Linear {
        residual: false,
        activation: RELU,
    };
    let y = b.node(op.clone(), &[x, w, bias]);
    let y = b.node(op, &[y, w, bias]);
    b.graph.output("y", y);
    let (before, shared) = (evaluate(&b.graph, 9), b.graph.constant(w).unwrap().clone());
    assert_eq!(equalise(&mut b.graph).pairs, 1);
    assert_close(&before, &evaluate(&b.graph, 9));
    assert!(b.graph.nodes.iter().filter(|n| n.inputs[1] == w).count() < 2);
    let kept = b.graph.nodes.iter().any(|n| n.inputs[1] == w);
    assert!(!kept || b.graph.constant(w).unwrap() != &shared);
}

fn assert_close(expected: &[f32], got: &[f32]) {
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    for (e, g) in expected.iter().zip(got) {
        assert!((e - g).abs() <= 1e-5 * largest, "{e} {g}");
    }
}

/// The first output for random inputs, in double precision.
fn evaluate(graph: &Graph, seed: u32) -> Vec<f32> {
    let mut rng = Lcg(seed);
    let mut values: HashMap<ValueId, Vec<f64>> = HashMap::new();
    for (i, value) in graph.values.iter().enumerate() {
        if let Some(data) = &value.data {
            values.insert(ValueId(i as u32), data.iter().map(|&v| v.into()).collect());
        }
    }
    for port in &graph.inputs {
        let count = graph.shape(port.value).iter().product();
        values.insert(
            port.value,
            rng.gaussians(count).iter().map(|&v| v.into()).collect(),
        );
    }
    for node in &graph.nodes {
        let operands: Vec<&[f64]> = node.inputs.iter().map(|v| values[v].as_slice()).collect();
        let x_shape = graph.shape(node.inputs[0]);
        let mut out = match &node.op {
            Op::Conv { window, groups, .. } => convolve(
                &operands,
                x_shape,
                graph.shape(node.output),
                window,
                *groups,
            ),
            Op::Linear { .. } => {
                let point = [1, 1, 1, x_shape[1]];
                convolve(
                    &operands,
                    &point,
                    &[1, 1, 1, operands[2].len()],
                    &Window::POINT,
                    1,
                )
            }
            Op::Reduce { .. } => mean_per_channel(operands[0], x_shape[3]),
            Op::Reshape(_) | Op::Unary(_) => operands[0].to_vec(),
            other => panic!("{} is not used here", other.name()),
        };
        let function = if let Op::Unary(kind) = node.op {
            Some(kind)
        } else {
            node.op.activation()
        };
        if let Some(kind) = function {
            out.iter_mut()
                .for_each(|v| *v = f64::from(kind.eval(*v as f32)));
        }
        values.insert(node.output, out);
    }
    values[&graph.outputs[0].value]
        .iter()
        .map(|&v| v as f32)
        .collect()
}

fn convolve(
    operands: &[&[f64]],
    x_shape: &[usize],
    out_shape: &[usize],
    window: &Window,
    groups: usize,
) -> Vec<f64> {
    let (x, w, bias) = (operands[0], operands[1], operands[2]);
    let [_, height, width, channels] = *x_shape else {
        panic!("rank 4")
    };
    let [_, oh, ow, rows] = *out_shape else {
        panic!("rank 4")
    };
    let (per_group, taps) = (channels / groups, window.taps());
    let mut out = Vec::with_capacity(oh * ow * rows);
    for i in 0..oh * ow * rows {
        let (y, xx, row) = (i / rows / ow, i / rows % ow, i % rows);
        let mut sum = bias[row];
        for tap in 0..taps {
            let (ky, kx) = (
                tap / window.kernel[1] as usize,
                tap % window.kernel[1] as usize,
            );
            let iy = (y * window.stride[0] as usize + ky).wrapping_sub(window.pad[0] as usize);
            let ix = (xx * window.stride[1] as usize + kx).wrapping_sub(window.pad[1] as usize);
            if iy >= height || ix >= width {
                continue;
            }
            for c in 0..per_group {
                let channel = row / (rows / groups) * per_group + c;
                sum += w[(row * taps + tap) * per_group + c]
                    * x[(iy * width + ix) * channels + channel];
            }
        }
        out.push(sum);
    }
    out
}

fn mean_per_channel(x: &[f64], channels: usize) -> Vec<f64> {
    let count = (x.len() / channels) as f64;
    (0..channels)
        .map(|c| x[c..].iter().step_by(channels).sum::<f64>() / count)
        .collect()
}
