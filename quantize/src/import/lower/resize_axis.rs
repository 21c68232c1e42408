//! Resizing along one axis as a linear layer, by the definition of ONNX's Resize.

/// How positions are chosen and weighed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampling {
    pub filter: Filter,
    pub coordinates: Coordinates,
    /// Widen the filter by the shrinking factor.
    pub antialias: bool,
    /// Leave out taps beyond the edge instead of repeating it.
    pub exclude_outside: bool,
    /// Value of positions outside the input of a crop.
    pub extrapolation: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Filter {
    Nearest(Nearest),
    Linear,
    /// With this coefficient.
    Cubic(f64),
}

/// Which neighbour is the nearest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Nearest {
    Floor,
    Ceil,
    PreferFloor,
    PreferCeil,
}

/// ONNX's coordinate transformations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    /// `tf_crop_and_resize`.
    Crop,
}

/// One axis of a resize.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Elements before and after.
    pub from: usize,
    pub to: usize,
    /// Output over input; the output is its product with the input rounded down.
    pub scale: f64,
    /// Start and end of a crop, where 1 is the last element.
    pub crop: [f64; 2],
}

impl Axis {
    pub fn new(from: usize, to: usize) -> Self {
        Axis {
            from,
            to,
            scale: to as f64 / from as f64,
            crop: [0.0, 1.0],
        }
    }

    /// Whether the scale says the same as the sizes.
    pub fn scale_is_ratio(&self) -> bool {
        (self.to as f64 / self.from as f64 - self.scale).abs() < 1e-5 * self.scale
    }

    /// Weights `[to, from]` and bias `[to]` of the layer; `None` when it would change nothing.
    pub fn layer(&self, s: &Sampling) -> Option<(Vec<f32>, Vec<f32>)> {
        let mut weights = vec![0.0; self.to * self.from];
        let mut bias = vec![0.0; self.to];
        for (o, row) in weights.chunks_exact_mut(self.from).enumerate() {
            let position = self.position(o, s.coordinates);
            let last = (self.from - 1) as f64;
            if s.coordinates == Coordinates::Crop && !(0.0..=last).contains(&position) {
                bias[o] = s.extrapolation as f32;
                continue;
            }
            self.row(position, s, row);
        }
        let identity = self.from == self.to
            && weights
                .iter()
                .enumerate()
                .all(|(i, &w)| w == f32::from(u8::from(i % self.from == i / self.from)));
        (!identity).then_some((weights, bias))
    }

    /// The position in the input of output element `o`.
    fn position(&self, o: usize, coordinates: Coordinates) -> f64 {
        let (o, from, scale) = (o as f64, self.from as f64, self.scale);
        let to = scale * from;
        match coordinates {
            Coordinates::Asymmetric => o / scale,
            Coordinates::AlignCorners if to == 1.0 => 0.0,
            Coordinates::AlignCorners => o * (from - 1.0) / (to - 1.0),
            Coordinates::Crop => {
                let [start, end] = self.crop;
                let along = if to == 1.0 {
                    (end - start) * (from - 1.0) / 2.0
                } else {
                    o * (end - start) * (from - 1.0) / (to - 1.0)
                };
                along + start * (from - 1.0)
            }
            Coordinates::PytorchHalfPixel if to == 1.0 => -0.5,
            Coordinates::PytorchHalfPixel | Coordinates::HalfPixel => (o + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = self.to as f64 / to;
                from / 2.0 * (1.0 - adjustment) + (o + 0.5) / scale - 0.5
            }
        }
    }

    /// Adds the taps of a position to its row of weights.
    fn row(&self, position: f64, s: &Sampling, row: &mut [f32]) {
        // A whole position is the right one of its two neighbours.
        let left = position.ceil() - 1.0;
        let ratio = position - left;
        let scale = if s.antialias {
            self.scale.min(1.0)
        } else {
            1.0
        };
        let radius = match s.filter {
            Filter::Nearest(_) => 1.0,
            Filter::Linear => (1.0 / scale).ceil(),
            Filter::Cubic(_) => (2.0 / scale).ceil(),
        };
        // The one tap of the nearest can't be left out.
        let nearest = matches!(s.filter, Filter::Nearest(_));
        let first = 1 - radius as i64;
        let taps: Vec<(i64, f64)> = (first..=radius as i64)
            .map(|i| {
                let at = left as i64 + i;
                let weight = match s.filter {
                    Filter::Nearest(rule) => f64::from(u8::from(i == rule.neighbour(ratio))),
                    Filter::Linear => (1.0 - ((i as f64 - ratio) * scale).abs()).max(0.0),
                    Filter::Cubic(a) => cubic((i as f64 - ratio) * scale, a),
                };
                let inside = (0..self.from as i64).contains(&at);
                let excluded = s.exclude_outside && !inside && !nearest;
                (at, if excluded { 0.0 } else { weight })
            })
            .collect();
        let sum: f64 = taps.iter().map(|t| t.1).sum();
        for (at, weight) in taps {
            row[at.clamp(0, self.from as i64 - 1) as usize] += (weight / sum) as f32;
        }
    }
}

impl Nearest {
    /// 0 for the left neighbour, 1 for the right, at `ratio` (above 0, at most 1) between them.
    fn neighbour(self, ratio: f64) -> i64 {
        i64::from(match self {
            _ if ratio == 1.0 => true,
            Nearest::Floor => false,
            Nearest::Ceil => true,
            Nearest::PreferFloor => ratio > 0.5,
            Nearest::PreferCeil => ratio >= 0.5,
        })
    }
}

/// Cubic convolution with coefficient `a`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}
