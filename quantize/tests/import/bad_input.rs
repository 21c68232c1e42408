//! Models that must be refused, with an error that says why, and never with a panic.

use std::collections::HashMap;
use std::path::PathBuf;

use ampoule_quantize::import::{self, Format, ImportError, ImportOptions, Problem};

use crate::fixtures::fixtures;
use crate::protobuf::{Dim, field, integer, integers, model, node, port, tensor, tensor_i64};

fn import(bytes: &[u8]) -> Result<import::Imported, ImportError> {
    import::onnx_bytes(bytes, &ImportOptions::default())
}

fn problem(bytes: &[u8]) -> Problem {
    *import(bytes).expect_err("must be refused").problem
}

const IMAGE: [Dim; 4] = [Dim::Size(1), Dim::Size(2), Dim::Size(6), Dim::Size(6)];

/// Convolution, activation, expanded constant, flattening, linear layer, softmax.
fn small() -> Vec<u8> {
    let weights: Vec<f32> = (0..3 * 2 * 9).map(|i| i as f32 * 0.01).collect();
    let window = [
        integers("pads", &[1, 1, 1, 1]),
        integers("strides", &[2, 2]),
    ];
    let nodes = [
        node("conv", "Conv", &["x", "w", "b"], &["c"], &window),
        node("relu", "Relu", &["c"], &["r"], &[]),
        node("fill", "ConstantOfShape", &["sizes"], &["zeros"], &[]),
        node("add", "Add", &["r", "zeros"], &["a"], &[]),
        node("flatten", "Reshape", &["a", "flat"], &["f"], &[]),
        node("fc", "Gemm", &["f", "fcw", "fcb"], &["g"], &[]),
        node("prob", "Softmax", &["g"], &["y"], &[]),
    ];
    let initializers = [
        tensor("w", &[3, 2, 3, 3], &weights),
        tensor("b", &[3], &[0.1, 0.2, 0.3]),
        tensor_i64("sizes", &[4], &[1, 3, 3, 3]),
        tensor_i64("flat", &[2], &[1, -1]),
        tensor("fcw", &[27, 4], &vec![0.5; 108]),
        tensor("fcb", &[4], &[0.0; 4]),
    ];
    let output = port("y", 1, &[Dim::Size(1), Dim::Size(4)]);
    model(
        17,
        &nodes,
        &initializers,
        &[port("x", 1, &IMAGE)],
        &[output],
    )
}

/// One node between `x` and `y`.
fn single(opset: i64, node: Vec<u8>, initializers: &[Vec<u8>]) -> Vec<u8> {
    model(
        opset,
        &[node],
        initializers,
        &[port("x", 1, &IMAGE)],
        &[port("y", 1, &[])],
    )
}

fn relu(name: &str, to: &str) -> Vec<u8> {
    node(name, "Relu", &["x"], &[to], &[])
}

#[test]
fn the_small_model_is_good() {
    let imported = import(&small()).unwrap();
    assert_eq!(imported.format, Format::Onnx { opset: 17 });
    imported.graph.validate().unwrap();
}

#[test]
fn empty_and_truncated_files_are_refused() {
    assert!(matches!(problem(&[]), Problem::NotOnnx(_)));
    let good = small();
    for length in 0..good.len() {
        assert!(
            import(&good[..length]).is_err(),
            "{length} of {} bytes",
            good.len()
        );
    }
    let path = fixtures().join("models/mlperf-tiny/ic_resnet8_float.onnx");
    let good = std::fs::read(path).unwrap();
    for length in (1..64).chain((64..good.len()).step_by(good.len() / 20)) {
        assert!(
            import(&good[..length]).is_err(),
            "{length} of {} bytes",
            good.len()
        );
    }
}

#[test]
fn damaged_files_never_panic() {
    let good = small();
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut accepted = 0;
    for _ in 0..2000 {
        let mut bytes = good.clone();
        let at = random(bytes.len());
        bytes[at] = random(256) as u8;
        if let Ok(imported) = import(&bytes) {
            imported.graph.validate().unwrap();
            accepted += 1;
        }
    }
    println!("{accepted} of 2000 damaged models are still models");
}

