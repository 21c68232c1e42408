//! A table of the time per step.

use serde::Serialize;

use super::inspect::details::{Details, StepDetails};
use super::output::{Table, count, micros, shape, shortened};
use super::peak::Peaks;

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
    /// Bytes read and written over the time.
    pub gb_per_second: f64,
    /// Distance to the machine's limits, where they were measured.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// How near a step is to what the machine can do.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    /// Multiply-accumulates a clock cycle, of all threads together.
    pub macs_per_cycle: Option<f64>,
    /// The limit that the step is nearest to: products or memory.
    pub limit: &'static str,
    /// Speed over that limit.
    pub of_peak: f64,
}

/// Times of the steps, in execution order, with the limits of so many threads.
pub fn steps(details: &Details, times: &[f64], peaks: Option<(&Peaks, usize)>) -> Vec<StepTime> {
    let total: f64 = times.iter().sum();
    let one = |(s, &median_us): (&StepDetails, &f64)| {
        let per_nanosecond = |n: f64| n / 1e3 / median_us.max(1e-3);
        let gmacs_per_second = per_nanosecond(s.macs as f64);
        let gb_per_second = per_nanosecond(s.bytes as f64);
        StepTime {
            index: s.index,
            op: s.op,
            name: s.name.clone(),
            output: s.output.clone(),
            median_us,
            share: median_us / total.max(f64::MIN_POSITIVE),
            gmacs_per_second,
            gb_per_second,
            limit: peaks
                .and_then(|(p, n)| Limit::of(s, gmacs_per_second, gb_per_second, p, n as f64)),
        }
    };
    details.steps.iter().zip(times).map(one).collect()
}

impl Limit {
    fn of(s: &StepDetails, gmacs: f64, gbs: f64, peaks: &Peaks, threads: f64) -> Option<Self> {
        let products = match s.dtype {
            "i8" => peaks.int8_gmacs,
            "f32" => peaks.float_gmacs,
            _ => None,
        };
        let products = products.filter(|_| s.macs > 0).map(|p| gmacs / p / threads);
        let memory = peaks.copy(s.bytes).map(|p| gbs / p / threads);
        let (limit, of_peak) = match (products, memory) {
            (Some(p), m) if m.is_none_or(|m| m < p) => ("products", p),
            (_, m) => ("memory", m?),
        };
        let clock = peaks.clock_ghz.filter(|_| s.macs > 0);
        Some(Limit {
            macs_per_cycle: clock.map(|ghz| gmacs / ghz),
            limit,
            of_peak,
        })
    }
}

/// The times as a table.
pub fn render(steps: &[StepTime]) -> String {
    let limits = steps.iter().any(|s| s.limit.is_some());
    let mut header = vec![
        ">#", "operator", "name", "output", ">median", ">share", ">GMAC/s",
    ];
    if limits {
        header.extend([">MAC/cycle", ">GB/s", ">of peak"]);
    }
    let mut table = Table::new(&header);
    let number = |v: f64| {
        if v < 0.005 {
            String::new()
        } else {
            format!("{v:.2}")
        }
    };
    for s in steps {
        let mut row = vec![
            s.index.to_string(),
            s.op.to_owned(),
            shortened(&s.name, 40),
            shape(&s.output),
            micros(s.median_us),
            format!("{:.1} %", 100.0 * s.share),
            number(s.gmacs_per_second),
        ];
        if limits {
            let limit = s.limit.as_ref();
            row.extend([
                number(limit.and_then(|l| l.macs_per_cycle).unwrap_or(0.0)),
                number(s.gb_per_second),
                limit.map_or(String::new(), |l| {
                    format!("{:.0} % {}", 100.0 * l.of_peak, l.limit)
                }),
            ]);
        }
        table.row(row);
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
