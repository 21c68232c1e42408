//! Against numpy (`tests/fixtures/calibrate/make.py`) and against each other.

use super::*;
use crate::calibrate::testing::Lcg;
use crate::calibrate::{clipped_share, expected_mse, expected_sqnr_db};

#[derive(Deserialize)]
struct Goldens {
    gaussian: Golden,
    relu: Golden,
}

#[derive(Deserialize)]
struct Golden {
    percentile_99_9: (f64, f64),
    min_max_mse: f64,
    best_mse: f64,
    divergences: Vec<(f64, f64, f64)>,
    best_divergence: f64,
}

fn goldens() -> Goldens {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/calibrate/golden.json"
    ));
    serde_json::from_str(text).unwrap()
}

/// The samples of `make.py`.
fn samples() -> [(Vec<f32>, Golden); 2] {
    let mut values = Lcg(42).gaussians(50_000);
    values.iter_mut().step_by(500).for_each(|v| *v *= 12.0);
    let relu = values.iter().map(|v| v.max(0.0)).collect();
    let goldens = goldens();
    [(values, goldens.gaussian), (relu, goldens.relu)]
}

fn of(values: &[f32]) -> Histogram {
    let mut h = Histogram::new();
    h.update(values);
    h
}

fn measured_mse(values: &[f32], range: Range) -> f64 {
    let p = range.params(CodeWidth::I8);
    values
        .iter()
        .map(|&v| f64::from(p.round_trip(v) - v).powi(2))
        .sum::<f64>()
        / values.len() as f64
}

fn choose(histogram: &Histogram, method: RangeMethod) -> Range {
    select("t", histogram, method, CodeWidth::I8).unwrap()
}

#[test]
fn percentiles_match_numpy() {
    for (values, golden) in samples() {
        let h = of(&values);
        let range = choose(&h, RangeMethod::Percentile(99.9));
        let (lo, hi) = golden.percentile_99_9;
        assert!(
            (f64::from(range.lo) - lo).abs() < h.bin_width(),
            "{range:?} {lo}"
        );
        assert!(
            (f64::from(range.hi) - hi).abs() < h.bin_width(),
            "{range:?} {hi}"
        );
    }
}

#[test]
fn squared_errors_match_numpy_and_the_search_is_as_good() {
    for (values, golden) in samples() {
        let all = measured_mse(&values, choose(&of(&values), RangeMethod::MinMax));
        assert!(
            (all / golden.min_max_mse - 1.0).abs() < 1e-3,
            "{all} {}",
            golden.min_max_mse
        );
        let found = measured_mse(&values, choose(&of(&values), RangeMethod::Mse));
        assert!(
            found < golden.best_mse * 1.01,
            "{found} {}",
            golden.best_mse
        );
    }
}

#[test]
fn divergences_match_numpy_and_the_search_is_as_good() {
    for (values, golden) in samples() {
        let divergence = Divergence::of(&of(&values));
        for (lo, hi, expected) in golden.divergences {
            let got = divergence.of_range(lo, hi, LEVELS);
            assert!((got - expected).abs() < 1e-9, "{lo} {hi}: {got} {expected}");
        }
        let range = choose(&of(&values), RangeMethod::Entropy);
        let found = divergence.of_range(range.lo.into(), range.hi.into(), LEVELS);
        assert!(
            found < golden.best_divergence * 1.1,
            "{range:?}: {found} {}",
            golden.best_divergence
        );
    }
}

#[test]
fn least_squares_is_never_worse_than_min_max() {
    let mut rng = Lcg(99);
    for round in 0..60 {
        let tail = 1 + rng.next() % 6;
        let offset = (rng.uniform() - 0.5) * 4.0 * (round % 3) as f32;
        let values: Vec<f32> = (0..3000)
            .map(|_| rng.gaussian().powi(tail as i32) + offset)
            .collect();
        let h = of(&values);
        let (all, least) = (
            choose(&h, RangeMethod::MinMax),
            choose(&h, RangeMethod::Mse),
        );
        let cost = |r: Range| expected_mse(&h, &r.params(CodeWidth::I8));
        assert!(cost(least) <= cost(all), "round {round}: {least:?} {all:?}");
        assert!(least.lo >= all.lo && least.hi <= all.hi && least.lo <= 0.0 && least.hi >= 0.0);
    }
}

#[test]
fn degenerate_tensors_keep_a_usable_range() {
    let methods = [
        RangeMethod::MinMax,
        RangeMethod::Percentile(99.0),
        RangeMethod::Mse,
        RangeMethod::Entropy,
    ];
    for method in methods {
        for width in [CodeWidth::I8, CodeWidth::I16] {
            let range = |values: &[f32]| select("t", &of(values), method, width).unwrap();
            let params = |values: &[f32]| range(values).params(width);
            assert_eq!(params(&[0.0; 5]).scale, 1.0, "{method}");
            assert_eq!(params(&[1e-44; 5]).scale, 1.0, "{method}");
            assert!(
                (params(&[2.5; 50]).round_trip(2.5) - 2.5).abs() < 0.02,
                "{method}"
            );
            assert!(
                (params(&[-2.5; 50]).round_trip(-2.5) + 2.5).abs() < 0.02,
                "{method}"
            );
            let mut rare = vec![0.0; 100_000];
            rare[77] = 4.0; // rarer than any percentile asks for
            assert!(params(&rare).round_trip(4.0) > 3.9, "{method} {width}");
        }
    }
}

#[test]
fn what_cannot_be_chosen_is_refused() {
    let refuse = |h: &Histogram, m| {
        select("conv7", h, m, CodeWidth::I8)
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(&Histogram::new(), RangeMethod::Mse).contains("conv7"));
    assert!(refuse(&of(&[1.0, f32::NAN]), RangeMethod::Mse).contains("conv7"));
    assert!(refuse(&of(&[1.0]), RangeMethod::Percentile(3.0)).contains("above 50"));
}

#[test]
fn int16_ranges_are_symmetric_and_complete() {
    for method in [RangeMethod::MinMax, RangeMethod::Mse, RangeMethod::Entropy] {
        let range = select("t", &of(&[-1.0, 3.0]), method, CodeWidth::I16).unwrap();
        assert_eq!(range, Range { lo: -3.0, hi: 3.0 });
    }
}

#[test]
fn reports_agree_with_counting() {
    let [(values, _), _] = samples();
    let h = of(&values);
    let p = QParams::from_range(-4.0, 4.0);
    let clipped = values
        .iter()
        .filter(|v| (p.round_trip(**v) - **v).abs() > p.scale * 0.501)
        .count();
    assert!((clipped_share(&h, &p) - clipped as f64 / values.len() as f64).abs() < 2e-4);
    let signal: f64 =
        values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
    let noise = measured_mse(&values, Range { lo: -4.0, hi: 4.0 });
    assert!((expected_sqnr_db(&h, &p) - 10.0 * (signal / noise).log10()).abs() < 0.05);
}

#[test]
#[ignore = "measures; run with --release -- --ignored --nocapture"]
fn speed() {
    let h = of(&samples()[0].0);
    for method in [
        RangeMethod::Percentile(99.9),
        RangeMethod::Mse,
        RangeMethod::Entropy,
    ] {
        let start = std::time::Instant::now();
        let range = (0..20).fold(None, |_, _| Some(choose(&h, method)));
        println!(
            "{method}: {:.2} ms, {range:?}",
            start.elapsed().as_secs_f64() * 50.0
        );
    }
}
