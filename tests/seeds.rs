//! Small artifacts that together hold every kind of step in every type: seeds for `fuzz/`.
//!
//! `AMPOULE_SEEDS=folder cargo test --test seeds` writes them there.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use ampoule_quantize::graph::{Graph, Op, ReduceKind, ResizeCoordinates, ResizeMode};
use ampoule_quantize::lower::{FloatWeights, LowerOptions};
use ampoule_quantize::model::{Model, compile};
use ampoule_quantize::pipeline::QuantizeOptions;
use ampoule_quantize::plan::PlanOptions;
use ampoule_quantize::prune::{Sparsity, magnitude};
use ampoule_quantize::scheme::{Precision, Scheme};
use ampoule_quantize::seal::{AlignedBytes, Extras};
use ampoule_runtime::artifact::{Step, golden_input};
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;
use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};
use ampoule_runtime::{Artifact, Isa};
use common::{Builder, inverted_residual, quantized, rows_net, vit, window};

/// All seeds by name.
fn seeds() -> Vec<(&'static str, AlignedBytes)> {
    let mut out = vec![
        ("float", float(FloatWeights::F32)),
        ("half", float(FloatWeights::F16)),
        (
            "tokens",
            sealed(&token_net().graph, None, FloatWeights::F32),
        ),
        (
            "attention-float",
            sealed(&attention_net().graph, None, FloatWeights::F32),
        ),
    ];
    let q = quantized(attention_net(), &QuantizeOptions::default());
    out.push((
        "attention",
        sealed(&q.graph, Some(&q.scheme), FloatWeights::F32),
    ));
    let q = quantized(inverted_residual(), &QuantizeOptions::default());
    for (name, scheme) in [("in-place", Some(&q.scheme)), ("in-place-float", None)] {
        out.push((name, sealed(&q.graph, scheme, FloatWeights::F32)));
    }
    for (name, precision) in [("merging", Precision::I8), ("merging-wide", Precision::I16)] {
        let options = QuantizeOptions {
            merge: 2,
            ..QuantizeOptions::default()
        };
        let mut q = quantized(merging_net(), &options);
        let merges = |op: &Op| matches!(op, Op::Merge { .. });
        for (node, wanted) in q.graph.nodes.iter().zip(&mut q.scheme.precision) {
            if merges(&node.op) {
                *wanted = precision;
            }
        }
        out.push((name, sealed(&q.graph, Some(&q.scheme), FloatWeights::F32)));
        if precision == Precision::I8 {
            out.push(("merging-float", sealed(&q.graph, None, FloatWeights::F32)));
        }
    }
    let q = quantized(rows_net(), &QuantizeOptions::default());
    let planning = PlanOptions {
        arena_budget: Some(20_000),
        ..PlanOptions::default()
    };
    let lowering = LowerOptions::default();
    let bands = compile(
        &q.graph,
        Some(&q.scheme),
        &lowering,
        &planning,
        &Extras::default(),
    );
    out.push(("bands", bands.unwrap().bytes));
    let mut pruned = Builder::new(9);
    let x = pruned.graph.input("image", &[1, 7, 7, 60]);
    let y = pruned.conv(x, 34, Window::POINT, 1, Some(UnaryKind::Silu));
    let y = pruned.conv_with(y, 34, Window::POINT, 1, None, Some(y));
    pruned.graph.output("y", y);
    magnitude(&mut pruned.graph, Sparsity::Blocks(0.95)).unwrap();
    let q = quantized(pruned, &QuantizeOptions::default());
    let lowering = LowerOptions {
        sparse: Some(Isa::Avx512Vnni),
        ..LowerOptions::default()
    };
    let sparse = compile(
        &q.graph,
        Some(&q.scheme),
        &lowering,
        &PlanOptions::default(),
        &Extras::default(),
    );
    out.push(("sparse", sparse.unwrap().bytes));
    // Mixtures change type both ways.
    let precisions: [(&str, &[Precision]); 4] = [
        ("int8", &[Precision::I8]),
        ("int16", &[Precision::I16]),
        ("mixed", &[Precision::I16, Precision::I8, Precision::F32]),
        ("islands", &[Precision::F32, Precision::I8]),
    ];
    for (name, pattern) in precisions {
        let mut q = quantized(image_net(), &QuantizeOptions::default());
        let wanted = pattern.iter().cycle();
        q.scheme
            .precision
            .iter_mut()
            .zip(wanted)
            .for_each(|(p, w)| *p = *w);
        out.push((name, sealed(&q.graph, Some(&q.scheme), FloatWeights::F32)));
    }
    out
}

