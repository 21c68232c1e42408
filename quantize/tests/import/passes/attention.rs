//! Attention: scales, windows, biases and masks.

use ampoule_quantize::graph::{GraphError, Op, ValueId};
use ampoule_quantize::passes;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::Build;

/// Queries, keys and their scores from one layer, `scale` times queries, keys or scores.
fn attention(scale: [Option<f32>; 3], share: bool) -> String {
    let mut b = Build::default();
    let x = b.input(&[1, 5, 8]);
    let qkv = b.linear(x, 16);
    let qkv = b.push(Op::Reshape(vec![1, 5, 2, 2, 4]), &[qkv]);
    let qkv = b.push(Op::Transpose(vec![2, 0, 3, 1, 4]), &[qkv]);
    let part = |b: &mut Build, start: usize, factor: Option<f32>| {
        let y = b.push(
            Op::Slice {
                axis: 0,
                start,
                len: 1,
                step: 1,
            },
            &[qkv],
        );
        let y = b.push(Op::Reshape(vec![1, 2, 5, 4]), &[y]);
        factor.map_or(y, |f| b.with(BinaryKind::Mul, y, f))
    };
    let q = part(&mut b, 0, scale[0]);
    let k = part(&mut b, usize::from(!share), scale[1]);
    let k = b.push(Op::Transpose(vec![0, 1, 3, 2]), &[k]);
    let y = b.push(Op::MatMul, &[q, k]);
    let y = scale[2].map_or(y, |f| b.with(BinaryKind::Mul, y, f));
    b.after(passes::scale::run, y)
}

#[test]
fn attention_scales_go_into_weights() {
    let plain = "Linear 1, MatMul 1, Reshape 3, Slice 2, Transpose 2";
    for scale in [
        [Some(0.5), None, None],
        [Some(0.7), Some(0.7), None],
        [None, None, Some(0.5)],
    ] {
        assert_eq!(attention(scale, false), plain, "{scale:?}");
    }
    // Queries that are keys too cannot be scaled alone.
    let shared = "Linear 1, MatMul 1, Mul 1, Reshape 3, Slice 2, Transpose 2";
    assert_eq!(attention([Some(0.5), None, None], true), shared);
    assert_eq!(attention([None, None, Some(0.5)], true), shared);
}

/// A transformer's attention block over an 8 × 6 map in windows of 4 × 3, as exporters spell it out:
/// `packed` is `[head][q | k | v]`, else `[q | k | v][head]`.
fn windowed_attention(b: &mut Build, packed: bool, bias: &[&[usize]]) -> ValueId {
    let (heads, depth, channels) = (2, 5, 10);
    let x = b.input(&[1, 8, 6, channels]);
    let y = b.push(Op::Reshape(vec![1, 2, 4, 2, 3, channels]), &[x]);
    let y = b.push(Op::Transpose(vec![0, 1, 3, 2, 4, 5]), &[y]);
    let y = b.push(Op::Reshape(vec![4, 12, channels]), &[y]);
    let (gain, offset) = (b.constant(&[channels]), b.constant(&[channels]));
    let y = b.push(Op::LayerNorm { epsilon: 1e-5 }, &[y, gain, offset]);
    let y = b.linear(y, 3 * channels);
    let part = |b: &mut Build, which: usize, perm: &[usize]| {
        let part = if packed {
            let y = b.push(Op::Reshape(vec![4, 12, heads, 3 * depth]), &[y]);
            let slice = Op::Slice {
                axis: 3,
                start: which * depth,
                len: depth,
                step: 1,
            };
            b.push(slice, &[y])
        } else {
            let y = b.push(Op::Reshape(vec![4, 12, 3, heads, depth]), &[y]);
            let y = b.push(
                Op::Slice {
                    axis: 2,
                    start: which,
                    len: 1,
                    step: 1,
                },
                &[y],
            );
            b.push(Op::Reshape(vec![4, 12, heads, depth]), &[y])
        };
        b.push(Op::Transpose(perm.to_vec()), &[part])
    };
    let q = part(b, 0, &[0, 2, 1, 3]);
    let k = part(b, 1, &[0, 2, 3, 1]);
    let v = part(b, 2, &[0, 2, 1, 3]);
    let mut scores = b.push(Op::MatMul, &[q, k]);
    scores = b.with(BinaryKind::Mul, scores, 0.4);
    for shape in bias {
        let c = b.constant(shape);
        scores = b.binary(BinaryKind::Add, scores, c);
    }
    let weights = b.push(Op::Softmax { log: false }, &[scores]);
    let y = b.push(Op::MatMul, &[weights, v]);
    let y = b.push(Op::Transpose(vec![0, 2, 1, 3]), &[y]);
    let y = b.push(Op::Reshape(vec![4, 12, channels]), &[y]);
    let y = b.linear(y, channels);
    let y = b.push(Op::Reshape(vec![1, 2, 2, 4, 3, channels]), &[y]);
    let y = b.push(Op::Transpose(vec![0, 1, 3, 2, 4, 5]), &[y]);
    let y = b.push(Op::Reshape(vec![1, 8, 6, channels]), &[y]);
    b.binary(BinaryKind::Add, x, y)
}

