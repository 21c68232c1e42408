//! Tasks of the repository, as `cargo xtask TASK`.

mod board;
mod elf;
mod hosted;
mod model;
mod shell;
mod table;
mod targets;

use clap::Parser;

/// Tasks of the repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Build the runtime for every target, run models on those that can be emulated, and compare their
    /// outputs with this processor's
    Targets(targets::Targets),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Targets(targets) => targets.execute(),
    }
}
