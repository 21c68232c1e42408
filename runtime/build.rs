//! Tells the crate which instruction sets the target has, where stable Rust does not show them to
//! `cfg(target_feature)` or several share kernels.
//!
//! * `wasm_simd128`: WebAssembly compiled with `simd128`.
//! * `simd128`: vectors of 128 bits, those or NEON.
//! * `arm_dsp`: SMLAD, SXTB16 and the like. Armv7E-M and Armv7-A have them (the kernels are Thumb code), of Armv8-M main the processors
//!   that `-C target-cpu` names below.
//! * `arm_mve`: the M-profile vector extension, Helium.

use std::env;

const DSP: [&str; 5] = [
    "cortex-m33",
    "cortex-m35p",
    "cortex-m52",
    "cortex-m55",
    "cortex-m85",
];
const MVE: [&str; 3] = ["cortex-m52", "cortex-m55", "cortex-m85"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo:rustc-check-cfg=cfg(arm_dsp, arm_mve, simd128, wasm_simd128)");
    let target = env::var("TARGET").unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let named = |key: &str| {
        let mut values = flags
            .split(['\u{1f}', ' '])
            .filter_map(|flag| flag.split_once(key));
        values.next_back().map_or("", |(_, value)| value)
    };
    let (cpu, features) = (named("target-cpu="), named("target-feature="));
    let v8m = target.starts_with("thumbv8m.main");
    let has = |cpus: &[&str], feature: &str| {
        v8m && (cpus.contains(&cpu) || features.split(',').any(|f| f == feature))
    };
    let v7 = ["thumbv7em", "thumbv7neon", "thumbv7a"];
    if has(&DSP, "+dsp") || v7.iter().any(|t| target.starts_with(t)) {
        println!("cargo:rustc-cfg=arm_dsp");
    }
    if has(&MVE, "+mve") {
        println!("cargo:rustc-cfg=arm_mve");
    }
    let cfg = |key: &str| env::var(key).unwrap_or_default();
    let (arch, built_in) = (
        cfg("CARGO_CFG_TARGET_ARCH"),
        cfg("CARGO_CFG_TARGET_FEATURE"),
    );
    let wasm = arch == "wasm32" && built_in.split(',').any(|f| f == "simd128");
    if wasm {
        println!("cargo:rustc-cfg=wasm_simd128");
    }
    if wasm || arch == "aarch64" {
        println!("cargo:rustc-cfg=simd128");
    }
}
