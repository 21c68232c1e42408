//! `ampoule prune`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::commands::{number, shows};
use crate::program::{ampoule, fixture, photos, vww_onnx};
use crate::reports::is_self_contained;
use crate::words;

#[test]
fn structured_pruning_shrinks_everything_and_the_result_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (pruned, report) = (folder.path().join("p.onnx"), folder.path().join("p.html"));
    let args = words![
        "prune",
        vww_onnx(),
        "--structured",
        "0.5",
        "--data",
        photos(),
        "--samples",
        "4",
        "-o",
        &pruned,
        "--report",
        &report,
        "--json"
    ];
    let json = ampoule(args).json();
    for key in ["parameters", "macs", "onnx_bytes", "int8_bytes"] {
        let (before, after) = (number(&json["before"][key]), number(&json["after"][key]));
        assert!(after < 0.65 * before, "{key}: {before} to {after}");
    }
    assert_eq!(
        number(&json["after"]["onnx_bytes"]),
        fs::metadata(&pruned).unwrap().len() as f64
    );
    for group in json["groups"].as_array().unwrap() {
        assert!(group["kept"].as_u64() < group["total"].as_u64(), "{group}");
    }
    is_self_contained(&fs::read_to_string(&report).unwrap());
    let amp = folder.path().join("p.amp");
    let text = ampoule(words![
        "quantize",
        &pruned,
        "--calibration",
        photos(),
        "--samples",
        "4",
        "-o",
        &amp
    ])
    .text();
    shows(&text, "not int8     nothing");
}

#[test]
fn gradients_rank_channels_with_labels_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("p.onnx");
    let minis = fixture("minis/tinyvit-mini.onnx");
    let labels = fixture("minis/labels.txt");
    let labelled = fixture("minis/calibration");
    let how = [
        "--structured",
        "0.5",
        "--importance",
        "taylor",
        "--samples",
        "9",
    ];
    let with = |model: &Path, more: &[&OsStr]| {
        let args = words!["prune", model, "-o", &out, "--json"];
        let args = args.into_iter().chain(how.iter().map(OsStr::new));
        ampoule(args.chain(more.iter().copied()))
    };
    let labels = words!["--data", &labelled, "--labels", &labels];
    let unlabelled = words!["--data", &labelled];
    for (more, objective) in [(&labels[..], "labels"), (&unlabelled[..], "outputs")] {
        let json = with(&minis, more).json();
        assert_eq!(json["objective"], objective);
        assert!(number(&json["after"]["macs"]) < 0.65 * number(&json["before"]["macs"]));
        for group in json["groups"].as_array().unwrap() {
            let lost = number(&group["importance_lost"]);
            assert!((0.0..0.5).contains(&lost), "{group}");
        }
    }
}

#[test]
fn zeros_keep_the_shape_and_promise_no_speed() {
    let folder = tempfile::tempdir().unwrap();
    let pruned = folder.path().join("p.onnx");
    let text = ampoule(words!["prune", vww_onnx(), "--nm", "2:4", "-o", &pruned]).text();
    shows(&text, "no speed-up on this target");
    let json = ampoule(words![
        "prune",
        vww_onnx(),
        "--magnitude",
        "0.5",
        "-o",
        &pruned,
        "--json"
    ])
    .json();
    assert_eq!(json["before"]["parameters"], json["after"]["parameters"]);
    let layers = json["layers"].as_array().unwrap();
    let sum = |key: &str| layers.iter().map(|l| number(&l[key])).sum::<f64>();
    assert!((sum("zeros") / sum("weights") - 0.5).abs() < 1e-3);
}

#[test]
fn bad_requests_say_what_to_try() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("p.onnx");
    let prune = |words: &[&str]| {
        let args = words!["prune", vww_onnx(), "-o", &out];
        ampoule(args.into_iter().chain(words.iter().map(OsStr::new)))
    };
    for share in ["0", "1", "-0.5", "NaN"] {
        prune(&["--structured", share])
            .fails_with_advice(&["expected more than 0 and less than 1"]);
        prune(&["--magnitude", share]).fails_with_advice(&["expected more than 0 and less than 1"]);
    }
    prune(&["--structured", "0.5", "--keep", "nowhere"])
        .fails_with_advice(&["`nowhere`", "nearest"]);
    prune(&["--nm", "4:4"]).fails(1, &["4 of 4"]);
    prune(&["--structured", "0.5", "--importance", "energy"]).fails(2, &["give --data"]);
    prune(&["--structured", "0.5", "--importance", "taylor"]).fails(2, &["give --data"]);
    prune(&["--structured", "0.5", "--nm", "2:4"]).fails(2, &["cannot be used with"]);
    assert!(!out.exists());
}
