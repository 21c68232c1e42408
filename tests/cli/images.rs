//! Pictures of every kind: the right answer, or an error that names the file.

use std::path::Path;

use serde_json::Value;

use crate::png::{Color, bomb, plain};
use crate::program::{ampoule, contents, fixture, photo, photos, quantize_args, vww_amp, vww_onnx};
use crate::words;

fn answer(path: &Path) -> Value {
    let json = ampoule(words!["run", vww_amp(), path, "--json"]).json();
    json["results"][0]["top"].clone()
}

/// A plain picture is the same at any size and depth, in grey and in colour.
#[test]
fn plain_pictures_agree_whatever_their_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.png");
    for value in [0, 77, 255] {
        let mut answers = [
            (1, 1, 8, Color::Rgb),
            (1, 1, 16, Color::Gray),
            (96, 96, 8, Color::Rgb),
            (50, 20, 8, Color::Gray),
            (13, 30, 16, Color::Gray),
            (13, 30, 16, Color::Rgb),
            (1, 3000, 8, Color::Gray),
            (16384, 1, 8, Color::Rgb),
        ]
        .map(|(w, h, depth, color)| {
            std::fs::write(&path, plain(w, h, depth, color, value)).unwrap();
            answer(&path)
        })
        .into_iter();
        let first = answers.next().unwrap();
        assert!(answers.all(|a| a == first));
    }
}

#[test]
fn every_format_is_read() {
    let expected = answer(&fixture("calibrate/images/rgb.bmp"));
    for entry in std::fs::read_dir(fixture("calibrate/images")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            let got = answer(&path);
            assert_eq!(got.as_array().unwrap().len(), 2, "{path:?}");
            // The one that is CMYK holds the same picture.
            if path.ends_with("cmyk.jpg") {
                assert_eq!(got[0]["class"], expected[0]["class"]);
            }
        }
    }
}

/// Name, content, and words of the error.
fn bad_pictures() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = std::fs::read(photo()).unwrap();
    vec![
        ("empty.jpg", Vec::new(), "the file is empty"),
        ("zero.png", plain(0, 0, 8, Color::Rgb, 0), "no pixels"),
        ("flat.png", plain(9, 0, 8, Color::Rgb, 0), "no pixels"),
        ("bomb.png", bomb(20_000, 20_000), "too large"),
        (
            "cut.png",
            plain(50, 50, 8, Color::Rgb, 9)[..200].to_vec(),
            "damaged",
        ),
        ("cut.jpg", good[..good.len() / 8].to_vec(), "damaged"),
        ("text.jpg", b"hello".to_vec(), "not supported"),
        (
            "noise.png",
            (0..=255).cycle().take(999).collect(),
            "not supported",
        ),
    ]
}

#[test]
fn bad_pictures_are_named_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, what) in bad_pictures() {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        ampoule(words!["run", vww_amp(), &path]).fails_with_advice(&[name, what]);
    }
    let missing = folder.path().join("missing.jpg");
    ampoule(words!["run", vww_amp(), &missing]).fails_with_advice(&["missing.jpg", "cannot read"]);
    ampoule(words!["run", vww_amp(), folder.path()]).fails_with_advice(&["cannot read"]);
}

/// Among good pictures a bad one is reported, and the others are used.
#[test]
fn bad_pictures_among_good_ones() {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("person");
    std::fs::create_dir(&class).unwrap();
    let bad = bad_pictures();
    for (name, bytes, _) in &bad {
        std::fs::write(class.join(name), bytes).unwrap();
    }
    let output = folder.path().join("out.amp");
    let quantize = || {
        ampoule(words![
            "quantize",
            vww_onnx(),
            "--calibration",
            &class,
            "-o",
            &output
        ])
    };
    let eval = || ampoule(words!["eval", vww_amp(), "--data", folder.path(), "--json"]);
    let before = contents(folder.path());
    quantize().fails_with_advice(&["none of 8 images could be decoded"]);
    eval().fails_with_advice(&["none of 8 images could be decoded"]);
    assert!(contents(folder.path()) == before);

    std::fs::copy(photo(), class.join("good.jpg")).unwrap();
    let ran = quantize();
    assert_eq!(
        ran.err.matches("warning: left out").count(),
        bad.len(),
        "{ran}"
    );
    assert!(ran.text().contains("1 sample,"));
    let ran = eval();
    assert_eq!(
        ran.err.matches("warning: left out").count(),
        bad.len(),
        "{ran}"
    );
    let json = ran.json();
    assert_eq!(json["left_out"].as_array().unwrap().len(), bad.len());
    assert_eq!(json["top1"]["total"], 1);

    let ran = ampoule(words![
        "run",
        vww_amp(),
        &class.join("zero.png"),
        photo(),
        &class.join("bomb.png")
    ]);
    assert_eq!(
        (ran.code, ran.err.matches("error: ").count()),
        (1, 2),
        "{ran}"
    );
    assert!(
        ran.out.contains("785.jpg") && ran.err.matches("  try: ").count() == 2,
        "{ran}"
    );
}

#[test]
fn folders_without_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = folder.path().join("out.amp");
    let quantize = |data: &Path| {
        ampoule(words![
            "quantize",
            vww_onnx(),
            "--calibration",
            data,
            "-o",
            &output
        ])
    };
    let before = contents(folder.path());
    quantize(&empty).fails_with_advice(&["no images in", "empty"]);
    quantize(&folder.path().join("none")).fails_with_advice(&["cannot read", "none"]);
    assert!(contents(folder.path()) == before);
    ampoule(words!["compare", vww_onnx(), vww_amp(), "--data", &empty])
        .fails_with_advice(&["no images in"]);
    ampoule(words!["eval", vww_amp(), "--data", &empty]).fails_with_advice(&["no images in"]);
    std::fs::write(empty.join("notes.txt"), "x").unwrap();
    quantize(&empty).fails_with_advice(&["1 other files"]);
    // Pictures without labels.
    let unlabelled = photos().join("person");
    ampoule(words!["eval", vww_amp(), "--data", &unlabelled]).fails_with_advice(&["has no labels"]);
}

#[test]
fn files_that_may_not_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.jpg");
    std::fs::copy(photo(), &path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    }
    if std::fs::read(&path).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    ampoule(words!["run", vww_amp(), &path]).fails_with_advice(&["secret.jpg", "cannot read"]);
    ampoule(words!["inspect", &path]).fails_with_advice(&["secret.jpg", "cannot read"]);
}

#[test]
fn arrays_only() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("ad.amp");
    let onnx = fixture("models/mlperf-tiny/ad_autoencoder_float.onnx");
    ampoule(words!["quantize", &onnx, "--float", "-o", &output]).text();
    for words in [
        words!["run", &output, photo()].to_vec(),
        words!["eval", &output, "--data", photos()].to_vec(),
        words!["compare", &onnx, &output, "--data", photos()].to_vec(),
    ] {
        ampoule(words).fails_with_advice(&["ad.amp", "not sealed for pictures"]);
    }
    let words = words!["quantize", &onnx, "--calibration", photos(), "-o", &output];
    ampoule(words).fails(2, &["[1, 640]", ".npy"]);
    let more = words!["--range", "percentile:99.9"];
    ampoule(
        quantize_args(&output)
            .iter()
            .map(|a| a.as_os_str())
            .chain(more),
    )
    .text();
}
