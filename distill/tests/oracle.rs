//! Networks as ONNX files against PyTorch: `tests/fixtures/zoo`, made by its `make.py`.
#![allow(missing_docs)]

#[path = "common/runs.rs"]
#[allow(dead_code)]
mod runs;

use std::path::{Path, PathBuf};

use ampoule_distill::export::{self, Settings};
use ampoule_distill::zoo::{
    Config, MODELS, MciConfig, MoatConfig, Network, TinyVitConfig, Weights, ZooError,
};
use ampoule_quantize::graph::{Graph, Op};
use ampoule_quantize::import;
use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::{prepare, to_stored};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

const TINY_VIT: TinyVitConfig = TinyVitConfig {
    size: 64,
    classes: 10,
    widths: [16, 16, 32, 32],
    depths: [1, 1, 2, 1],
    windows: [4, 4, 2],
    head_size: 16,
    drop_path: 0.0,
};

const MOAT: MoatConfig = MoatConfig {
    size: 64,
    classes: 10,
    stem: 8,
    widths: [8, 16, 32, 32],
    depths: [1, 2, 2, 1],
    windows: None,
    tables: Some([6, 3]),
    head_size: 16,
    drop_path: 0.0,
};

const MCI: MciConfig = MciConfig {
    size: 64,
    classes: 10,
    widths: [8, 12, 16, 32],
    depths: [1, 1, 2, 1],
    branches: 2,
    head_size: 8,
    drop_path: 0.0,
};

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zoo");
    folder.join(name)
}

/// The network of a case of `expected.json`.
fn config(case: &serde_json::Value) -> Config {
    let size = case["size"].as_u64().unwrap() as usize;
    let windows = case["windows"].as_array();
    let windows = windows.map(|w| w.iter().map(|n| n.as_u64().unwrap() as usize));
    let windows: Option<Vec<usize>> = windows.map(Iterator::collect);
    match case["weights"].as_str() {
        Some("tiny_vit") => Config::TinyVit(TinyVitConfig {
            size,
            windows: windows.unwrap().try_into().unwrap(),
            ..TINY_VIT
        }),
        Some("mci") => Config::Mci(MciConfig { size, ..MCI }),
        _ => Config::Moat(MoatConfig {
            size,
            windows: windows.map(|w| w.try_into().unwrap()),
            ..MOAT
        }),
    }
}

/// `make.py`'s picture.
fn picture(size: usize) -> Vec<f32> {
    let byte = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 24;
    (0..3 * size * size)
        .map(|i| byte(i) as f32 / 127.5 - 1.0)
        .collect()
}

fn onnx(network: &Network, weights: &Weights) -> Vec<u8> {
    export::onnx(network.graph(), weights.values(), &Settings::default()).unwrap()
}

fn import(onnx: &[u8]) -> Graph {
    let mut graph = import::onnx_bytes(onnx, &Default::default()).unwrap().graph;
    prepare(&mut graph, false).unwrap();
    graph
}

/// The logits that the runtime computes.
fn run(graph: &Graph, picture: &[f32], size: usize) -> Vec<f32> {
    let layout = &graph.inputs[0].layout;
    let stored = to_stored(picture, &[1, 3, size, size], layout);
    Model::float(graph)
        .unwrap()
        .run_f32(&[stored])
        .unwrap()
        .remove(0)
}

