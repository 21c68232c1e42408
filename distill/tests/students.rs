//! ONNX files as students.
#![allow(missing_docs)]

#[path = "common/every_op.rs"]
#[allow(dead_code)]
mod every_op;
#[path = "common/runs.rs"]
#[allow(dead_code)]
mod runs;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ampoule_distill::export::{self, Opset, Settings};
use ampoule_distill::import::{self, Student, StudentError};
use ampoule_distill::zoo::{Config, MODELS, TinyVitConfig, Weights};
use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::Graph;
use ampoule_distill_kernels::loss::{Target, cross_entropy};
use ampoule_quantize::export::{Attribute, Dim, OnnxGraph};
use ampoule_quantize::pipeline::to_stored;
use every_op::noises;
use runs::{difference, engine};

fn file(graph: &Graph, values: &[Vec<f32>], opset: Opset, fold: bool) -> Vec<u8> {
    let settings = Settings {
        opset,
        fold,
        ..Settings::default()
    };
    export::onnx(graph, values, &settings).unwrap()
}

/// Largest difference between a network and the student that its file is, for some noise.
fn check(graph: &Graph, values: &[Vec<f32>], student: &Student) -> f32 {
    let inputs = [noises(2 * graph.map(graph.inputs()[0]).len(), 1)];
    let expected = engine(graph, values, &inputs);
    let got = engine(student.network.graph(), student.weights.values(), &inputs);
    difference(&got[0], &expected[0])
}

/// Of the zoo's networks come students that compute the same and have the same parameters, but for norms.
#[test]
fn exported_networks_are_students() {
    for model in MODELS.iter().filter(|m| m.name.ends_with("mini")) {
        let windowed = match model.config.clone() {
            Config::TinyVit(c) => Config::TinyVit(TinyVitConfig { size: 96, ..c }),
            Config::Mci(_) => model.config.clone().with_size(96).unwrap(),
            moat => moat.with_size(96).unwrap().with_windows([4, 2]).unwrap(),
        };
        for config in [model.config.clone(), windowed] {
            let network = config.build().unwrap();
            let weights = Weights::random(&network, 3);
            for (opset, fold) in [(Opset::V17, false), (Opset::V20, true)] {
                let file = file(network.graph(), weights.values(), opset, fold);
                let student = import::onnx_bytes(&file).unwrap();
                let error = check(network.graph(), weights.values(), &student);
                println!("{} {opset:?} fold {fold}: {error:.1e}", model.name);
                assert!(error < 1e-5, "{} {opset:?} {fold}: {error}", model.name);
                assert_eq!(student.inputs, ["input"]);
                assert_eq!(student.outputs, ["logits"]);
                if matches!(config, Config::Mci(_)) {
                    // Its branches are one convolution each.
                    continue;
                }
                assert_eq!(student.network.macs(), network.macs());
                let shapes: HashMap<_, _> = parameters(&student).collect();
                for p in network.parameters() {
                    let is_norm = [".bn.", "_norm.", "norm1.", "norm2."]
                        .iter()
                        .any(|n| p.name.contains(n) && !p.name.contains("attention_norm"));
                    let found = shapes.get(p.name.as_str());
                    assert!(
                        is_norm || found == Some(&&p.shape[..]),
                        "{}: {found:?}",
                        p.name
                    );
                }
            }
        }
    }
}

fn parameters(student: &Student) -> impl Iterator<Item = (&str, &[usize])> {
    let all = student.network.parameters().iter();
    all.map(|p| (p.name.as_str(), &p.shape[..]))
}

/// Steps of plain gradient descent make the loss smaller, and every parameter takes part.
#[test]
fn students_learn() {
    const BATCH: usize = 8;
    for model in MODELS.iter().filter(|m| m.name.ends_with("mini")) {
        let network = model.config.build().unwrap();
        let weights = Weights::random(&network, 5);
        let file = file(network.graph(), weights.values(), Opset::V17, false);
        let student = import::onnx_bytes(&file).unwrap();
        let graph = student.network.graph().clone();
        let classes = model.config.classes();
        let input = noises(BATCH * graph.map(graph.inputs()[0]).len(), 2);
        let labels: Vec<u32> = (0..BATCH).map(|i| (i % classes) as u32).collect();
        let target = Target::Labels {
            labels: &labels,
            smoothing: 0.0,
        };
        let mut values = student.weights.into_values();
        let mut engine = Engine::new(graph, 1).unwrap();
        let mut losses = Vec::new();
        for step in 0..6 {
            let mode = Mode::train(step);
            engine.forward(&mut values, &[&input], BATCH, mode).unwrap();
            let mut of_logits = vec![0.0; BATCH * classes];
            losses.push(cross_entropy(
                engine.output(0),
                classes,
                target,
                &mut of_logits,
            ));
            let mut gradients: Vec<Vec<f32>> = values.iter().map(|v| vec![0.0; v.len()]).collect();
            engine
                .backward(&values, &[&of_logits], &mut gradients)
                .unwrap();
            for ((v, g), p) in values
                .iter_mut()
                .zip(&gradients)
                .zip(engine.graph().parameters())
            {
                assert!(g.iter().any(|&g| g != 0.0), "{} {}", model.name, p.name);
                v.iter_mut().zip(g).for_each(|(v, g)| *v -= 0.01 * g);
            }
        }
        println!("{}: {losses:.4?}", model.name);
        assert!(
            losses.is_sorted_by(|a, b| a > b),
            "{}: {losses:?}",
            model.name
        );
    }
}

