//! Reports: single HTML files with their style and charts inside, without scripts, for light and dark
//! screens.

mod base64;
mod chart;
pub mod compare;
pub mod demo;
pub mod distill;
mod lines;
pub mod pairs;
pub mod prune;
pub mod quantize;

use std::fmt::Write;

use crate::cli::output::shortened;
use chart::BarChart;
use lines::{Line, LineChart};

const STYLE: &str = include_str!("style.css");

/// A page under construction.
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with a heading and a line below it.
    fn new(title: &str, subtitle: &str) -> Self {
        let body = format!(
            "<h1>{}</h1>\n<p class=\"soft\">{}</p>\n",
            escape(title),
            escape(subtitle)
        );
        Page {
            title: title.to_owned(),
            body,
        }
    }

    /// Key figures: value and what it is.
    fn cards(&mut self, cards: &[(String, String)]) {
        self.body += "<ul class=\"cards\">\n";
        for (value, what) in cards {
            self.push(format_args!(
                "<li><b>{}</b><span>{}</span></li>\n",
                escape(value),
                escape(what)
            ));
        }
        self.body += "</ul>\n";
    }

    /// A heading with a paragraph.
    fn section(&mut self, heading: &str, text: &str) {
        self.push(format_args!("<h2>{}</h2>\n", escape(heading)));
        if !text.is_empty() {
            self.push(format_args!("<p class=\"soft\">{}</p>\n", escape(text)));
        }
    }

    /// A chart with a caption.
    fn chart(&mut self, chart: &BarChart<'_>, caption: &str) {
        let svg = chart.svg();
        self.push(format_args!(
            "<figure class=\"chart\">{svg}<figcaption>{}</figcaption></figure>\n",
            escape(caption)
        ));
    }

    /// A section with curves over the steps of training; nothing where none has points.
    fn lines(
        &mut self,
        heading: &str,
        text: &str,
        lines: Vec<Line<'_>>,
        format: &dyn Fn(f64) -> String,
    ) {
        self.curves(heading, text, "step", lines, format);
    }

    /// A section with curves over anything; nothing where none has points.
    fn curves(
        &mut self,
        heading: &str,
        text: &str,
        x_title: &str,
        mut lines: Vec<Line<'_>>,
        format: &dyn Fn(f64) -> String,
    ) {
        lines.retain(|l| !l.points.is_empty());
        if lines.is_empty() {
            return;
        }
        self.section(heading, text);
        let chart = LineChart {
            x_title,
            lines,
            format,
        };
        self.push(format_args!(
            "<figure class=\"chart\">{}</figure>\n",
            chart.svg()
        ));
    }

    /// A table. A heading that starts with `>` aligns its column to the right.
    fn table(&mut self, header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) {
        let right = |c: usize| header.get(c).is_some_and(|h| h.starts_with('>'));
        self.body += "<div class=\"scroll\"><table>\n";
        if header.iter().any(|h| !h.is_empty()) {
            self.body += "<thead><tr>";
            for (c, name) in header.iter().enumerate() {
                let class = if right(c) { " class=\"right\"" } else { "" };
                let name = escape(name.trim_start_matches('>'));
                self.push(format_args!("<th{class}>{name}</th>"));
            }
            self.body += "</tr></thead>\n";
        }
        self.body += "<tbody>\n";
        for row in rows {
            self.body += "<tr>";
            for (c, cell) in row.iter().enumerate() {
                let align = if right(c) { "right" } else { "left" };
                let (tone, text) = (cell.tone, escape(&cell.text));
                match &cell.title {
                    Some(title) => {
                        let title = escape(title);
                        self.push(format_args!(
                            "<td class=\"name\" title=\"{title}\">{text}</td>"
                        ));
                    }
                    None => self.push(format_args!("<td class=\"{align} {tone}\">{text}</td>")),
                }
            }
            self.body += "</tr>\n";
        }
        self.body += "</tbody></table></div>\n";
    }

    /// Markup.
    fn raw(&mut self, markup: &str) {
        self.body += markup;
    }

    /// The whole file.
    fn finish(self) -> String {
        let (title, body) = (escape(&self.title), self.body);
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
             <footer>Written by ampoule {version}. Hover over a bar for its details.</footer>\n</main>\n</body>\n</html>\n"
        )
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string can't fail.
        let _ = self.body.write_fmt(text);
    }
}

/// A cell of a table.
struct Cell {
    text: String,
    /// Class of the style: empty, `good`, `warn` or `bad`.
    tone: &'static str,
    /// Text shown when the pointer rests on it.
    title: Option<String>,
}

impl Cell {
    fn toned(text: impl Into<String>, tone: &'static str) -> Self {
        Cell {
            text: text.into(),
            tone,
            title: None,
        }
    }

    /// A name, of which the end is shown.
    fn name(name: &str) -> Self {
        Cell {
            text: shortened(name, 34),
            tone: "",
            title: Some(name.to_owned()),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::toned(text, "")
    }
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_break_the_page() {
        let mut page = Page::new("<script>", "a & b");
        page.table(
            &["x", ">y"],
            [vec!["<b>".into(), Cell::toned("\"1\"", "bad")]],
        );
        let html = page.finish();
        assert!(!html.contains("<script>") && !html.contains("<b>"));
        assert!(
            html.contains("&lt;script&gt;")
                && html.contains("a &amp; b")
                && html.contains("&quot;1&quot;")
        );
        assert!(html.contains("<td class=\"right bad\">"));
    }
}
