//! Image and text towers from captions.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// Killed behind some step, it goes on to the same towers, bit for bit.
#[test]
fn killed_it_goes_on_to_the_same_towers() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = folder.path().join("pairs.jsonl");
    fs::write(&pairs, list()).unwrap();
    let vocabulary = fixture("tokenizer/vocab.txt");
    let command = |out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
        command.args(words![
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
            "4",
            "--threads",
            "1",
            "--checkpoint-every",
            "0",
            "-o",
            out
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    assert!(command(&whole).status().unwrap().success());
    let mut child = command(&killed).spawn().unwrap();
    let started = Instant::now();
    while !killed.join("run/checkpoint.previous.bin").exists() {
        assert!(started.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!killed.join("image.onnx").exists());
    assert!(command(&killed).status().unwrap().success());
    for file in ["image.onnx", "text.onnx", "image.amp", "text.amp"] {
        let [a, b] = [&whole, &killed].map(|out| fs::read(out.join(file)).unwrap());
        assert!(a == b, "{file}");
    }
}

/// A picture tower from a file, and a text tower that learns texts without pictures first, from a teacher of
/// its own kind.
#[test]
fn a_tower_from_a_file_and_texts_without_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (pairs, texts) = (path("pairs.jsonl"), path("texts.txt"));
    fs::write(&texts, "fruit\n\nanimal, cat\ndog\n").unwrap();
    fs::write(&pairs, list()).unwrap();
    let vocabulary = fixture("tokenizer/vocab.txt");
    let distill = |student: &str, out: &str, more: &[&OsStr]| {
        let out = path(out);
        let args = words![
            "distill",
            "--pairs",
            &pairs,
            "--eval",
            &pairs,
            "--vocabulary",
            &vocabulary,
            "--student",
            student,
            "--batch",
            "8",
            "--epochs",
            "1",
            "--threads",
            "1",
            "--json",
            "-o",
            &out
        ];
        ampoule([&args[..], more].concat())
    };
    distill("clip-mini", "first", &[]).text();
    let (text, trunk) = (path("first").join("text.onnx"), path("trunk.onnx"));
    let size = ["--size", "64", "--classes", "32"].map(OsStr::new);
    let export = words!["zoo", "export", "tinyvit-mini", "--fold", "-o", &trunk];
    ampoule([&export[..], &size].concat()).text();
    let student = trunk.to_str().unwrap();
    let lesson = words![
        "--text-teacher",
        &text,
        "--texts",
        &texts,
        "--text-epochs",
        "2"
    ];
    let lines = distill(student, "second", &lesson).text();
    let result: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let rows = result["result"]["rows"].as_array().unwrap();
    let parameters = |row: &serde_json::Value| number(&row["image"]["parameters"]);
    // The network's 32 outputs go through 512 and 128.
    let head = (32 * 512 + 512 + 512 * 128 + 128) as f64;
    assert!(parameters(&rows[0]) > head + 2e5, "{result}");
    let metrics = fs::read_to_string(path("second/run/texts/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"cosine\""), "{metrics}");
    let kept = |name: &str| {
        let files = fs::read_dir(path(name).join("run")).unwrap();
        let names = files.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.ends_with(".f32")).count()
    };
    assert_eq!(kept("second"), 3, "captions, texts, and what is asked with");
    // Without a teacher there is nothing that texts could say.
    let more = words!["--texts", &texts];
    distill("clip-mini", "third", &more).fails(2, &["--text-teacher"]);
    let broken = words!["--loss-weights", "1,1"];
    distill("clip-mini", "third", &broken).fails(2, &["1,1,4,1"]);
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