#[test]
fn attention_in_windows_is_one_node_that_addresses_the_map() {
    let (head, window): (&[usize], &[usize]) = (&[1, 2, 12, 12], &[4, 1, 12, 12]);
    for packed in [false, true] {
        for bias in [&[][..], &[head], &[window], &[head, window], &[&[12]]] {
            let mut b = Build::default();
            let y = windowed_attention(&mut b, packed, bias);
            let nodes = "Attention 1, LayerNorm 1, Linear 1, Linear+r 1";
            assert_eq!(b.optimised(y), nodes, "{packed} {bias:?}");
        }
    }
}

/// Queries, keys and values of 4 windows of 12 tokens with 2 heads of 5, each a tensor of its own.
fn separate_attention(
    b: &mut Build,
    scores: impl FnOnce(&mut Build, ValueId) -> ValueId,
) -> ValueId {
    let x = b.input(&[4, 2, 12, 5]);
    let [q, k, v] = [0; 3].map(|_| b.linear(x, 5));
    let k = b.push(Op::Transpose(vec![0, 1, 3, 2]), &[k]);
    let y = b.push(Op::MatMul, &[q, k]);
    let y = scores(b, y);
    let weights = b.push(Op::Softmax { log: false }, &[y]);
    b.push(Op::MatMul, &[weights, v])
}

#[test]
fn biases_follow_windows_that_are_put_together() {
    let biases: [&[usize]; 5] = [
        &[4, 1, 12, 12],
        &[1, 2, 12, 12],
        &[4, 2, 12, 12],
        &[4, 1, 1, 12],
        &[12],
    ];
    for shape in biases {
        let mut b = Build::default();
        let y = separate_attention(&mut b, |b, y| {
            let c = b.constant(shape);
            b.binary(BinaryKind::Add, y, c)
        });
        let y = b.push(Op::Transpose(vec![0, 2, 1, 3]), &[y]);
        let y = b.push(Op::Reshape(vec![1, 2, 2, 4, 3, 10]), &[y]);
        let y = b.push(Op::Transpose(vec![0, 1, 3, 2, 4, 5]), &[y]);
        let y = b.push(Op::Reshape(vec![1, 8, 6, 10]), &[y]);
        assert_eq!(b.optimised(y), "Attention 1, Linear 3", "{shape:?}");
    }
}