fn sealed(graph: &Graph, scheme: Option<&Scheme>, float_weights: FloatWeights) -> AlignedBytes {
    let options = LowerOptions {
        float_weights,
        ..LowerOptions::default()
    };
    let extras = Extras {
        preprocess: Some(Preprocess {
            resize: Resize::ShorterSide(9),
            filter: Filter::Bicubic,
            antialias: true,
            width: 7,
            height: 9,
            channels: Channels::Rgb,
            scale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.25; 3],
        }),
        labels: (0..10).map(|n| format!("class {n}")).collect(),
        meta: Some("{}".to_owned()),
        golden: vec![(1, vec![0; 10])],
        strip_names: false,
    };
    let planning = PlanOptions::default();
    compile(graph, scheme, &options, &planning, &extras)
        .unwrap()
        .bytes
}

/// Convolutions of every form, tables, arithmetic, pooling, movement; all with integer kernels.
fn image_net() -> Builder {
    let mut b = Builder::new(5);
    let x = b.graph.input("image", &[1, 9, 7, 3]);
    let x = b.conv(x, 8, window(3, 2, [0, 0, 1, 1]), 1, Some(UnaryKind::Relu));
    let e = b.conv(x, 20, Window::POINT, 1, Some(UnaryKind::HardSwish));
    let d = b.conv(e, 20, window(3, 1, [1; 4]), 20, Some(UnaryKind::Silu));
    let d = b.conv(d, 20, window(5, 1, [2; 4]), 20, Some(UnaryKind::Relu));
    let r = b.conv_with(d, 8, Window::POINT, 1, None, Some(x));
    let p = b.push("max", pool(PoolKind::Max), &[r]);
    let a = b.push("average", pool(PoolKind::Average), &[r]);
    let c = b.push("concat", Op::Concat { axis: 3 }, &[p, a]);
    let up = Op::Resize {
        size: [5, 3],
        mode: ResizeMode::Linear,
        coordinates: ResizeCoordinates::HalfPixel,
    };
    let u = b.push("up", up, &[c]);
    let pad = Op::Pad {
        before: vec![0, 1, 0, 0],
        after: vec![0; 4],
        value: 0.0,
    };
    let t = b.push("pad", pad, &[u]);
    let t = b.push("tanh", Op::Unary(UnaryKind::Tanh), &[t]);
    let mean = Op::Reduce {
        kind: ReduceKind::Mean,
        axes: vec![1, 2],
    };
    let m = b.push("mean", mean, &[t]);
    let multiply = Op::Binary {
        kind: BinaryKind::Mul,
        activation: None,
    };
    let g = b.push("gate", multiply, &[t, m]);
    let add = Op::Binary {
        kind: BinaryKind::Add,
        activation: None,
    };
    let s = b.push("add", add, &[g, t]);
    let m = b.push(
        "mean",
        Op::Reduce {
            kind: ReduceKind::Mean,
            axes: vec![1, 2],
        },
        &[s],
    );
    let f = b.push("flat", Op::Reshape(vec![1, 16]), &[m]);
    let l = b.linear(f, 10);
    let y = b.push("softmax", Op::Softmax { log: false }, &[l]);
    b.graph.output("probabilities", y);
    b
}