/// A network without every third channel inside its bottlenecks and MLPs.
#[test]
fn pruned_networks_are_students() {
    let network = MODELS[0].config.build().unwrap();
    let weights = Weights::random(&network, 6);
    let (graph, values) = pruned(network.graph(), weights.values());
    assert!(graph.parameter_count() < network.graph().parameter_count());
    for fold in [false, true] {
        let student = import::onnx_bytes(&file(&graph, &values, Opset::V17, fold)).unwrap();
        let error = check(&graph, &values, &student);
        assert!(error < 1e-5, "fold {fold}: {error}");
        let shapes: HashMap<_, _> = parameters(&student).collect();
        assert_eq!(shapes["stages.1.blocks.0.mlp.fc1.weight"], [171, 64]);
        assert_eq!(shapes["stages.0.blocks.0.conv2.conv.weight"], [86, 1, 3, 3]);
        // And again, from the student's own file.
        let (graph, values) = (student.network.graph(), student.weights.values());
        let again = import::onnx_bytes(&file(graph, values, Opset::V20, false)).unwrap();
        assert!(check(graph, values, &again) < 1e-5);
    }
}

fn pruned(graph: &Graph, values: &[Vec<f32>]) -> (Graph, Vec<Vec<f32>>) {
    let mut new = Graph::new();
    let mut new_values = Vec::new();
    let inside = |name: &str, layers: &[&str]| {
        name.contains(".blocks.") && layers.iter().any(|l| name.contains(l))
    };
    for (p, v) in graph.parameters().iter().zip(values) {
        let out = inside(&p.name, &[".fc1.", ".conv1.", ".conv2."]);
        let inner = inside(&p.name, &[".fc2.weight", ".conv3.conv.weight"]);
        let mut shape = p.shape.clone();
        let row = p.shape[1..].iter().product::<usize>();
        let kept: Vec<f32> = match (out, inner) {
            (true, _) => {
                let rows = v.chunks(row).enumerate().filter(|(i, _)| i % 3 != 2);
                let rows: Vec<&[f32]> = rows.map(|(_, r)| r).collect();
                shape[0] = rows.len();
                rows.concat()
            }
            (_, true) => {
                let rows = v.chunks(row);
                let keep = |r: &[f32]| -> Vec<f32> {
                    let kept = r.iter().enumerate().filter(|(i, _)| i % 3 != 2);
                    kept.map(|(_, &v)| v).collect()
                };
                let rows: Vec<Vec<f32>> = rows.map(keep).collect();
                shape[1] = rows[0].len();
                rows.concat()
            }
            _ => v.clone(),
        };
        new.parameter(&p.name, &shape, p.kind);
        new_values.push(kept);
    }
    let mut map = HashMap::new();
    for &input in graph.inputs() {
        map.insert(input, new.input(graph.map(input)));
    }
    for node in graph.nodes() {
        let inputs: Vec<_> = node.inputs.iter().map(|v| map[v]).collect();
        map.insert(
            node.output,
            new.push(&node.name, node.op.clone(), &inputs).unwrap(),
        );
    }
    for output in graph.outputs() {
        new.output(map[output]);
    }
    (new, new_values)
}

fn families() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/families")
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|b| f32::from_le_bytes(*b)).collect()
}

