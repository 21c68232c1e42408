//! The models that are run: sealed from fixtures, and from the larger data where they are there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell::{cargo, output, root};

/// A sealed model.
#[derive(Debug)]
pub struct Model {
    /// Short name, as MLPerf Tiny's submitters use them.
    pub name: &'static str,
    /// The artifact.
    pub artifact: PathBuf,
    /// Its length.
    pub bytes: usize,
    /// Hash of the outputs on every instruction set of this processor, in hexadecimal.
    pub hash: String,
}

/// Where a model comes from.
struct Source {
    name: &'static str,
    file: &'static str,
    /// In the larger data, not in the repository.
    large: bool,
    /// A file of `targets/boards`.
    board: Option<&'static str>,
}

const SOURCES: [Source; 12] = [
    fixture("vww_96", "models/mlperf-tiny/vww_mobilenet025_float.onnx"),
    Source {
        board: Some("two-banks.json"),
        ..fixture(
            "vww_96-banks",
            "models/mlperf-tiny/vww_mobilenet025_float.onnx",
        )
    },
    fixture("resnet8", "models/mlperf-tiny/ic_resnet8_float.onnx"),
    fixture("ad01", "models/mlperf-tiny/ad_autoencoder_float.onnx"),
    fixture("tinyvit-mini", "minis/tinyvit-mini.onnx"),
    large("person_detect", "tflite-vision/tflm_person_detect.tflite"),
    large("kws", "mlperf-tiny/kws_dscnn_int8.tflite"),
    large("vww_96-tflite", "mlperf-tiny/vww_mobilenet025_int8.tflite"),
    large("resnet8-tflite", "mlperf-tiny/ic_resnet8_int8.tflite"),
    large("ad01-tflite", "mlperf-tiny/ad_autoencoder_int8.tflite"),
    large("sww", "mlperf-tiny/sww_streaming_int8.tflite"),
    large(
        "efficientnet-lite0",
        "imagenet-classifier/efficientnet_lite0_int8_qdq_b1.onnx",
    ),
];

const fn fixture(name: &'static str, file: &'static str) -> Source {
    Source {
        name,
        file,
        large: false,
        board: None,
    }
}

const fn large(name: &'static str, file: &'static str) -> Source {
    Source {
        name,
        file,
        large: true,
        board: None,
    }
}

/// Seals the models of these names, or all; says which can't be had.
pub fn all(names: &[String]) -> Result<Vec<Model>> {
    if let Some(unknown) = names.iter().find(|n| SOURCES.iter().all(|s| s.name != **n)) {
        let known: Vec<&str> = SOURCES.iter().map(|s| s.name).collect();
        bail!("no model {unknown}; there are {}", known.join(", "));
    }
    let ampoule = ampoule()?;
    let mut models = Vec::new();
    for source in &SOURCES {
        if !names.is_empty() && !names.iter().any(|n| n == source.name) {
            continue;
        }
        let folder = match source.large {
            true => data(),
            false => root().join("tests/fixtures"),
        };
        let file = folder.join(source.file);
        if !file.is_file() {
            eprintln!("{}: skipped, {} is not there", source.name, file.display());
            continue;
        }
        match seal(&ampoule, source, &file) {
            Ok(model) => models.push(model),
            // Large models are extra; one of the repository must work.
            Err(e) if source.large => eprintln!("{}: skipped, {e:#}", source.name),
            Err(e) => return Err(e.context(source.name)),
        }
    }
    Ok(models)
}

fn data() -> PathBuf {
    std::env::var_os("AMPOULE_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from)
}

/// The command line: `AMPOULE`, or built.
fn ampoule() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("AMPOULE") {
        return Ok(path.into());
    }
    output(cargo(".").args(["build", "--quiet", "--package", "ampoule"]))?;
    Ok(root().join("target/debug/ampoule"))
}

fn seal(ampoule: &Path, source: &Source, file: &Path) -> Result<Model> {
    let folder = root().join("target/xtask");
    std::fs::create_dir_all(&folder)?;
    let artifact = folder.join(source.name).with_extension("amp");
    let mut quantize = Command::new(ampoule);
    quantize
        .arg("quantize")
        .arg(file)
        .arg("--output")
        .arg(&artifact);
    if let Some(board) = source.board {
        let board = root().join("targets/boards").join(board);
        quantize.arg("--target-file").arg(board);
    }
    // What is not in the repository is quantised already.
    if file.extension().is_some_and(|e| e == "onnx") && !source.large {
        quantize
            .arg("--calibration")
            .arg(calibration(file, &folder)?);
    }
    output(&mut quantize)?;

    #[derive(Deserialize)]
    struct Tested {
        isa: String,
        hash: Option<String>,
    }
    // Fails when instruction sets of this processor differ.
    let json = output(
        Command::new(ampoule)
            .args(["selftest", "--json"])
            .arg(&artifact),
    )?;
    let tested: Vec<Tested> = serde_json::from_str(&json)?;
    let mut hashes = tested.into_iter().filter_map(|t| Some((t.hash?, t.isa)));
    let (hash, _) = hashes.next().context("no instruction set was tested")?;
    let bytes = std::fs::metadata(&artifact)?.len() as usize;
    Ok(Model {
        name: source.name,
        artifact: std::fs::canonicalize(&artifact)?,
        bytes,
        hash,
    })
}

/// Calibration samples of a fixture: the folder beside it, or its own input as an array.
fn calibration(model: &Path, to: &Path) -> Result<PathBuf> {
    let folder = model.with_file_name("calibration");
    if folder.is_dir() {
        return Ok(folder);
    }
    #[derive(Deserialize)]
    struct Fixture {
        samples: usize,
        inputs: Vec<Input>,
    }
    #[derive(Deserialize)]
    struct Input {
        shape: Vec<usize>,
    }
    let about = std::fs::read(model.with_extension("json"))?;
    let fixture: Fixture = serde_json::from_slice(&about)?;
    let input = fixture.inputs.first().context("the fixture has no input")?;
    // The first axis counts the samples.
    let shape = std::iter::once(&fixture.samples).chain(input.shape.iter().skip(1));
    let values = std::fs::read(model.with_extension("input.bin"))?;
    let list: Vec<String> = shape.map(|n| format!("{n},")).collect();
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}",
        list.concat()
    );
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.into_bytes());
    file.extend(values);
    let path = to
        .join(model.file_name().context("a file")?)
        .with_extension("npy");
    std::fs::write(&path, file)?;
    Ok(path)
}
