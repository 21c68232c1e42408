//! The report of a training: curves, teacher against student against int8, what is mistaken for what.

use std::path::Path;

use ampoule::distill::train::classify::Answered;
use ampoule::distill::train::{Measures, Record};

use super::lines::Line;
use super::{Cell, Page, base64, escape};
use crate::cli::distill::Outcome;
use crate::cli::distill::measure::Row;
use crate::cli::output::{bytes, count, micros, plural};

/// Pictures in the gallery.
const SHOWN: usize = 24;
/// Classes of a confusion matrix that still fits a page.
const MATRIX: usize = 32;

/// The page.
pub fn page(o: &Outcome) -> String {
    let subtitle = format!(
        "{} learnt from {}: {} ({} labels), {}.",
        o.network,
        o.learnt_from,
        plural(o.samples, "picture"),
        o.labels,
        plural(o.epochs, "epoch")
    );
    let mut page = Page::new("Distilled student", &subtitle);
    cards(&mut page, o);
    table(&mut page, o);
    curves(&mut page, o);
    matrix(&mut page, o);
    gallery(&mut page, o);
    page.section(
        "Again",
        "Quantise the student anew, with pictures of your own:",
    );
    page.raw(&format!("<p><code>{}</code></p>\n", escape(&o.quantize)));
    page.finish()
}

fn cards(page: &mut Page, o: &Outcome) {
    let top1 = |r: &Row| r.top1.map(|t| format!("{:.1} %", 100.0 * t.value()));
    let named = |name: &str| o.rows.iter().find(|r| r.name.ends_with(name));
    let mut cards = Vec::new();
    if let Some((int8, share)) = named("int8").and_then(|r| Some((r, top1(r)?))) {
        let float = named("float").and_then(top1).unwrap_or_default();
        cards.push((share, format!("right in int8; {float} in float")));
        let size = bytes(int8.bytes);
        cards.push((
            size,
            format!(
                "artifact of {} parameters",
                int8.parameters.map_or(String::new(), count)
            ),
        ));
        let time = int8.median_us.map(micros).unwrap_or_default();
        cards.push((time, "per picture in int8, one thread".to_owned()));
    }
    let speed = format!("{:.0} images/s", o.images_per_second);
    cards.push((speed, format!("while training, {:.0} s", o.seconds)));
    page.cards(&cards);
}

fn table(page: &mut Page, o: &Outcome) {
    page.section(
        "Teacher, student, int8",
        &format!(
            "On {} that nobody learnt from. Time is the median on one thread, preprocessing not included; a teacher that our runtime does not run has none.",
            plural(o.measured, "picture")
        ),
    );
    let header = [
        "",
        ">top-1",
        ">95 % interval",
        ">parameters",
        ">MACs",
        ">bytes",
        ">time",
        ">arena",
    ];
    let or_dash = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "–".to_owned()));
    page.table(
        &header,
        o.rows.iter().map(|r| {
            let interval = r.top1.map(|t| t.wilson());
            vec![
                r.name.clone().into(),
                or_dash(r.top1.map(|t| format!("{:.1} %", 100.0 * t.value()))),
                or_dash(interval.map(|(a, b)| format!("{:.1} – {:.1} %", 100.0 * a, 100.0 * b))),
                or_dash(r.parameters.map(count)),
                or_dash(r.macs.map(count)),
                bytes(r.bytes).into(),
                or_dash(r.median_us.map(micros)),
                or_dash(r.arena_bytes.map(bytes)),
            ]
        }),
    );
}

fn curves(page: &mut Page, o: &Outcome) {
    let steps = |value: &dyn Fn(&Measures) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = o.metrics.iter().filter_map(|r| match r {
            Record::Step(s) => Some((s.step as f64, value(&s.measures)?)),
            Record::Epoch(_) => None,
        });
        points.collect()
    };
    let epochs = |value: &dyn Fn(&Measures) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = o.metrics.iter().filter_map(|r| match r {
            Record::Epoch(e) => Some((e.step as f64, value(&e.measures)?)),
            Record::Step(_) => None,
        });
        points.collect()
    };
    let rates = o.metrics.iter().filter_map(|r| match r {
        Record::Step(s) => Some((s.step as f64, f64::from(s.rate))),
        Record::Epoch(_) => None,
    });
    let percent = |v: f64| format!("{:.0} %", 100.0 * v);
    let plain = |v: f64| format!("{v}");
    let small = |v: f64| format!("{v:.0e}");
    let loss = |m: &Measures| m.loss;
    let right = |m: &Measures| m.get("accuracy");
    let agreed = |m: &Measures| m.get("agreement");
    let line = |name, tone, points| Line { name, tone, points };
    page.lines(
        "Loss",
        "While training: of the targets, on augmented pictures. Measured: cross-entropy with the labels, with the averaged weights.",
        vec![
            line("training", "first", steps(&loss)),
            line("measured", "second", epochs(&loss)),
        ],
        &plain,
    );
    page.lines(
        "Right answers",
        "While training, on augmented pictures: agreement with the label, or with the teacher.",
        vec![
            line("agrees with teacher", "third", steps(&agreed)),
            line("training, labels", "first", steps(&right)),
            line("measured", "second", epochs(&right)),
        ],
        &percent,
    );
    let features = steps(&|m| m.get("features"));
    if !features.is_empty() {
        page.lines(
            "Maps of the teacher",
            "While training: the part of the loss that is how unlike the teacher's maps the projected ones are.",
            vec![line("unlike", "first", features)],
            &plain,
        );
    }
    let sparsity = steps(&|m| m.get("attention_sparsity"));
    if !sparsity.is_empty() {
        page.lines(
            "Sparsity of attention",
            "While training: the mean of ln(1 + A²) over attention weights A, least where attention is spread evenly.",
            vec![line("ln(1 + A²)", "first", sparsity)],
            &small,
        );
    }
    page.lines(
        "Learning rate",
        "",
        vec![line("rate", "first", rates.collect())],
        &small,
    );
}

