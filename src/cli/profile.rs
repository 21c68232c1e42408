//! A table of the time per step.

use serde::Serialize;

use super::inspect::details::Details;
use super::output::{Table, count, micros, shape, shortened};

/// Time of one step.
#[derive(Debug, Clone, Serialize)]
pub struct StepTime {
    pub index: usize,
    pub op: &'static str,
    pub name: String,
    pub output: Vec<u32>,
    pub median_us: f64,
    /// Share of the sum over the steps.
    pub share: f64,
    pub gmacs_per_second: f64,
}

/// Times of the steps, in execution order.
pub fn steps(details: &Details, times: &[f64]) -> Vec<StepTime> {
    let total: f64 = times.iter().sum();
    let one = |(s, &median_us): (&super::inspect::details::StepDetails, &f64)| StepTime {
        index: s.index,
        op: s.op,
        name: s.name.clone(),
        output: s.output.clone(),
        median_us,
        share: median_us / total.max(f64::MIN_POSITIVE),
        gmacs_per_second: s.macs as f64 / 1e3 / median_us.max(1e-3),
    };
    details.steps.iter().zip(times).map(one).collect()
}

/// The times as a table.
pub fn render(steps: &[StepTime]) -> String {
    let mut table = Table::new(&[
        ">#", "operator", "name", "output", ">median", ">share", ">GMAC/s",
    ]);
    for s in steps {
        table.row([
            s.index.to_string(),
            s.op.to_owned(),
            shortened(&s.name, 40),
            shape(&s.output),
            micros(s.median_us),
            format!("{:.1} %", 100.0 * s.share),
            if s.gmacs_per_second < 0.005 {
                String::new()
            } else {
                format!("{:.2}", s.gmacs_per_second)
            },
        ]);
    }
    let mut by_op: Vec<(&str, u64, f64)> = Vec::new();
    for s in steps {
        match by_op.iter_mut().find(|o| o.0 == s.op) {
            Some(op) => (op.1, op.2) = (op.1 + 1, op.2 + s.share),
            None => by_op.push((s.op, 1, s.share)),
        }
    }
    by_op.sort_by(|a, b| b.2.total_cmp(&a.2));
    let mut operators = Table::new(&["operator", ">steps", ">share"]);
    for (op, n, share) in by_op {
        operators.row([op.to_owned(), count(n), format!("{:.1} %", 100.0 * share)]);
    }
    format!("{}\n{}", table.render(), operators.render())
}
