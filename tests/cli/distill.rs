//! Training: the whole way, interruptions of every kind, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ran, ampoule, fixture, photo, photos};
use crate::reports::is_self_contained;
use crate::words;

/// A network of ten classes with random weights.
fn teacher() -> PathBuf {
    fixture("models/families/efficientnet_lite0-tracer17.onnx")
}

/// Two epochs of its answers to the fifty photos.
fn store() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    static STORE: OnceLock<PathBuf> = OnceLock::new();
    STORE.get_or_init(|| {
        let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path();
        let (store, teacher) = (folder.join("store"), teacher());
        ampoule(words![
            "teach",
            "--epochs",
            "2",
            "--augment",
            "light",
            "--mix",
            "--preset",
            "imagenet",
            "--teacher",
            &teacher,
            "--data",
            photos(),
            "-o",
            &store
        ])
        .text();
        store
    })
}

/// Arguments for a tiny student in a folder, from the store unless told otherwise.
fn args(folder: &Path, more: &[&str]) -> Vec<PathBuf> {
    let common = [
        "distill",
        "--student",
        "tinyvit-mini",
        "--size",
        "32x32",
        "--batch",
        "16",
        "--threads",
        "1",
        "--checkpoint-every",
        "0",
    ];
    let mut args: Vec<PathBuf> = common.iter().chain(more).map(PathBuf::from).collect();
    args.extend(["-o".into(), folder.join("student.onnx")]);
    args
}

fn from_store(folder: &Path, more: &[&str]) -> Vec<PathBuf> {
    let mut args = args(folder, more);
    args.extend(["--store".into(), store().to_owned()]);
    args
}

/// The lines of a run with `--json`: those of epochs, and the result.
fn lines(ran: Ran) -> (Vec<Value>, Value) {
    let text = ran.text();
    let mut lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    let last = lines.pop().unwrap();
    assert_eq!(last["kind"], "result");
    (lines, last["result"].clone())
}

fn student(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("student.onnx")).unwrap()
}

/// The weights of three uninterrupted epochs.
fn uninterrupted() -> &'static [u8] {
    static STUDENT: OnceLock<Vec<u8>> = OnceLock::new();
    STUDENT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        ampoule(from_store(folder.path(), &["--epochs", "3"])).text();
        student(folder.path())
    })
}