/// Of the ONNX file in our runtime, as it is trained and folded, and of the engine that trains the network.
#[test]
fn logits_are_those_of_pytorch() {
    let cases = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&cases).unwrap();
    assert_eq!(cases.len(), 10);
    for case in &cases {
        let (config, name) = (config(case), case["weights"].as_str().unwrap());
        let network = config.build().unwrap();
        let weights = Weights::read(&network, &fixture(&format!("{name}.safetensors"))).unwrap();
        let (picture, size) = (picture(config.size()), config.size());
        let expected = case["logits"].as_array().unwrap();
        let expected = expected.iter().map(|e| e.as_f64().unwrap() as f32);
        let expected: Vec<f32> = expected.collect();
        let stored = to_stored(&picture, &[1, 3, size, size], &[0, 3, 1, 2]);
        let trained = runs::engine(network.graph(), weights.values(), &[stored]).remove(0);
        let file = |fold| {
            let settings = Settings {
                fold,
                ..Settings::default()
            };
            let file = export::onnx(network.graph(), weights.values(), &settings).unwrap();
            run(&import(&file), &picture, size)
        };
        for (who, got) in [
            ("file", file(false)),
            ("folded", file(true)),
            ("engine", trained),
        ] {
            let error = runs::difference(&got, &expected);
            println!("{name} {size} {} {who}: {error:.1e}", case["windows"]);
            assert!(error < 1e-5, "{case} {who}: {error}");
        }
    }
}

/// Import recognises everything: attention is one step per block, norms are folded, nothing is left to
/// spell out a GELU.
#[test]
fn every_network_imports() {
    for model in MODELS.iter().filter(|m| m.name.ends_with("mini")) {
        let network = model.config.build().unwrap();
        let graph = import(&onnx(&network, &Weights::random(&network, 1)));
        let count = |name: &str| graph.nodes.iter().filter(|n| n.op.name() == name).count();
        let (attention, norms) = match &model.config {
            Config::TinyVit(c) => (
                c.depths[1..].iter().sum(),
                2 * c.depths[1..].iter().sum::<usize>() + 1,
            ),
            Config::Moat(c) => (
                c.depths[2..].iter().sum(),
                c.depths[2..].iter().sum::<usize>() + 1,
            ),
            Config::Mci(c) => (c.depths[3], 0),
        };
        assert_eq!(
            (count("Attention"), count("LayerNorm")),
            (attention, norms),
            "{}",
            model.name
        );
        // Branches that import merges are not multiplied any more.
        let merged = matches!(model.config, Config::Mci(_));
        assert!(graph.macs() == network.macs() || merged, "{}", model.name);
        let moves = graph
            .nodes
            .iter()
            .filter(|n| matches!(n.op, Op::Transpose(_) | Op::Slice { .. }));
        assert_eq!(moves.count(), 0, "{}", model.name);
    }
}

/// Random weights are a network that answers pictures differently.
#[test]
fn random_networks_are_alive() {
    for model in MODELS.iter().filter(|m| m.name.ends_with("mini")) {
        let network = model.config.build().unwrap();
        let graph = import(&onnx(&network, &Weights::random(&network, 5)));
        let size = model.config.size();
        let noise = run(&graph, &picture(size), size);
        let gray = run(&graph, &vec![0.5; 3 * size * size], size);
        let distance = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| (a - b).powi(2))
                .sum::<f32>()
                .sqrt()
        };
        let relative = distance(&noise, &gray) / distance(&noise, &vec![0.0; noise.len()]);
        println!("{}: {relative}", model.name);
        assert!(relative > 0.1, "{}: {relative}", model.name);
    }
}

#[test]
fn equal_seeds_give_equal_files_which_are_weights_again() {
    let folder = tempfile::tempdir().unwrap();
    let network = Config::TinyVit(TINY_VIT).build().unwrap();
    let seeded = |seed| onnx(&network, &Weights::random(&network, seed));
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
    let path = folder.path().join("small.onnx");
    std::fs::write(&path, seeded(1)).unwrap();
    let read = Weights::read(&network, &path).unwrap();
    assert_eq!(read.source(), "small.onnx");
    let (first, again) = (import(&seeded(1)), import(&onnx(&network, &read)));
    assert_eq!(run(&first, &picture(64), 64), run(&again, &picture(64), 64));
}

