//! ONNX models that are quantised already, against ONNX Runtime's results for them.

use std::path::PathBuf;

use ampoule_quantize::import::{self, ImportOptions, Problem};
use ampoule_quantize::metrics::cosine;
use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::{QuantizeOptions, Silent, quantize, take_over};
use ampoule_quantize::scheme::is_quantised;
use ampoule_runtime::Isa;

use crate::families::samples;
use crate::fixtures::{data, fixtures, to_stored};
use crate::protobuf::{Dim, model, node, port, tensor};

fn fixture(name: &str) -> PathBuf {
    fixtures().join(format!("models/quantised/{name}.onnx"))
}

/// All three static forms run in int8 throughout, and no output is more than one step from ONNX Runtime's.
#[test]
fn static_forms_keep_their_parameters() {
    for name in ["qdq_int8", "qdq_uint8", "operators"] {
        let path = fixture(name);
        let imported = import::onnx(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(is_quantised(&imported.graph), "{name}");
        assert_eq!(imported.weight_steps.len(), 5, "{name}");
        let graph = imported.graph.clone();
        let options = QuantizeOptions::default();
        let done = take_over(imported.graph, &imported.weight_steps, &options).unwrap();
        assert_eq!(done.compiled.program.islands, [], "{name}");
        let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
        let mut session = model.session(Isa::best()).unwrap();
        let step = session.output(0).unwrap().tensor.scale;
        let (mut off, mut worst) = (0, 0f32);
        for (inputs, outputs) in samples(&path) {
            let stored = to_stored(&graph, &inputs);
            session.write_f32(0, &stored[0]).unwrap();
            session.run().unwrap();
            let mut got = vec![0.0; outputs[0].len()];
            session.read_f32(0, &mut got).unwrap();
            for (g, w) in got.iter().zip(&outputs[0]) {
                let steps = ((g - w) / step).abs();
                off += usize::from(steps > 0.01);
                worst = worst.max(steps);
            }
        }
        println!("{name:12} {off} of 20 outputs off, at most {worst:.3} steps");
        assert!(worst < 1.01, "{name}: {worst}");
    }
}

/// Without ranges in the file the model is calibrated like a float one, and says so.
#[test]
fn dynamic_ranges_are_calibrated() {
    let path = fixture("dynamic");
    let imported = import::onnx(&path).unwrap_or_else(|e| panic!("{e}"));
    assert!(!is_quantised(&imported.graph));
    let warned = imported.warnings.join("\n");
    assert!(
        warned.contains("5 layers quantise their operand"),
        "{warned}"
    );
    let samples = samples(&path);
    let stored: Vec<_> = samples
        .iter()
        .map(|(inputs, _)| to_stored(&imported.graph, inputs))
        .collect();
    let options = QuantizeOptions::default();
    let done = quantize(imported.graph, &stored, &options, &Silent).unwrap();
    assert_eq!(done.compiled.program.islands, []);
    let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
    for (x, (_, wanted)) in stored.iter().zip(&samples) {
        let got = model.run_f32(x).unwrap();
        assert!(cosine(&wanted[0], &got[0]).unwrap() > 0.999);
    }
}

/// What is quantised in a way that has no counterpart is refused by name.
#[test]
fn bad_parameters_are_refused() {
    let one = |scale: f32| {
        let nodes = [
            node("q", "QuantizeLinear", &["x", "s"], &["c"], &[]),
            node("d", "DequantizeLinear", &["c", "s"], &["y"], &[]),
        ];
        let dims = [Dim::Size(1), Dim::Size(4)];
        let bytes = model(
            17,
            &nodes,
            &[tensor("s", &[], &[scale])],
            &[port("x", 1, &dims)],
            &[port("y", 1, &[])],
        );
        import::onnx_bytes(&bytes, &ImportOptions::default())
    };
    assert!(is_quantised(&one(0.5).unwrap().graph));
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-45] {
        let error = one(scale).unwrap_err();
        let Problem::Unsupported { node, what, .. } = &*error.problem else {
            panic!("{scale}: {error}");
        };
        assert_eq!((&**node, what.contains("scale")), ("q", true));
    }
}

/// EfficientNet-Lite0 keeps ONNX Runtime's logits.
#[test]
fn lite0_is_int8_throughout() {
    let Some(data) = data() else {
        eprintln!("skipped: no data folder; set AMPOULE_DATA");
        return;
    };
    let path = data.join("imagenet-classifier/efficientnet_lite0_int8_qdq_b1.onnx");
    let imported = import::onnx(&path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(imported.weight_steps.len(), 50);
    let options = QuantizeOptions::default();
    let done = take_over(imported.graph, &imported.weight_steps, &options).unwrap();
    assert_eq!(done.compiled.program.islands, []);
    let pixels = data.join("tflite-vision/golden/input_224_u8.npy");
    let logits = data.join("imagenet-classifier/golden/logits_int8_qdq.npy");
    let (pixels, logits) = (crate::tflite::npy(&pixels), crate::tflite::npy(&logits));
    let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
    let mut worst = 1f64;
    for (x, y) in pixels.samples().zip(logits.samples()) {
        let x: Vec<f32> = x.iter().map(|v| (v - 127.0) / 128.0).collect();
        let got = model.run_f32(&[x]).unwrap();
        worst = worst.min(cosine(&y, &got[0]).unwrap());
        assert_eq!(crate::tflite::largest(&y), crate::tflite::largest(&got[0]));
    }
    println!("smallest cosine of logits {worst:.5}");
    assert!(worst > 0.995, "{worst}");
}
