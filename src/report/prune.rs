//! The report of pruning.

use super::chart::{Bar, BarChart};
use super::lines::Line;
use super::{Cell, Page};
use crate::cli::output::{count, micros, plural};
use crate::cli::prune::layers::{HEADER, before_after, change};
use crate::cli::prune::summary::{Point, Summary, comparison, kind, speed};

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
    if !s.sweep.is_empty() {
        sweep(&mut page, s);
    }
    if !s.groups.is_empty() {
        products(&mut page, s);
        groups(&mut page, s);
    }
    if !s.layers.is_empty() {
        page.section("Layers", &speed(&s.layers, s.isa));
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

/// Accuracy and time over the share that is cut.
fn sweep(page: &mut Page, s: &Summary) {
    let line = |name, tone, value: &dyn Fn(&Point) -> Option<f64>| Line {
        name,
        tone,
        points: s
            .sweep
            .iter()
            .filter_map(|p| Some((f64::from(p.share) * 100.0, value(p)?)))
            .collect(),
    };
    let shares = "share of each group that is cut, %";
    let accuracy = match s.sweep.iter().any(|p| p.top1.is_some()) {
        true => line("float top-1", "first", &|p| Some(100.0 * p.top1?.value())),
        // Below zero, outputs have nothing to do with the whole model's.
        false => line("smallest cosine", "first", &|p| {
            Some(100.0 * p.min_cosine?.max(0.0))
        }),
    };
    page.curves(
        "Share against accuracy",
        "Before recovery: as cut, on the given samples. Cosines are with the whole model's outputs.",
        shares,
        vec![accuracy],
        &|v| format!("{v:.0} %"),
    );
    page.curves(
        "Share against time",
        "Medians of int8 runs, each model taking turns with the whole one.",
        shares,
        vec![line("int8 run", "first", &|p| Some(p.us))],
        &micros,
    );
    let rows = s.sweep.iter().map(|p| {
        let top1 = p.top1.map(|r| format!("{:.2} %", 100.0 * r.value()));
        let cosine = p.min_cosine.map(|c| format!("{c:.4}"));
        vec![
            format!("{:.0} %", 100.0 * p.share).into(),
            count(p.parameters).into(),
            count(p.macs).into(),
            micros(p.us).into(),
            format!("{:+.1} %", 100.0 * (p.us / p.whole_us - 1.0)).into(),
            Cell::from(top1.unwrap_or_else(|| "–".to_owned())),
            Cell::from(cosine.unwrap_or_else(|| "–".to_owned())),
        ]
    });
    page.table(
        &[
            ">share",
            ">parameters",
            ">MACs",
            ">int8 run",
            ">change",
            ">top-1",
            ">cosine",
        ],
        rows,
    );
}

/// What is left of each layer, and its time.
fn products(page: &mut Page, s: &Summary) {
    let times = match s.others_us {
        Some(_) => {
            "Times are medians of the layer's step in int8 runs, the two models taking turns; a layer without a time is part of another step."
        }
        None => "Without samples (--data) nothing was timed.",
    };
    page.section("Layers", times);
    let rows = s.products.iter().map(|l| {
        let cells = l.cells().map(Cell::from);
        std::iter::once(Cell::name(&l.name)).chain(cells).collect()
    });
    let others = s.others_us.map(|us| {
        let mut cells: Vec<Cell> = vec!["all other steps".into(), "".into()];
        cells.push(before_after(&us.map(micros)).into());
        cells.push(change(us).into());
        cells.resize_with(HEADER.len(), || "".into());
        cells
    });
    page.table(&HEADER, rows.chain(others));
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