/// PyTorch's exports of small networks of many families, against PyTorch's outputs.
#[test]
fn other_exporters_networks_are_students() {
    let input = floats(&families().join("input.bin"));
    for name in [
        "convnext-dynamo20",
        "convnext-tracer17",
        "efficientnet_b0-tracer17",
        "efficientnet_lite0-dynamo20",
        "moat-dynamo20",
        "moat-tracer17",
        "moat_windowed-dynamo20",
        "moat_windowed-tracer17",
        "mobilenet_v1-dyn17",
        "mobilenet_v2-tracer17",
        "mobilenet_v3_small-bn11",
        "mobilenet_v4_conv_small-dynamo20",
        "repvit-bn17",
        "resnet18-bn11",
        "resnet18-dynamo20",
        "resnet50-tracer17",
        "tiny_vit-dynamo20",
        "tiny_vit-tracer17",
        "tiny_vit_padded-dynamo20",
        "tiny_vit_padded-tracer17",
        "vit-dynamo20",
        "vit-tracer17",
        "vitamin-dynamo20",
        "vitamin-tracer17",
    ] {
        let path = families().join(format!("{name}.onnx"));
        let student = import::onnx(&path).unwrap();
        let graph = student.network.graph();
        let map = graph.map(graph.inputs()[0]);
        let shape = [1, 3, map.height, map.width];
        let pictures = input.chunks(map.len());
        let pictures = pictures.flat_map(|p| to_stored(p, &shape, &[0, 3, 1, 2]));
        let inputs = [pictures.collect()];
        let got = engine(graph, student.weights.values(), &inputs).remove(0);
        let expected = floats(&path.with_extension("output.bin"));
        let size = expected.iter().fold(1.0, |most: f32, v| most.max(v.abs()));
        let error = difference(&got, &expected) / size;
        println!("{name}: {error:.1e} of {size:.1}");
        // Another machine's sums; those of mobilenet_v1's random norms cancel most.
        assert!(error < 1e-4, "{name}: {error}");
        assert!(student.notes.is_empty(), "{:?}", student.notes);
    }
}

/// PyTorch's modules, through the names of its exporter's nodes; tables as they were before export.
#[test]
fn names_and_tables_of_a_timm_export() {
    let student = import::onnx(&families().join("tiny_vit-tracer17.onnx")).unwrap();
    let shapes: HashMap<_, _> = parameters(&student).collect();
    assert_eq!(shapes["stages.0.blocks.0.conv1.conv.weight"].len(), 4);
    assert_eq!(shapes["stages.1.blocks.0.attn.qkv.weight"], [48, 16]);
    assert_eq!(shapes["stages.1.blocks.0.attn.attention_biases"][1], 16);
    assert_eq!(shapes["head.fc.bias"], [10]);
}

#[test]
fn what_training_has_not_is_refused_by_name() {
    for (name, node, operator) in [
        ("fastvit-dynamo20", "node_add_11.repeat", "Reshape"),
        ("swin-dynamo20", "node_Slice_107", "Slice"),
        ("clip_resnet-dynamo20", "node_cat", "Concat"),
        ("deit-dynamo20", "node_select_1", "Slice"),
        ("efficientvit-dynamo20", "node_Conv_290", "Conv"),
    ] {
        let error = import::onnx(&families().join(format!("{name}.onnx"))).unwrap_err();
        let text = error.to_string();
        println!("{text}");
        let StudentError::Unsupported {
            node: found,
            operator: op,
            ..
        } = error
        else {
            panic!("{name}: {text}");
        };
        assert_eq!((&*found, &*op), (node, operator), "{name}");
        assert!(text.contains(node) && text.contains(operator), "{text}");
    }
    assert!(matches!(
        import::onnx_bytes(b"no model"),
        Err(StudentError::Import(_))
    ));
}

/// A softmax at the end goes, with a note; in the middle it is refused. Constants become layers.
#[test]
fn softmax_and_constants() {
    let build = |last: bool| {
        let mut g = OnnxGraph::new("small");
        let row = [Dim::Symbol("batch"), Dim::Size(3)];
        let x = g.input("x", &row);
        g.floats("factor", &[3], &[0.5, 2.0, -1.0]);
        g.floats("one", &[], &[1.0]);
        let y = g.node("Relu", "relu", &[&x], &[]);
        let y = g.node("Sub", "rest", &["one", &y], &[]);
        let y = g.node("Relu", "positive", &[&y], &[]);
        let y = g.node("Mul", "scaled", &[&y, "factor"], &[]);
        let mut y = g.node("Softmax", "shares", &[&y], &[("axis", Attribute::Int(-1))]);
        if !last {
            y = g.node("Tanh", "tanh", &[&y], &[]);
        }
        g.output("y", &y, &row);
        import::onnx_bytes(&g.into_model(&[]))
    };
    let student = build(true).unwrap();
    assert_eq!(
        student.notes,
        ["the softmax `shares` at the end is left out"]
    );
    let x = vec![0.25, 3.0, -1.0];
    let got = engine(student.network.graph(), student.weights.values(), &[x]);
    assert_eq!(got, [[0.375, 0.0, -1.0]]);
    let error = build(false).unwrap_err().to_string();
    assert!(
        error.contains("`shares`") && error.contains("Softmax"),
        "{error}"
    );
}
