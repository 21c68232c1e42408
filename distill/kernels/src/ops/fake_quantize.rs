//! Values as int8 codes stand for them, for training that takes their rounding into account.
//!
//! Codes are those of the runtime (`docs/numerics.md`), bit for bit: asymmetric and one scale for
//! activations, symmetric and a scale per output channel for weights. Gradients pass straight through the
//! rounding, and not at all where a value is clipped (Jacob et al., "Quantization and Training of Neural
//! Networks for Efficient Integer-Arithmetic-Only Inference", 2018). Not a number stays so, that training
//! can notice.

use crate::isa::kernel;

/// 1.5 · 2²³: adding it rounds a small number to an integer, ties to even.
const MAGIC: f32 = 12_582_912.0;

/// Smallest and largest code of activations.
const RANGE: [f32; 2] = [-128.0, 127.0];

/// Largest code of weights.
const LARGEST: f32 = 127.0;

/// Scales below are not used.
const MIN_SCALE: f64 = 1.0 / (1u64 << 40) as f64;

/// A channel's scale is at least this share of the largest one.
const FAINTEST: f32 = 1.0 / 65_536.0;

/// Int8 codes: each stands for `scale · (code − zero_point)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codes {
    /// Size of a step.
    pub scale: f32,
    /// Code of 0.
    pub zero_point: i32,
}

impl Codes {
    /// For values in `low..=high` and 0, as calibration of the quantiser chooses them.
    pub fn of_range(low: f32, high: f32) -> Codes {
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        let scale = ((high - low) / 255.0) as f32;
        let usable = f64::from(scale) >= MIN_SCALE && scale.is_finite();
        let scale = if usable { scale } else { 1.0 };
        let zero = (-128.0 - low / f64::from(scale)).round_ties_even();
        Codes {
            scale,
            zero_point: zero.clamp(-128.0, 127.0) as i32,
        }
    }
}

kernel! {
    /// Replaces values by what their codes stand for.
    pub fn round<'a, S, simd>(codes: Codes, x: &'a mut [f32]) {
        let (inverse, zero) = (1.0 / codes.scale, codes.zero_point as f32);
        for x in x.iter_mut() {
            *x = rounded(*x, codes.scale, inverse, zero, RANGE);
        }
    }
}

kernel! {
    /// Gradient of [`round`]: `d` where `x` is not clipped, else 0.
    pub fn gradient<'a, S, simd>(codes: Codes, x: &'a [f32], d: &'a [f32], of_x: &'a mut [f32]) {
        let (inverse, base) = (1.0 / codes.scale, MAGIC + codes.zero_point as f32);
        let [low, high] = RANGE.map(|code| MAGIC + code);
        let n = of_x.len();
        let (x, d) = (&x[..n], &d[..n]);
        for i in 0..n {
            let y = x[i] * inverse + base;
            of_x[i] = if y < low || y > high { 0.0 } else { d[i] };
        }
    }
}

kernel! {
    /// Widens `limits` to the smallest and the largest of `x`.
    pub fn widen<'a, S, simd>(x: &'a [f32], limits: &'a mut [f32; 2]) {
        let (mut low, mut high) = ([limits[0]; 16], [limits[1]; 16]);
        let (chunks, rest) = x.as_chunks::<16>();
        for chunk in chunks {
            for i in 0..16 {
                low[i] = if chunk[i] < low[i] { chunk[i] } else { low[i] };
                high[i] = if chunk[i] > high[i] { chunk[i] } else { high[i] };
            }
        }
        let least = low.iter().chain(rest).copied();
        let most = high.iter().chain(rest).copied();
        *limits = [least.fold(limits[0], f32::min), most.fold(limits[1], f32::max)];
    }
}

/// Weights of `rows` output channels as their int8 codes stand for them; their gradients pass straight
/// through, for the largest of a channel has the largest code and nothing is clipped.
pub fn weights(rows: usize, w: &[f32], rounded: &mut Vec<f32>) {
    rounded.clear();
    rounded.extend_from_slice(w);
    let len = w.len() / rows.max(1);
    if len == 0 {
        return;
    }
    let largest = |row: &[f32]| row.iter().fold(0.0f32, |a, w| a.max(w.abs()));
    let of_tensor = largest(w) / LARGEST;
    let least = if f64::from(of_tensor) < MIN_SCALE {
        1.0
    } else {
        (of_tensor * FAINTEST).max(MIN_SCALE as f32)
    };
    for row in rounded.chunks_exact_mut(len) {
        round_row((largest(row) / LARGEST).max(least), row);
    }
}

kernel! {
    fn round_row<'a, S, simd>(scale: f32, row: &'a mut [f32]) {
        let inverse = 1.0 / scale;
        for w in row.iter_mut() {
            *w = rounded(*w, scale, inverse, 0.0, [-LARGEST, LARGEST]);
        }
    }
}

/// What the code of `x` stands for.
#[inline(always)]
fn rounded(x: f32, scale: f32, inverse: f32, zero: f32, [low, high]: [f32; 2]) -> f32 {
    let y = x * inverse + (MAGIC + zero);
    let y = if y < MAGIC + low { MAGIC + low } else { y };
    let y = if y > MAGIC + high { MAGIC + high } else { y };
    // Not a number passes both comparisons.
    scale * ((y - MAGIC) - zero)
}
