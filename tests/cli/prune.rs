//! `ampoule prune`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use ampoule_runtime::Isa;
use serde_json::Value;

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
        "--sweep=0.7,0.2",
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
    let page = fs::read_to_string(&report).unwrap();
    is_self_contained(&page);
    assert!(page.contains("Share against accuracy") && page.contains("Share against time"));
    let beside = fs::read(report.with_extension("json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&beside).unwrap(), json);
    // Every layer is there, what is left of them adds up, and most are timed.
    let layers = json["products"].as_array().unwrap();
    let sum = |key: &str, side: usize| layers.iter().map(|l| number(&l[key][side])).sum::<f64>();
    assert_eq!(layers.len(), 28);
    for (side, model) in ["before", "after"].into_iter().enumerate() {
        assert_eq!(sum("macs", side), number(&json[model]["macs"]));
        assert_eq!(sum("parameters", side), number(&json[model]["parameters"]));
        assert!(number(&json["others_us"][side]) > 0.0);
    }
    let timed = layers.iter().filter(|l| number(&l["us"][0]) > 0.0);
    assert_eq!(timed.count(), layers.len());
    let shares: Vec<f64> = json["sweep"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| number(&p["share"]))
        .collect();
    assert!(
        shares.len() == 3 && shares[0] == 0.0 && shares.is_sorted(),
        "{shares:?}"
    );
    let macs = |i: usize| number(&json["sweep"][i]["macs"]);
    assert!(macs(0) > macs(1) && macs(1) > macs(2));
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
    let (folders, one_folder) = (&labels[..2], labelled.join("flags"));
    let unlabelled = words!["--data", &one_folder];
    for (more, objective) in [
        (&labels[..], "labels"),
        (folders, "labels"),
        (&unlabelled[..], "outputs"),
    ] {
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
fn empty_blocks_run_faster_where_there_is_a_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let (pruned, artifact) = (folder.path().join("p.onnx"), folder.path().join("p.amp"));
    let prune = |isa: &str| {
        ampoule(words![
            "prune",
            vww_onnx(),
            "--blocks",
            "0.95",
            "-o",
            &pruned,
            "--isa",
            isa
        ])
    };
    // What this processor does not have it does not measure.
    shows(&prune("portable").text(), "no speed-up on this target");
    if Isa::Avx512Vnni.is_available() {
        shows(&prune("avx512vnni").text(), "layers skip empty blocks");
    }
    let quantize = |isa: &str| {
        ampoule(words![
            "quantize",
            &pruned,
            "--calibration",
            photos(),
            "--sparse",
            isa,
            "-o",
            &artifact
        ])
        .text()
    };
    shows(&quantize("amx"), "no speed-up on amx");
    shows(
        &quantize("avx512vnni"),
        "as lists of blocks, for avx512vnni",
    );
    shows(&ampoule(words!["inspect", &artifact]).text(), "Sparse");
    ampoule(words!["selftest", &artifact]).text();
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
            .misused_with_advice(&["expected more than 0 and less than 1"]);
        for how in ["--magnitude", "--blocks"] {
            prune(&[how, share]).misused_with_advice(&["expected more than 0 and less than 1"]);
        }
    }
    prune(&["--structured", "0.5", "--keep", "nowhere"])
        .misused_with_advice(&["`nowhere`", "nearest"]);
    let data = photos().to_str().unwrap();
    prune(&["--structured", "0.5", "--data", data, "--sweep=0.3,1.5"])
        .misused_with_advice(&["share of 1.5"]);
    prune(&["--structured", "0.5", "--sweep=0.3"]).fails(2, &["--data"]);
    prune(&["--nm", "4:4"]).fails(2, &["4 of 4"]);
    prune(&["--structured", "0.5", "--importance", "energy"]).fails(2, &["give --data"]);
    prune(&["--structured", "0.5", "--importance", "taylor"]).fails(2, &["give --data"]);
    prune(&["--structured", "0.5", "--nm", "2:4"]).fails(2, &["cannot be used with"]);
    prune(&[]).fails(2, &["--structured", "--budget-ms", "--magnitude", "--fix"]);
    prune(&["--budget-ms", "1"]).fails(2, &["--data"]);
    prune(&["--budget-ms", "1e9", "--data", data]).fails_with_advice(&["as it is"]);
    prune(&["--budget-ms", "1e-9", "--data", data, "--step", "1"])
        .fails_with_advice(&["can't be cut down"]);
    let of = |model: &Path| ampoule(words!["prune", model, "-o", &out, "--structured", "0.5"]);
    of(&fixture("models/tflite/kws_dscnn_float.tflite")).fails_with_advice(&["TFLite", "ONNX"]);
    of(crate::program::vww_amp()).fails_with_advice(&["is a sealed artifact"]);
    assert!(!out.exists());
}

#[test]
fn an_expert_that_is_left_alone_runs() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("task.onnx");
    let experts = fixture("experts/stack.onnx");
    let prune = |gate| {
        ampoule(words![
            "prune", &experts, "--fix", gate, "-o", &task, "--json"
        ])
    };
    let json = prune("/Softmax=0,0,1,0").json();
    let (before, after) = (
        number(&json["before"]["macs"]),
        number(&json["after"]["macs"]),
    );
    assert!(after < 0.4 * before, "{before} to {after}");
    ampoule(words!["inspect", &task]).text();
    let words = ["nothing that is computed is named `/Softmix`", "/Softmax"];
    prune("/Softmix=1").misused_with_advice(&words);
    prune("/Softmax=0,a").fails(2, &["`a` is no number"]);
}
