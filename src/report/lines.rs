//! Line charts as SVG.

use std::fmt::Write;

use super::chart::{BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks};
use super::escape;

/// Most points drawn of a line; each is the mean of its share.
const POINTS: usize = 400;

/// Lines over steps, from zero.
pub struct LineChart<'c> {
    /// Title of the horizontal axis.
    pub x_title: &'c str,
    /// The lines, first ones below.
    pub lines: Vec<Line<'c>>,
    /// Text of a value of the upright axis.
    pub format: &'c dyn Fn(f64) -> String,
}

/// One line.
pub struct Line<'c> {
    /// What it is.
    pub name: &'c str,
    /// Class of the style: `first` or `second`.
    pub tone: &'static str,
    /// Positions and values, in order; values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

impl LineChart<'_> {
    /// The chart.
    pub fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|l| &l.points);
        let finite = |v: &f64| v.is_finite();
        let (values, most) = ticks(all().map(|p| p.1).filter(finite).fold(0.0, f64::max));
        let (steps, last) = ticks(all().map(|p| p.0).fold(0.0, f64::max));
        let end = all().map(|p| p.0).fold(0.0, f64::max).max(1e-9);
        let y = |v: f64| HEIGHT - BOTTOM - (v / most).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);
        let x = |at: f64| LEFT + at / end * (WIDTH - RIGHT - LEFT);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        let mut push = |text: std::fmt::Arguments<'_>| {
            // Writing to a string can't fail.
            let _ = svg.write_fmt(text);
        };
        for tick in values {
            let (at, text) = (y(tick), escape(&(self.format)(tick)));
            push(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0
            ));
        }
        for step in steps.into_iter().filter(|s| *s <= end.min(last)) {
            push(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step}</text>",
                x(step),
                HEIGHT - BOTTOM + 15.0
            ));
        }
        for (number, line) in self.lines.iter().enumerate() {
            let points: Vec<String> = thinned(&line.points)
                .into_iter()
                .map(|(at, v)| format!("{:.1},{:.1}", x(at), y(v)))
                .collect();
            let name = escape(line.name);
            push(format_args!(
                "<polyline class=\"{}\" points=\"{}\"><title>{name}</title></polyline>",
                line.tone,
                points.join(" ")
            ));
            if let [point] = &points[..] {
                let (cx, cy) = point.split_once(',').unwrap_or_default();
                push(format_args!(
                    "<circle class=\"{}\" cx=\"{cx}\" cy=\"{cy}\" r=\"3\"/>",
                    line.tone
                ));
            }
            // The legend stands in the corner that curves leave free least often: no matter, it is small.
            let row = TOP + 4.0 + 16.0 * number as f64;
            let left = WIDTH - RIGHT - 150.0;
            push(format_args!(
                "<line class=\"{}\" x1=\"{left}\" x2=\"{}\" y1=\"{row}\" y2=\"{row}\"/><text x=\"{}\" y=\"{}\">{name}</text>",
                line.tone,
                left + 22.0,
                left + 28.0,
                row + 4.0
            ));
        }
        push(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 6.0,
            escape(self.x_title)
        ));
        svg + "</svg>"
    }
}

/// Finite points, of many the means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite = points.iter().copied().filter(|p| p.1.is_finite());
    let finite: Vec<_> = finite.collect();
    let share = finite.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    finite.chunks(share).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_drawn_thinned_and_finite() {
        let format = |v: f64| format!("{v}");
        let line = |name, points| Line {
            name,
            tone: "first",
            points,
        };
        let many = (0..1000)
            .map(|i| (f64::from(i), f64::from(i % 7)))
            .collect();
        let chart = LineChart {
            x_title: "step",
            lines: vec![
                line("<a>", many),
                line("b", vec![(3.0, f64::NAN), (5.0, 2.0)]),
            ],
            format: &format,
        };
        let svg = chart.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("&lt;a&gt;") && svg.contains("<circle") && !svg.contains("NaN"));
        let points = svg
            .split("points=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        assert_eq!(points.split(' ').count(), 334);
        let empty = LineChart {
            x_title: "",
            lines: vec![line("a", vec![])],
            format: &format,
        };
        assert!(empty.svg().ends_with("</svg>"));
    }
}