/// Normalisation, attention with a bias, and a product of two activations.
fn attention_net() -> Builder {
    let mut b = Builder::new(7);
    let x = b.graph.input("image", &[1, 4, 5, 3]);
    let x = b.conv(x, 8, window(3, 1, [1; 4]), 1, None);
    let a = b.attention(x, 2);
    let tokens = b.push("tokens", Op::Reshape(vec![20, 8]), &[a]);
    let turned = b.push("turned", Op::Transpose(vec![1, 0]), &[tokens]);
    let gram = b.push("gram", Op::MatMul, &[turned, tokens]);
    let f = b.push("flat", Op::Reshape(vec![1, 64]), &[gram]);
    let l = b.linear(f, 10);
    b.graph.output("scores", l);
    b
}

/// Tokens that merge.
fn merging_net() -> Builder {
    let mut b = vit(9, 32, 8, 2);
    let embedding = b.graph.outputs.remove(0).value;
    let l = b.linear(embedding, 10);
    b.graph.output("scores", l);
    b
}

/// A table that ids select from, and the row of the largest id.
fn token_net() -> Builder {
    let mut b = Builder::new(8);
    let ids = b.graph.index_input("ids", &[1, 5]);
    let table = (0..9 * 6).map(|i| (i % 7) as f32 / 4.0).collect();
    let table = b.graph.constant_value("table", &[9, 6], table);
    let rows = b.push("embed", Op::Gather { axis: 0 }, &[table, ids]);
    let last = b.push(
        "last",
        Op::ArgMax {
            axis: 1,
            last: false,
        },
        &[ids],
    );
    let row = b.push("row", Op::Gather { axis: 1 }, &[rows, last]);
    let flat = b.push("flat", Op::Reshape(vec![1, 6]), &[row]);
    let l = b.linear(flat, 10);
    b.graph.output("scores", l);
    b
}

fn pool(kind: PoolKind) -> Op {
    Op::Pool {
        kind,
        window: window(3, 2, [1; 4]),
        include_pad: false,
    }
}

/// What has float kernels only, behind two convolutions.
fn float(float_weights: FloatWeights) -> AlignedBytes {
    let mut b = Builder::new(6);
    let x = b.graph.input("image", &[2, 5, 6, 3]);
    let x = b.conv(x, 20, window(3, 1, [1; 4]), 1, Some(UnaryKind::GeluErf));
    let r = b.conv_with(x, 20, Window::POINT, 1, None, Some(x));
    let d = b.conv(r, 20, window(3, 2, [1; 4]), 20, None);
    let p = b.push("max", pool(PoolKind::Max), &[r]);
    let a = b.push("average", pool(PoolKind::Average), &[r]);
    let divide = Op::Binary {
        kind: BinaryKind::Div,
        activation: Some(UnaryKind::Clamp(-2.0, 2.0)),
    };
    let q = b.push("divide", divide, &[p, a]);
    let c = b.push("concat", Op::Concat { axis: 3 }, &[q, d]);
    let up = Op::Resize {
        size: [5, 4],
        mode: ResizeMode::Nearest { floor: true },
        coordinates: ResizeCoordinates::AlignCorners,
    };
    let u = b.push("up", up, &[c]);
    let pad = Op::Pad {
        before: vec![0, 1, 0, 0],
        after: vec![0; 4],
        value: -1.5,
    };
    let u = b.push("pad", pad, &[u]);
    let t = b.push("rows", Op::Reshape(vec![2, 24, 40]), &[u]);
    let gain = b.graph.constant_value("gain", &[40], vec![1.0; 40]);
    let offset = b.graph.constant_value("offset", &[40], vec![0.1; 40]);
    let n = b.push("norm", Op::LayerNorm { epsilon: 1e-5 }, &[t, gain, offset]);
    let k = b.push("transpose", Op::Transpose(vec![0, 2, 1]), &[n]);
    let s = b.push("scores", Op::MatMul, &[n, k]);
    let s = b.push("softmax", Op::Softmax { log: false }, &[s]);
    let v = b.push("values", Op::MatMul, &[s, n]);
    let largest = Op::Reduce {
        kind: ReduceKind::Max,
        axes: vec![1],
    };
    let m = b.push("largest", largest, &[v]);
    let l = b.linear(m, 10);
    let y = b.push("log-softmax", Op::Softmax { log: true }, &[l]);
    b.graph.output("scores", y);
    sealed(&b.graph, None, float_weights)
}

