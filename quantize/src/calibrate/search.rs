//! Search over both ends of a range.

/// Ends shrink by this power of two at most.
const LARGEST_SHRINK: i32 = 8;
/// Times the step is halved after the coarse grid.
const REFINEMENTS: i32 = 5;

/// The range within `lo..=hi` (`lo ≤ 0 ≤ hi`) with the least `cost`, found on a geometric grid of both
/// ends (`per_octave` steps per factor of two) and refined around its best point. The full range is a
/// candidate and wins ties.
pub(super) fn search(
    lo: f64,
    hi: f64,
    per_octave: i32,
    cost: impl Fn(f64, f64) -> f64,
) -> (f64, f64) {
    let at = |shrink: Shrink| (lo * (-shrink.0).exp2(), hi * (-shrink.1).exp2());
    let evaluate = |shrink: Shrink| {
        let (lo, hi) = at(shrink);
        cost(lo, hi)
    };
    let steps = |end: f64| {
        if end == 0.0 {
            0
        } else {
            LARGEST_SHRINK * per_octave
        }
    };
    let mut best = ((0.0, 0.0), evaluate((0.0, 0.0)));
    for i in 0..=steps(lo) {
        for j in 0..=steps(hi) {
            let shrink = (
                f64::from(i) / f64::from(per_octave),
                f64::from(j) / f64::from(per_octave),
            );
            take_better(&mut best, shrink, &evaluate);
        }
    }
    let mut step = 1.0 / f64::from(per_octave);
    for _ in 0..REFINEMENTS {
        step /= 2.0;
        refine(&mut best, step, &evaluate);
    }
    at(best.0)
}

/// How far the ends shrink: exponents of ½.
type Shrink = (f64, f64);

/// Moves to the best neighbour at distance `step`, at most three times.
fn refine(best: &mut (Shrink, f64), step: f64, evaluate: &impl Fn(Shrink) -> f64) {
    for _ in 0..3 {
        let (a, b) = best.0;
        for (i, j) in [
            (1.0, 0.0),
            (-1.0, 0.0),
            (0.0, 1.0),
            (0.0, -1.0),
            (1.0, 1.0),
            (-1.0, -1.0),
            (1.0, -1.0),
            (-1.0, 1.0),
        ] {
            let neighbour = ((a + i * step).max(0.0), (b + j * step).max(0.0));
            take_better(best, neighbour, evaluate);
        }
        if best.0 == (a, b) {
            return;
        }
    }
}

fn take_better(best: &mut (Shrink, f64), shrink: Shrink, evaluate: &impl Fn(Shrink) -> f64) {
    let cost = evaluate(shrink);
    if cost < best.1 {
        *best = (shrink, cost);
    }
}
