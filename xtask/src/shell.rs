//! Other programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo outside this run's own environment, in a folder of the repository.
pub fn cargo(folder: &str) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root().join(folder));
    for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}

/// [`cargo`] with the toolchain that has the targets: `TARGETS_TOOLCHAIN`, or the usual one.
pub fn cross(folder: &str) -> Command {
    let mut command = cargo(folder);
    if let Some(toolchain) = std::env::var_os("TARGETS_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Targets whose standard library the toolchain has.
pub fn has_target(triple: &str) -> bool {
    let mut rustc = Command::new("rustc");
    if let Some(toolchain) = std::env::var_os("TARGETS_TOOLCHAIN") {
        rustc.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    let sysroot = rustc.args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|out| {
        let sysroot = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        Path::new(&sysroot)
            .join("lib/rustlib")
            .join(triple)
            .is_dir()
    })
}

/// What a command prints; an error with the end of its messages when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let messages = format!("{text}{}", String::from_utf8_lossy(&out.stderr));
        let lines: Vec<&str> = messages.lines().collect();
        let end = lines[lines.len().saturating_sub(8)..].join("\n");
        bail!("{command:?} ends with {}:\n{end}", out.status);
    }
    Ok(text)
}
