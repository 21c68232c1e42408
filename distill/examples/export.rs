//! Writes networks as ONNX in every form, with inputs and the engine's outputs, for
//! `tests/fixtures/zoo/onnxruntime_check.py`:
//!
//!     cargo run --example export -- FOLDER
#![allow(missing_docs)]

#[path = "../tests/common/every_op.rs"]
mod every_op;
#[path = "../tests/common/runs.rs"]
#[allow(dead_code)]
mod runs;

use std::path::Path;

use ampoule_distill::export::{self, Opset, Settings};
use ampoule_distill::zoo::{MODELS, Weights};
use ampoule_distill_kernels::graph::{Graph, Map};
use every_op::{every_op, noises, values};

/// More than one, to see that the batch is dynamic.
const BATCH: usize = 3;

fn main() {
    let folder = std::env::args().nth(1).expect("a folder to write into");
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let graph = every_op();
    write(folder, "every-op", &graph, &values(&graph));
    for model in MODELS.iter().filter(|m| m.name.ends_with("mini")) {
        let network = model.config.build().expect("the zoo builds");
        let weights = Weights::random(&network, 3);
        write(folder, model.name, network.graph(), weights.values());
    }
}

/// `NAME-OPSET[-folded].onnx`, and `NAME.json` with inputs and outputs in the file's layout.
fn write(folder: &Path, name: &str, graph: &Graph, values: &[Vec<f32>]) {
    let maps = |ports: &[_]| ports.iter().map(|&v| graph.map(v)).collect::<Vec<Map>>();
    let ins = maps(graph.inputs());
    let given: Vec<Vec<f32>> = (0..)
        .zip(&ins)
        .map(|(i, m)| noises(BATCH * m.len(), i))
        .collect();
    let outs = runs::engine(graph, values, &given);
    let tensors = |maps: &[Map], all: &[Vec<f32>]| {
        let pairs = maps.iter().zip(all);
        pairs.map(|(&m, x)| tensor(m, x)).collect::<Vec<_>>()
    };
    let case = serde_json::json!({
        "inputs": tensors(&ins, &given),
        "outputs": tensors(&maps(graph.outputs()), &outs),
    });
    let save = |file: String, bytes: &[u8]| {
        std::fs::write(folder.join(file), bytes).expect("the folder can be written");
    };
    save(format!("{name}.json"), case.to_string().as_bytes());
    for (opset, fold) in [Opset::V17, Opset::V20]
        .into_iter()
        .flat_map(|o| [(o, false), (o, true)])
    {
        let settings = Settings {
            opset,
            fold,
            ..Settings::default()
        };
        let file = export::onnx(graph, values, &settings).expect("every layer has a form");
        let folded = if fold { "-folded" } else { "" };
        save(format!("{name}-{}{folded}.onnx", opset.number()), &file);
    }
}

fn tensor(map: Map, x: &[f32]) -> serde_json::Value {
    let mut shape = Vec::new();
    let mut all = Vec::new();
    for sample in x.chunks(map.len()) {
        let (values, sizes) = runs::as_input(sample, map);
        all.extend(values);
        shape = sizes;
    }
    shape[0] = BATCH;
    if map.pixels() == 1 {
        shape.remove(1);
    }
    serde_json::json!({"shape": shape, "values": all})
}
