//! Float rows.

use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::expect;
use crate::ops::vectorize::{Loop, run};

/// Sums formed side by side.
const LANES: usize = 8;

/// Normalises each run of `gain.len()` values of `y` in place.
pub fn layer_norm_in_place(
    cap: Capability,
    y: &mut [f32],
    gain: &[f32],
    offset: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    let c = gain.len();
    expect(c, offset.len())?;
    expect(y.len().checked_div(c).unwrap_or(0) * c, y.len())?;
    run(
        cap,
        Rows {
            y,
            gain,
            offset,
            epsilon,
        },
    );
    Ok(())
}

struct Rows<'a> {
    y: &'a mut [f32],
    gain: &'a [f32],
    offset: &'a [f32],
    epsilon: f32,
}

impl Loop for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let c = self.gain.len();
        if c == 0 {
            return;
        }
        for row in self.y.chunks_exact_mut(c) {
            let mean = sum(row, |v| v) / c as f64;
            let variance = sum(row, |v| (v - mean) * (v - mean)) / c as f64;
            let inverse = 1.0 / libm::sqrt(variance + f64::from(self.epsilon));
            for ((v, &g), &o) in row.iter_mut().zip(self.gain).zip(self.offset) {
                *v = ((f64::from(*v) - mean) * inverse) as f32 * g + o;
            }
        }
    }
}

/// Sum of `f` over the values.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += f(f64::from(chunk[i]));
        }
    }
    rest.iter()
        .fold(lanes.iter().sum(), |s, &v| s + f(f64::from(v)))
}
