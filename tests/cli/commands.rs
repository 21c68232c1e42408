//! Every command as a table and as JSON, which agree.

use serde_json::Value;

use crate::program::{ampoule, fixture, npy, photo, photos, quantize_args, vww_amp, vww_onnx};
use crate::protobuf::{Dim, model, node, port, tensor};
use crate::words;

/// The table and the JSON of a command.
fn both<const N: usize>(words: [&std::ffi::OsStr; N]) -> (String, Value) {
    let text = ampoule(words).text();
    let json = ampoule(words.into_iter().chain(words!["--json"])).json();
    (text, json)
}

#[track_caller]
pub fn shows(text: &str, what: &str) {
    assert!(text.contains(what), "expected `{what}` in\n{text}");
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn verify_says_what_it_could_not_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("float.amp");
    let float = words!["quantize", "--float", "--verify", "-o"];
    let args = float
        .into_iter()
        .chain([path.as_os_str(), vww_onnx().as_os_str()]);
    let ran = ampoule(args.clone());
    assert!(
        ran.code == 0 && ran.err.contains("give --calibration"),
        "{ran}"
    );
    let sample = words!["--json", "--calibration"];
    let with = args.chain(sample).chain([photo().as_os_str()]);
    let ran = ampoule(with);
    assert!(!ran.err.contains("give --calibration"), "{ran}");
    assert!(number(&ran.json()["parity_db"]) > 90.0);
}

#[test]
fn quantize() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vww.amp");
    let args = quantize_args(&path);
    let text = ampoule(&args).text();
    let bytes = std::fs::read(&path).unwrap();
    let json = ampoule(
        args.iter()
            .map(|a| a.as_os_str())
            .chain(words!["--json", "--verify"]),
    )
    .json();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(json["artifact_bytes"], bytes.len());
    let kilobytes = bytes.len() as f64 / 1e3;
    shows(&text, &format!("{kilobytes:.1} kB"));
    shows(&text, &json["digest"].as_str().unwrap()[..12]);
    shows(
        &text,
        &format!("{} nodes, {} steps", json["nodes"], json["steps"]),
    );
    assert_eq!(
        (json["samples"].as_u64(), json["format"].as_str()),
        (Some(4), Some("ONNX opset 11"))
    );
    shows(&text, "4 samples, ranges by mse");
    shows(&text, "assumed: no --preset given");
    assert_eq!(list(&json["islands"]).len(), 0);
    shows(&text, "not int8     nothing");
    assert!(number(&json["parity_db"]) > 90.0);
    assert!(json["arena_bytes"].as_u64() >= json["arena_lower_bound"].as_u64());
}

#[test]
fn inspect_an_artifact() {
    let (text, json) = both(words!["inspect", vww_amp()]);
    let steps = list(&json["steps"]);
    shows(&text, json["digest"].as_str().unwrap());
    shows(&text, &format!("{} steps", steps.len()));
    for step in steps {
        let line = format!("{}  {}", step["index"], step["op"].as_str().unwrap());
        assert!(
            text.lines().any(|l| l.trim_start().starts_with(&line)),
            "{line}"
        );
    }
    let macs: u64 = steps.iter().map(|s| s["macs"].as_u64().unwrap()).sum();
    assert_eq!(json["macs"], macs);
    assert_eq!(
        json["file_bytes"],
        std::fs::metadata(vww_amp()).unwrap().len()
    );
    let arena = &json["memory"]["banks"][0];
    shows(&text, &format!("bank 0: {arena} B"));
    let live = list(&json["memory"]["live"])
        .iter()
        .map(|n| n.as_u64().unwrap());
    assert_eq!(live.max(), json["memory"]["lower_bound"].as_u64());
    assert_eq!(json["labels"], 2);
    shows(&text, "stretched, bilinear, centre 96×96, RGB");
}

