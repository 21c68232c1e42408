//! Measuring runs.

use std::time::{Duration, Instant};

use ampoule_runtime::Session;
use ampoule_runtime::artifact::golden_input;
use serde::Serialize;

use super::error::Failure;

/// Times of a number of runs, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    pub runs: usize,
    pub median_us: f64,
    pub p10_us: f64,
    pub p99_us: f64,
    /// Median distance from the median.
    pub spread_us: f64,
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many runs.
    Runs(usize),
    /// So much time, at least three runs.
    Elapsed(Duration),
}

impl Until {
    fn reached(self, runs: usize, started: Instant) -> bool {
        match self {
            Until::Runs(n) => runs >= n,
            Until::Elapsed(time) => runs >= 3 && started.elapsed() >= time,
        }
    }
}

/// Fills the inputs with the same noise each time; a run may have reused their memory.
pub fn fill_inputs(session: &mut Session<'_, '_>) -> Result<(), Failure> {
    for i in 0..session.artifact().inputs().count() {
        let dtype = session.input(i)?.tensor.dtype;
        golden_input(1, dtype, session.input_bytes(i)?);
    }
    Ok(())
}

/// Runs and gives the time of each run, in microseconds.
pub fn measure(session: &mut Session<'_, '_>, until: Until) -> Result<Vec<f64>, Failure> {
    let started = Instant::now();
    let mut times = Vec::new();
    while !until.reached(times.len(), started) {
        fill_inputs(session)?;
        let start = Instant::now();
        session.run()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Median time of every step over a number of runs, in microseconds.
pub fn profile(session: &mut Session<'_, '_>, until: Until) -> Result<Vec<f64>, Failure> {
    let started = Instant::now();
    let mut steps: Vec<Vec<f64>> = vec![Vec::new(); session.artifact().step_count()];
    let mut runs = 0;
    while !until.reached(runs, started) {
        fill_inputs(session)?;
        let mut last = Instant::now();
        session.run_observed(|o| {
            let now = Instant::now();
            if let Some(times) = steps.get_mut(o.index) {
                times.push((now - last).as_secs_f64() * 1e6);
            }
            // The bookkeeping above is no part of the next step.
            last = Instant::now();
        })?;
        runs += 1;
    }
    Ok(steps
        .into_iter()
        .map(|mut times| quantile(&mut times, 0.5))
        .collect())
}

impl Times {
    /// Summarises times.
    pub fn of(mut times: Vec<f64>) -> Self {
        let median = quantile(&mut times, 0.5);
        let mut distances: Vec<f64> = times.iter().map(|t| (t - median).abs()).collect();
        Times {
            runs: times.len(),
            median_us: median,
            p10_us: quantile(&mut times, 0.1),
            p99_us: quantile(&mut times, 0.99),
            spread_us: quantile(&mut distances, 0.5),
        }
    }
}

/// The value below which the share `q` of the values lies, interpolated; 0 without values.
fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = q * values.len().saturating_sub(1) as f64;
    let (below, above) = (
        values.get(at.floor() as usize),
        values.get(at.ceil() as usize),
    );
    match (below, above) {
        (Some(a), Some(b)) => a + (b - a) * at.fract(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_hand() {
        let times = Times::of(vec![4.0, 1.0, 3.0, 2.0, 100.0]);
        assert_eq!(
            (times.runs, times.median_us, times.spread_us),
            (5, 3.0, 1.0)
        );
        assert!((times.p10_us - 1.4).abs() < 1e-9 && (times.p99_us - 96.16).abs() < 1e-9);
        assert_eq!(Times::of(Vec::new()).median_us, 0.0);
    }
}
