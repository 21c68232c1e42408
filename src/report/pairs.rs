//! The report of towers: curves, and teachers against student against int8.

use ampoule::distill::train::{Measures, Record};

use super::Page;
use super::lines::Line;
use crate::cli::distill::pairs::{Outcome, figures, recalls};
use crate::cli::output::plural;

/// The page.
pub fn page(o: &Outcome) -> String {
    let subtitle = format!(
        "{} learnt from {}: {} with {}, {}.",
        o.network,
        o.learnt_from,
        plural(o.pairs, "picture"),
        plural(o.texts, "text"),
        plural(o.epochs, "epoch")
    );
    let mut page = Page::new("Distilled towers", &subtitle);
    let found = o.rows.first().and_then(|r| r.retrieval);
    let (images, texts) = found.map_or((0, 0), |r| (r.images, r.texts));
    page.section(
        "Teachers, student, int8",
        &format!(
            "Recall among the first 1, 5 and 10 of {} and {} that nobody learnt from. All other figures are those of the image and of the text tower; time is the median on one thread, preprocessing not included.",
            plural(images, "picture"),
            plural(texts, "text")
        ),
    );
    let header = [
        "",
        ">text → image",
        ">image → text",
        ">parameters",
        ">MACs",
        ">bytes",
        ">time",
        ">arena",
    ];
    page.table(
        &header,
        o.rows.iter().map(|row| {
            let cells = recalls(row).into_iter().chain(figures(row));
            std::iter::once(row.name.clone())
                .chain(cells)
                .map(Into::into)
                .collect()
        }),
    );
    let steps = |name: &str| points(o, name, false);
    let epochs = |name: &str| points(o, name, true);
    let line = |name, tone, points| Line { name, tone, points };
    page.lines(
        "Recall",
        "Share of queries whose answer comes first, with the averaged weights.",
        vec![
            line("text → image", "first", epochs("text_to_image_at_1")),
            line("image → text", "second", epochs("image_to_text_at_1")),
        ],
        &|v| format!("{:.0} %", 100.0 * v),
    );
    page.lines(
        "Losses",
        "Between the towers, between the image tower and the text teacher, and of the text tower from the text teacher (1 − cosine).",
        vec![
            line("towers", "first", steps("contrast")),
            line("image tower, text teacher", "second", steps("picture")),
            line("text tower, text teacher", "third", steps("text")),
        ],
        &|v| format!("{v}"),
    );
    page.finish()
}

fn points(o: &Outcome, name: &str, of_epochs: bool) -> Vec<(f64, f64)> {
    let of = |step: u64, measures: &Measures| Some((step as f64, measures.get(name)?));
    let points = o.metrics.iter().filter_map(|record| match record {
        Record::Epoch(e) if of_epochs => of(e.step, &e.measures),
        Record::Step(s) if !of_epochs => of(s.step, &s.measures),
        _ => None,
    });
    points.collect()
}