#[test]
fn inspect_an_onnx_file() {
    let (text, json) = both(words!["inspect", vww_onnx()]);
    let nodes = list(&json["nodes"]);
    shows(&text, &format!("{} nodes", nodes.len()));
    let parameters: u64 = nodes
        .iter()
        .map(|n| n["parameters"].as_u64().unwrap())
        .sum();
    assert_eq!(json["parameters"], parameters);
    shows(&text, "ONNX opset 11, tflite2onnx");
    assert_eq!(
        json["inputs"][0]["shape"],
        serde_json::json!([1, 96, 96, 3])
    );
}

#[test]
fn run_on_pictures() {
    let other = fixture("calibrate/images/cmyk.jpg");
    let (text, json) = both(words!["run", vww_amp(), photo(), &other, "--top", "2"]);
    let results = list(&json["results"]);
    assert_eq!(results.len(), 2);
    shows(&text, "the model's own probabilities");
    for result in results {
        shows(&text, result["file"].as_str().unwrap());
        assert_eq!(result["softmax_applied"], false);
        let top = list(&result["top"]);
        let sum: f64 = top.iter().map(|c| number(&c["probability"])).sum();
        assert!((sum - 1.0).abs() < 0.01, "{sum}");
        assert!(number(&top[0]["probability"]) >= number(&top[1]["probability"]));
        for class in top {
            let percent = 100.0 * number(&class["probability"]);
            let label = class["label"].as_str().unwrap();
            let line = format!("{percent:.2} %      {}  {label}", class["class"]);
            shows(&text, &line);
        }
    }
    assert_eq!(results[0]["top"][0]["label"], "person");
    let one = ampoule(words!["run", vww_amp(), photo(), "--top", "1", "--json"]).json();
    assert_eq!(list(&one["results"][0]["top"]).len(), 1);
}

#[test]
fn profile_has_a_row_for_every_step() {
    let (text, json) = both(words!["run", vww_amp(), photo(), "--profile"]);
    let steps = list(&json["steps"]);
    let inspected = ampoule(words!["inspect", vww_amp(), "--json"]).json();
    assert_eq!(steps.len(), list(&inspected["steps"]).len());
    let shares: f64 = steps.iter().map(|s| number(&s["share"])).sum();
    assert!((shares - 1.0).abs() < 1e-6, "{shares}");
    shows(&text, "Depthwise");
    shows(&text, ", 1 thread\n");
}

/// Real-valued samples, through an array file, against ONNX Runtime's output.
#[test]
fn run_on_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let (array, float) = (folder.path().join("ad.npy"), folder.path().join("ad.amp"));
    let read = |name: &str| -> Vec<f32> {
        let bytes = std::fs::read(fixture("models/mlperf-tiny").join(name)).unwrap();
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    };
    let input = read("ad_autoencoder_float.input.bin");
    let expected = read("ad_autoencoder_float.output.bin");
    npy(
        &array,
        &format!("({}, 640)", input.len() / 640),
        input.iter().copied(),
    );
    let onnx = fixture("models/mlperf-tiny/ad_autoencoder_float.onnx");
    let text = ampoule(words!["quantize", &onnx, "--float", "-o", &float]).text();
    shows(&text, "everything: sealed in float");

    let (text, json) = both(words!["run", &float, &array]);
    let got: Vec<f32> = list(&json["results"])
        .iter()
        .flat_map(|r| list(&r["outputs"][0]["values"]))
        .map(|v| number(v) as f32)
        .collect();
    assert_eq!(got.len(), expected.len());
    let most = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (got, expected) in got.iter().zip(&expected) {
        assert!(
            (got - expected).abs() <= 1e-5 * most,
            "{got} for {expected}"
        );
    }
    shows(&text, "sample 0");
    shows(&text, &format!("{:.4}", got[0]));

    let int8 = folder.path().join("ad8.amp");
    ampoule(words![
        "quantize",
        &onnx,
        "--calibration",
        &array,
        "-o",
        &int8,
        "--deny-fallback"
    ])
    .text();
    let compared = ampoule(words!["compare", &onnx, &int8, "--data", &array, "--json"]).json();
    assert_eq!(compared["samples"], (input.len() / 640).min(16));
    let threads = ampoule(words!["run", &int8, &array, "--threads", "2", "--json"]).json();
    let one = ampoule(words!["run", &int8, &array, "--json"]).json();
    assert_eq!(threads["results"], one["results"]);
}

