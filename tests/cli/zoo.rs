//! The zoo: numbers, files, and what is refused.

use serde_json::Value;

use crate::program::{ampoule, contents};
use crate::words;

fn names() -> Vec<Value> {
    let json = ampoule(["zoo", "list", "--json"]).json();
    json.as_array().unwrap().clone()
}

#[test]
fn list_and_info_agree() {
    let text = ampoule(["zoo", "list"]).text();
    let all = names();
    assert_eq!(all.len(), 14);
    for model in &all {
        let name = model["name"].as_str().unwrap();
        let row = text
            .lines()
            .find(|l| l.split(' ').next() == Some(name))
            .unwrap();
        let parameters = model["parameters"].to_string();
        assert!(row.contains(&parameters), "{row}");
        let info = ampoule(["zoo", "info", name, "--json"]).json();
        for key in ["parameters", "macs"] {
            assert_eq!(info[key], model[key], "{name}");
            let parts = info["parts"].as_array().unwrap().iter();
            let sum: u64 = parts.map(|p| p[key].as_u64().unwrap()).sum();
            assert_eq!(info[key], sum, "{name}");
        }
        let shown = ampoule(["zoo", "info", name]).text();
        assert!(
            shown.contains(&format!("parameters  {parameters}\n")),
            "{shown}"
        );
    }
    for row in ["5392764  1.255", "21268120  26.884", "3355348  1.041"] {
        let squeezed = |l: &str| l.split_whitespace().collect::<Vec<_>>().join("  ");
        assert!(
            text.lines().any(|l| squeezed(l).ends_with(row)),
            "{row} in\n{text}"
        );
    }
}

#[test]
fn export_inspect_and_export_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["tinyvit-mini", "tiny-moat-mini"] {
        let (first, again) = (path("first.onnx"), path("again.onnx"));
        let text = ampoule(words!["zoo", "export", name, "-o", &first]).text();
        assert!(text.contains("random, seed 0"), "{text}");
        let json = ampoule(words![
            "zoo", "export", name, "-o", &again, "--seed", "0", "--json"
        ])
        .json();
        assert_eq!(
            std::fs::read(&first).unwrap(),
            std::fs::read(&again).unwrap()
        );
        assert_eq!(json["bytes"], std::fs::metadata(&first).unwrap().len());
        let inspected = ampoule(words!["inspect", &first, "--json"]).json();
        assert_eq!(inspected["macs"], json["macs"]);
        assert_eq!(
            inspected["exporter"],
            concat!("ampoule ", env!("CARGO_PKG_VERSION"))
        );
    }

    let (first, larger) = (path("first.onnx"), path("larger.onnx"));
    ampoule(words!["zoo", "export", "tinyvit-mini", "-o", &first]).text();
    let words = words![
        "zoo",
        "export",
        "tinyvit-mini",
        "--size",
        "128",
        "--weights",
        &first,
        "-o",
        &larger
    ];
    let text = ampoule(words).text();
    assert!(text.contains("resized     4 position tables"), "{text}");
    let json = ampoule(words.into_iter().chain(words!["--json"])).json();
    assert_eq!(json["weights"], "first.onnx");
    assert_eq!(
        json["resized"][3],
        "stages.3.blocks.0.attn.attention_biases"
    );
    let inspected = ampoule(words!["inspect", &larger, "--json"]).json();
    assert_eq!(
        inspected["inputs"][0]["shape"],
        serde_json::json!([1, 128, 128, 3])
    );
    assert_eq!(inspected["macs"], json["macs"]);
}

