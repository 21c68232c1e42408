//! Image and text towers from captions.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use crate::commands::number;
use crate::program::{ampoule, fixture};
use crate::reports::is_self_contained;
use crate::words;

/// Sixteen pictures with captions.
fn list() -> String {
    let mut list = String::new();
    for group in ["food-drink", "animals-nature"] {
        let folder = fixture("demo/emoji").join(group);
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        for (i, file) in files.iter().take(8).enumerate() {
            let line =
                serde_json::json!({ "path": file, "captions": [format!("{group} {i}"), group] });
            writeln!(list, "{line}").unwrap();
        }
    }
    list
}

#[test]
fn towers_from_captions() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, out) = (folder.path().join("pairs.jsonl"), folder.path().join("out"));
    fs::write(&pairs, list()).unwrap();
    let vocabulary = fixture("tokenizer/vocab.txt");
    let args = words![
        "distill",
        "--pairs",
        &pairs,
        "--eval",
        &pairs,
        "--vocabulary",
        &vocabulary,
        "--student",
        "clip-mini",
        "--batch",
        "8",
        "--epochs",
        "2",
        "--threads",
        "1",
        "--json",
        "-o",
        &out
    ];
    let lines = ampoule(args).text();
    let result: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    for file in [
        "image.onnx",
        "text.onnx",
        "image.amp",
        "text.amp",
        "vocab.txt",
    ] {
        assert!(out.join(file).exists(), "{file}: {result}");
    }
    is_self_contained(&fs::read_to_string(out.join("report.html")).unwrap());
    ampoule(words!["selftest", &out.join("text.amp")]).text();
    let result = &result["result"];
    assert_eq!(
        (number(&result["steps"]), number(&result["pairs"])),
        (4.0, 16.0)
    );
    let rows = result["rows"].as_array().unwrap();
    for row in rows {
        let recall = &row["retrieval"]["text_to_image"];
        let [first, ten] = ["at_1", "at_10"].map(|k| number(&recall[k]));
        assert!((0.0..=ten).contains(&first) && ten <= 1.0, "{row}");
    }
    assert_eq!(rows.len(), 2);
}

#[test]
fn captions_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = folder.path().join("pairs.jsonl");
    let vocabulary = fixture("tokenizer/vocab.txt");
    let run = |text: &str| {
        fs::write(&pairs, text).unwrap();
        let out = folder.path().join("out");
        ampoule(words![
            "distill",
            "--pairs",
            &pairs,
            "--vocabulary",
            &vocabulary,
            "--student",
            "clip-mini",
            "-o",
            &out
        ])
    };
    run(&(list() + "{\"path\": 3}\n")).fails(1, &["17"]);
    run(&(list() + "{\"path\": \"nowhere.png\", \"caption\": \"x\"}\n")).fails(1, &["nowhere.png"]);
    run("").fails(1, &["pairs.jsonl"]);
}