#[test]
fn unknown_operator_is_named_with_shapes() {
    let bytes = single(17, node("odd", "Frobnicate", &["x"], &["y"], &[]), &[]);
    let message = problem(&bytes).to_string();
    for part in ["`odd`", "Frobnicate", "1, 2, 6, 6"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn unsupported_use_is_named_with_shapes() {
    let bytes = single(13, node("least", "ArgMin", &["x"], &["y"], &[]), &[]);
    let message = problem(&bytes).to_string();
    for part in ["`least`", "ArgMin", "1,2,6,6"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn constants_that_are_no_numbers_are_refused() {
    let with = |operator: &str, v: f32| {
        let c = tensor("c", &[2], &[1.0, v]);
        let node = node("sum", operator, &["x", "c"], &["y"], &[]);
        let x = port("x", 1, &[Dim::Size(3), Dim::Size(2)]);
        import(&model(17, &[node], &[c], &[x], &[port("y", 1, &[])]))
    };
    for (operator, v) in [
        ("Add", f32::NAN),
        ("Add", f32::INFINITY),
        ("Mul", f32::NEG_INFINITY),
    ] {
        let message = with(operator, v).unwrap_err().to_string();
        for part in ["`sum`", "element 1", "finite"] {
            assert!(message.contains(part), "{message}");
        }
    }
    // What masks add.
    assert!(with("Add", f32::NEG_INFINITY).is_ok());
}

#[test]
fn unknown_domain_is_refused() {
    let odd = [relu("odd", "y"), field(7, b"com.example")].concat();
    let message = problem(&single(17, odd, &[])).to_string();
    assert!(message.contains("com.example.Relu"), "{message}");
}

#[test]
fn unknown_operators_on_codes_are_pointed_out() {
    let mean = node("q", "QLinearReduceMean", &["x", "s"], &["y"], &[]);
    let message = problem(&single(13, mean, &[tensor("s", &[], &[0.1])])).to_string();
    assert!(message.contains("float original"), "{message}");
}

#[test]
fn control_flow_is_refused() {
    let inner = node("inner", "Relu", &["x"], &["z"], &[]);
    let graph = [
        field(1, &inner),
        field(2, b"body"),
        field(12, &port("z", 1, &[])),
    ]
    .concat();
    let body = |name: &str| [field(1, name.as_bytes()), field(6, &graph), integer(20, 5)].concat();
    let branches = [body("then_branch"), body("else_branch")];
    assert!(
        import(&single(
            17,
            node("choice", "If", &["x"], &["y"], &branches),
            &[]
        ))
        .is_err()
    );
    let again = node("again", "Loop", &["", "", "x"], &["y"], &[body("body")]);
    assert!(import(&single(17, again, &[])).is_err());
}

#[test]
fn opsets_outside_the_range_are_refused() {
    for opset in [0, 6, 27, 999, -1] {
        let bytes = single(opset, relu("relu", "y"), &[]);
        assert!(
            matches!(problem(&bytes), Problem::Opset { found } if found == opset),
            "{opset}"
        );
    }
}

#[test]
fn absurd_tensors_are_refused_before_allocation() {
    for dims in [
        &[1 << 40, 1 << 40][..],
        &[i64::MAX, 2],
        &[-1],
        &[1 << 33],
        &[2],
    ] {
        let bytes = single(17, relu("relu", "y"), &[tensor("w", dims, &[0.0])]);
        assert!(
            matches!(problem(&bytes), Problem::Tensor { .. }),
            "{dims:?}"
        );
    }
    let fill = node("fill", "ConstantOfShape", &["sizes"], &["y"], &[]);
    let bytes = single(17, fill, &[tensor_i64("sizes", &[3], &[1 << 20; 3])]);
    assert!(matches!(problem(&bytes), Problem::Tensor { .. }));
    let huge = [
        Dim::Size(1),
        Dim::Size(1 << 20),
        Dim::Size(1 << 20),
        Dim::Size(4),
    ];
    let bytes = model(
        17,
        &[relu("relu", "y")],
        &[],
        &[port("x", 1, &huge)],
        &[port("y", 1, &[])],
    );
    assert!(matches!(problem(&bytes), Problem::Tensor { .. }));
}

#[test]
fn data_given_twice_is_refused() {
    let twice = [tensor("w", &[1], &[0.0]), field(4, &0f32.to_le_bytes())].concat();
    assert!(matches!(
        problem(&single(17, relu("relu", "y"), &[twice])),
        Problem::Tensor { .. }
    ));
}

#[test]
fn names_and_outputs_must_be_unique_and_exist() {
    let build = |nodes: &[Vec<u8>], output: &str| {
        model(
            17,
            nodes,
            &[],
            &[port("x", 1, &IMAGE)],
            &[port(output, 1, &[])],
        )
    };
    let produced_twice = build(&[relu("a", "y"), relu("b", "y")], "y");
    assert!(matches!(problem(&produced_twice), Problem::Invalid { .. }));
    let missing = build(&[relu("a", "y")], "elsewhere");
    assert!(matches!(problem(&missing), Problem::Invalid { .. }));
    // Node names may repeat: exporters do that.
    assert!(import(&build(&[relu("same", "y"), relu("same", "z")], "z")).is_ok());
}

#[test]
fn contradictory_shapes_are_refused() {
    let add = node("add", "Add", &["x", "w"], &["y"], &[]);
    assert!(import(&single(17, add, &[tensor("w", &[5], &[0.0; 5])])).is_err());
    let conv = node("conv", "Conv", &["x", "w"], &["y"], &[]);
    assert!(import(&single(17, conv, &[tensor("w", &[1, 7, 1, 1], &[0.0; 7])])).is_err());
}

#[test]
fn open_dimensions_need_a_size() {
    let build = |dims: &[Dim]| {
        model(
            17,
            &[relu("relu", "y")],
            &[],
            &[port("x", 1, dims)],
            &[port("y", 1, &[])],
        )
    };
    let given = |shape: &[usize]| ImportOptions {
        input_shapes: HashMap::from([("x".to_owned(), shape.to_vec())]),
    };
    let batch = import(&build(&[Dim::Name("n"), Dim::Size(3)]))
        .unwrap()
        .graph;
    assert_eq!(batch.shape(batch.inputs[0].value), [1, 3]);

    let open = build(&[Dim::Name("n"), Dim::Name("width")]);
    let message = problem(&open).to_string();
    assert!(
        message.contains("width") && message.contains("--input-shape"),
        "{message}"
    );
    let sized = import::onnx_bytes(&open, &given(&[1, 7])).unwrap().graph;
    assert_eq!(sized.shape(sized.inputs[0].value), [1, 7]);
    assert!(import::onnx_bytes(&open, &given(&[1, 7, 7])).is_err());

    let square = build(&[Dim::Size(1), Dim::Name("side"), Dim::Name("side")]);
    assert!(import::onnx_bytes(&square, &given(&[1, 4, 4])).is_ok());
    let error = import::onnx_bytes(&square, &given(&[1, 4, 5])).unwrap_err();
    assert!(
        matches!(*error.problem, Problem::InputShape { .. }),
        "{error}"
    );
}

#[test]
fn inputs_that_are_neither_f32_nor_indices_are_refused() {
    let build = |kind| {
        let (x, y) = (port("x", kind, &IMAGE), port("y", kind, &[]));
        model(17, &[relu("relu", "y")], &[], &[x], &[y])
    };
    let double = problem(&build(11)).to_string();
    assert!(double.contains("Double"), "{double}");
    // Integers are indices and nothing to calculate with.
    let integer = problem(&build(7)).to_string();
    assert!(
        integer.contains("`relu`") && integer.contains("indices"),
        "{integer}"
    );
}

/// A folder that is removed at the end of a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("ampoule-import-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("model")).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An addition of weights that are in an external file.
fn external(location: &str, entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |&(key, value): &(&str, &str)| {
        field(
            13,
            &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat(),
        )
    };
    let entries: Vec<u8> = [("location", location)]
        .iter()
        .chain(entries)
        .flat_map(entry)
        .collect();
    let dims: Vec<u8> = [1, 2, 6, 6].iter().flat_map(|&d| integer(1, d)).collect();
    let weights = [dims, integer(2, 1), field(8, b"w"), entries, integer(14, 1)].concat();
    single(17, node("add", "Add", &["x", "w"], &["y"], &[]), &[weights])
}

#[test]
fn external_weights_stay_below_the_model() {
    let folder = Folder::new("external");
    let data: Vec<u8> = (0..72).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(folder.0.join("outside.bin"), &data).unwrap();
    std::fs::write(folder.0.join("model/inside.bin"), &data).unwrap();
    let load = |location: &str, entries: &[(&str, &str)]| {
        let path = folder.0.join("model/model.onnx");
        std::fs::write(&path, external(location, entries)).unwrap();
        import::onnx(&path)
    };
    load("inside.bin", &[("offset", "0"), ("length", "288")]).unwrap();

    let outside = folder.0.join("outside.bin");
    let mut refused = vec![
        ("../outside.bin", vec![]),
        (outside.to_str().unwrap(), vec![]),
        ("", vec![]),
        ("missing.bin", vec![]),
        ("inside.bin", vec![("offset", "8"), ("length", "288")]),
        (
            "inside.bin",
            vec![("offset", "18446744073709551615"), ("length", "288")],
        ),
        ("inside.bin", vec![("length", "4")]),
    ];
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink("../outside.bin", folder.0.join("model/link.bin")).unwrap();
        symlink("..", folder.0.join("model/up")).unwrap();
        refused.extend([("link.bin", vec![]), ("up/outside.bin", vec![])]);
    }
    for (location, entries) in refused {
        let error = load(location, &entries).expect_err(location);
        let found = matches!(*error.problem, Problem::ExternalData { .. });
        assert!(found, "{location}: {error}");
    }
    let error = import(&external("inside.bin", &[])).unwrap_err();
    assert!(
        matches!(*error.problem, Problem::ExternalData { .. }),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = import::onnx("/nowhere/model.onnx").unwrap_err();
    assert!(matches!(*error.problem, Problem::Read(_)));
    assert!(error.to_string().contains("/nowhere/model.onnx"));
}
