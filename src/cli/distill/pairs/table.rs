//! The result as text.

use super::{Outcome, Row, Tower};
use crate::cli::output::{Table, bytes, count, facts, micros, plural};

/// Recall of a row in both directions, as cells.
pub fn recalls(row: &Row) -> [String; 2] {
    let text = |r: &ampoule::distill::train::pairs::Recall| {
        let [a, b, c] = [r.at_1, r.at_5, r.at_10].map(|v| format!("{:.1}", 100.0 * v));
        format!("{a} / {b} / {c} %")
    };
    match &row.retrieval {
        Some(r) => [text(&r.text_to_image), text(&r.image_to_text)],
        None => ["–".to_owned(), "–".to_owned()],
    }
}

/// What both towers are, as cells: parameters, multiply-accumulates, bytes, times, arenas.
pub fn figures(row: &Row) -> [String; 5] {
    let both = |of: &dyn Fn(&Tower) -> Option<String>| match (of(&row.image), of(&row.text)) {
        (Some(image), Some(text)) => format!("{image} + {text}"),
        _ => "–".to_owned(),
    };
    [
        both(&|t| t.parameters.map(count)),
        both(&|t| t.macs.map(count)),
        both(&|t| Some(bytes(t.bytes))),
        both(&|t| t.median_us.map(micros)),
        both(&|t| t.arena_bytes.map(bytes)),
    ]
}

pub(super) fn render(o: &Outcome) -> String {
    let mut table = Table::new(&[
        "",
        ">text → image R@1/5/10",
        ">image → text R@1/5/10",
        ">parameters",
        ">MACs",
        ">bytes",
        ">time",
        ">arena",
    ]);
    for row in &o.rows {
        let ([a, b], [c, d, e, f, g]) = (recalls(row), figures(row));
        table.row([row.name.clone(), a, b, c, d, e, f, g]);
    }
    let rows = [
        ("towers", o.folder.display().to_string()),
        ("report", o.report.display().to_string()),
        (
            "training",
            format!(
                "{}, {} steps, {:.0} s, {:.1} pairs/s",
                plural(o.epochs, "epoch"),
                o.steps,
                o.seconds,
                o.images_per_second
            ),
        ),
    ];
    format!("{}\n{}", table.render(), facts(&rows))
}
