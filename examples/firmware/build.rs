//! Verifies the model, finds out which operators it needs, and holds the firmware to its budget.
//!
//! The budget is in `Cargo.toml`. Model, arena and frame buffer are known here; the rest is the linker's: it
//! gets memories of the budget's size.

use std::path::PathBuf;
use std::{env, fs};

use ampoule_runtime::{ARTIFACT_ALIGN, Artifact, OperatorSet};

/// Colours of the display, two bytes each.
const FRAME_BUFFER: usize = 320 * 240 * 2;

fn main() {
    println!("cargo:rerun-if-changed=model.amp");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let model = fs::read("model.amp").expect("model.amp is beside Cargo.toml");

    // An artifact must begin at an aligned address.
    let mut memory = vec![0; model.len() + ARTIFACT_ALIGN];
    let start = memory.as_ptr().align_offset(ARTIFACT_ALIGN);
    let memory = &mut memory[start..][..model.len()];
    memory.copy_from_slice(&model);
    let artifact = Artifact::verify(memory).unwrap_or_else(|e| panic!("model.amp: {e}"));
    let operators = OperatorSet::of(&artifact).bits();
    let text = format!("ampoule_runtime::OperatorSet::from_bits({operators:?})");
    fs::write(out.join("operators.rs"), text).expect("OUT_DIR is writable");
    fs::write(out.join("digest"), artifact.digest()).expect("OUT_DIR is writable");

    let (flash, ram) = (budget("flash"), budget("ram"));
    let arena = artifact.bank_bytes(0);
    assert!(
        model.len() < flash,
        "the model has {} bytes, the flash {flash}",
        model.len()
    );
    assert!(
        arena + FRAME_BUFFER < ram,
        "arena ({arena} bytes) and frame buffer ({FRAME_BUFFER}) do not fit into {ram} bytes of RAM"
    );
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let map = format!(
            "MEMORY {{\n  FLASH : ORIGIN = 0x00000000, LENGTH = {flash}\n  \
             RAM : ORIGIN = 0x20000000, LENGTH = {ram}\n}}\n"
        );
        fs::write(out.join("memory.x"), map).expect("OUT_DIR is writable");
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg=-Tlink.x");
    }
}

/// A number of `[package.metadata.budget]`.
fn budget(name: &str) -> usize {
    let manifest = fs::read_to_string("Cargo.toml").expect("Cargo.toml is here");
    let (_, section) = manifest
        .split_once("[package.metadata.budget]")
        .expect("a budget");
    let value = section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('='));
    let value = value.unwrap_or_else(|| panic!("the budget has no {name}"));
    value
        .trim()
        .replace('_', "")
        .parse()
        .expect("a number of bytes")
}
