//! ONNX files that can't become an artifact.

use std::path::Path;

use crate::program::{Ran, ampoule, contents, fixture, npy, photos, vww_onnx};
use crate::protobuf::{Dim, field, integer, model, node, port, tensor};
use crate::words;

const SHAPE: [Dim; 2] = [Dim::Size(1), Dim::Size(4)];

/// One node between `x` and `y`, both of four values.
fn single(node: Vec<u8>, initializers: &[Vec<u8>]) -> Vec<u8> {
    model(
        17,
        &[node],
        initializers,
        &[port("x", 1, &SHAPE)],
        &[port("y", 1, &[])],
    )
}

/// Quantises a model of four inputs, and checks that only an artifact may be new in the folder.
fn quantize(folder: &Path, onnx: &[u8]) -> Ran {
    let (file, output, samples) = (
        folder.join("bad.onnx"),
        folder.join("out.amp"),
        folder.join("x.npy"),
    );
    std::fs::write(&file, onnx).unwrap();
    npy(
        &samples,
        "(2, 4)",
        [0.5, -1.0, 2.0, 0.0, 1.0, 1.5, -2.0, 0.25],
    );
    let before = contents(folder);
    let ran = ampoule(words![
        "quantize",
        &file,
        "--calibration",
        &samples,
        "-o",
        &output
    ]);
    if ran.code != 0 {
        assert!(
            contents(folder) == before,
            "something was left behind: {ran}"
        );
    }
    ran
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read(vww_onnx()).unwrap();
    let mut cut_in_the_header = good.clone();
    cut_in_the_header.truncate(40);
    for (bytes, words) in [
        (&[][..], ["bad.onnx", "empty"]),
        (&good[..good.len() / 2], ["bad.onnx", "truncated"]),
        (&cut_in_the_header, ["bad.onnx", "truncated"]),
        (b"hello, this is text", ["bad.onnx", "not an ONNX model"]),
    ] {
        quantize(folder.path(), bytes).fails_with_advice(&words);
        let file = folder.path().join("bad.onnx");
        ampoule(words!["inspect", &file]).fails_with_advice(&words);
        ampoule(words!["eval", &file, "--data", photos()]).fails_with_advice(&words);
    }
    let missing = folder.path().join("none.onnx");
    ampoule(words!["inspect", &missing]).fails_with_advice(&["none.onnx"]);
    let odd: Vec<u8> = good
        .iter()
        .enumerate()
        .map(|(i, b)| if i % 1009 == 5 { !b } else { *b })
        .collect();
    let _ = quantize(folder.path(), &odd).fails(1, &["bad.onnx"]);
}

#[test]
fn operators_are_named_with_their_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let unknown = single(node("odd", "Frobnicate", &["x"], &["y"], &[]), &[]);
    quantize(folder.path(), &unknown).fails(1, &["bad.onnx", "`odd`", "Frobnicate", "1, 4"]);
    let unsupported = single(node("bend", "Cosh", &["x"], &["y"], &[]), &[]);
    quantize(folder.path(), &unsupported).fails(1, &["bad.onnx", "`bend`", "Cosh", "1,4"]);
}

#[test]
fn weights_outside_the_folder_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    std::fs::create_dir(&inside).unwrap();
    let secret: Vec<u8> = [1f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    std::fs::write(folder.path().join("secret.bin"), &secret).unwrap();
    std::fs::write(inside.join("own.bin"), &secret).unwrap();
    let external = |location: &str| {
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        let dims = [integer(1, 1), integer(1, 4)].concat();
        let weights = [
            dims,
            integer(2, 1),
            field(8, b"w"),
            field(13, &entry),
            integer(14, 1),
        ];
        single(
            node("add", "Add", &["x", "w"], &["y"], &[]),
            &[weights.concat()],
        )
    };
    quantize(&inside, &external("own.bin")).text();
    std::fs::remove_file(inside.join("out.amp")).unwrap();
    let absolute = folder.path().join("secret.bin");
    for location in [
        "../secret.bin",
        absolute.to_str().unwrap(),
        "none.bin",
        "a/../../secret.bin",
    ] {
        quantize(&inside, &external(location)).fails(1, &["external file", location]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret.bin", inside.join("link.bin")).unwrap();
        quantize(&inside, &external("link.bin")).fails(1, &["external file", "link.bin"]);
    }
}

#[test]
fn weights_that_are_no_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for (value, shown) in [(f32::NAN, "is NaN"), (f32::INFINITY, "is inf")] {
        let mut weights = [0.5f32; 16];
        weights[5] = value;
        let gemm = single(
            node("fc", "MatMul", &["x", "w"], &["y"], &[]),
            &[tensor("w", &[4, 4], &weights)],
        );
        quantize(folder.path(), &gemm).fails(1, &["`fc`", "element 5", shown]);
    }
}

#[test]
fn token_ids_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (array, output) = (folder.path().join("x.npy"), folder.path().join("x.amp"));
    let onnx = fixture("models/families/clip_text-tracer17.onnx");
    ampoule(words!["quantize", &onnx, "--float", "-o", &output]).text();
    let ids = |last: f32| (0..12).map(move |i| if i == 11 { last } else { 1.0 });
    npy(&array, "(1, 12)", ids(47.0));
    ampoule(words!["run", &output, &array]).text();
    for bad in [48.0, 3.7] {
        npy(&array, "(1, 12)", ids(bad));
        let what = format!("token id {bad} at position 11");
        let words = ["x.npy", "sample 0", &what, "from 0 to 47"];
        ampoule(words!["run", &output, &array]).fails_with_advice(&words);
        let other = folder.path().join("y.amp");
        let quantize = words!["quantize", &onnx, "--calibration", &array, "-o", &other];
        ampoule(quantize).fails_with_advice(&words);
    }
}

#[test]
fn samples_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (array, output) = (folder.path().join("x.npy"), folder.path().join("x.amp"));
    let onnx = fixture("models/mlperf-tiny/ad_autoencoder_float.onnx");
    let quantize = || {
        let before = contents(folder.path());
        let ran = ampoule(words![
            "quantize",
            &onnx,
            "--calibration",
            &array,
            "-o",
            &output
        ]);
        assert!(contents(folder.path()) == before, "{ran}");
        ran
    };
    npy(&array, "(2, 641)", [0.0; 1282]);
    quantize().fails_with_advice(&["x.npy", "[1, 640]", "[2, 641]"]);
    npy(&array, "(0, 640)", []);
    quantize().fails_with_advice(&["x.npy", "no samples"]);
    npy(
        &array,
        "(1, 640)",
        (0..640).map(|i| if i == 7 { f32::NAN } else { 0.0 }),
    );
    quantize().fails_with_advice(&["x.npy", "element 7 is NaN"]);
    npy(&array, "(1, 640)", [0.0; 639]);
    quantize().fails_with_advice(&["x.npy", "640 elements"]);
    std::fs::write(&array, b"hello").unwrap();
    quantize().fails_with_advice(&["x.npy", "not a NumPy array"]);
    // Activations that never change still give an artifact.
    npy(&array, "(1, 640)", [0.0; 640]);
    ampoule(words![
        "quantize",
        &onnx,
        "--calibration",
        &array,
        "-o",
        &output
    ])
    .text();
}
