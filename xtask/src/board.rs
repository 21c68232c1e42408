//! Cortex-M boards, emulated by QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::elf;
use crate::model::Model;
use crate::shell::{cargo, cross, has, output, root};
use crate::table::{Measured, Outcome};

/// A board, and what programs for it are compiled for.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    pub name: &'static str,
    pub triple: &'static str,
    cpu: &'static str,
    machine: &'static str,
    /// Bytes of code memory.
    flash: usize,
}

const fn board(
    name: &'static str,
    triple: &'static str,
    cpu: &'static str,
    machine: &'static str,
    flash: usize,
) -> Board {
    Board {
        name,
        triple,
        cpu,
        machine,
        flash,
    }
}

const MIB: usize = 1 << 20;

/// The boards. What is compiled for Armv6-M runs on a Cortex-M3 there, and the Cortex-M7 takes the
/// Cortex-M4's program.
pub const BOARDS: [Board; 5] = [
    board(
        "Cortex-M0",
        "thumbv6m-none-eabi",
        "cortex-m0",
        "mps2-an385",
        4 * MIB,
    ),
    board(
        "Cortex-M4",
        "thumbv7em-none-eabihf",
        "cortex-m4",
        "mps2-an386",
        4 * MIB,
    ),
    board(
        "Cortex-M7",
        "thumbv7em-none-eabihf",
        "cortex-m4",
        "mps2-an500",
        4 * MIB,
    ),
    board(
        "Cortex-M33",
        "thumbv8m.main-none-eabihf",
        "cortex-m33",
        "mps2-an505",
        4 * MIB,
    ),
    board(
        "Cortex-M55",
        "thumbv8m.main-none-eabihf",
        "cortex-m55",
        "mps3-an547",
        4 * MIB,
    ),
];

/// The counting plugin, built for the QEMU that is installed; `None` where that has no plugins we know.
pub fn plugin() -> Result<Option<PathBuf>> {
    if !has("qemu-system-arm") {
        return Ok(None);
    }
    let version = output(Command::new("qemu-system-arm").arg("--version"))?;
    let mut build = cargo("targets/icount");
    build.args(["build", "--quiet", "--release"]);
    if version.contains("version 7.") {
        build.args(["--features", "v1"]);
    } else if !version.contains("version 10.") {
        return Ok(None);
    }
    output(&mut build)?;
    Ok(Some(
        root().join("targets/icount/target/release/libicount.so"),
    ))
}

impl Board {
    /// Builds the runner with the model and runs it.
    pub fn measure(&self, model: &Model, plugin: Option<&Path>) -> Outcome {
        if model.bytes + 128 * 1024 > self.flash {
            return Outcome::Skipped("the model is larger than the board's memory".into());
        }
        match self.build(model) {
            Err(e) => Outcome::NotBuilt(format!("{e:#}")),
            Ok(_) if !has("qemu-system-arm") => {
                Outcome::Built("qemu-system-arm is not installed".into())
            }
            Ok(programs) => match self.run(&programs, model, plugin) {
                Ok(measured) => Outcome::Ran(measured),
                Err(e) => Outcome::Failed(format!("{e:#}")),
            },
        }
    }

    /// The folder of the programs: one that measures, and one that has nothing but what a user's has.
    fn build(&self, model: &Model) -> Result<PathBuf> {
        let folder = format!("target/{}", self.cpu);
        output(
            cross("targets/cortex-m")
                .args([
                    "build",
                    "--quiet",
                    "--release",
                    "--bin",
                    "run",
                    "--bin",
                    "size",
                    "--target",
                    self.triple,
                ])
                .env("CARGO_TARGET_DIR", &folder)
                .env("RUSTFLAGS", format!("-Ctarget-cpu={}", self.cpu))
                .env("AMPOULE_MODEL", &model.artifact)
                .env("BOARD", self.machine),
        )?;
        let built = Path::new("targets/cortex-m").join(folder).join(self.triple);
        Ok(root().join(built).join("release"))
    }

    fn run(&self, programs: &Path, model: &Model, plugin: Option<&Path>) -> Result<Measured> {
        let log = root().join("target/xtask/plugin.log");
        let mut qemu = Command::new("timeout");
        qemu.args(["300", "qemu-system-arm", "-M", self.machine, "-nographic"]);
        qemu.args(["-monitor", "none", "-serial", "none"]);
        qemu.args(["-semihosting-config", "enable=on,target=native"]);
        if let Some(plugin) = plugin {
            qemu.arg("-plugin")
                .arg(plugin)
                .args(["-d", "plugin", "-D"])
                .arg(&log);
        }
        let text = output(qemu.arg("-kernel").arg(programs.join("run")))?;
        let counts = match plugin {
            Some(_) => std::fs::read_to_string(&log)?,
            None => String::new(),
        };
        let find = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find_map(|(k, value)| (k == key).then_some(value))
        };
        let number = |key: &str| -> Result<usize> {
            let value = find(key).with_context(|| format!("the program prints no {key}"))?;
            Ok(value.parse()?)
        };
        if number("arena_used")? > number("arena")? {
            bail!("the run wrote past the promised arena");
        }
        let least = elf::read(&programs.join("size"))?;
        if least.formats {
            bail!("core::fmt is linked into a program that formats nothing");
        }
        Ok(Measured {
            isa: find("isa").unwrap_or_default().to_owned(),
            hash: find("hash")
                .context("the program prints no hash")?
                .to_owned(),
            flash: Some(least.flash - model.bytes),
            arena: Some(number("arena")?),
            stack: Some(number("stack_run")?.max(number("stack_verify")?)),
            instructions: counts
                .lines()
                .rfind(|line| line.starts_with("roi "))
                .and_then(|line| line.rsplit(' ').next()?.parse().ok()),
        })
    }
}
