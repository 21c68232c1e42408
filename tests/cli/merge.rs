//! `ampoule merge` against PEFT's adapters and PyTorch's outputs.

use std::fs;
use std::path::Path;

use ampoule_quantize::import::Oracle;
use ampoule_quantize::merge::OnnxFile;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::program::{ampoule, fixture};
use crate::words;

const INPUT: [usize; 4] = [1, 3, 16, 16];

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let (words, _) = bytes.as_chunks();
    words.iter().map(|w| f32::from_le_bytes(*w)).collect()
}

/// Largest difference of a model's output to a file of it.
fn error(model: &Path, expected: &str) -> f32 {
    let input = floats(&fixture("merge/input.bin"));
    let outputs = Oracle::load(model)
        .unwrap()
        .run(&[(&INPUT, &input)])
        .unwrap();
    let expected = floats(&fixture(&format!("merge/{expected}.bin")));
    let pairs = outputs[0].1.iter().zip(&expected);
    assert_eq!(outputs[0].1.len(), expected.len());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Names that exporters rename, ranks and alphas per layer, convolutions: the merged model computes what PyTorch
/// does with base and adapter.
#[test]
fn merged_models_compute_base_and_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let merged = folder.path().join("m.onnx");
    for base in ["tracer", "dynamo"] {
        let base = fixture(&format!("merge/{base}.onnx"));
        assert!(error(&base, "base") < 1e-5);
        for adapter in ["lora", "rslora"] {
            assert!(error(&base, adapter) > 0.01, "the fixture changes nothing");
            let weights = fixture(&format!("merge/{adapter}/adapter_model.safetensors"));
            let json = ampoule(words!["merge", &base, &weights, "-o", &merged, "--json"]).json();
            let layers = json["layers"].as_array().unwrap();
            assert_eq!(layers.len(), 7);
            let find = |name: &str| layers.iter().find(|l| l["layer"] == name).unwrap();
            assert_eq!(find("blocks.0.qkv")["rank"], 2);
            assert_eq!(find("blocks.1.qkv")["alpha"], 11.0);
            let error = error(&merged, adapter);
            assert!(error < 1e-5, "{adapter}: {error:e}");
            let nodes = |p: &Path| OnnxFile::read(p).unwrap().nodes();
            assert_eq!(nodes(&base), nodes(&merged));
        }
    }
}

#[test]
fn means_are_those_of_onnx_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let merged = folder.path().join("m.onnx");
    let [base, other] = ["tracer", "other"].map(|n| fixture(&format!("merge/{n}.onnx")));
    let share = format!("{}:0.3", other.display());
    let args = words!["merge", &base, "--average", &share, "-o", &merged];
    assert!(ampoule(args).text().contains("70.0 % of the base"));
    assert!(error(&merged, "average") < 1e-5);
    // A mean of a model with itself is the model.
    let args = words!["merge", &base, "--average", &base, "-o", &merged];
    ampoule(args).text();
    assert_eq!(fs::read(&base).unwrap(), fs::read(&merged).unwrap());
    let dynamo = fixture("merge/dynamo.onnx");
    let args = words!["merge", &base, "--average", &dynamo, "-o", &merged];
    ampoule(args).fails_with_advice(&["not of the same graph", "30 nodes, not 77"]);
    for share in ["1.5", "-0.2", "0", "NaN"] {
        let share = format!("{}:{share}", other.display());
        let args = words!["merge", &base, "--average", &share, "-o", &merged];
        ampoule(args).misused_with_advice(&["shares"]);
    }
}

/// An adapter of one layer.
fn adapter(path: &Path, layer: &str, a: [usize; 2], b: [usize; 2], value: f32) {
    let bytes = |n: usize| value.to_le_bytes().repeat(n);
    let (a_data, b_data) = (bytes(a[0] * a[1]), bytes(b[0] * b[1]));
    let tensor =
        |shape: [usize; 2], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
    let tensors = [
        (
            format!("base_model.model.{layer}.lora_A.weight"),
            tensor(a, &a_data),
        ),
        (
            format!("base_model.model.{layer}.lora_B.weight"),
            tensor(b, &b_data),
        ),
    ];
    let file = safetensors::serialize(tensors, &None).unwrap();
    fs::write(path, file).unwrap();
}

#[test]
fn bad_adapters_say_what_to_try() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (weights, merged) = (path("a.safetensors"), path("m.onnx"));
    let base = fixture("merge/tracer.onnx");
    let merge = |extra: &[&str]| {
        let args = words!["merge", &base, &weights, "-o", &merged];
        ampoule(
            args.into_iter()
                .chain(extra.iter().map(std::ffi::OsStr::new)),
        )
    };
    adapter(&weights, "head", [2, 20], [5, 2], 0.1);
    merge(&[]).fails_with_advice(&["alpha of layer `head`", "--alpha"]);
    for alpha in ["NaN", "inf"] {
        merge(&["--alpha", alpha]).fails_with_advice(&["not finite"]);
    }
    adapter(&weights, "head", [2, 20], [5, 2], f32::NAN);
    merge(&["--alpha", "4"]).fails_with_advice(&["head.lora_A.weight` has values that are not"]);
    adapter(&weights, "head", [2, 21], [5, 2], 0.1);
    merge(&["--alpha", "4"]).fails_with_advice(&["[5, 2]", "[2, 21]", "[5, 20]"]);
    adapter(&weights, "blocks.2.qkv", [2, 20], [60, 2], 0.1);
    merge(&["--alpha", "4"]).fails_with_advice(&["no layer `blocks.2.qkv`", "qkv`", "--map"]);
    adapter(&weights, "qkv", [2, 20], [60, 2], 0.1);
    merge(&["--alpha", "4"]).fails_with_advice(&["any of", "onnx::MatMul_96", "onnx::MatMul_98"]);
    // What is ambiguous or unknown is found by the map.
    let map = path("map.json");
    fs::write(&map, r#"{"qkv": "onnx::MatMul_96"}"#).unwrap();
    merge(&["--alpha", "4", "--map", map.to_str().unwrap()]).text();
    fs::remove_file(&merged).unwrap();
    fs::write(&map, r#"{"qkv": "nowhere"}"#).unwrap();
    merge(&["--alpha", "4", "--map", map.to_str().unwrap()]).fails_with_advice(&["nowhere"]);
    fs::write(&map, r#"{"other": "onnx::MatMul_96"}"#).unwrap();
    merge(&["--alpha", "4", "--map", map.to_str().unwrap()]).fails(2, &["no adapter has"]);
    fs::write(&map, "[]").unwrap();
    merge(&["--alpha", "4", "--map", map.to_str().unwrap()]).fails(2, &["no map of names"]);
    fs::write(&weights, "no adapter").unwrap();
    merge(&[]).fails_with_advice(&["no safetensors file"]);
    let none: [(String, TensorView<'_>); 0] = [];
    fs::write(&weights, safetensors::serialize(none, &None).unwrap()).unwrap();
    merge(&[]).fails_with_advice(&["no `lora_A`"]);
    let zero = 0f32.to_le_bytes();
    let bias = TensorView::new(Dtype::F32, vec![1], &zero).unwrap();
    let tensors = [("base_model.model.head.bias", bias)];
    fs::write(&weights, safetensors::serialize(tensors, &None).unwrap()).unwrap();
    merge(&[]).fails(1, &["head.bias", "replaces a weight"]);
    ampoule(words!["merge", &base, "-o", &merged]).fails(2, &["ADAPTER"]);
    assert!(!merged.exists());
}
