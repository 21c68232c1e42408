//! Bar charts as SVG.

use std::fmt::Write;

use super::escape;

pub(super) const WIDTH: f64 = 960.0;
pub(super) const HEIGHT: f64 = 250.0;
pub(super) const LEFT: f64 = 66.0;
pub(super) const RIGHT: f64 = 12.0;
/// Width of a character of the axis' text.
const CHARACTER: f64 = 7.2;
pub(super) const TOP: f64 = 16.0;
pub(super) const BOTTOM: f64 = 38.0;

/// Upright bars over numbered positions.
pub struct BarChart<'c> {
    /// Title of the position axis.
    pub x_title: &'c str,
    /// Bars.
    pub bars: Vec<Bar>,
    /// Dashed lines: value and text.
    pub limits: Vec<(f64, String)>,
    /// Text of a value of the upright axis.
    pub format: &'c dyn Fn(f64) -> String,
}

/// One bar.
pub struct Bar {
    /// Position, a whole number.
    pub at: usize,
    /// Height.
    pub value: f64,
    /// Class of the style: `plain`, `good`, `warn` or `bad`.
    pub tone: &'static str,
    /// Text shown when the pointer rests on it.
    pub title: String,
}

impl BarChart<'_> {
    /// The chart.
    pub fn svg(&self) -> String {
        let values = self
            .bars
            .iter()
            .map(|b| b.value)
            .chain(self.limits.iter().map(|l| l.0));
        let (ticks, most) = ticks(values.fold(0.0, f64::max));
        let y = |v: f64| HEIGHT - BOTTOM - (v / most).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);
        // The text of a dashed line stands to the right of it.
        let text = self.limits.iter().map(|l| l.1.chars().count()).max();
        let right = WIDTH - RIGHT - text.map_or(0.0, |n| n as f64 * CHARACTER);
        let slots = self.bars.iter().map(|b| b.at + 1).max().unwrap_or(1);
        let slot = (right - LEFT) / slots as f64;
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        let mut push = |text: std::fmt::Arguments<'_>| {
            // Writing to a string can't fail.
            let _ = svg.write_fmt(text);
        };
        for tick in ticks {
            let (at, text) = (y(tick), escape(&(self.format)(tick)));
            push(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                right
            ));
            push(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 8.0,
                at + 4.0
            ));
        }
        // Narrow bars touch; wide ones keep a gap and do not grow without end.
        let width = if slot > 6.0 {
            (slot - 2.0).min(48.0)
        } else {
            slot * 0.9
        };
        for bar in &self.bars {
            let x = LEFT + (bar.at as f64 + 0.5) * slot - width / 2.0;
            let (top, title) = (y(bar.value), escape(&bar.title));
            let height = (HEIGHT - BOTTOM - top).max(0.5);
            push(format_args!(
                "<rect class=\"{}\" x=\"{x:.2}\" y=\"{top:.1}\" width=\"{width:.2}\" height=\"{height:.1}\"><title>{title}</title></rect>",
                bar.tone
            ));
        }
        for (value, text) in &self.limits {
            let (at, text) = (y(*value), escape(text));
            push(format_args!(
                "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                right
            ));
            push(format_args!(
                "<text class=\"limit-text\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                right + 6.0,
                at + 4.0
            ));
        }
        let every = slots.div_ceil(16).max(1);
        for label in (0..slots).step_by(every) {
            let x = LEFT + (label as f64 + 0.5) * slot;
            push(format_args!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                HEIGHT - BOTTOM + 15.0
            ));
        }
        let middle = (LEFT + right) / 2.0;
        let title = escape(self.x_title);
        push(format_args!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{title}</text>",
            HEIGHT - 6.0
        ));
        svg + "</svg>"
    }
}

/// Round values from 0 to just above `most`, and the last of them.
pub(super) fn ticks(most: f64) -> (Vec<f64>, f64) {
    if !(most > 0.0 && most.is_finite()) {
        return (vec![0.0, 1.0], 1.0);
    }
    let rough = most / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|s| s * power)
        .find(|&s| s >= rough)
        .unwrap_or(rough);
    let count = (most / step).ceil().max(1.0) as usize;
    (
        (0..=count).map(|i| i as f64 * step).collect(),
        count as f64 * step,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose() {
        assert_eq!(ticks(37.0), (vec![0.0, 10.0, 20.0, 30.0, 40.0], 40.0));
        assert_eq!(ticks(0.9).1, 1.0);
        assert_eq!(ticks(0.0).1, 1.0);
        assert_eq!(ticks(f64::NAN).1, 1.0);
        for most in [1e-6, 3.3, 99.0, 1e9] {
            let (ticks, last) = ticks(most);
            assert!(
                last >= most && (2..=6).contains(&ticks.len()),
                "{most}: {ticks:?}"
            );
        }
    }

    #[test]
    fn bars_limits_and_titles_are_drawn() {
        let bar = |at, value| Bar {
            at,
            value,
            tone: "plain",
            title: format!("<{at}>"),
        };
        let format = |v: f64| format!("{v}");
        let chart = BarChart {
            x_title: "step",
            bars: vec![bar(0, 3.0), bar(2, 1.0)],
            limits: vec![(2.0, "two".into())],
            format: &format,
        };
        let svg = chart.svg();
        assert_eq!(
            (
                svg.matches("<rect").count(),
                svg.matches("class=\"limit\"").count()
            ),
            (2, 1)
        );
        assert!(svg.contains("&lt;2&gt;") && svg.contains(">two<") && !svg.contains("NaN"));
        let empty = BarChart {
            x_title: "",
            bars: vec![],
            limits: vec![],
            format: &format,
        };
        assert!(empty.svg().ends_with("</svg>"));
    }
}
