//! Puts the artifact that is to run, and the memory map of the board that is to run it, where the build
//! finds them: environment variables `AMPOULE_MODEL` (a path) and `BOARD`.

use std::{env, fs, path::PathBuf};

use ampoule_runtime::{ARTIFACT_ALIGN, Artifact, OperatorSet};

fn main() {
    println!("cargo:rerun-if-env-changed=AMPOULE_MODEL");
    println!("cargo:rerun-if-env-changed=BOARD");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));

    let model = env::var("AMPOULE_MODEL").expect("AMPOULE_MODEL is the path of the .amp to run");
    println!("cargo:rerun-if-changed={model}");
    let bytes = fs::read(&model).unwrap_or_else(|e| panic!("{model}: {e}"));
    fs::write(out.join("model.amp"), &bytes).expect("OUT_DIR is writable");
    let (operators, digest) = verify(&bytes).unwrap_or_else(|e| panic!("{model}: {e}"));
    let text = format!("ampoule_runtime::OperatorSet::from_bits({operators:?})");
    fs::write(out.join("operators.rs"), text).expect("OUT_DIR is writable");
    fs::write(out.join("digest"), digest).expect("OUT_DIR is writable");

    let board = env::var("BOARD").unwrap_or_else(|_| "mps2-an386".into());
    let (flash, ram, other) = match board.as_str() {
        "mps2-an385" | "mps2-an386" => (
            (0x0000_0000, "4M"),
            (0x2000_0000, "4M"),
            (0x2100_0000, "16M"),
        ),
        "mps2-an500" => (
            (0x0000_0000, "4M"),
            (0x2000_0000, "2M"),
            (0x2020_0000, "2M"),
        ),
        "mps2-an505" => (
            (0x1000_0000, "4M"),
            (0x3800_0000, "2M"),
            (0x3820_0000, "2M"),
        ),
        "mps3-an547" => (
            (0x0000_0000, "512K"),
            (0x2000_0000, "256K"),
            (0x2004_0000, "256K"),
        ),
        other => panic!("unknown BOARD {other}"),
    };
    let bank = |name, (origin, length): (u32, &str)| {
        format!("  {name} : ORIGIN = {origin:#010x}, LENGTH = {length}\n")
    };
    // A model that leaves no room for the program in the M55's fast memory lies in DDR, which secure programs see here.
    let outside = board == "mps3-an547" && bytes.len() > 384 << 10;
    let (external, memory) = match outside {
        true => (bank("DDR", (0x7000_0000, "256M")), "DDR"),
        false => (String::new(), "FLASH"),
    };
    // The second arena bank lies in the board's other memory, or in the second half of the one that QEMU
    // has open at reset.
    let map = format!(
        "MEMORY {{\n{}{}{}{external}}}\n\
         SECTIONS {{ .model : ALIGN(64) {{ *(.model) }} > {memory} }} INSERT AFTER .rodata;\n\
         SECTIONS {{ .bank1 (NOLOAD) : ALIGN(64) {{ *(.bank1) }} > BANK1 }} INSERT AFTER .bss;\n",
        bank("FLASH", flash),
        bank("RAM", ram),
        bank("BANK1", other)
    );
    fs::write(out.join("memory.x"), map).expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg=-Tlink.x");
}

/// Bits of the operators that the artifact needs, and its digest.
fn verify(bytes: &[u8]) -> Result<([u32; 3], Vec<u8>), ampoule_runtime::Error> {
    // An artifact must begin at an aligned address.
    let mut memory = vec![0; bytes.len() + ARTIFACT_ALIGN];
    let start = memory.as_ptr().align_offset(ARTIFACT_ALIGN);
    let memory = &mut memory[start..][..bytes.len()];
    memory.copy_from_slice(bytes);
    let artifact = Artifact::verify(memory)?;
    Ok((
        OperatorSet::of(&artifact).bits(),
        artifact.digest().to_vec(),
    ))
}