/// An encoder's output is a row of values like a classifier's, but nothing says that they are classes.
#[test]
fn pictures_give_classes_only_where_there_are_any() {
    let folder = tempfile::tempdir().unwrap();
    let amp = folder.path().join("clip.amp");
    let onnx = fixture("models/families/clip_vit-tracer17.onnx");
    let words = words!["quantize", &onnx, "--calibration", photo(), "-o", &amp];
    ampoule(words).text();
    let (text, json) = both(words!["run", &amp, photo()]);
    let output = &json["results"][0]["outputs"][0];
    let values = list(&output["values"]);
    assert_eq!(output["shape"], serde_json::json!([1, values.len()]));
    assert!(json["results"][0]["top"].is_null() && json["results"][0]["sample"].is_null());
    shows(&text, "--top K");
    shows(&text, &format!("{:.4}", number(&values[0])));
    let (text, json) = both(words!["run", &amp, photo(), "--top", "2"]);
    assert_eq!(list(&json["results"][0]["top"]).len(), 2);
    shows(&text, "softmax applied");

    let (text, json) = both(words!["run", vww_amp(), photo(), "--raw"]);
    assert_eq!(list(&json["results"][0]["outputs"][0]["values"]).len(), 2);
    assert!(!text.contains("--top") && text.contains("1×2"), "{text}");
    let words = words!["run", vww_amp(), photo(), "--raw", "--top", "1"];
    ampoule(words).fails(2, &["--top", "--raw"]);
}

/// Classes are one row of values; a map is not.
#[test]
fn maps_are_not_taken_for_classes() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name| folder.path().join(name);
    let [onnx, array, amp, labels] = ["m.onnx", "x.npy", "m.amp", "l.txt"].map(inside);
    std::fs::write(&onnx, doubling_map()).unwrap();
    npy(&array, "(1, 2, 1, 3)", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    std::fs::write(&labels, "a\nb\nc\nd\ne\nf\n").unwrap();
    let args = words!["quantize", &onnx, "--calibration", &array, "-o", &amp];
    let with = |more: &[&std::ffi::OsStr]| ampoule(args.iter().chain(more));
    with(&words!["--max-drop", "1"]).fails_with_advice(&["`y`", "[1, 1, 3, 2]", "--min-cosine"]);
    with(&words!["--labels", &labels]).fails_with_advice(&["l.txt", "[1, 1, 3, 2]"]);
    with(&words!["--min-cosine", "0.9"]).text();
}

/// Two channels of three pixels; the second is doubled.
fn doubling_map() -> Vec<u8> {
    let shape = [1, 2, 1, 3].map(Dim::Size);
    model(
        17,
        &[node("conv", "Conv", &["x", "w"], &["y"], &[])],
        &[tensor("w", &[2, 2, 1, 1], &[1.0, 0.0, 0.0, 2.0])],
        &[port("x", 1, &shape)],
        &[port("y", 1, &[])],
    )
}

