//! The command line `ampoule`: shrinks trained vision models and seals them to run on the edge.

#![forbid(unsafe_code)]

mod cli;
mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
