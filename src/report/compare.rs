//! The report of a layer by layer comparison.

use std::path::Path;

use ampoule_quantize::compare::{Comparison, LayerError, SUSPICIOUS_DB};

use super::chart::{Bar, BarChart};
use super::{Cell, Page};
use crate::cli::compare::COLUMNS;
use crate::cli::output::{plural, shape, shortened};

/// Below this many decibels a layer deserves a look.
const NOTICEABLE_DB: f64 = 25.0;

/// The page.
pub fn page(onnx: &Path, artifact: &Path, c: &Comparison) -> String {
    let subtitle = format!(
        "{} against {}, over {}",
        artifact.display(),
        onnx.display(),
        plural(c.samples, "sample")
    );
    let mut page = Page::new("Layer by layer", &subtitle);
    let worst = c
        .worst_first()
        .first()
        .map_or_else(|| "–".to_owned(), |l| format!("{:.1} dB", l.sqnr_db));
    let last = c
        .layers
        .last()
        .map_or_else(|| "–".to_owned(), |l| format!("{:.1} dB", l.sqnr_db));
    let first = c.first_suspicious();
    page.cards(&[
        (
            c.layers.len().to_string(),
            format!(
                "tensors compared; {} without a float counterpart",
                c.unmatched
            ),
        ),
        (last, "at the end of the program".to_owned()),
        (worst, "at the worst tensor".to_owned()),
        (
            first.map_or_else(|| "none".to_owned(), |l| format!("step {}", l.step)),
            match first {
                Some(l) => {
                    let tensor = shortened(&l.name, 48);
                    format!("first below {SUSPICIOUS_DB:.0} dB: {} {tensor}", l.op)
                }
                None => format!("of the tensors is below {SUSPICIOUS_DB:.0} dB"),
            },
        ),
    ]);
    layers_chart(&mut page, c);
    page.section(
        "Tensors",
        "The noisiest first. Clipped: share of float values that the codes can't express.",
    );
    page.table(&COLUMNS, c.worst_first().into_iter().map(row));
    page.finish()
}

/// Noise per layer in execution order.
pub(super) fn layers_chart(page: &mut Page, c: &Comparison) {
    page.section(
        "Noise along the network",
        "Signal-to-noise ratio of every tensor, in execution order: more is better.",
    );
    let bars = c.layers.iter().map(|l| Bar {
        at: l.step,
        value: l.sqnr_db,
        tone: bar_tone(l),
        title: format!(
            "step {}: {} {}\n{:.1} dB, cosine {:.5}",
            l.step, l.op, l.name, l.sqnr_db, l.cosine
        ),
    });
    let format = |v: f64| format!("{v:.0} dB");
    let limits = vec![(SUSPICIOUS_DB, format!("{SUSPICIOUS_DB:.0} dB"))];
    let chart = BarChart {
        x_title: "step",
        bars: bars.collect(),
        limits,
        format: &format,
    };
    page.chart(&chart, &format!("Below {SUSPICIOUS_DB:.0} dB a layer is suspicious, below {NOTICEABLE_DB:.0} dB it deserves a look."));
}

fn bar_tone(l: &LayerError) -> &'static str {
    match l.sqnr_db {
        db if db < SUSPICIOUS_DB => "bad",
        db if db < NOTICEABLE_DB => "warn",
        _ => "plain",
    }
}

fn row(l: &LayerError) -> Vec<Cell> {
    let tone = match bar_tone(l) {
        "plain" => "",
        tone => tone,
    };
    vec![
        l.step.to_string().into(),
        l.op.as_str().into(),
        Cell::name(&l.name),
        shape(&l.shape).into(),
        l.dtype.as_str().into(),
        Cell::toned(format!("{:.1}", l.sqnr_db), tone),
        format!("{:.5}", l.cosine).into(),
        format!("{:.4}", l.max_abs).into(),
        format!("{:.3} %", 100.0 * l.clipped).into(),
    ]
}