fn start(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
    command.args(from_store(folder, &["--epochs", "3"]));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until a run has written a checkpoint after so many steps.
fn wait_for_step(folder: &Path, steps: usize) {
    let started = Instant::now();
    let metrics = folder.join("student.run/metrics.jsonl");
    loop {
        let text = fs::read_to_string(&metrics).unwrap_or_default();
        let done = text.lines().filter(|l| l.contains("\"kind\":\"step\""));
        if done.count() >= steps {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(300),
            "no step {steps}"
        );
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[test]
fn from_a_store_to_an_artifact_with_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let more = ["--json", "--epochs", "3", "--labels-weight", "0.3"];
    let (epochs, result) = lines(ampoule(from_store(folder, &more)));
    assert_eq!(epochs.len(), 3);
    for (number, epoch) in epochs.iter().enumerate() {
        assert_eq!(
            (&epoch["kind"], &epoch["epoch"]),
            (&"epoch".into(), &number.into())
        );
        assert!((0.0..=1.0).contains(&epoch["accuracy"].as_f64().unwrap()));
    }
    let names: Vec<&str> = (0..3)
        .map(|i| result["rows"][i]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["teacher", "tinyvit-mini float", "tinyvit-mini int8"]
    );
    for row in result["rows"].as_array().unwrap() {
        for field in ["parameters", "macs", "bytes", "median_us", "arena_bytes"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{field} of {row}");
        }
    }
    // A tenth of each class is held out; pairs that lose one lose both.
    assert_eq!(
        (&result["measured"], &result["samples"]),
        (&6.into(), &44.into())
    );
    assert_eq!(result["rows"][1]["macs"], result["rows"][2]["macs"]);

    let page = fs::read_to_string(folder.join("student.run/report.html")).unwrap();
    is_self_contained(&page);
    assert_eq!(page.matches("<polyline").count(), 2 + 3 + 1);
    assert!(page.contains("What is taken for what") && page.contains("no_person"));
    assert_eq!(page.matches("<img").count(), 6);

    let (artifact, onnx) = (folder.join("student.amp"), folder.join("student.onnx"));
    ampoule(words!["run", &artifact, photo()]).text();
    ampoule(words![
        "compare",
        &onnx,
        &artifact,
        "--data",
        photos(),
        "--samples",
        "2"
    ])
    .text();

    // Started again there is nothing left to do, and everything comes out as before.
    let before = student(folder);
    let (epochs, again) = lines(ampoule(from_store(folder, &more)));
    assert!(epochs.is_empty() && student(folder) == before);
    assert_eq!(again["rows"][2]["top1"], result["rows"][2]["top1"]);
}

#[test]
fn killed_at_any_step_it_ends_in_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Within each epoch, and a random time later.
    for (step, later) in [(1, 0), (3, 31), (4, 3), (7, 17)] {
        let mut child = start(folder);
        wait_for_step(folder, step);
        std::thread::sleep(Duration::from_millis(later));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    let ran = ampoule(from_store(folder, &["--epochs", "3"]));
    assert!(ran.err.contains("going on after step"), "{ran}");
    ran.text();
    assert!(student(folder) == uninterrupted());
}

#[test]
#[cfg(unix)]
fn asked_to_stop_it_stops_behind_the_step_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (signal, step) in [("-INT", 1), ("-TERM", 4)] {
        let mut child = start(folder);
        wait_for_step(folder, step);
        let kill = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(folder.join("student.run/checkpoint.bin").exists());
        assert!(!folder.join("student.onnx").exists());
    }
    ampoule(from_store(folder, &["--epochs", "3"])).text();
    assert!(student(folder) == uninterrupted());
}

#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut child = start(folder);
    wait_for_step(folder, 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let checkpoint = folder.join("student.run/checkpoint.bin");
    let before = fs::read(&checkpoint).unwrap();
    // No file may grow beyond a megabyte; the signal that says so is turned into an error.
    let command = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
    let mut limited = Command::new("bash");
    limited.args(["-c", command, env!("CARGO_BIN_EXE_ampoule")]);
    let output = limited
        .args(from_store(folder, &["--epochs", "3"]))
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    for words in [
        "cannot write",
        "checkpoint.bin",
        "is intact",
        "  try: make room",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(fs::read(&checkpoint).unwrap() == before);
    let names = fs::read_dir(folder.join("student.run")).unwrap();
    assert!(
        names
            .flatten()
            .all(|f| !f.file_name().to_string_lossy().ends_with(".tmp"))
    );
    ampoule(from_store(folder, &["--epochs", "3"])).text();
    assert!(student(folder) == uninterrupted());
}

#[test]
fn other_settings_data_and_students_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run = |more: &[&str]| ampoule(from_store(folder, &[&["--epochs", "1"], more].concat()));
    run(&[]).text();
    let before = fs::read(folder.join("student.run/checkpoint.bin")).unwrap();
    let refused = |more: &[&str], words: &[&str]| {
        let words = [&["is a checkpoint of another run"][..], words].concat();
        run(more).fails_with_advice(&words);
    };
    refused(&["--lr", "0.5"], &["training.rate: expected 0.5"]);
    refused(
        &["--seed", "3"],
        &[
            "lesson.student.first_weights",
            "lesson.seed: expected 3, got 0",
        ],
    );
    refused(
        &["--optimizer", "sgd-sai"],
        &["training.optimizer", "sgd-sai"],
    );
    refused(&["--layer-decay", "0.8"], &["training.layer_decay"]);
    refused(&["--qat", "1"], &["training.quantized_epochs"]);
    let more = ["--attention-sparsity", "0.01"];
    refused(&more, &["training.attention_sparsity"]);
    refused(&["--mean", "0,0,0", "--scale", "1"], &["preprocess.scale"]);
    refused(&["--hold-out", "0.5"], &["lesson.data.hold_out"]);
    let mut moat = from_store(folder, &["--epochs", "1"]);
    moat[2] = "tiny-moat-mini".into();
    ampoule(moat).fails_with_advice(&["lesson.student.network"]);
    assert!(fs::read(folder.join("student.run/checkpoint.bin")).unwrap() == before);
    // Other pictures are another store's.
    let people = photos().join("person");
    run(&["--data", people.to_str().unwrap()]).fails_with_advice(&["samples: expected 25, got 50"]);
    // A run that another process is at is left alone.
    let lock = fs::File::options()
        .write(true)
        .open(folder.join("student.run/lock"))
        .unwrap();
    lock.try_lock().unwrap();
    run(&[]).fails_with_advice(&["another process is training"]);
}

/// The last epoch with int8 codes, and a student that is finished so.
#[test]
fn quantisation_aware_training() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let settings = ["--epochs", "2", "--qat", "1", "--json"];
    let whole = at("whole");
    let (_, result) = lines(ampoule(from_store(&whole, &settings)));
    let again = result["quantize"].as_str().unwrap();
    assert!(
        again.contains("--range min-max --no-bias-correction"),
        "{again}"
    );
    let rows = result["rows"].as_array().unwrap();
    assert!(
        rows.iter().any(|r| r["name"] == "tinyvit-mini int8"),
        "{rows:?}"
    );

    let plain = at("plain");
    ampoule(from_store(&plain, &["--epochs", "2"])).text();
    assert!(student(&whole) != student(&plain));

    let more = ["--epochs", "1", "--qat", "1", "--layer-decay", "0.8"];
    let mut command = from_store(&at("finished"), &more);
    command.drain(3..5);
    command[2] = plain.join("student.onnx");
    let text = ampoule(command).text();
    assert!(text.contains("int8"), "{text}");

    let command = from_store(&at("refused"), &["--epochs", "2", "--qat", "3"]);
    ampoule(command).fails(2, &["--qat 3", "2 epochs"]);
}