/// Writes the TinyViT fixture's tensors, changed.
fn changed<'a>(path: &Path, bytes: &'a [u8], change: impl Fn(&mut Vec<(String, TensorView<'a>)>)) {
    let mut tensors = SafeTensors::deserialize(bytes).unwrap().tensors();
    change(&mut tensors);
    serialize_to_file(tensors, &None, path).unwrap();
}

#[test]
fn weights_of_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let network = Config::TinyVit(TINY_VIT).build().unwrap();
    let bytes = std::fs::read(fixture("tiny_vit.safetensors")).unwrap();
    let read = || Weights::read(&network, &path).unwrap_err();
    let message = || read().to_string();

    assert!(matches!(read(), ZooError::Read { .. }));
    for bad in [&b""[..], b"hello", &bytes[..1000], &[0xff; 64]] {
        std::fs::write(&path, bad).unwrap();
        assert!(
            matches!(read(), ZooError::Safetensors { .. }),
            "{}",
            message()
        );
    }
    std::fs::write(path.with_extension("onnx"), b"no model").unwrap();
    let onnx = Weights::read(&network, &path.with_extension("onnx"));
    assert!(matches!(onnx, Err(ZooError::Onnx(_))));

    changed(&path, &bytes, |t| {
        t.retain(|(name, _)| !name.starts_with("head."))
    });
    assert!(message().starts_with("4 of the network's"), "{}", message());
    assert!(message().contains("`head.norm.weight`"), "{}", message());

    changed(&path, &bytes, |t| {
        let extra = t
            .iter()
            .find(|(name, _)| name == "head.norm.bias")
            .unwrap()
            .1
            .clone();
        t.push(("head_dist.bias".to_owned(), extra));
    });
    assert!(message().contains("a tensor that the network does not have: `head_dist.bias`"));

    for (dtype, shape, says) in [
        (
            Dtype::F32,
            5,
            "`head.fc.bias` has shape [5] where the network has [10]",
        ),
        (Dtype::F64, 10, "`head.fc.bias` holds F64"),
    ] {
        changed(&path, &bytes, |t| {
            let bias = t
                .iter_mut()
                .find(|(name, _)| name == "head.fc.bias")
                .unwrap();
            let zeros = &[0; 80][..shape * dtype.size()];
            bias.1 = TensorView::new(dtype, vec![shape], zeros).unwrap();
        });
        assert!(message().contains(says), "{}", message());
    }
}

/// Half-precision weights, as they are often published.
#[test]
fn types_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let network = Config::TinyVit(TINY_VIT).build().unwrap();
    let bytes = std::fs::read(fixture("tiny_vit.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let floats = stored
        .tensors()
        .into_iter()
        .filter(|(_, t)| t.dtype() == Dtype::F32);
    let floats: Vec<_> = floats.collect();
    for (dtype, narrow) in [
        (
            Dtype::F16,
            (|v| half::f16::from_f32(v).to_le_bytes()) as fn(f32) -> [u8; 2],
        ),
        (Dtype::BF16, |v| half::bf16::from_f32(v).to_le_bytes()),
    ] {
        let bytes: Vec<Vec<u8>> = floats
            .iter()
            .map(|(_, t)| {
                let words = t.data().as_chunks::<4>().0.iter();
                words.flat_map(|w| narrow(f32::from_le_bytes(*w))).collect()
            })
            .collect();
        let views = floats.iter().zip(&bytes).map(|((name, t), bytes)| {
            (
                name,
                TensorView::new(dtype, t.shape().to_vec(), bytes).unwrap(),
            )
        });
        serialize_to_file(views, &None, &path).unwrap();
        let weights = Weights::read(&network, &path).unwrap();
        let graph = import(&onnx(&network, &weights));
        let full = Weights::read(&network, &fixture("tiny_vit.safetensors")).unwrap();
        let full = import(&onnx(&network, &full));
        let [a, b] = [graph, full].map(|g| run(&g, &picture(64), 64));
        let error = a
            .iter()
            .zip(&b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!((1e-6..2e-2).contains(&error), "{dtype:?}: {error}");
    }
}
