//! Where results go: never over what is read, whole or not at all. And arguments that do not fit.

use std::ffi::OsStr;
use std::path::Path;

use crate::program::{
    Ran, ampoule, ampoule_in, contents, fixture, photo, photos, quantize_args, vww_amp, vww_onnx,
};
use crate::words;

fn quantize(output: &Path, more: &[&OsStr]) -> Ran {
    let args = quantize_args(output);
    ampoule(
        args.iter()
            .map(|a| a.as_os_str())
            .chain(more.iter().copied()),
    )
}

#[test]
fn outputs_that_can_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    std::fs::write(inside("file"), "x").unwrap();
    let before = contents(folder.path());
    for output in [
        inside("none/out.amp"),
        inside("file/out.amp"),
        folder.path().to_owned(),
    ] {
        quantize(&output, &[]).fails_with_advice(&["cannot write", output.to_str().unwrap()]);
        let (good, onnx) = (inside("out.amp"), vww_onnx());
        quantize(&good, &words!["--report", &output]).fails_with_advice(&["cannot write"]);
        ampoule(words![
            "compare",
            &onnx,
            vww_amp(),
            "--data",
            photos(),
            "--html",
            &output
        ])
        .fails_with_advice(&["cannot write"]);
    }
    ampoule(words!["demo", "--out", &inside("file")]).fails_with_advice(&["cannot write", "file"]);
    if cfg!(unix) {
        quantize("/dev/null".as_ref(), &[]).fails_with_advice(&["/dev/null", "no ordinary file"]);
    }
    assert!(contents(folder.path()) == before);
}

#[test]
fn folders_that_may_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o500)).unwrap();
    }
    let output = folder.path().join("out.amp");
    if std::fs::File::create(&output).is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    quantize(&output, &[]).fails_with_advice(&["cannot write", "out.amp"]);
    let demo = folder.path().join("demo");
    ampoule(words!["demo", "--no-training", "--out", &demo])
        .fails_with_advice(&["cannot write", "demo"]);
}

#[test]
fn outputs_never_replace_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::copy(vww_onnx(), &model).unwrap();
    std::fs::copy(vww_amp(), folder.path().join("model.amp")).unwrap();
    let before = contents(folder.path());
    let run = |words: &str| {
        let photos = photos();
        let words = words.split(' ').map(OsStr::new);
        let words = words.map(|w| if w == "PHOTOS" { photos.as_os_str() } else { w });
        ampoule_in(folder.path(), words.collect::<Vec<_>>())
    };
    run("quantize model.onnx --calibration PHOTOS -o model.onnx")
        .fails_with_advice(&["would be overwritten"]);
    run("quantize model.onnx --calibration PHOTOS -o ./model.onnx")
        .fails_with_advice(&["would be overwritten"]);
    run("quantize model.onnx --calibration PHOTOS -o x.amp --report model.onnx")
        .fails_with_advice(&["would be overwritten"]);
    run("quantize model.onnx --calibration PHOTOS -o x.amp --report x.amp").fails(2, &["one file"]);
    for input in ["model.onnx", "model.amp"] {
        run(&format!(
            "compare model.onnx model.amp --data PHOTOS --html {input}"
        ))
        .fails_with_advice(&["would be overwritten", input]);
    }
    assert!(contents(folder.path()) == before);
    // An older result is replaced, and nothing else appears.
    run("quantize model.onnx --calibration PHOTOS --samples 2 -o model.amp").text();
    assert_eq!(contents(folder.path()).len(), before.len());
}

#[test]
fn labels_must_be_one_per_class() {
    let folder = tempfile::tempdir().unwrap();
    let (labels, output) = (
        folder.path().join("labels.txt"),
        folder.path().join("out.amp"),
    );
    for (text, what) in [
        ("only\n", "1 labels, but the model has 2 classes"),
        ("a\nb\nc\n", "3 labels, but the model has 2 classes"),
        ("", "has no labels"),
    ] {
        std::fs::write(&labels, text).unwrap();
        let before = contents(folder.path());
        quantize(&output, &words!["--labels", &labels]).fails_with_advice(&["labels.txt", what]);
        ampoule(words![
            "eval",
            vww_amp(),
            "--data",
            photos(),
            "--labels",
            &labels
        ])
        .fails_with_advice(&["labels.txt", what]);
        assert!(contents(folder.path()) == before);
    }
    std::fs::write(&labels, [0xff, 0xfe, b'\n']).unwrap();
    quantize(&output, &words!["--labels", &labels]).fails_with_advice(&["not UTF-8"]);
    std::fs::write(&labels, "cat\ndog\n").unwrap();
    let ran = ampoule(words![
        "eval",
        vww_amp(),
        "--data",
        photos(),
        "--labels",
        &labels
    ]);
    ran.fails(1, &["person", "no class"]);
    let missing = folder.path().join("none.txt");
    quantize(&output, &words!["--labels", &missing]).fails_with_advice(&["none.txt"]);
}

#[test]
fn label_files_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("labels.csv");
    std::fs::copy(photo(), folder.path().join("a.jpg")).unwrap();
    let eval = |text: &str| {
        std::fs::write(&table, text).unwrap();
        ampoule(words!["eval", vww_amp(), "--data", folder.path(), "--json"])
    };
    for (text, words) in [
        ("", ["labels.csv", "line 1"]),
        ("name\na.jpg\n", ["labels.csv", "line 1"]),
        ("file,class\na.jpg,cow\n", ["labels.csv", "line 2"]),
        ("file,class\na.jpg,-1\n", ["labels.csv", "line 2"]),
        ("file,class\na.jpg,7\n", ["a.jpg", "class 7"]),
        ("file,class\n../a.jpg,1\n", ["has no labels", "labels.csv"]),
    ] {
        eval(text).fails_with_advice(&words);
    }
    let json = eval("file,class\na.jpg,person\nlost.jpg,person\n").json();
    assert_eq!(
        (&json["top1"]["total"], &json["rows_without_file"]),
        (&1.into(), &1.into())
    );
}

