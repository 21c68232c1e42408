//! Interpolation weights in fixed point, for one axis at a time.

use super::Filter;
use super::float::{ceil, floor};

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for overshoot, as in Pillow.
pub(super) const PRECISION: u32 = 32 - 8 - 2;

/// A weight as it lies in scratch, which has no alignment: an `i32` in the machine's byte order.
pub(super) type Word = [u8; 4];

/// Computes the weights of one axis.
///
/// Antialiased weights follow Pillow's `precompute_coeffs` operation by operation in `f64`, which
/// makes the fixed-point weights equal bit for bit. The others follow PyTorch's `align_corners=False`:
/// source position `(x + ½)·scale − ½`, taps beyond the border folded onto the border pixel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    filter: Filter,
    antialias: bool,
    source: u32,
    scale: f64,
    /// Half the width of the antialiased window, in source pixels.
    support: f64,
}

/// The source pixels that one output pixel reads: `count ≥ 1` from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Weights {
    /// Prepares an axis of `source` pixels that becomes `resized` pixels; both are `1..=MAX_SIDE`.
    pub(super) fn new(filter: Filter, antialias: bool, source: u32, resized: u32) -> Self {
        let scale = f64::from(source) / f64::from(resized);
        Self {
            filter,
            // A box that is not stretched would be a nearest filter: averaging is its whole point.
            antialias: antialias || filter == Filter::Area,
            source,
            scale,
            support: support(filter) * scale.max(1.0),
        }
    }

    /// The most taps that any output pixel has.
    ///
    /// A window of width `2·support` covers at most `⌈2·support⌉` pixel centres; the one more pays
    /// for the rounding of its two ends.
    pub(super) fn max_taps(&self) -> u32 {
        let taps = if self.antialias {
            ceil(2.0 * self.support) + 1
        } else {
            2 * ceil(support(self.filter))
        };
        u32::try_from(taps).map_or(self.source, |taps| taps.min(self.source))
    }

    /// Writes the weights of output pixel `x` to the front of `out`, which holds `max_taps` words.
    pub(super) fn write(&self, x: u32, out: &mut [Word]) -> Span {
        if self.antialias {
            self.write_antialiased(x, out)
        } else {
            self.write_interpolated(x, out)
        }
    }

    fn write_antialiased(&self, x: u32, out: &mut [Word]) -> Span {
        let center = (f64::from(x) + 0.5) * self.scale;
        let inverse = 1.0 / self.scale.max(1.0);
        // Casts truncate towards zero, as C's do, and saturate negative ends to zero.
        let first = ((center - self.support + 0.5) as u32).min(self.source - 1);
        let end = ((center + self.support + 0.5) as u32).min(self.source);
        let room = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let count = end.saturating_sub(first).clamp(1, room.max(1));

        let weight = |tap: u32| {
            let distance = f64::from(first + tap) - center + 0.5;
            kernel(self.filter, distance * inverse, PILLOW_CUBIC)
        };
        let mut sum = 0.0;
        for tap in 0..count {
            sum += weight(tap);
        }
        // The kernel is evaluated twice rather than kept: scratch would double in size.
        for (tap, out) in (0..count).zip(out) {
            let weight = weight(tap);
            *out = fixed(if sum != 0.0 { weight / sum } else { weight });
        }
        Span { first, count }
    }

    fn write_interpolated(&self, x: u32, out: &mut [Word]) -> Span {
        let position = (f64::from(x) + 0.5) * self.scale - 0.5;
        let base = floor(position);
        let fraction = position - base as f64;
        let reach = ceil(support(self.filter));
        let last = i64::from(self.source) - 1;

        let first = (base - reach + 1).clamp(0, last);
        let end = (base + reach).clamp(0, last) + 1;
        let mut folded = [0.0; 4];
        for tap in 1 - reach..=reach {
            let weight = kernel(self.filter, tap as f64 - fraction, TORCH_CUBIC);
            let pixel = (base + tap).clamp(0, last);
            if let Some(sum) = folded.get_mut((pixel - first) as usize) {
                *sum += weight;
            }
        }
        for (out, weight) in out.iter_mut().zip(folded) {
            *out = fixed(weight);
        }
        // Both lie in `0..=MAX_SIDE`.
        Span {
            first: first as u32,
            count: (end - first) as u32,
        }
    }
}

/// Pillow's nearest neighbour: source coordinates of successive output pixels.
///
/// The position is a running sum, not a product, because Pillow's is: the two part where a position
/// falls on a pixel's edge.
#[derive(Debug, Clone)]
pub(super) struct NearestSteps {
    position: f64,
    scale: f64,
    last: u32,
}

