//! `cargo xtask targets`.

use anyhow::{Result, bail};
use clap::Args;

use crate::board::{BOARDS, plugin};
use crate::hosted::HOSTED;
use crate::model::{Model, all};
use crate::shell::{cross, has, has_target, output};
use crate::table::{Outcome, Row, print};

/// Targets that are built and not run.
const BUILT: [(&str, &str); 2] = [
    ("RISC-V", "riscv32imac-unknown-none-elf"),
    ("Armv7-A", "thumbv7a-none-eabi"),
];

#[derive(Debug, Args)]
pub struct Targets {
    /// One model per target, all of them on the Cortex-M4 only
    #[arg(long)]
    quick: bool,
    /// Only this model; may be repeated
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// Only targets whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    target: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Targets {
    pub fn execute(&self) -> Result<()> {
        if !has("qemu-system-arm") {
            eprintln!("qemu-system-arm is not installed: Cortex-M is built and not run");
            eprintln!("    sh targets/setup.sh --emulators");
        }
        let models = all(&self.models)?;
        let rows = self.rows(&models)?;
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&rows)?),
            false => print(&rows),
        }
        match rows.iter().filter(|row| !row.is_good()).count() {
            0 => Ok(()),
            bad => bail!("{bad} of {} rows are not as they should be", rows.len()),
        }
    }

    fn rows(&self, models: &[Model]) -> Result<Vec<Row>> {
        let plugin = plugin()?;
        let mut rows = Vec::new();
        let wanted = |name: &str| name.to_lowercase().contains(&self.target.to_lowercase());
        let mut put = |name, triple, model: &Model, outcome| {
            rows.push(Row::new(name, triple, model.name, outcome, &model.hash));
            eprintln!("{name}, {}: done", model.name);
        };
        for board in BOARDS.iter().filter(|b| wanted(b.name)) {
            let some = if self.quick && board.name != "Cortex-M4" {
                1
            } else {
                models.len()
            };
            for model in models.iter().take(some) {
                let outcome = match has_target(board.triple) {
                    true => board.measure(model, plugin.as_deref()),
                    false => missing(board.triple),
                };
                put(board.name, board.triple, model, outcome);
            }
        }
        for hosted in HOSTED.iter().filter(|h| wanted(h.name)) {
            for model in models
                .iter()
                .take(if self.quick { 1 } else { models.len() })
            {
                let outcome = match has_target(hosted.triple) {
                    true => hosted.measure(model),
                    false => missing(hosted.triple),
                };
                put(hosted.name, hosted.triple, model, outcome);
            }
        }
        for (name, triple) in BUILT.iter().filter(|(name, _)| wanted(name)) {
            let outcome = match has_target(triple) {
                true => build(triple),
                false => missing(triple),
            };
            rows.push(Row::new(name, triple, "-", outcome, ""));
        }
        Ok(rows)
    }
}

fn missing(triple: &str) -> Outcome {
    Outcome::Skipped(format!(
        "{triple} is not installed: sh targets/setup.sh {triple}"
    ))
}

/// The runtime alone.
fn build(triple: &str) -> Outcome {
    let mut command = cross(".");
    command.args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "ampoule-runtime",
        "--target",
        triple,
    ]);
    match output(command.env("CARGO_TARGET_DIR", "target/bare")) {
        Ok(_) => Outcome::Built("built, not run".into()),
        Err(e) => Outcome::NotBuilt(format!("{e:#}")),
    }
}