/// A map comes back as the ONNX file has it, channels first, whatever the order in memory.
#[test]
fn run_gives_outputs_in_the_models_own_layout() {
    let folder = tempfile::tempdir().unwrap();
    let [onnx, array, amp] = ["m.onnx", "x.npy", "m.amp"].map(|name| folder.path().join(name));
    std::fs::write(&onnx, doubling_map()).unwrap();
    npy(&array, "(1, 2, 1, 3)", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    ampoule(words!["quantize", &onnx, "--float", "-o", &amp]).text();
    let (text, json) = both(words!["run", &amp, &array]);
    let output = &json["results"][0]["outputs"][0];
    assert_eq!(output["shape"], serde_json::json!([1, 2, 1, 3]));
    let expected = serde_json::json!([1.0, 2.0, 3.0, 8.0, 10.0, 12.0]);
    assert_eq!(output["values"], expected);
    shows(&text, "1×2×1×3");
}

#[test]
fn eval_of_artifact_and_onnx() {
    let (text, json) = both(words![
        "eval",
        vww_amp(),
        "--data",
        photos(),
        "--limit",
        "20"
    ]);
    let (hits, total) = (
        number(&json["top1"]["hits"]),
        number(&json["top1"]["total"]),
    );
    shows(&text, &format!("{:.2} %", 100.0 * hits / total));
    shows(&text, "n = 20");
    let interval = list(&json["top1_interval"]);
    assert!(number(&interval[0]) < hits / total && hits / total < number(&interval[1]));
    assert!(json["top5"].is_null(), "two classes have no top-5");

    let onnx = vww_onnx();
    let words = words!["eval", &onnx, "--data", photos(), "--like", vww_amp()];
    let float = ampoule(words.into_iter().chain(words!["--json"])).json();
    // ONNX Runtime's count, of tests/fixtures/README.md, with a picture either way for Pillow's filter.
    assert!(
        (number(&float["top1"]["hits"]) - 43.0).abs() <= 1.0,
        "{float}"
    );
    let assumed = ampoule(words!["eval", &onnx, "--data", photos(), "--limit", "10"]);
    assert!(assumed.err.contains("assuming: stretched"), "{assumed}");
    shows(&assumed.out, "n = 10");
    let order = "the folders in alphabetical order (no_person, person)";
    shows(&assumed.err, order);
    let folder = tempfile::tempdir().unwrap();
    for class in ["cat", "dog", "owl"] {
        std::fs::create_dir(folder.path().join(class)).unwrap();
        std::fs::copy(photo(), folder.path().join(class).join("a.jpg")).unwrap();
    }
    let guessed = ampoule(words!["eval", &onnx, "--data", folder.path()]);
    guessed.fails_with_advice(&["3 folders", "2 classes", "--labels"]);
}

#[test]
fn compare_lists_the_worst_first() {
    let onnx = vww_onnx();
    let words = words![
        "compare",
        &onnx,
        vww_amp(),
        "--data",
        photos(),
        "--samples",
        "4"
    ];
    let (text, json) = both(words);
    let layers = list(&json["layers"]);
    assert_eq!(json["samples"], 4);
    shows(&text, &format!("{} tensors over 4 samples", layers.len()));
    let mut worst: Vec<f64> = layers.iter().map(|l| number(&l["sqnr_db"])).collect();
    worst.sort_by(f64::total_cmp);
    let row = text.lines().nth(2).unwrap();
    assert!(row.contains(&format!("{:.1}", worst[0])), "{row}");
    assert!(worst[0] > 15.0 && worst[0] < 60.0, "{}", worst[0]);
    for layer in layers {
        assert!((0.9..=1.0).contains(&number(&layer["cosine"])), "{layer}");
    }
}

/// Hybrids keep some tensors multiplied per channel; they are compared in the float model's scale.
#[test]
fn compare_undoes_migration() {
    let folder = tempfile::tempdir().unwrap();
    let amp = folder.path().join("tower.amp");
    let onnx = fixture("models/families/clip_vit-tracer17.onnx");
    let words = words!["quantize", &onnx, "--calibration", photos(), "-o", &amp];
    ampoule(words.into_iter().chain(words!["--samples", "8", "--json"])).json();
    let (text, json) = both(words!["compare", &onnx, &amp, "--data", photos()]);
    let rescaled = json["rescaled"].as_u64().unwrap();
    assert!(rescaled >= 6, "{rescaled}");
    shows(&text, &format!("{rescaled} of them rescaled"));
    for layer in list(&json["layers"]) {
        assert!(number(&layer["cosine"]) > 0.98, "{layer}");
        assert!(number(&layer["sqnr_db"]) > 14.0, "{layer}");
    }
    // What every inference costs is the same wherever it is printed.
    let quantized = ampoule(words.into_iter().chain(words!["--json"])).json();
    let inspected = ampoule(words!["inspect", &amp, "--json"]).json();
    assert_eq!(quantized["macs"], inspected["macs"]);
    let stripped = ampoule(words.into_iter().chain(words!["--strip", "--json"])).json();
    let inspected = ampoule(words!["inspect", &amp, "--json"]).json();
    assert!(stripped["macs"] == inspected["macs"] && inspected["meta"]["migrated"].is_null());
}

#[test]
fn bench_counts_and_orders_its_times() {
    let (text, json) = both(words![
        "bench",
        vww_amp(),
        "--runs",
        "7",
        "--isa",
        "portable"
    ]);
    assert_eq!(
        (json["runs"].as_u64(), json["isa"].as_str()),
        (Some(7), Some("portable"))
    );
    let time = |name: &str| number(&json[name]);
    assert!(time("p10_us") <= time("median_us") && time("median_us") <= time("p99_us"));
    for part in ["median", "p99", "7", "portable", "GMAC/s"] {
        shows(&text, part);
    }
    let profile = ampoule(words![
        "bench",
        vww_amp(),
        "--runs",
        "3",
        "--profile",
        "--json"
    ])
    .json();
    let steps = list(&profile["steps"]);
    assert!(!steps.is_empty());
    assert!(list(&profile["peaks"]["copies"]).len() > 1);
    for step in steps {
        let limit = step["limit"].as_str();
        assert!(matches!(limit, Some("products" | "memory")), "{step}");
        assert!(number(&step["of_peak"]) > 0.0);
    }
}

#[test]
fn demo_from_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let ran = crate::program::ampoule_in(
        folder.path(),
        words!["demo", "--no-training", "--out", "here", "--json"],
    );
    let json = ran.json();
    let rows = list(&json["rows"]);
    assert_eq!(rows.len(), 3);
    let hits = |row: usize| number(&rows[row]["top1"]["hits"]);
    assert_eq!(hits(0), hits(1), "our float is the oracle's");
    assert!((hits(0) - 43.0).abs() <= 1.0 && (hits(2) - hits(0)).abs() <= 2.0);
    let artifact = std::fs::metadata(folder.path().join("here/vww.amp")).unwrap();
    assert_eq!(rows[2]["file_bytes"], artifact.len());
    assert!(rows[2]["arena_bytes"].as_u64() < rows[1]["arena_bytes"].as_u64());
    let page = std::fs::read_to_string(folder.path().join("here/report.html")).unwrap();
    crate::reports::is_self_contained(&page);
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 50);
}

#[test]
fn demo_trains_a_student_from_a_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let args = words!["demo", "--epochs", "1", "--out", "here", "--json"];
    let json = crate::program::ampoule_in(folder.path(), args).json();
    let training = &json["training"];
    let rows = list(&training["distilled"]["rows"]);
    let hits: Vec<f64> = rows.iter().map(|r| number(&r["top1"]["hits"])).collect();
    // The fixture's teacher is right on 72.45 % of its test split; one epoch teaches something.
    assert!((hits[0] / 519.0 - 0.7245).abs() < 0.01, "{hits:?}");
    assert!(
        hits[1] / 519.0 > 0.2 && (hits[2] - hits[1]).abs() <= 10.0,
        "{hits:?}"
    );
    assert_eq!(training["distilled"]["samples"], 1723);
    assert_eq!(list(&training["answers"]).len(), 3);
    let commands = list(&training["commands"]);
    assert_eq!(commands.len(), 3);
    for name in ["student.onnx", "student.amp", "student.run/report.html"] {
        assert!(folder.path().join("here").join(name).is_file(), "{name}");
    }
    let text = std::fs::read_to_string(folder.path().join("here/student.run/report.html"));
    crate::reports::is_self_contained(&text.unwrap());
}