impl NearestSteps {
    /// Starts at output pixel `start` of an axis of `source` pixels that becomes `resized` pixels.
    pub(super) fn new(source: u32, resized: u32, start: u32) -> Self {
        let scale = f64::from(source) / f64::from(resized);
        let mut position = scale * 0.5;
        for _ in 0..start {
            position += scale;
        }
        Self {
            position,
            scale,
            last: source - 1,
        }
    }
}

impl Iterator for NearestSteps {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let index = (self.position as u32).min(self.last);
        self.position += self.scale;
        Some(index)
    }
}

/// Turns a sum of pixels times weights, started at [`HALF`], into a pixel.
#[inline(always)]
pub(super) fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// What a sum starts at, so that dropping the fraction rounds to nearest.
pub(super) const HALF: i32 = 1 << (PRECISION - 1);

/// Pillow's sharpness of the bicubic kernel.
const PILLOW_CUBIC: f64 = -0.5;
/// PyTorch's and OpenCV's sharpness of the bicubic kernel.
const TORCH_CUBIC: f64 = -0.75;

/// Half the width of a kernel in pixels of the coarser grid.
fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Nearest | Filter::Area => 0.5,
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
    }
}

/// The kernel at signed distance `x`; `a` is the sharpness of the bicubic one.
fn kernel(filter: Filter, x: f64, a: f64) -> f64 {
    let distance = if x < 0.0 { -x } else { x };
    match filter {
        // Open on one side: a pixel on the edge of two boxes belongs to one of them.
        Filter::Nearest | Filter::Area => f64::from(u8::from(x > -0.5 && x <= 0.5)),
        Filter::Bilinear if distance < 1.0 => 1.0 - distance,
        Filter::Bicubic if distance < 1.0 => {
            ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
        }
        Filter::Bicubic if distance < 2.0 => {
            (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a
        }
        Filter::Bilinear | Filter::Bicubic => 0.0,
    }
}

/// Rounds a weight to fixed point, halves away from zero.
fn fixed(weight: f64) -> Word {
    let scaled = weight * f64::from(1u32 << PRECISION);
    let rounded = if weight < 0.0 {
        scaled - 0.5
    } else {
        scaled + 0.5
    };
    (rounded as i32).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const FILTERS: [Filter; 3] = [Filter::Bilinear, Filter::Bicubic, Filter::Area];

    #[test]
    fn weights_sum_to_one_and_stay_inside() {
        let one = 1 << PRECISION;
        for filter in FILTERS {
            for antialias in [false, true] {
                for source in [1, 2, 3, 4, 7, 50, 255] {
                    for resized in [1, 2, 3, 5, 49, 50, 51, 300] {
                        let weights = Weights::new(filter, antialias, source, resized);
                        let mut words = vec![[0; 4]; weights.max_taps() as usize];
                        let mut ends = (0, 0);
                        for x in 0..resized {
                            let span = weights.write(x, &mut words);
                            let end = span.first + span.count;
                            assert!(span.count >= 1 && end <= source);
                            assert!(span.count <= weights.max_taps());
                            // The ring of rows relies on both ends never going back.
                            assert!(span.first >= ends.0 && end >= ends.1);
                            ends = (span.first, end);
                            let sum: i32 = words[..span.count as usize]
                                .iter()
                                .map(|w| i32::from_ne_bytes(*w))
                                .sum();
                            assert!(
                                (sum - one).abs() <= span.count as i32,
                                "{filter:?} {antialias} {source}->{resized} at {x}: {sum}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn tap_bound_holds_where_the_window_ends_on_centres() {
        for filter in FILTERS {
            for source in 1..200 {
                for resized in [1, 3, 10, 64, 99] {
                    let weights = Weights::new(filter, true, source, resized);
                    let mut words = vec![[0; 4]; source as usize + 8];
                    for x in 0..resized {
                        assert!(weights.write(x, &mut words).count <= weights.max_taps());
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_sides_are_exact() {
        use super::super::MAX_SIDE;
        let up = Weights::new(Filter::Bicubic, true, 1, MAX_SIDE);
        assert_eq!(
            up.write(MAX_SIDE - 1, &mut [[0; 4]; 1]),
            Span { first: 0, count: 1 }
        );
        let same = Weights::new(Filter::Bilinear, false, MAX_SIDE, MAX_SIDE);
        let span = same.write(MAX_SIDE - 1, &mut [[0; 4]; 2]);
        assert_eq!(span.first + span.count, MAX_SIDE);
        let steps = NearestSteps::new(MAX_SIDE, 3, 2).next();
        assert!(steps.unwrap() < MAX_SIDE);
    }

    #[test]
    fn nearest_takes_centres() {
        let indices: vec::Vec<u32> = NearestSteps::new(10, 4, 0).take(4).collect();
        assert_eq!(indices, [1, 3, 6, 8]);
        let indices: vec::Vec<u32> = NearestSteps::new(2, 5, 1).take(4).collect();
        assert_eq!(indices, [0, 1, 1, 1]);
    }
}
