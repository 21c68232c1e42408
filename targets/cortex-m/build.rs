//! Puts the artifact that is to run, and the memory map of the board that is to run it, where the build
//! finds them: environment variables `AMPOULE_MODEL` (a path) and `BOARD`.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=AMPOULE_MODEL");
    println!("cargo:rerun-if-env-changed=BOARD");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));

    let model = env::var("AMPOULE_MODEL").expect("AMPOULE_MODEL is the path of the .amp to run");
    println!("cargo:rerun-if-changed={model}");
    fs::copy(&model, out.join("model.amp")).unwrap_or_else(|e| panic!("{model}: {e}"));

    let board = env::var("BOARD").unwrap_or_else(|_| "mps2-an386".into());
    let (flash, ram) = match board.as_str() {
        "mps2-an385" | "mps2-an386" | "mps2-an500" => ((0x0000_0000, "4M"), (0x2000_0000, "4M")),
        "mps2-an505" => ((0x1000_0000, "4M"), (0x3800_0000, "4M")),
        "mps3-an547" => ((0x0000_0000, "512K"), (0x2000_0000, "512K")),
        other => panic!("unknown BOARD {other}"),
    };
    let bank =
        |name, (origin, length)| format!("  {name} : ORIGIN = {origin:#010x}, LENGTH = {length}\n");
    let map = format!(
        "MEMORY {{\n{}{}}}\n",
        bank("FLASH", flash),
        bank("RAM", ram)
    );
    fs::write(out.join("memory.x"), map).expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg=-Tlink.x");
}
