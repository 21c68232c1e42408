//! The teacher pass: exact bytes, interruptions, shards, and why a store is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Ran, ampoule, fixture, photos};
use crate::protobuf::{Dim, model, node, port, tensor};
use crate::words;

/// A network of ten classes with random weights.
fn teacher() -> PathBuf {
    fixture("models/families/efficientnet_lite0-tracer17.onnx")
}

/// Arguments for a store of three epochs with four probabilities each.
fn args(store: &Path, teacher: &Path, data: &Path, more: &[&str]) -> Vec<PathBuf> {
    let mut args = [
        "teach", "--epochs", "3", "--top-k", "4", "--preset", "imagenet",
    ]
    .map(PathBuf::from)
    .to_vec();
    args.extend(more.iter().map(PathBuf::from));
    for (name, value) in [("--teacher", teacher), ("--data", data), ("-o", store)] {
        args.extend([PathBuf::from(name), value.to_owned()]);
    }
    args
}

fn teach(store: &Path, more: &[&str]) -> Ran {
    ampoule(args(store, &teacher(), photos(), more))
}

/// The records of each epoch, those of several shards joined.
fn records(store: &Path) -> Vec<Vec<u8>> {
    let epoch = |e: usize| {
        let files = fs::read_dir(store.join(format!("epoch-{e}"))).unwrap();
        let files = files.map(|f| f.unwrap().path());
        let mut files: Vec<_> = files
            .filter(|p| p.extension().unwrap() == "records")
            .collect();
        let start = |p: &PathBuf| -> usize {
            let name = p.file_stem().unwrap().to_str().unwrap();
            name.split('-').next().unwrap().parse().unwrap()
        };
        files.sort_by_key(start);
        files.iter().flat_map(|p| fs::read(p).unwrap()).collect()
    };
    (0..3).map(epoch).collect()
}

#[test]
fn a_store_has_exactly_its_bytes_and_passes_its_check() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let made = teach(&store, &["--json"]).json();
    assert_eq!(made["samples"], 50);
    assert_eq!(made["records"], 150);
    assert_eq!(made["record_bytes"], 4 + 4 * 4);
    assert_eq!(made["kind"]["sparse_logits"]["classes"], 10);
    assert_eq!(made["teachers"][0]["fallback"], serde_json::Value::Null);
    let all = records(&store);
    assert_eq!(all.concat().len(), 50 * 3 * (4 + 4 * 4));
    assert!(all[0] != all[1]);

    let drift = ampoule(words!["teach", "check", &store, "--json"]).json();
    assert_eq!(drift["compared"], 100);
    assert!(drift["mean_difference"].as_f64().unwrap() <= 1e-3);
    assert!(drift["index_mismatch"].as_f64().unwrap() <= 0.005);
    let text = ampoule(words!["teach", "check", &store, "--samples", "5"]).text();
    assert!(text.contains("right for all 150 records"), "{text}");

    // Threads make no difference, and a second run has nothing to do.
    let other = folder.path().join("other");
    teach(&other, &["--threads", "5"]).text();
    assert!(records(&other) == all);
    let again = teach(&store, &["--json"]).json();
    assert_eq!(
        (&again["kept"], &again["records"]),
        (&150.into(), &150.into())
    );
}

#[test]
fn shards_merge_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let mix = ["--mix", "--augment", "light"];
    teach(&whole, &mix).text();
    let mut running: Vec<_> = ["3/3", "1/3"]
        .into_iter()
        .map(|shard| {
            let more = [&mix[..], &["--shard", shard]].concat();
            let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
            command.args(args(&parts, &teacher(), photos(), &more));
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for child in &mut running {
        assert!(child.wait().unwrap().success());
    }
    ampoule(words!["teach", "check", &parts])
        .fails_with_advice(&["not complete", "epoch 0: samples 16..33 are missing"]);
    teach(&parts, &[&mix[..], &["--shard", "2/3"]].concat()).text();
    assert!(records(&parts) == records(&whole));
    ampoule(words!["teach", "check", &parts]).text();
    teach(&parts, &[&mix[..], &["--shard", "1/2"]].concat())
        .fails_with_advice(&["samples 0..16", "0..25"]);
    teach(&folder.path().join("new"), &["--shard", "70/99"]).text();
    teach(&folder.path().join("new"), &["--shard", "1/99"]).fails_with_advice(&["1/99 is empty"]);
}

#[test]
fn killed_at_any_time_it_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let started = Instant::now();
    teach(&whole, &[]).text();
    let took = started.elapsed();
    for part in [1, 2, 4, 6, 8] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
        command.args(args(&killed, &teacher(), photos(), &[]));
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took * part / 10 + Duration::from_millis(5));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    // As if the power had failed in the middle of a record.
    let file = killed.join("epoch-0/0-50.records");
    let mut bytes = fs::read(&file).unwrap_or_default();
    bytes.truncate(bytes.len() / 2 + 1);
    bytes.extend([0; 7]);
    fs::create_dir_all(killed.join("epoch-0")).unwrap();
    fs::write(&file, bytes).unwrap();
    teach(&killed, &[]).text();
    assert!(records(&killed) == records(&whole));
    ampoule(words!["teach", "check", &killed]).text();
}

