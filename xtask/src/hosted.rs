//! Targets with an operating system, or WebAssembly: the self-test program of `targets/grid`, emulated.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::model::Model;
use crate::shell::{cross, has, output, root};
use crate::table::{Measured, Outcome};

/// A target and the processor that is emulated.
#[derive(Debug, Clone, Copy)]
pub struct Hosted {
    pub name: &'static str,
    pub triple: &'static str,
    linker: Option<&'static str>,
    emulator: &'static [&'static str],
}

const LINUX: &str = "aarch64-unknown-linux-gnu";

const fn aarch64(name: &'static str, emulator: &'static [&'static str]) -> Hosted {
    Hosted {
        name,
        triple: LINUX,
        linker: Some("aarch64-linux-gnu-gcc"),
        emulator,
    }
}

/// The targets.
pub const HOSTED: [Hosted; 5] = [
    aarch64(
        "aarch64 a53",
        &[
            "qemu-aarch64",
            "-cpu",
            "cortex-a53",
            "-L",
            "/usr/aarch64-linux-gnu",
        ],
    ),
    aarch64(
        "aarch64 a76",
        &[
            "qemu-aarch64",
            "-cpu",
            "cortex-a76",
            "-L",
            "/usr/aarch64-linux-gnu",
        ],
    ),
    aarch64(
        "aarch64 max",
        &[
            "qemu-aarch64",
            "-cpu",
            "max",
            "-L",
            "/usr/aarch64-linux-gnu",
        ],
    ),
    Hosted {
        name: "armv7 a7",
        triple: "armv7-unknown-linux-gnueabihf",
        linker: Some("arm-linux-gnueabihf-gcc"),
        emulator: &[
            "qemu-arm",
            "-cpu",
            "cortex-a7",
            "-L",
            "/usr/arm-linux-gnueabihf",
        ],
    },
    Hosted {
        name: "wasm32",
        triple: "wasm32-wasip1",
        linker: None,
        emulator: &["node", "--no-warnings", "targets/wasm/wasi.mjs"],
    },
];

impl Hosted {
    /// Builds the self-test and runs it on the model.
    pub fn measure(&self, model: &Model) -> Outcome {
        if let Some(linker) = self.linker.filter(|linker| !has(linker)) {
            return Outcome::Skipped(format!("{linker} is not installed"));
        }
        let program = match self.build() {
            Ok(program) => program,
            Err(e) => return Outcome::NotBuilt(format!("{e:#}")),
        };
        if !has(self.emulator[0]) {
            return Outcome::Built(format!("{} is not installed", self.emulator[0]));
        }
        match self.run(&program, model) {
            Ok(measured) => Outcome::Ran(measured),
            Err(e) => Outcome::Failed(format!("{e:#}")),
        }
    }

    fn build(&self) -> Result<String> {
        output(
            cross("targets/grid")
                .args(["build", "--quiet", "--release", "--features", "std"])
                .args(["--bin", "selftest", "--target", self.triple])
                .env("CARGO_TARGET_DIR", "target"),
        )?;
        let extension = if self.triple.starts_with("wasm32") {
            ".wasm"
        } else {
            ""
        };
        let built = format!(
            "targets/grid/target/{}/release/selftest{extension}",
            self.triple
        );
        Ok(root().join(built).display().to_string())
    }

    fn run(&self, program: &str, model: &Model) -> Result<Measured> {
        let (emulator, options) = self.emulator.split_first().context("an emulator")?;
        // Node's WASI finds files below the folder that it runs in, not by absolute paths.
        let (folder, artifact) = (root().canonicalize()?, model.artifact.canonicalize()?);
        let mut command = Command::new(emulator);
        command
            .current_dir(&folder)
            .args(options)
            .arg(program)
            .arg(artifact.strip_prefix(&folder).unwrap_or(&artifact));
        let text = output(&mut command)?;
        // A line `isa N vectors hash` for each instruction set; the program fails when they differ.
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        let isas: Vec<&str> = lines.iter().filter_map(|l| l.first().copied()).collect();
        let Some([.., hash]) = lines.first().map(Vec::as_slice) else {
            bail!("the program prints no hash");
        };
        Ok(Measured {
            isa: isas.join(" "),
            hash: (*hash).to_owned(),
            ..Measured::default()
        })
    }
}