/// Maps of a teacher leave no trace in the student's file but in its weights, and a run with them goes on.
#[test]
fn maps_of_a_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let with = |folder: &Path, more: &[&str]| {
        let mut command = from_store(folder, &[&["--epochs", "1"], more].concat());
        command.extend(["--teacher".into(), teacher()]);
        command
    };
    // Killed behind its first step, it goes on to the same weights.
    let killed = at("killed");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ampoule"))
        .args(with(&killed, &["--scalekd"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_step(&killed, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    ampoule(with(&killed, &["--scalekd"])).text();
    let plain = at("plain");
    ampoule(with(&plain, &[])).text();
    let all = at("all");
    let (epochs, result) = lines(ampoule(with(&all, &["--scalekd", "--json"])));
    assert_eq!((epochs.len(), &result["steps"]), (1, &3.into()));
    assert_eq!(student(&all).len(), student(&plain).len());
    assert!(student(&all) != student(&plain));
    assert!(student(&all) == student(&killed));
    let metrics = fs::read_to_string(all.join("student.run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"features\"").count(), 3);
    let again = at("again");
    let mut command = with(&again, &["--scalekd=projector"]);
    ampoule(command.clone()).text();
    assert!(student(&again) != student(&all));
    command.extend(["--scalekd-weight".into(), "2".into()]);
    ampoule(command).fails_with_advice(&["another run", "lesson.scalekd.weight"]);
    let mut command = from_store(&at("none"), &["--scalekd"]);
    ampoule(command.clone()).fails(2, &["--teacher"]);
    command.extend(["--teacher".into(), teacher(), "--qat".into(), "1".into()]);
    ampoule(command).fails(2, &["--qat", "--scalekd"]);
    let vit = fixture("models/families/vit-tracer17.onnx");
    let mut command = args(&at("vit"), &["--epochs", "1", "--scalekd"]);
    command.extend(["--data".into(), photos().to_owned()]);
    command.extend(["--teacher".into(), vit]);
    ampoule(command).fails_with_advice(&["the teacher has no maps of two sizes"]);
}

/// One training, networks of several sizes, each a plain ONNX file.
#[test]
fn many_sizes_from_one_training() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sizes = ["--elastic", "0.34,0.67"];
    let settings = [&["--epochs", "2", "--json"][..], &sizes].concat();
    let (_, result) = lines(ampoule(from_store(folder, &settings)));
    let measured = result["sizes"].as_array().unwrap();
    assert_eq!(measured.len(), 6);
    let macs: Vec<u64> = measured
        .iter()
        .map(|s| s["macs"].as_u64().unwrap())
        .collect();
    assert!(macs.is_sorted() && measured.iter().all(|s| s["top1"]["total"] == 6));
    let file = folder.join("student.safetensors");
    let listed = ampoule(words!["extract", &file]).text();
    assert!(
        listed.contains("8 32 32 32") && listed.contains("1 1 2 1"),
        "{listed}"
    );
    for budget in [macs[0], macs[3], macs[5]] {
        let out = folder.join("small.onnx");
        let budget = budget.to_string();
        let text = ampoule(words![
            "extract",
            &file,
            "--max-macs",
            &budget,
            "-o",
            &out,
            "--json"
        ])
        .text();
        let cut: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(cut["size"]["macs"].to_string(), budget);
        let info = ampoule(words!["inspect", &out, "--json"]).text();
        assert!(info.contains(&budget), "{info}");
    }
    let out = folder.join("none.onnx");
    ampoule(words!["extract", &file, "--max-macs", "1k", "-o", &out])
        .fails_with_advice(&["at most 1000 multiply-accumulates", &macs[0].to_string()]);
    ampoule(words!["extract", &file, "--max-macs", "few", "-o", &out]).fails(2, &["as 4M"]);
    let other = folder.join("student.onnx");
    ampoule(words!["extract", &other]).fails_with_advice(&["is no elastic network"]);
    // The same with other sizes is another run.
    let settings = [&["--epochs", "2"][..], &["--elastic", "0.5"]].concat();
    ampoule(from_store(folder, &settings)).fails_with_advice(&["another run", "lesson.elastic"]);
    let mut moat = from_store(folder, &settings);
    moat[2] = "tiny-moat-mini".into();
    ampoule(moat).fails(2, &["--elastic is for a TinyViT"]);
    // A size alone.
    let alone = folder.join("alone");
    fs::create_dir_all(&alone).unwrap();
    let settings = ["--epochs", "1", "--json", "--shrink", "0.34,0.34"];
    let (_, result) = lines(ampoule(from_store(&alone, &settings)));
    let rows = result["rows"].as_array().unwrap();
    assert!(rows.iter().any(|r| r["macs"] == macs[0]), "{rows:?}");
}

#[test]
fn teachers_that_answer_meanwhile_and_labels_alone() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = teacher();
    let online = folder.path().join("online");
    let alone = folder.path().join("alone");
    fs::create_dir_all(&online).unwrap();
    fs::create_dir_all(&alone).unwrap();
    let data = ["--data".into(), photos().to_owned()];
    let both = ["--json", "--epochs", "1", "--augment", "light"];
    let more = [
        &both[..],
        &["--temperature", "2", "--teacher-preset", "imagenet"],
    ]
    .concat();
    let mut command = args(&online, &more);
    command.extend(data.clone());
    command.extend(["--teacher".into(), teacher]);
    let (_, result) = lines(ampoule(command));
    assert_eq!(result["rows"][0]["name"], "teacher");

    // A finished student, as a file, learns on; one of other classes is refused.
    let finished = online.join("student.onnx");
    let mut command = from_store(&alone, &["--epochs", "1", "--json"]);
    command.drain(3..5);
    command[2] = finished;
    let (_, result) = lines(ampoule(command.clone()));
    let names = [0, 1, 2, 3].map(|i| result["rows"][i]["name"].as_str().unwrap());
    assert_eq!(
        names,
        [
            "teacher",
            "student.onnx before training",
            "student.onnx float",
            "student.onnx int8"
        ]
    );
    assert_eq!(result["rows"][1]["macs"], result["rows"][2]["macs"]);
    assert!(
        result["rows"][1]["top1"]["total"].as_u64() == result["rows"][2]["top1"]["total"].as_u64()
    );
    command[2] = fixture("minis/tinyvit-mini.onnx");
    ampoule(command).fails_with_advice(&["[1, 1, 9]", "one row of 10 classes"]);
    fs::remove_dir_all(alone.join("student.run")).unwrap();

    let more = [&both[..], &["--labels-only", "--label-fraction", "0.5"]].concat();
    let mut command = args(&alone, &more);
    command.extend(data);
    let (epochs, result) = lines(ampoule(command));
    // 22 of 25 are left of each class, of which half.
    assert_eq!(
        (&result["samples"], &result["labels"]),
        (&22.into(), &22.into())
    );
    assert_eq!(epochs[0]["step"], 2);
    assert_eq!(result["rows"].as_array().unwrap().len(), 2);
}

#[test]
fn what_can_not_be_learnt_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let nothing = folder.join("nothing");
    fs::create_dir_all(&nothing).unwrap();
    let labels = |data: &Path, more: &[&str]| {
        let more = [&["--labels-only", "--epochs", "2"], more].concat();
        let mut args = args(folder, &more);
        args.extend(["--data".into(), data.to_owned()]);
        ampoule(args)
    };
    labels(&nothing, &[]).fails_with_advice(&["nothing"]);
    labels(&folder.join("none"), &[]).fails_with_advice(&["none"]);
    labels(&photos().join("person"), &[]).fails_with_advice(&["has no labels"]);
    labels(photos(), &["--lr", "1e30"]).fails_with_advice(&["became", "in step", "learning rate"]);
    fs::remove_dir_all(folder.join("student.run")).unwrap();

    // Pictures that can't be read: few are left out and named, many end it.
    let some = folder.join("some");
    for class in ["no_person", "person"] {
        fs::create_dir_all(some.join(class)).unwrap();
        for file in fs::read_dir(photos().join(class))
            .unwrap()
            .flatten()
            .take(8)
        {
            fs::copy(file.path(), some.join(class).join(file.file_name())).unwrap();
        }
    }
    fs::write(some.join("person/0-broken.jpg"), b"\xff\xd8 not much").unwrap();
    labels(&some, &[]).fails_with_advice(&["0-broken.jpg", "more than 0"]);
    let ran = labels(&some, &["--max-unreadable", "1", "--hold-out", "0"]);
    assert!(ran.err.contains("warning: left out: `"), "{ran}");
    ran.text();
    fs::remove_dir_all(folder.join("student.run")).unwrap();
    labels(&some, &["--hold-out", "1"]).fails_with_advice(&["nothing to learn from"]);

    // Labels and teachers that do not match.
    let list = folder.join("list.csv");
    let row = |label: u32| format!("path,label\n{},{label}\n", photo().display());
    fs::write(&list, row(10)).unwrap();
    let mut command = args(folder, &["--epochs", "1"]);
    command.extend(["--teacher".into(), teacher(), "--data".into(), list.clone()]);
    ampoule(command).fails_with_advice(&["has class 10", "10 classes"]);
    let mut command = args(folder, &["--epochs", "1"]);
    let vww = crate::program::vww_onnx().to_owned();
    command.extend(["--teacher".into(), vww, "--teacher".into(), teacher()]);
    command.extend(["--data".into(), photos().to_owned()]);
    ampoule(command).fails_with_advice(&["2 classes, as the first teacher has"]);
    let eval = ["--eval", list.to_str().unwrap()];
    ampoule(from_store(folder, &eval)).fails_with_advice(&["has class 10", "10 classes"]);

    ampoule(from_store(folder, &["--augment", "light"])).fails(2, &["its own augmentation"]);
    let mut odd = from_store(folder, &[]);
    odd[6] = "7".into();
    ampoule(odd).fails(2, &["even number"]);
    ampoule(args(folder, &[])).fails(2, &["what is learnt from"]);
    for rate in ["0", "-1", "inf"] {
        ampoule(from_store(folder, &["--lr", rate])).fails(2, &["expected a number above 0"]);
    }
    ampoule(from_store(folder, &["--keep-zeros"])).fails(2, &["--student FILE.onnx"]);
    // The student's file and its artifact need two names.
    for name in ["student.amp", "student.safetensors"] {
        let output = folder.join(name);
        let words = words![
            "distill",
            "--student",
            "tinyvit-mini",
            "--labels-only",
            "-o",
            &output
        ];
        ampoule(words).fails(2, &["written as ONNX", "student.onnx"]);
    }
    let mut unknown = from_store(folder, &[]);
    unknown[2] = "tinyvit-99m".into();
    ampoule(unknown).fails(2, &["no network `tinyvit-99m`", "tinyvit-mini"]);
    assert!(!folder.join("student.onnx.tmp").exists());
}
