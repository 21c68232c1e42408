//! Choosing the range of what goes into an activation function.

use super::density::Density;
use super::search::search;
use super::{CalibrateError, Histogram, QParams, Range};

/// The range of an argument of `f` with which a table of 256 results comes closest to `f`: the least
/// expected squared error of the results, rounded to the codes of `result`. Codes go where `f` is steep
/// and arguments are frequent; flat ends of a function cost little and get none.
///
/// # Errors
///
/// [`CalibrateError`]: nothing seen, or infinities or NaN among what was seen of `tensor`.
pub fn select_argument(
    tensor: &str,
    arguments: &Histogram,
    f: &dyn Fn(f32) -> f32,
    result: &QParams,
) -> Result<Range, CalibrateError> {
    arguments.check(tensor)?;
    let points: Vec<Point> = Density::of(arguments)
        .points()
        .map(|(x, weight)| {
            let x = x as f32;
            let y = f(x);
            Point { x, y, weight }
        })
        .collect();
    let cost = |lo: f64, hi: f64| {
        let params = QParams::from_range(lo as f32, hi as f32);
        let table: Vec<f32> = (-128..=127)
            .map(|code| result.round_trip(f(params.dequantize(code))))
            .collect();
        let error = |p: &Point| {
            let code = params.quantize(p.x);
            p.weight * f64::from(table[(code + 128) as usize] - p.y).powi(2)
        };
        points.iter().map(error).sum()
    };
    let seen = |end: Option<f32>| f64::from(end.unwrap_or(0.0));
    let (least, most) = (
        seen(arguments.min()).min(0.0),
        seen(arguments.max()).max(0.0),
    );
    let (lo, hi) = search(least, most, 2, cost);
    Ok(Range {
        lo: lo as f32,
        hi: hi as f32,
    })
}

struct Point {
    x: f32,
    y: f32,
    weight: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;
    use crate::calibrate::{CodeWidth, RangeMethod, select};
    use ampoule_runtime::ops::unary::UnaryKind;

    fn gaussian() -> (Vec<f32>, Histogram) {
        let values: Vec<f32> = Lcg(4).gaussians(20_000).iter().map(|v| v * 2.0).collect();
        let mut seen = Histogram::new();
        seen.update(&values);
        (values, seen)
    }

    /// Measured squared error of a table with that argument range.
    fn measured(values: &[f32], kind: UnaryKind, range: Range, result: &QParams) -> f64 {
        let params = range.params(CodeWidth::I8);
        let error =
            |&x: &f32| f64::from(result.round_trip(kind.eval(params.round_trip(x))) - kind.eval(x));
        values.iter().map(|x| error(x).powi(2)).sum()
    }

    #[test]
    fn results_are_closer_than_with_the_range_of_the_argument() {
        let (values, seen) = gaussian();
        for kind in [UnaryKind::GeluErf, UnaryKind::Silu, UnaryKind::HardSwish] {
            let mut results = Histogram::new();
            let after: Vec<f32> = values.iter().map(|&v| kind.eval(v)).collect();
            results.update(&after);
            let result = select("y", &results, RangeMethod::Mse, CodeWidth::I8)
                .unwrap()
                .params(CodeWidth::I8);
            let plain = select("x", &seen, RangeMethod::Mse, CodeWidth::I8).unwrap();
            let chosen = select_argument("x", &seen, &|x| kind.eval(x), &result).unwrap();
            let (before, after) = (
                measured(&values, kind, plain, &result),
                measured(&values, kind, chosen, &result),
            );
            assert!(
                after < 0.8 * before,
                "{kind:?}: {before} {after} {chosen:?}"
            );
            assert!(chosen.lo > plain.lo, "{kind:?}: {plain:?} {chosen:?}");
        }
    }

    #[test]
    fn nothing_seen_is_an_error_and_a_constant_is_not() {
        let result = QParams::from_range(-1.0, 1.0);
        assert!(select_argument("x", &Histogram::new(), &|x| x, &result).is_err());
        let mut seen = Histogram::new();
        seen.update(&[0.5; 9]);
        let range = select_argument("x", &seen, &|x| x, &result).unwrap();
        assert!(range.lo == 0.0 && range.hi > 0.2, "{range:?}");
    }
}
