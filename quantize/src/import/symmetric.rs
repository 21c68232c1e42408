//! Stored weights as kernels use them: symmetric codes in ±127.

/// The step for weights that are at most `largest` codes of `scale` from their zero point: the same, or a
/// wider one where they do not fit. Unsigned codes with a zero point reach 255.
pub(super) fn step(scale: f32, largest: i32) -> f32 {
    match largest {
        0..=127 => scale,
        _ => (f64::from(scale) * f64::from(largest) / 127.0) as f32,
    }
}

/// The real value of a code that is `centred` codes of `scale` from its zero point: a multiple of `step`.
pub(super) fn real(centred: i32, scale: f32, step: f32) -> f32 {
    let code = f64::from(centred) * f64::from(scale) / f64::from(step);
    (code.round_ties_even() * f64::from(step)) as f32
}

/// What a caller should know of weights that were rounded again.
pub(super) fn warning([widened, all]: [usize; 2]) -> Option<String> {
    (widened > 0).then(|| {
        format!(
            "{widened} of {all} output channels have weights further than 127 steps from their zero point; their steps are wider here, and those weights rounded again"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_fit_stay_and_others_fit_after() {
        assert_eq!((step(0.5, 127), real(-127, 0.5, 0.5)), (0.5, -63.5));
        let wide = step(0.5, 254);
        assert_eq!(wide, 1.0);
        assert_eq!(real(254, 0.5, wide), 127.0);
        assert_eq!(real(3, 0.5, wide), 2.0, "1.5 to even");
    }
}
