//! `ampoule bench`: how fast an artifact runs here.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use ampoule_runtime::Session;
use clap::Args;
use serde::Serialize;

use super::args::ExecArgs;
use super::error::Failure;
use super::inspect::details::Details;
use super::models::read_artifact;
use super::output::{count, facts, micros, print, print_json};
use super::peak::Peaks;
use super::profile::{self, StepTime};
use super::timing::{Times, Until, fill_inputs, measure};

const EXAMPLES: &str = "\
Examples:
  ampoule bench model.amp
  ampoule bench model.amp --isa avx2 --threads 2 --seconds 5
  ampoule bench model.amp --profile";

/// Runs before anything is measured.
const WARM_UP: Duration = Duration::from_millis(200);

/// Measure how fast an artifact runs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    /// The artifact
    model: PathBuf,
    /// Number of runs, in place of a time
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// How long to measure
    #[arg(long, default_value_t = 2.0, value_name = "S", value_parser = seconds)]
    seconds: f64,
    /// Show the time per step, and how near it is to what this machine can do
    #[arg(long)]
    profile: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Answer `run N` on standard input with a JSON array of N times in µs: for benches/peers
    #[arg(long, hide = true, conflicts_with_all = ["json", "profile", "runs"])]
    worker: bool,
    #[command(flatten)]
    exec: ExecArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    isa: &'static str,
    threads: usize,
    #[serde(flatten)]
    times: Times,
    macs: u64,
    gmacs_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peaks: Option<Peaks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepTime>>,
}

impl Bench {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let mut model = read_artifact(&self.model)?;
        let details = Details::of(&model)?;
        let pool = self.exec.pool();
        let mut session = self.exec.session(&mut model, pool.as_ref())?;
        if self.worker {
            return serve(&mut session);
        }
        let until = match self.runs {
            Some(n) => Until::Runs(n as usize),
            None => Until::Elapsed(Duration::from_secs_f64(self.seconds)),
        };
        measure(&mut session, Until::Elapsed(WARM_UP))?;
        let times = Times::of(measure(&mut session, until)?);
        let peaks = self.profile.then(|| Peaks::measure(self.exec.isa()));
        let steps = match &peaks {
            Some(peaks) => Some(profile::steps(
                &details,
                &super::timing::profile(&mut session, until)?,
                Some((peaks, self.exec.threads())),
            )),
            None => None,
        };
        let outcome = Outcome {
            isa: self.exec.isa().name(),
            threads: self.exec.threads(),
            macs: details.macs,
            gmacs_per_second: details.macs as f64 / 1e3 / times.median_us.max(1e-3),
            times,
            peaks,
            steps,
        };
        if self.json {
            print_json(&outcome)
        } else {
            print(&render(&outcome))
        }
    }
}

/// The worker protocol of benches/peers/README.md.
fn serve(session: &mut Session<'_, '_>) -> Result<(), Failure> {
    fill_inputs(session)?;
    session.run()?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Failure::Print)?;
        let Some(n) = line
            .strip_prefix("run ")
            .and_then(|n| n.trim().parse().ok())
        else {
            continue;
        };
        let times = measure(session, Until::Runs(n))?;
        let rounded: Vec<String> = times.iter().map(|t| format!("{t:.1}")).collect();
        let mut out = std::io::stdout().lock();
        writeln!(out, "[{}]", rounded.join(","))
            .and_then(|()| out.flush())
            .map_err(Failure::Print)?;
    }
    Ok(())
}

fn render(o: &Outcome) -> String {
    let t = &o.times;
    let table = facts(&[
        (
            "median",
            format!(
                "{}  ± {} (median deviation)",
                micros(t.median_us),
                micros(t.spread_us)
            ),
        ),
        ("p10", micros(t.p10_us)),
        ("p99", micros(t.p99_us)),
        ("runs", count(t.runs as u64)),
        ("isa", o.isa.to_owned()),
        ("threads", o.threads.to_string()),
        (
            "speed",
            format!("{:.2} GMAC/s ({} MACs)", o.gmacs_per_second, count(o.macs)),
        ),
    ]);
    match (&o.steps, &o.peaks) {
        (Some(steps), Some(peaks)) => {
            let peaks = facts(&[("peak", format!("{}, one thread", peaks.summary()))]);
            format!("{}\n{table}{peaks}", profile::render(steps))
        }
        _ => table,
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|s: &f64| *s > 0.0 && *s <= 3600.0);
    parsed.ok_or_else(|| "expected seconds up to 3600".to_owned())
}
