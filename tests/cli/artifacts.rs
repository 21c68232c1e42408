//! Files that are no artifacts, or are damaged ones.

use std::path::Path;

use crate::program::{ampoule, contents, fixture, photo, photos, vww_amp, vww_onnx};
use crate::words;

/// Every command that reads an artifact refuses a file, naming it.
fn refused(path: &Path, words: &[&str]) {
    let words: Vec<&str> = words
        .iter()
        .copied()
        .chain([path.to_str().unwrap()])
        .collect();
    ampoule(words!["inspect", path]).fails_with_advice(&words);
    ampoule(words!["run", path, photo()]).fails_with_advice(&words);
    ampoule(words!["bench", path, "--runs", "1"]).fails_with_advice(&words);
    ampoule(words!["selftest", path]).fails_with_advice(&words);
    ampoule(words!["eval", path, "--data", photos()]).fails_with_advice(&words);
    ampoule(words!["compare", vww_onnx(), path, "--data", photos()]).fails_with_advice(&words);
}

#[test]
fn damaged_artifacts_are_refused_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.amp");
    let good = std::fs::read(vww_amp()).unwrap();
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap();

    write(&[]);
    refused(&path, &["truncated"]);
    write(&good[..good.len() / 2]);
    refused(&path, &["truncated"]);
    let mut flipped = good.clone();
    flipped[good.len() / 3] ^= 0x10;
    write(&flipped);
    refused(&path, &["checksum"]);
    let noise: Vec<u8> = (0u32..5000)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    write(&noise);
    refused(&path, &["not an ampoule"]);
    std::fs::write(&path, std::fs::read(photo()).unwrap()).unwrap();
    refused(&path, &["not an ampoule"]);
    let mut newer = good.clone();
    newer[8] = 200; // the major version
    write(&newer);
    refused(&path, &["version"]);

    std::fs::remove_file(&path).unwrap();
    refused(&path, &["cannot read"]);
    refused(folder.path(), &["cannot read"]);
    assert!(contents(folder.path()).is_empty());
}

/// Any change of any byte is noticed: the digest covers all.
#[test]
fn every_kind_of_flip_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.amp");
    let good = std::fs::read(vww_amp()).unwrap();
    let header = (0..64).step_by(3);
    let spread = (64..good.len()).step_by(good.len() / 16);
    for at in header.chain(spread).chain([good.len() - 1]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, bytes).unwrap();
        ampoule(words!["inspect", &path]).fails(1, &["bad.amp"]);
    }
    for len in (0..128).step_by(9).chain([good.len() - 1, good.len() - 64]) {
        std::fs::write(&path, &good[..len]).unwrap();
        ampoule(words!["run", &path, photo()]).fails(1, &["bad.amp"]);
    }
    std::fs::write(&path, [&good[..], &[0; 7]].concat()).unwrap();
    ampoule(words!["inspect", &path]).fails(1, &["bad.amp"]);
}

#[test]
fn onnx_files_are_no_artifacts() {
    let hint = "`ampoule quantize`";
    ampoule(words!["run", vww_onnx(), photo()]).fails_with_advice(&["not an ampoule", hint]);
    ampoule(words!["bench", vww_onnx()]).fails_with_advice(&["not an ampoule", hint]);
    let swapped = words!["compare", vww_amp(), vww_onnx(), "--data", photos()];
    ampoule(swapped).fails_with_advice(&["not an ampoule", hint]);
}

#[test]
fn an_artifact_of_another_model_is_no_counterpart() {
    let other = fixture("models/mlperf-tiny/ic_resnet8_float.onnx");
    let ran = ampoule(words!["compare", &other, vww_amp(), "--data", photos()]);
    ran.fails_with_advice(&["vww.amp", "ic_resnet8", "1×96×96×3", "1×32×32×3"]);
}