/// Rows are the truth, columns the answers of the float student.
fn matrix(page: &mut Page, o: &Outcome) {
    let classes = o.classes.len();
    if o.confusion.right().1 == 0 || classes > MATRIX {
        return;
    }
    let mut counts = vec![vec![0usize; classes]; classes];
    for a in &o.confusion.answers {
        let row = a.class.and_then(|c| counts.get_mut(c as usize));
        if let Some(cell) = row.and_then(|row| row.get_mut(a.best)) {
            *cell += 1;
        }
    }
    page.section(
        "What is taken for what",
        "A row per class, a column per answer of the float student, in percent of the row.",
    );
    page.raw("<div class=\"scroll\"><table class=\"matrix\"><thead><tr><th></th>");
    for name in &o.classes {
        page.raw(&format!("<th><span>{}</span></th>", escape(name)));
    }
    page.raw("<th class=\"right\">pictures</th></tr></thead>\n<tbody>");
    for (class, row) in counts.iter().enumerate() {
        let total: usize = row.iter().sum();
        page.raw(&format!("<tr><th>{}</th>", escape(&o.classes[class])));
        for (answer, &n) in row.iter().enumerate() {
            let share = n as f64 / total.max(1) as f64;
            let tone = if answer == class { "--good" } else { "--bad" };
            let text = if n == 0 {
                String::new()
            } else {
                format!("{:.0}", 100.0 * share)
            };
            page.raw(&format!(
                "<td title=\"{} as {}: {n}\" style=\"background:color-mix(in srgb, var({tone}) {:.0}%, transparent)\">{text}</td>",
                escape(&o.classes[class]),
                escape(&o.classes[answer]),
                80.0 * share
            ));
        }
        page.raw(&format!("<td class=\"right\">{total}</td></tr>\n"));
    }
    page.raw("</tbody></table></div>\n");
}

/// Pictures, half of them mistakes where there are so many.
fn gallery(page: &mut Page, o: &Outcome) {
    let all: Vec<usize> = (0..o.confusion.answers.len()).collect();
    let is_wrong = |&i: &usize| o.confusion.answers[i].is_wrong();
    let spread = |of: Vec<usize>, count: usize| {
        let step = of.len().div_ceil(count.max(1)).max(1);
        of.into_iter().step_by(step).collect::<Vec<_>>()
    };
    let (wrong, right): (Vec<usize>, Vec<usize>) = all.into_iter().partition(is_wrong);
    let mut chosen = spread(wrong, SHOWN / 2);
    chosen.extend(spread(right, SHOWN - chosen.len()));
    if chosen.is_empty() {
        return;
    }
    page.section(
        "Some of the pictures",
        "Mistakes of the float student first, at most half of them. The share is the student's own probability.",
    );
    page.raw("<div class=\"gallery small\">\n");
    for i in chosen {
        let Answered {
            class,
            best: answer,
            probability,
            ..
        } = o.confusion.answers[i];
        let path = &o.pictures[i];
        let Ok(file) = std::fs::read(path) else {
            continue;
        };
        let name = |class: usize| escape(o.classes.get(class).map_or("?", |n| n));
        let truth = class.map_or_else(|| "unlabelled".to_owned(), |c| name(c as usize));
        let (mark, tone) = match class {
            Some(c) if c as usize == answer => ("✓", "good"),
            Some(_) => ("✗", "bad"),
            None => ("", ""),
        };
        let int8 = o.int8.get(i).copied().flatten();
        let int8 = match int8 {
            Some(other) if other != answer => {
                format!("<div><span>int8: {}</span></div>", name(other))
            }
            _ => String::new(),
        };
        page.raw(&format!(
            "<figure{}><img alt=\"{truth}\" src=\"data:{};base64,{}\"><figcaption><b>{truth}</b><div><span class=\"{tone}\">{} {mark}</span><span>{:.0} %</span></div>{int8}</figcaption></figure>\n",
            if is_wrong(&i) { " class=\"missed\"" } else { "" },
            media_type(path),
            base64::encode(&file),
            name(answer),
            100.0 * probability
        ));
    }
    page.raw("</div>\n");
}

fn media_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|e| e.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        Some("bmp") => "image/bmp",
        _ => "image/jpeg",
    }
}