#[test]
fn other_settings_pictures_and_damage_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    teach(&store, &[]).text();
    let before = records(&store);
    let refused = |more: &[&str], words: &[&str]| {
        let words = [&["does not match this run"][..], words].concat();
        teach(&store, more).fails_with_advice(&words);
    };
    refused(&["--seed", "1"], &["seed: expected 1, got 0"]);
    refused(
        &["--flip", "0.1"],
        &["augmentation.flip: expected 0.1, got 0.5"],
    );
    refused(&["--std", "1"], &["teachers.0.preprocess.std"]);
    let other = fixture("models/families/resnet18-tracer17.onnx");
    ampoule(args(&store, &other, photos(), &[])).fails_with_advice(&["teachers.0.sha256"]);
    let people = photos().join("person");
    ampoule(args(&store, &teacher(), &people, &[]))
        .fails_with_advice(&["samples: expected 25, got 50", "listing"]);
    let check = |more: &[&str]| {
        let args = ["teach", "check"].iter().map(PathBuf::from);
        let more = more.iter().map(PathBuf::from);
        ampoule(args.chain([store.clone()]).chain(more))
    };
    check(&["--data", people.to_str().unwrap()]).fails_with_advice(&["listing"]);
    check(&["--teacher", other.to_str().unwrap()]).fails_with_advice(&["sha256"]);
    assert!(records(&store) == before);

    let file = store.join("epoch-1/0-50.records");
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[777] ^= 4;
    fs::write(&file, &bad).unwrap();
    check(&[]).fails_with_advice(&["0-50.records", "damaged", "0..50"]);
    fs::write(&file, &good[..good.len() - 3]).unwrap();
    check(&[]).fails_with_advice(&["is cut", "17 of its 20 bytes"]);
    let redone = teach(&store, &["--json"]).json();
    assert_eq!(redone["discarded_bytes"], 50 * 20 - 3);
    assert!(records(&store) == before);
    ampoule(["teach", "check", "nowhere"]).fails_with_advice(&["nowhere"]);
}

#[test]
fn teachers_that_can_not_answer_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let with = |teacher: &Path, more: &[&str]| ampoule(args(&store, teacher, photos(), more));
    let mut many = args(&store, &teacher(), photos(), &[]);
    many[4] = "11".into();
    ampoule(many).fails_with_advice(&["top-k 11", "10 classes"]);
    let family = |name: &str| fixture(&format!("models/families/{name}.onnx"));
    with(&family("clip_text-tracer17"), &[]).fails_with_advice(&["expected one input"]);
    with(&folder.path().join("none.onnx"), &[]).fails_with_advice(&["none.onnx"]);
    let sides = [1, 3, 8, 8].map(Dim::Size);
    let two = model(
        17,
        &[
            node("a", "Relu", &["x"], &["y"], &[]),
            node("b", "Sigmoid", &["x"], &["z"], &[]),
        ],
        &[],
        &[port("x", 1, &sides)],
        &[port("y", 1, &[]), port("z", 1, &[])],
    );
    let path = folder.path().join("two.onnx");
    fs::write(&path, two).unwrap();
    with(&path, &[]).fails_with_advice(&["expected one output", "y, z"]);
    with(&path, &["--teacher-output", "w"]).fails_with_advice(&["an output `w`", "y, z"]);
    with(&path, &["--teacher-output", "z"]).fails_with_advice(&["[1, 3, 8, 8]", "a vector"]);
    let roots = model(
        17,
        &[
            node("mean", "GlobalAveragePool", &["x"], &["m"], &[]),
            node("negate", "Mul", &["m", "w"], &["n"], &[]),
            node("root", "Sqrt", &["n"], &["y"], &[]),
        ],
        &[tensor("w", &[1, 3, 1, 1], &[-1.0; 3])],
        &[port("x", 1, &sides)],
        &[port("y", 1, &[])],
    );
    fs::write(&path, roots).unwrap();
    let lost = folder.path().join("lost");
    let more = words![
        "teach",
        "--teacher",
        &path,
        "--data",
        photos(),
        "-o",
        &lost,
        "--preset",
        "unit"
    ];
    ampoule(more).fails_with_advice(&["no_person/000000000285.jpg", "NaN", "--preset"]);
    let mut second = args(&store, &teacher(), photos(), &[]);
    let vww = crate::program::vww_onnx();
    second.extend([PathBuf::from("--teacher"), vww.to_owned()]);
    ampoule(second).fails_with_advice(&["vww", "10 classes, as the first teacher has"]);
    assert!(!store.exists());
}

