//! The report of the demo: what quantisation costs and gains, with the pictures.

use super::chart::{Bar, BarChart};
use super::{Cell, Page, base64, compare, escape, quantize};
use crate::cli::demo::{Answer, Outcome, Picture, Row};
use crate::cli::output::{bytes, micros, shape};

/// The page.
pub fn page(o: &Outcome) -> String {
    let subtitle = format!(
        "MLPerf Tiny visual wake words (MobileNetV1 0.25): is there a person? Float against sealed int8, on {} photos.",
        o.pictures.len()
    );
    let mut page = Page::new("Ampoule demo", &subtitle);
    let (float, int8) = (&o.rows[0], &o.rows[o.rows.len() - 1]);
    page.cards(&[
        (
            format!("{:.1} %", 100.0 * int8.top1.value()),
            format!(
                "right in int8; {:.1} % in float",
                100.0 * float.top1.value()
            ),
        ),
        (
            bytes(int8.file_bytes),
            format!(
                "artifact, {:.1}× smaller",
                float.file_bytes as f64 / int8.file_bytes.max(1) as f64
            ),
        ),
        (
            micros(int8.median_us),
            format!(
                "per picture on {}, {:.1}× faster",
                o.isa,
                float.median_us / int8.median_us.max(1e-3)
            ),
        ),
        (
            int8.arena_bytes.map_or_else(|| "–".to_owned(), bytes),
            "working memory in all".to_owned(),
        ),
    ]);
    page.section("Float and int8", "The interval is Wilson's, at 95 %. Calibration saw the same photos, without their labels. Time is the median of many runs, one thread, preprocessing not included.");
    let header = [
        "",
        ">top-1",
        ">95 % interval",
        ">file",
        ">working memory",
        ">time",
        ">faster",
    ];
    page.table(&header, o.rows.iter().map(|r| row(r, float)));
    compare::layers_chart(&mut page, &o.comparison);
    quantize::memory_chart(&mut page, &o.details);
    time_chart(&mut page, o);
    selftest(&mut page, o);
    gallery(&mut page, &o.pictures);
    page.finish()
}

fn row(r: &Row, float: &Row) -> Vec<Cell> {
    let (lo, hi) = r.top1.wilson();
    vec![
        r.name.into(),
        format!("{:.1} %", 100.0 * r.top1.value()).into(),
        format!("{:.1} – {:.1} %", 100.0 * lo, 100.0 * hi).into(),
        bytes(r.file_bytes).into(),
        r.arena_bytes
            .map_or_else(|| "not known".to_owned(), bytes)
            .into(),
        micros(r.median_us).into(),
        format!("{:.1}×", float.median_us / r.median_us.max(1e-3)).into(),
    ]
}

fn time_chart(page: &mut Page, o: &Outcome) {
    let bars = o.steps.iter().map(|s| Bar {
        at: s.index,
        value: s.median_us,
        tone: "plain",
        title: format!(
            "step {}: {} {}\n{}\n{}, {:.1} %",
            s.index,
            s.op,
            s.name,
            shape(&s.output),
            micros(s.median_us),
            100.0 * s.share
        ),
    });
    let format = |v: f64| format!("{v} µs");
    let chart = BarChart {
        x_title: "step",
        bars: bars.collect(),
        limits: Vec::new(),
        format: &format,
    };
    page.section(
        "Time per step",
        "Median over many runs of the int8 artifact.",
    );
    page.chart(&chart, &format!("One thread, instruction set {}.", o.isa));
}

fn selftest(page: &mut Page, o: &Outcome) {
    page.section("The same everywhere", "Outputs on generated inputs are equal, bit for bit, on every instruction set that this processor has.");
    let rows = o.selftest.iter().map(|t| {
        let verdict = match (t.available, t.vectors) {
            (false, _) => Cell::from("not on this processor"),
            (true, Some(n)) => Cell::toned(format!("{n} golden vectors equal"), "good"),
            (true, None) => Cell::toned("different", "bad"),
        };
        vec![
            t.isa.into(),
            verdict,
            t.hash.clone().unwrap_or_default().into(),
        ]
    });
    page.table(
        &["instruction set", "golden vectors", "hash of the outputs"],
        rows,
    );
}

fn gallery(page: &mut Page, pictures: &[Picture]) {
    let differ = pictures.iter().filter(|p| p.is_contested()).count();
    let mut sorted: Vec<&Picture> = pictures.iter().collect();
    sorted.sort_by_key(|p| (!p.is_contested(), p.is_right()));
    page.section("The photos", &format!("Float and int8 disagree on {differ} of {}; those come first, then what int8 got wrong. CC BY 2.0, credits in tests/fixtures/demo/ATTRIBUTION.csv.", pictures.len()));
    page.raw("<div class=\"gallery\">\n");
    for p in sorted {
        let answer = |name: &str, a: &Answer| {
            let (mark, tone) = if a.class == p.truth {
                ("✓", "good")
            } else {
                ("✗", "bad")
            };
            format!(
                "<div><span>{name}: <span class=\"{tone}\">{} {mark}</span></span><span>{:.1} %</span></div>",
                escape(&a.class),
                100.0 * a.probability
            )
        };
        page.raw(&format!(
            "<figure{}><img alt=\"{}\" src=\"data:image/jpeg;base64,{}\"><figcaption><b>{}</b>{}{}</figcaption></figure>\n",
            if p.is_right() { "" } else { " class=\"missed\"" },
            escape(&format!("photo {}, {}", p.name, p.truth)),
            base64::encode(&p.jpeg),
            escape(&p.truth),
            answer("float", &p.float),
            answer("int8", &p.int8)
        ));
    }
    page.raw("</div>\n");
}
