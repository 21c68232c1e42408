//! The report of a quantisation.

use super::chart::{Bar, BarChart};
use super::{Cell, Page};
use crate::cli::inspect::details::{Details, StepDetails};
use crate::cli::output::{bytes, count, plural, shape, shortened};
use crate::cli::preprocessing::describe;
use crate::cli::quantize::summary::{ALREADY, Summary, accuracy};

/// The page.
pub fn page(s: &Summary, d: &Details) -> String {
    let name = s.artifact.file_name().unwrap_or_default().to_string_lossy();
    let mut page = Page::new(
        &name,
        &format!("Sealed by ampoule quantize. SHA-256 {}", s.digest),
    );
    let smaller = s.float_bytes as f64 / s.artifact_bytes.max(1) as f64;
    page.cards(&[
        (
            bytes(s.artifact_bytes),
            format!(
                "artifact, {smaller:.2}× smaller than {} of float weights",
                bytes(s.float_bytes as usize)
            ),
        ),
        (
            bytes(s.arena_bytes),
            format!(
                "working memory; no plan can need less than {}",
                bytes(s.arena_lower_bound)
            ),
        ),
        (
            count(s.macs),
            format!("multiply-accumulates in {} steps", s.steps),
        ),
        match s.samples {
            0 => ("float".to_owned(), "nothing is int8".to_owned()),
            _ => (
                s.islands.len().to_string(),
                "steps that are not int8".to_owned(),
            ),
        },
    ]);
    page.section("How it was made", "");
    page.table(&["", ""], facts(s));
    steps_charts(&mut page, d);
    if !s.islands.is_empty() {
        page.section("Not int8", "Steps that run in a wider type, and why.");
        let rows = s.islands.iter().map(|i| {
            [&i.node, &i.op, &i.dtype, &i.reason]
                .map(|t| t.as_str().into())
                .into()
        });
        page.table(&["node", "operator", "type", "why"], rows);
    }
    sensitivity(&mut page, s);
    page.section("Steps", "In execution order.");
    page.table(
        &[
            ">#",
            "operator",
            "name",
            "output",
            "type",
            ">weights",
            ">MACs",
            ">memory alive",
        ],
        d.steps.iter().map(step_row),
    );
    page.finish()
}

fn facts(s: &Summary) -> Vec<Vec<Cell>> {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.into(), value.into()]);
    row(
        "Source",
        format!("{}, {} nodes after optimisation", s.format, s.nodes),
    );
    if s.from_source {
        row("Calibration", ALREADY.to_owned());
    }
    if s.samples > 0 {
        row(
            "Calibration",
            format!("{}, ranges by {}", plural(s.samples, "sample"), s.range),
        );
    }
    if let Some(p) = &s.preprocess {
        row(
            "Pictures",
            describe(p)
                + if s.preprocess_assumed {
                    " (assumed)"
                } else {
                    ""
                },
        );
    }
    if let Some(c) = &s.clipped {
        let tensor = shortened(&c.worst_tensor, 64);
        let worst = format!("at most {:.3} % in {tensor}", 100.0 * c.worst);
        row(
            "Clipped",
            format!("{:.4} % of activation values, {worst}", 100.0 * c.mean),
        );
    }
    if let Some(db) = s.parity_db {
        row(
            "Parity",
            format!("{db:.1} dB between the optimised graph and the ONNX file"),
        );
    }
    let memory = s
        .peak_memory_bytes
        .map(|n| format!(", {} of memory", bytes(n as usize)))
        .unwrap_or_default();
    row("Effort", format!("{:.1} s{memory}", s.seconds));
    rows
}

/// Memory over time and where weights and work are.
fn steps_charts(page: &mut Page, d: &Details) {
    memory_chart(page, d);
    let format = |v: f64| bytes(v as usize);
    page.section(
        "Weights",
        "Bytes of constants that each step reads: weights, biases and tables.",
    );
    let chart = per_step(d, &|s| s.weight_bytes as f64, &format);
    let total = bytes(d.weight_bytes);
    page.chart(&chart, &format!("{total} in all."));
}

/// The arena over time.
pub(super) fn memory_chart(page: &mut Page, d: &Details) {
    let arena: usize = d.memory.banks.iter().sum();
    let format = |v: f64| bytes(v as usize);
    page.section(
        "Memory over time",
        "Bytes of the arena that hold something while each step runs.",
    );
    let mut chart = per_step(d, &|s| s.live_bytes as f64, &format);
    if let Some(bar) = chart.bars.get_mut(d.memory.peak_step) {
        bar.tone = "warn";
    }
    chart.limits.push((arena as f64, bytes(arena)));
    page.chart(
        &chart,
        &format!(
            "The peak is step {}. The dashed line is what the arena takes: {arena} B.",
            d.memory.peak_step
        ),
    );
}

fn per_step<'c>(
    d: &Details,
    value: &dyn Fn(&StepDetails) -> f64,
    format: &'c dyn Fn(f64) -> String,
) -> BarChart<'c> {
    let bars = d.steps.iter().map(|s| Bar {
        at: s.index,
        value: value(s),
        tone: "plain",
        title: format!(
            "step {}: {} {}\n{}\n{}",
            s.index,
            s.op,
            s.name,
            shape(&s.output),
            format(value(s))
        ),
    });
    BarChart {
        x_title: "step",
        bars: bars.collect(),
        limits: Vec::new(),
        format,
    }
}

fn sensitivity(page: &mut Page, s: &Summary) {
    let Some(q) = &s.sensitivity else { return };
    let text = format!(
        "{} ({:.1} dB, then {:.1} dB).",
        accuracy(q),
        q.before.sqnr_db,
        q.after.sqnr_db
    );
    page.section("Sensitivity", &text);
    if q.layers.is_empty() {
        return;
    }
    let rows = q.layers.iter().map(|l| {
        vec![
            Cell::name(&l.node),
            l.op.as_str().into(),
            format!("{:.1}", l.alone_db).into(),
            l.precision.as_str().into(),
        ]
    });
    page.table(&["node", "operator", ">alone in int8, dB", "type"], rows);
}

fn step_row(s: &StepDetails) -> Vec<Cell> {
    let unless_zero = |n: u64, text: String| if n == 0 { String::new() } else { text };
    vec![
        s.index.to_string().into(),
        s.op.into(),
        Cell::name(&s.name),
        shape(&s.output).into(),
        s.dtype.into(),
        unless_zero(s.weight_bytes as u64, bytes(s.weight_bytes)).into(),
        unless_zero(s.macs, count(s.macs)).into(),
        bytes(s.live_bytes).into(),
    ]
}