/// Two teachers say what they say on their own, averaged; one of them twice counts twice.
#[test]
fn several_teachers_are_averaged() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.onnx");
    ampoule(words![
        "zoo",
        "export",
        "tinyvit-mini",
        "--classes",
        "10",
        "--size",
        "64",
        "-o",
        &other
    ])
    .text();
    let answers = |name: &str, teachers: &[&Path]| -> Vec<[f32; 10]> {
        let store = folder.path().join(name);
        let more = ["--top-k", "10", "--epochs", "1"];
        let mut command: Vec<PathBuf> = vec!["teach".into(), "--preset".into(), "imagenet".into()];
        command.extend(more.map(PathBuf::from));
        for teacher in teachers {
            command.extend(["--teacher".into(), teacher.to_path_buf()]);
        }
        command.extend(["--augment", "none", "--data"].map(PathBuf::from));
        command.extend([photos().to_owned(), "-o".into(), store.clone()]);
        ampoule(command).text();
        let epoch = ::ampoule::distill::store::Store::open(&store).unwrap();
        let epoch = epoch.epoch(0).unwrap();
        let row = |sample| {
            let record = epoch.record(sample).unwrap();
            let mut row = [0.0; 10];
            for (class, value) in record.indices().zip(record.values()) {
                row[class as usize] = value;
            }
            row
        };
        (0..50).map(row).collect()
    };
    let first = teacher();
    let (a, b) = (answers("a", &[&first]), answers("b", &[&other]));
    let mean = answers("mean", &[&first, &other, &first]);
    assert_ne!(a, b);
    for ((a, b), mean) in a.iter().zip(&b).zip(&mean) {
        for c in 0..10 {
            let expected = (2.0 * a[c] + b[c]) / 3.0;
            // Half precision.
            assert!((mean[c] - expected).abs() < 1e-3, "{a:?} {b:?} {mean:?}");
        }
    }
}

#[test]
fn what_our_import_refuses_tract_runs() {
    // Cosh of a mean over the picture: a vector of three, which our import does not know.
    let folder = tempfile::tempdir().unwrap();
    let sides = [1, 3, 8, 8].map(Dim::Size);
    let odd = model(
        17,
        &[
            node("mean", "GlobalAveragePool", &["x"], &["m"], &[]),
            node("bend", "Cosh", &["m"], &["c"], &[]),
            node("scale", "Mul", &["c", "w"], &["y"], &[]),
        ],
        &[tensor("w", &[1, 3, 1, 1], &[1.0, -2.0, 3.0])],
        &[port("x", 1, &sides)],
        &[port("y", 1, &[])],
    );
    let path = folder.path().join("odd.onnx");
    fs::write(&path, odd).unwrap();
    let store = folder.path().join("store");
    let make = ["teach", "--preset", "unit", "--json"]
        .map(PathBuf::from)
        .to_vec();
    let rest = words!["--teacher", &path, "--data", photos(), "-o", &store].map(PathBuf::from);
    let ran = ampoule(make.into_iter().chain(rest));
    assert!(ran.err.contains("warning: tract runs"), "{ran}");
    let made = ran.json();
    assert!(
        made["teachers"][0]["fallback"]
            .as_str()
            .unwrap()
            .contains("Cosh")
    );
    assert_eq!(made["kind"]["sparse_logits"]["k"], 3);
    ampoule(words!["teach", "check", &store]).text();
}