/// The variant of a step with the types that select its kernel.
fn kind(artifact: &Artifact<'_>, step: &Step) -> String {
    let debug = format!("{step:?}");
    let variant = debug.split([' ', '(', '{']).next().unwrap();
    let dtype = |id| artifact.tensor(id).unwrap().dtype.name();
    let from = step.inputs()[0].map_or("", dtype);
    let weights = match step {
        Step::Conv(c) | Step::Depthwise(c) | Step::Sparse { layer: c, .. } => c.weight_type.name(),
        _ => "",
    };
    format!("{variant} {from} {weights} {}", dtype(step.output()))
}

#[test]
fn seeds_verify_run_and_hold_every_kind_of_step() {
    let folder = std::env::var_os("AMPOULE_SEEDS");
    let mut kinds = BTreeSet::new();
    for (name, bytes) in seeds() {
        let artifact = Artifact::verify(&bytes).unwrap();
        println!(
            "{name}: {} bytes, {} steps",
            bytes.len(),
            artifact.step_count()
        );
        kinds.extend(artifact.steps().map(|s| kind(&artifact, &s)));
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(Path::new(folder).join(format!("{name}.amp")), &bytes[..]).unwrap();
        }
        let mut model = Model::from_bytes(bytes).unwrap();
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            let mut session = model.session(isa).unwrap();
            for i in 0..session.artifact().inputs().count() {
                let dtype = session.input(i).unwrap().tensor.dtype;
                golden_input(i as u32, dtype, session.input_bytes(i).unwrap());
            }
            session.run().unwrap();
        }
    }
    println!("{kinds:#?}");
    for wanted in [
        "Conv i8 i8 i8",
        "Conv i16 i8 i16",
        "Conv f32 f32 f32",
        "Conv f32 f16 f32",
        "Depthwise i8 i8 i8",
        "Depthwise i16 i8 i16",
        "Depthwise f32 f32 f32",
        "Table i8  i8",
        "Unary f32  f32",
        "Binary i8  i8",
        "Binary i16  i16",
        "Binary f32  f32",
        "Pool i8  i8",
        "Pool f32  f32",
        "Reduce i8  i8",
        "Reduce f32  f32",
        "Softmax i8  i8",
        "Softmax f32  f32",
        "LayerNorm f32  f32",
        "Copy i8  i8",
        "Copy i16  i16",
        "Copy f32  f32",
        "Fill   i8",
        "Fill   f32",
        "Resize i8  i8",
        "Resize f32  f32",
        "MatMul f32  f32",
        "Convert i8  i16",
        "Convert i16  i8",
        "Convert i8  f32",
        "Convert f32  i8",
        "LayerNorm i8  i8",
        "MatMul i8  i8",
        "Attention i8  i8",
        "Attention f32  f32",
        "Gather f32  f32",
        "ArgMax i32  i32",
        "Match i8  i32",
        "Match f32  i32",
        "Merge i8  i8",
        "Merge i16  i16",
        "Merge i32  i32",
        "Merge f32  f32",
        "Sparse i8 i8 i8",
        "WeightedAttention i8  i8",
        "WeightedAttention f32  f32",
    ] {
        assert!(kinds.contains(wanted), "no seed has `{wanted}`");
    }
}