/// Operator sets and folded norms, which `inspect` sees.
#[test]
fn forms_of_export() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (plain, folded) = (path("plain.onnx"), path("folded.onnx"));
    let export = |more: &[&str], to: &std::path::Path| {
        let words = ["zoo", "export", "mci-mini", "--json"].iter().chain(more);
        ampoule(words.map(AsRef::as_ref).chain(words!["-o", to])).json()
    };
    let first = export(&[], &plain);
    assert_eq!(first["opset"], 17);
    assert_eq!(first["folded"], false);
    let second = export(&["--opset", "20", "--fold"], &folded);
    assert_eq!(second["opset"], 20);
    assert_eq!(second["folded"], true);
    assert_eq!(second["parameters"], first["parameters"]);
    assert!(second["bytes"].as_u64() < first["bytes"].as_u64());
    let inspected = ampoule(words!["inspect", &folded, "--json"]).json();
    assert!(inspected["macs"].as_u64() < first["macs"].as_u64());
    let words = words!["zoo", "export", "mci-mini", "--opset", "18", "-o", &plain];
    let _ = ampoule(words).fails(2, &["18", "17, 20"]);
}

#[test]
fn moat_in_windows() {
    let info = |more: &[&str]| {
        let words = ["zoo", "info", "tiny-moat-0", "--json", "--size", "512"];
        ampoule(words.iter().chain(more)).json()
    };
    let (global, windowed) = (info(&[]), info(&["--window", "14,7"]));
    assert_eq!(global["parameters"], windowed["parameters"]);
    assert!(global["macs"].as_u64() > windowed["macs"].as_u64());
    assert_eq!(windowed["config"]["windows"], serde_json::json!([14, 7]));
}

#[test]
fn wrong_choices() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let fails = |words: &[&str], says: &[&str]| {
        let run = ampoule(words.iter().map(AsRef::as_ref).chain(words!["-o", &out]));
        let _ = run.fails(2, says);
    };
    let export = |more: &[&'static str]| [&["zoo", "export"], more].concat();
    fails(&export(&["tinyvit-5n"]), &["tinyvit-5n", "tinyvit-5m"]);
    fails(
        &export(&["tinyvit-5m", "--size", "250"]),
        &["250", "224 or 256"],
    );
    fails(
        &export(&["tinyvit-5m", "--size", "16"]),
        &["16", "32 at least"],
    );
    fails(
        &export(&["tinyvit-5m", "--window", "14,7"]),
        &["windows", "MOAT"],
    );
    fails(
        &export(&["moat-0", "--window", "14"]),
        &["14", "for example 14,7"],
    );
    fails(
        &export(&["moat-0", "--classes", "0"]),
        &["0", "1..=1000000"],
    );
    fails(
        &export(&["moat-0", "--seed", "1", "--weights", "x"]),
        &["--seed", "--weights"],
    );
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn weights_of_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (weights, out) = (path("moat.onnx"), path("out.onnx"));
    ampoule(words!["zoo", "export", "tiny-moat-mini", "-o", &weights]).text();
    std::fs::write(path("text.safetensors"), "hello").unwrap();
    let before = contents(folder.path());
    let export = |name: &str, weights: &std::path::Path, out: &std::path::Path| {
        ampoule(words![
            "zoo",
            "export",
            name,
            "--weights",
            weights,
            "-o",
            out
        ])
    };
    let missing = path("none.safetensors");
    export("tinyvit-mini", &missing, &out).fails_with_advice(&["none.safetensors"]);
    let text = path("text.safetensors");
    export("tinyvit-mini", &text, &out).fails_with_advice(&["text.safetensors"]);
    let mini = export("tinyvit-mini", &weights, &out);
    mini.fails_with_advice(&["not in the file", "`patch_embed.conv1.conv.weight`"]);
    let zero = export("tiny-moat-0", &weights, &out);
    zero.fails_with_advice(&["not in the file", "`stages.0.blocks.1.pre_norm.weight`"]);
    let own = export("tiny-moat-mini", &weights, &weights);
    own.fails_with_advice(&["would be overwritten"]);
    let nowhere = export("tiny-moat-mini", &weights, &path("none/out.onnx"));
    nowhere.fails_with_advice(&["cannot write"]);
    assert!(contents(folder.path()) == before);
}