#[test]
fn several_teachers_embeddings_and_features() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, teachers: &[&str], more: &[&str]| {
        let store = folder.path().join(name);
        let mut args: Vec<PathBuf> = ["teach", "--json", "--data"].map(PathBuf::from).to_vec();
        args.extend([photos().to_owned(), "-o".into(), store.clone()]);
        for teacher in teachers {
            args.extend([
                "--teacher".into(),
                fixture(&format!("models/families/{teacher}.onnx")),
            ]);
        }
        args.extend(
            ["--preset", "imagenet"]
                .iter()
                .chain(more)
                .map(PathBuf::from),
        );
        let made = ampoule(args).json();
        ampoule(words!["teach", "check", &store, "--samples", "20"]).text();
        (store, made)
    };
    let nets = ["efficientnet_lite0-tracer17", "resnet18-tracer17"];
    let (both, made) = run("both", &nets, &["--top-k", "10", "--augment", "none"]);
    assert_eq!(made["teachers"].as_array().unwrap().len(), 2);
    let one = |i: usize| {
        run(
            &format!("one{i}"),
            &nets[i..=i],
            &["--top-k", "10", "--augment", "none"],
        )
        .0
    };
    let (a, b) = (probabilities(&one(0)), probabilities(&one(1)));
    for (mean, (a, b)) in probabilities(&both).iter().zip(a.iter().zip(&b)) {
        assert!((mean - (a + b) / 2.0).abs() < 1e-3, "{mean} {a} {b}");
    }
    let (store, made) = run("clip", &["clip_vit-tracer17"], &["--kind", "embeddings"]);
    let width = made["kind"]["embeddings"]["widths"][0].as_u64().unwrap() as usize;
    let bytes = fs::metadata(store.join("epoch-0/0-50.records"))
        .unwrap()
        .len();
    assert_eq!(bytes as usize, 50 * (4 + 2 * width));
    let (_, made) = run("map", &["sam-tracer17"], &["--kind", "features"]);
    assert_eq!(made["kind"]["features"]["shape"], serde_json::json!([8]));
}

/// All ten probabilities of all pictures, by class.
fn probabilities(store: &Path) -> Vec<f32> {
    let bytes = fs::read(store.join("epoch-0/0-50.records")).unwrap();
    let mut all = vec![0.0; 500];
    for (i, record) in bytes.chunks_exact(44).enumerate() {
        let word = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
        for k in 0..10 {
            let value = word(24 + 2 * k);
            let (exponent, fraction) = (i32::from(value >> 10), f32::from(value & 1023));
            let value = match exponent {
                0 => fraction * 2f32.powi(-24),
                e => (1024.0 + fraction) * 2f32.powi(e - 25),
            };
            all[10 * i + usize::from(word(4 + 2 * k))] = value;
        }
    }
    all
}

#[test]
fn unreadable_pictures_are_named_and_limited() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for entry in fs::read_dir(photos().join("person")).unwrap().take(6) {
        let path = entry.unwrap().path();
        fs::copy(&path, pictures.join(path.file_name().unwrap())).unwrap();
    }
    fs::write(pictures.join("broken.jpg"), b"\xff\xd8").unwrap();
    let store = folder.path().join("store");
    let run = |more: &[&str]| ampoule(args(&store, &teacher(), &pictures, more));
    run(&[]).fails_with_advice(&["broken.jpg", "more than 0", "--max-unreadable"]);
    let ran = run(&["--max-unreadable", "1", "--json"]);
    assert!(ran.err.contains("warning: no answer: `"), "{ran}");
    let made = ran.json();
    assert_eq!(made["unreadable"].as_array().unwrap().len(), 1);
    assert_eq!(records(&store)[2].len(), 7 * 20);
    let drift = ampoule(words!["teach", "check", &store, "--json"]).json();
    assert_eq!(
        (&drift["compared"], &drift["missing"]),
        (&18.into(), &3.into())
    );
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    ampoule(args(&store, &teacher(), &empty, &[])).fails_with_advice(&["no images"]);
}
