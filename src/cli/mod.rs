//! Commands. Each file has one: its arguments, what it does, and how it shows the result.
//!
//! Results go to standard output, as tables or with `--json` as JSON; progress, warnings and errors go
//! to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 130
//! stopped by the user (`distill`; started again it goes on).

mod args;
mod augment;
mod bench;
pub mod compare;
pub mod demo;
pub mod distill;
mod error;
mod eval;
mod extract;
mod files;
pub mod inspect;
mod labels;
mod memory;
mod merge;
mod models;
mod npy;
pub mod output;
pub mod peak;
pub mod preprocessing;
mod profile;
mod progress;
pub mod prune;
pub mod quantize;
mod run;
mod samples;
pub mod selftest;
mod teach;
mod timing;
mod zoo;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use error::Failure;

/// Shrinks trained vision models and seals them to run on the edge.
#[derive(Debug, Parser)]
#[command(name = "ampoule", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Quantize(quantize::Quantize),
    Inspect(inspect::Inspect),
    Run(run::Run),
    Eval(eval::Eval),
    Compare(compare::Compare),
    Bench(bench::Bench),
    Selftest(selftest::Selftest),
    Demo(demo::Demo),
    Zoo(zoo::Zoo),
    Teach(teach::Teach),
    Merge(merge::Merge),
    Prune(prune::Prune),
    Distill(Box<distill::Distill>),
    Extract(extract::Extract),
}

/// The arguments; a negative number behind an option is its value, and is then refused in the option's own words.
fn command() -> clap::Command {
    let command = Cli::command();
    let names: Vec<String> = command
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |c| {
            c.mut_args(|arg| {
                let is_value = arg.get_long().is_some() && arg.get_action().takes_values();
                match is_value && !arg.is_allow_hyphen_values_set() {
                    true => arg.allow_negative_numbers(true),
                    false => arg,
                }
            })
        })
    })
}

/// Parses the arguments, runs the command and gives the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|e| e.exit());
    let result = match &cli.command {
        Command::Quantize(c) => c.execute(),
        Command::Inspect(c) => c.execute(),
        Command::Run(c) => c.execute(),
        Command::Eval(c) => c.execute(),
        Command::Compare(c) => c.execute(),
        Command::Bench(c) => c.execute(),
        Command::Selftest(c) => c.execute(),
        Command::Demo(c) => c.execute(),
        Command::Zoo(c) => c.execute(),
        Command::Teach(c) => c.execute(),
        Command::Merge(c) => c.execute(),
        Command::Prune(c) => c.execute(),
        Command::Distill(c) => c.execute(),
        Command::Extract(c) => c.execute(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough.
        Err(Failure::Print(e)) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