#[test]
fn masks_by_selection_are_biases() {
    // What import makes of `Where(causal, scores, fill)`.
    let masked = |fill: f32| {
        let mut b = Build::default();
        let y = separate_attention(&mut b, |b, y| {
            let kept = |i: usize| i % 12 <= i / 12;
            let number = |yes: f32, no: f32| (0..144).map(move |i| if kept(i) { yes } else { no });
            let keep = number(1.0, 0.0).collect();
            let keep = b.0.constant_value("keep", &[12, 12], keep);
            let fill = number(0.0, fill).collect();
            let fill = b.0.constant_value("fill", &[12, 12], fill);
            let y = b.binary(BinaryKind::Mul, y, keep);
            let y = b.binary(BinaryKind::Add, y, fill);
            b.with(BinaryKind::Mul, y, 0.5)
        });
        b.optimised(y)
    };
    for fill in [-1e4, -1e9, f32::MIN, f32::NEG_INFINITY] {
        assert_eq!(masked(fill), "Attention 1, Linear 3", "{fill}");
    }
    // A selected score that keeps its weight.
    assert!(masked(-2.0).contains("Softmax 1"));
}

#[test]
fn scores_of_no_positive_scale_stay() {
    for scale in [-0.7, 0.0] {
        let mut b = Build::default();
        let y = separate_attention(&mut b, |b, y| b.with(BinaryKind::Mul, y, scale));
        let nodes = b.after(passes::attention::run, y);
        assert!(nodes.contains("Softmax 1"), "{scale}: {nodes}");
    }
}

#[test]
fn weights_that_others_read_stay() {
    let mut b = Build::default();
    let x = b.input(&[2, 7, 6]);
    let k = b.push(Op::Transpose(vec![0, 2, 1]), &[x]);
    let scores = b.push(Op::MatMul, &[x, k]);
    let weights = b.push(Op::Softmax { log: false }, &[scores]);
    let y = b.push(Op::MatMul, &[weights, x]);
    let z = b.unary(UnaryKind::Square, weights);
    b.0.output("z", z);
    assert_eq!(b.optimised(y), "MatMul 2, Softmax 1, Square 1, Transpose 1");
}

/// Both packings of queries, keys and values: `[3][heads][size]` and `[heads][3][size]`.
#[test]
fn packed_parts_are_slices_of_the_layer() {
    for per_head in [false, true] {
        let mut b = Build::default();
        let x = b.input(&[2, 5, 6]);
        let y = b.linear(x, 18);
        let (shape, axis, len) = if per_head {
            (vec![2, 5, 3, 6], 3, 2)
        } else {
            (vec![2, 5, 3, 3, 2], 2, 1)
        };
        let y = b.push(Op::Reshape(shape), &[y]);
        let parts: Vec<ValueId> = (0..3)
            .map(|i| {
                let start = i * len;
                let step = 1;
                let op = Op::Slice {
                    axis,
                    start,
                    len,
                    step,
                };
                let part = b.push(op, &[y]);
                b.push(Op::Reshape(vec![2, 5, 3, 2]), &[part])
            })
            .collect();
        let y = b.binary(BinaryKind::Mul, parts[0], parts[1]);
        let y = b.binary(BinaryKind::Sub, y, parts[2]);
        let mut graph = b;
        graph.0.output("y", y);
        let summary = graph.compare(|g| {
            passes::optimise(g, None)?;
            for node in &g.nodes {
                if let Op::Slice { axis, len, .. } = node.op {
                    assert_eq!((axis, len), (2, 6));
                }
            }
            Ok::<(), GraphError>(())
        });
        assert_eq!(summary, "Linear 1, Mul 1, Reshape 1, Slice 3, Sub 1");
    }
}

#[test]
fn bias_and_mask_of_attention_are_one_addend() {
    let mut b = Build::default();
    let (q, k) = (b.input(&[4, 2, 5, 3]), b.input(&[4, 2, 3, 5]));
    let logits = b.push(Op::MatMul, &[q, k]);
    let bias = b.constant(&[1, 2, 5, 5]);
    let y = b.binary(BinaryKind::Add, logits, bias);
    let y = b.push(Op::Reshape(vec![1, 4, 2, 5, 5]), &[y]);
    let mask = b.constant(&[1, 4, 1, 5, 5]);
    let y = b.binary(BinaryKind::Add, y, mask);
    let y = b.push(Op::Reshape(vec![4, 2, 5, 5]), &[y]);
    let y = b.push(Op::Softmax { log: false }, &[y]);
    assert_eq!(b.optimised(y), "Add 1, MatMul 1, Softmax 1");
}
