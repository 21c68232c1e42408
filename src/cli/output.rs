//! Tables, JSON, and numbers for people.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::error::Failure;

/// Prints a result.
pub fn print(text: &str) -> Result<(), Failure> {
    let text = visible(text);
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| match text.ends_with('\n') {
            true => Ok(()),
            false => out.write_all(b"\n"),
        });
    written.and_then(|()| out.flush()).map_err(Failure::Print)
}

/// Prints a result as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Print(e.into()))?;
    print(&text)
}

/// Prints JSON on one line.
pub fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::Print(e.into()))?;
    print(&text)
}

/// A path as JSON, which can't hold one that is no UTF-8.
pub fn path<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// Tells the user something that is no result.
pub fn note(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", visible(text));
}

/// Names and labels come out of files, and must not steer the terminal.
fn visible(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    text.replace(steers, "\u{fffd}")
}

/// Tells the user what failed and what to try.
pub fn error(failure: &Failure) {
    note(&format!("error: {failure}"));
    if let Some(hint) = failure.hint() {
        note(&format!("  try: {hint}"));
    }
}

/// Rows of text in aligned columns.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns whose cells are aligned to the right.
    right: Vec<bool>,
}

impl Table {
    /// An empty table. A heading that starts with `>` aligns its column to the right.
    pub fn new(header: &[&'static str]) -> Self {
        Table {
            header: header.iter().map(|h| h.trim_start_matches('>')).collect(),
            rows: Vec::new(),
            right: header.iter().map(|h| h.starts_with('>')).collect(),
        }
    }

    /// Appends a row, one cell per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines.
    pub fn render(&self) -> String {
        let header: Vec<String> = self.header.iter().map(|h| (*h).to_owned()).collect();
        let all = || std::iter::once(&header).chain(&self.rows);
        let width = |c: usize| {
            all()
                .filter_map(|r| r.get(c))
                .map(|s| s.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells =
                row.iter().zip(&widths).zip(&self.right).map(
                    |((cell, &width), &right)| match right {
                        true => format!("{cell:>width$}"),
                        false => format!("{cell:<width$}"),
                    },
                );
            format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        let rule: Vec<String> = widths.iter().map(|&w| "─".repeat(w)).collect();
        std::iter::once(&header)
            .chain(std::iter::once(&rule))
            .chain(&self.rows)
            .map(line)
            .collect()
    }
}

/// Two columns of facts.
pub fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:<width$}  {value}\n"))
        .collect()
}

/// The end of a name, which tells it apart from others. Of the names that TensorFlow Lite joins with
/// semicolons when it fuses operators, the first counts: it is the tensor's own.
pub fn shortened(name: &str, most: usize) -> String {
    let name = name.split(';').next().unwrap_or_default();
    let length = name.chars().count();
    match length <= most {
        true => name.to_owned(),
        false => format!(
            "…{}",
            name.chars().skip(length - most + 1).collect::<String>()
        ),
    }
}

/// `1 step`, `2 steps`.
pub fn plural(n: usize, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A size in bytes, in decimal units.
pub fn bytes(n: usize) -> String {
    let n = n as f64;
    match n {
        n if n < 1e3 => format!("{n} B"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.2} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

/// A count, in decimal units.
pub fn count(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n < 1e4 => format!("{n}"),
        n if n < 1e6 => format!("{:.1} k", n / 1e3),
        n if n < 1e9 => format!("{:.2} M", n / 1e6),
        n => format!("{:.2} G", n / 1e9),
    }
}

/// A duration given in microseconds.
pub fn micros(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.1} µs"),
        us if us < 1e6 => format!("{:.3} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A shape, outermost dimension first.
pub fn shape<T: ToString>(dims: &[T]) -> String {
    match dims {
        [] => "scalar".to_owned(),
        dims => dims
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("×"),
    }
}

/// Values as a line of bars, at most `width` of them; each stands for the largest of its share.
pub fn sparkline(values: &[usize], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let columns = values.len().min(width).max(1);
    (0..columns)
        .map(|c| {
            let share = &values[c * values.len() / columns..(c + 1) * values.len() / columns];
            let top = share.iter().copied().max().unwrap_or(0);
            BARS[(top * (BARS.len() - 1)).div_ceil(most).min(BARS.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">bytes"]);
        table.row(["a".to_owned(), "12".to_owned()]);
        table.row(["größe".to_owned(), "7".to_owned()]);
        assert_eq!(
            table.render(),
            "name   bytes\n─────  ─────\na         12\ngröße      7\n"
        );
        assert_eq!(
            facts(&[("a", "1".into()), ("bcd", "2".into())]),
            "a    1\nbcd  2\n"
        );
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [bytes(999), bytes(1_500), bytes(4_650_000)],
            ["999 B", "1.5 kB", "4.65 MB"]
        );
        assert_eq!(
            [count(9_999), count(12_345), count(407_000_000)],
            ["9999", "12.3 k", "407.00 M"]
        );
        assert_eq!([micros(12.34), micros(3_950.0)], ["12.3 µs", "3.950 ms"]);
        assert_eq!(
            [shape(&[1, 96, 3]), shape::<u32>(&[])],
            ["1×96×3", "scalar"]
        );
    }

    #[test]
    fn text_from_files_is_tamed() {
        assert_eq!(visible("a\x1b[2J\rb\n"), "a\u{fffd}[2J\u{fffd}b\n");
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 4), "…efg");
        assert_eq!(shortened("relu;conv/bias/resource", 10), "relu");
        assert_eq!(
            [plural(1, "step"), plural(0, "step")],
            ["1 step", "0 steps"]
        );
    }

    #[test]
    fn sparklines_keep_the_peak() {
        assert_eq!(sparkline(&[0, 4, 8], 10), "▁▅█");
        assert_eq!(sparkline(&[1, 1, 1, 8, 1, 1], 3).chars().nth(1), Some('█'));
        assert_eq!(sparkline(&[], 5), "▁");
    }
}
