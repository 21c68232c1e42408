//! ONNX files of training graphs against the engine that trains them.
#![allow(missing_docs)]

#[path = "common/every_op.rs"]
mod every_op;
#[path = "common/runs.rs"]
mod runs;

use ampoule_distill::export::{self, ExportError, Opset, Settings};
use ampoule_distill::zoo::{Config, MODELS, MciConfig, Weights};
use ampoule_distill_kernels::graph::Graph;
use ampoule_quantize::import;
use every_op::{every_op, noises, values};
use runs::{as_input, difference, engine, imported};

const SETTINGS: [(Opset, bool); 4] = [
    (Opset::V17, false),
    (Opset::V17, true),
    (Opset::V20, false),
    (Opset::V20, true),
];

/// Checks that the file computes what the engine computes, in every form.
fn check(name: &str, graph: &Graph, values: &[Vec<f32>]) {
    let maps: Vec<_> = graph.inputs().iter().map(|&v| graph.map(v)).collect();
    let given: Vec<Vec<f32>> = (0..).zip(&maps).map(|(i, m)| noises(m.len(), i)).collect();
    let expected = engine(graph, values, &given);
    let inputs: Vec<_> = given
        .iter()
        .zip(&maps)
        .map(|(x, &m)| as_input(x, m))
        .collect();
    for (opset, fold) in SETTINGS {
        let settings = Settings {
            opset,
            fold,
            ..Settings::default()
        };
        let file = export::onnx(graph, values, &settings).unwrap();
        let got = imported(&file, &inputs);
        assert_eq!(got.len(), expected.len());
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            // Rounding grows with the values, which no norm bounds in the middle of a network.
            let size = expected.iter().fold(1.0, |most: f32, v| most.max(v.abs()));
            let error = difference(got, expected) / size;
            println!("{name} {opset:?} fold {fold}, output {i}: {error:.1e}");
            assert!(error < 1e-5, "{name} {opset:?} {fold} output {i}: {error}");
        }
    }
}

#[test]
fn every_op_is_what_the_engine_computes() {
    let graph = every_op();
    check("every op", &graph, &values(&graph));
}

#[test]
fn minis_are_what_the_engine_computes() {
    for model in MODELS.iter().filter(|m| m.name.ends_with("mini")) {
        let network = model.config.build().unwrap();
        let weights = Weights::random(&network, 3);
        check(model.name, network.graph(), weights.values());
    }
}

/// Padded and windowed, with tables resized.
#[test]
fn other_sizes_are_what_the_engine_computes() {
    for model in MODELS.iter().filter(|m| m.name.ends_with("mini")) {
        let config = match model.config.clone() {
            Config::TinyVit(c) => {
                Config::TinyVit(ampoule_distill::zoo::TinyVitConfig { size: 96, ..c })
            }
            Config::Mci(_) => model.config.clone().with_size(96).unwrap(),
            moat => moat.with_size(96).unwrap().with_windows([4, 2]).unwrap(),
        };
        let network = config.build().unwrap();
        let weights = Weights::random(&network, 4);
        check(model.name, network.graph(), weights.values());
    }
}

/// Branches side by side, with norms, shortcuts and scales, become one convolution each.
#[test]
fn branches_are_one_convolution() {
    let model = ampoule_distill::zoo::find("mci-mini").unwrap();
    let Config::Mci(config) = model.config.clone() else {
        panic!("no MCi");
    };
    for branches in [1, 3] {
        let network = Config::Mci(MciConfig {
            branches,
            ..config.clone()
        });
        let network = network.build().unwrap();
        let weights = Weights::random(&network, 8);
        check("mci", network.graph(), weights.values());
        let count = |fold| {
            let settings = Settings {
                fold,
                ..Settings::default()
            };
            let file = export::onnx(network.graph(), weights.values(), &settings).unwrap();
            // An operator's type in the file: field 4 of the node, and its length.
            let nodes = |op: &str| {
                let field = [&[0x22, op.len() as u8], op.as_bytes()].concat();
                file.windows(field.len()).filter(|w| *w == field).count()
            };
            [nodes("Conv"), nodes("BatchNormalization")]
        };
        // Stem 3, merging 2 + 4 + 4, six blocks of 4, position 1 and MLP 3, last 4.
        assert_eq!(count(true), [45, 0], "{branches} branches");
        assert!(count(false)[0] > 60 && count(false)[1] > 40);
    }
}

/// Names, versions and what folding leaves.
#[test]
fn nodes_and_names() {
    let network = MODELS[0].config.build().unwrap();
    let weights = Weights::random(&network, 0);
    let file = |opset, fold| {
        let settings = Settings {
            opset,
            fold,
            ..Settings::default()
        };
        export::onnx(network.graph(), weights.values(), &settings).unwrap()
    };
    let names = |file: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.onnx");
        std::fs::write(&path, file).unwrap();
        let all = import::initializers(&path).unwrap();
        all.into_iter().map(|t| t.name).collect::<Vec<_>>()
    };
    let plain = names(&file(Opset::V17, false));
    assert!(network.parameters().iter().all(|p| plain.contains(&p.name)));
    let folded = names(&file(Opset::V17, true));
    assert!(!folded.iter().any(|n| n.contains(".bn.")), "{folded:?}");
    assert!(folded.iter().any(|n| n == "patch_embed.conv1.conv.bias"));
    let has = |file: &[u8], op: &str| file.windows(op.len()).any(|w| w == op.as_bytes());
    assert!(has(&file(Opset::V17, false), "Erf") && !has(&file(Opset::V20, false), "Erf"));
    assert!(!has(&file(Opset::V20, true), "BatchNormalization"));
}

#[test]
fn values_that_do_not_match() {
    let graph = every_op();
    let mut values = values(&graph);
    values[1].pop();
    let error = export::onnx(&graph, &values, &Settings::default()).unwrap_err();
    assert!(matches!(error, ExportError::Length { .. }), "{error}");
    assert!(error.to_string().contains("stem.bias"), "{error}");
    values.pop();
    let error = export::onnx(&graph, &values, &Settings::default()).unwrap_err();
    assert!(matches!(error, ExportError::Count { .. }), "{error}");
}
