//! The report of pruning.

use super::chart::{Bar, BarChart};
use super::{Cell, Page};
use crate::cli::output::{count, plural};
use crate::cli::prune::{Summary, comparison, kind, no_speed_up};

/// The page.
pub fn page(s: &Summary) -> String {
    let name = s.output.file_name().unwrap_or_default().to_string_lossy();
    let mut page = Page::new(&name, "Written by ampoule prune.");
    let rows = comparison(s);
    let cards: Vec<(String, String)> = rows
        .iter()
        .map(|(name, _, after, change)| (after.clone(), format!("{name}, {change}")))
        .collect();
    page.cards(&cards);
    page.section(
        "Before and after",
        &match s.before.times {
            Some(_) => format!(
                "Times are medians of int8 runs with {} and {}, the two models taking turns.",
                s.isa,
                plural(s.threads, "thread")
            ),
            None => "Without samples (--data) nothing was calibrated and timed.".to_owned(),
        },
    );
    page.table(
        &["", ">before", ">after", ">change"],
        rows.iter().map(|(n, b, a, c)| {
            vec![
                (*n).into(),
                b.as_str().into(),
                a.as_str().into(),
                c.as_str().into(),
            ]
        }),
    );
    if !s.groups.is_empty() {
        groups(&mut page, s);
    }
    if !s.layers.is_empty() {
        page.section("Layers", no_speed_up());
        let rows = s.layers.iter().map(|l| {
            let share = 100.0 * l.zeros as f64 / l.weights.max(1) as f64;
            vec![
                Cell::name(&l.name),
                count(l.weights as u64).into(),
                count(l.zeros as u64).into(),
                format!("{share:.1} %").into(),
            ]
        });
        page.table(&["layer", ">weights", ">zero", ">share"], rows);
    }
    page.finish()
}

fn groups(page: &mut Page, s: &Summary) {
    page.section(
        "Groups",
        "Channels that can only be cut together, with all weights, biases and norms that have them.",
    );
    let bars = s.groups.iter().enumerate().map(|(i, g)| Bar {
        at: i,
        value: 100.0 * g.importance_lost,
        tone: "plain",
        title: format!(
            "{}\n{} of {} {} stay",
            g.name,
            g.kept,
            g.total,
            kind(g.kind)
        ),
    });
    let chart = BarChart {
        x_title: "group",
        bars: bars.collect(),
        limits: Vec::new(),
        format: &|v| format!("{v:.0} %"),
    };
    page.chart(&chart, "Share of each group's importance that is gone.");
    let rows = s.groups.iter().map(|g| {
        vec![
            Cell::name(&g.name),
            kind(g.kind).into(),
            g.total.to_string().into(),
            g.kept.to_string().into(),
            format!("{:.1} %", 100.0 * g.importance_lost).into(),
        ]
    });
    page.table(
        &["group", "what", ">before", ">after", ">importance lost"],
        rows,
    );
}
