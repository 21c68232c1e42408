//! Tells the crate which of Arm's optional instruction sets the target has: stable Rust shows neither to
//! `cfg(target_feature)`, and a processor without an operating system can't be asked.
//!
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
    println!("cargo:rustc-check-cfg=cfg(arm_dsp, arm_mve)");
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
}