/// Labels come out of files, and must not steer the terminal.
#[test]
fn labels_can_not_hold_commands_for_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let (labels, output) = (folder.path().join("l.txt"), folder.path().join("out.amp"));
    std::fs::write(&labels, "\x1b[2Jno\nyes\x07\n").unwrap();
    quantize(&output, &words!["--labels", &labels]).text();
    let text = ampoule(words!["run", &output, photo()]).text();
    assert!(
        text.contains("[2Jno") && !text.contains(['\x1b', '\x07']),
        "{text}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn paths_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join(OsStr::from_bytes(b"x\xff.amp"));
    let json = quantize(&output, &words!["--json"]).json();
    assert!(
        json["artifact"]
            .as_str()
            .unwrap()
            .ends_with("x\u{fffd}.amp")
    );
    let photo = folder.path().join(OsStr::from_bytes(b"\xfe.jpg"));
    std::fs::copy(crate::program::photo(), &photo).unwrap();
    ampoule(words!["run", &output, &photo, "--json"]).json();
}

#[test]
fn arguments_that_do_nothing_are_refused() {
    let eval = |model: &Path, more: &[&str]| {
        let data = photos();
        let words = words!["eval", model, "--data", &data];
        ampoule(
            words
                .into_iter()
                .chain(more.iter().map(OsStr::new))
                .collect::<Vec<_>>(),
        )
    };
    eval(vww_amp(), &["--preset", "lite"]).fails(2, &["an artifact has its own"]);
    eval(vww_amp(), &["--like", "x.amp"]).fails(2, &["an artifact has its own"]);
    eval(vww_amp(), &["--input-shape", "x:1,2"]).fails(2, &["--input-shape"]);
    eval(vww_onnx(), &["--isa", "portable"]).fails(2, &["--isa is for artifacts"]);
    ampoule(words!["inspect", vww_amp(), "--input-shape", "x:1"]).fails(2, &["--input-shape"]);

    let folder = tempfile::tempdir().unwrap();
    let float = |onnx: &Path, more: &[&str]| {
        let words = words!["quantize", onnx, "--float", "-o", "x.amp"];
        let more = more.iter().map(OsStr::new);
        ampoule_in(folder.path(), words.into_iter().chain(more))
    };
    for option in [
        &["--equalise"][..],
        &["--range", "mse"],
        &["--weight-range", "mse"],
        &["--no-bias-correction"],
        &["--samples", "4"],
        &["--deny-fallback"],
        &["--calibration", photos().to_str().unwrap()],
    ] {
        float(vww_onnx(), option).fails(2, &[option[0], "--float"]);
    }
    let sensor = fixture("models/mlperf-tiny/ad_autoencoder_float.onnx");
    for option in [&["--bgr"][..], &["--mean", "1"], &["--size", "8x8"]] {
        float(&sensor, option).fails(2, &["[1, 640]", "pictures"]);
    }
    let output = folder.path().join("x.amp");
    quantize(&output, &words!["--weights", "f16"]).fails(2, &["--weights f16"]);
    assert!(contents(folder.path()).is_empty());
    float(vww_onnx(), &["--weights", "f16"]).text();
}

#[test]
fn wrong_usage_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let onnx = vww_onnx();
    for (words, what) in [
        (
            words!["run", vww_amp(), photo(), "--isa", "mmx"].to_vec(),
            "portable, avx2",
        ),
        (
            words!["bench", vww_amp(), "--isa", "mmx"].to_vec(),
            "avx512vnni",
        ),
        (
            words!["bench", vww_amp(), "--runs", "0"].to_vec(),
            "0 is not in",
        ),
        (
            words!["bench", vww_amp(), "--seconds", "nan"].to_vec(),
            "expected seconds",
        ),
        (
            words!["bench", vww_amp(), "--seconds", "-1"].to_vec(),
            "expected seconds",
        ),
        (
            words!["run", vww_amp(), photo(), "--threads", "0"].to_vec(),
            "0 is not in",
        ),
        (words!["run", vww_amp()].to_vec(), "required"),
        (
            words!["quantize", &onnx, "-o", "x.amp"].to_vec(),
            "--calibration",
        ),
        (
            words!["quantize", &onnx, "--float", "-o", "x", "--range", "best"].to_vec(),
            "best",
        ),
        (
            words![
                "quantize",
                &onnx,
                "--float",
                "-o",
                "x",
                "--range",
                "percentile:nan"
            ]
            .to_vec(),
            "nan",
        ),
        (
            words!["quantize", &onnx, "--float", "-o", "x", "--std", "0"].to_vec(),
            "--std not 0",
        ),
        (
            words!["quantize", &onnx, "--float", "-o", "x", "--size", "1x1"].to_vec(),
            "96x96",
        ),
        (
            words!["quantize", &onnx, "--float", "-o", "x", "--size", "0x1"].to_vec(),
            "WxH",
        ),
        (words!["melt"].to_vec(), "unrecognized subcommand"),
    ] {
        ampoule_in(folder.path(), words).fails(2, &[what]);
    }
    assert!(contents(folder.path()).is_empty());
}
