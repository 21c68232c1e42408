//! A part of a batch: reading views, and giving gradients back through them.

use std::ops::Range;

use super::plan::{Kernel, Normalize, Plan, Source, Unit, View};
use super::{Mode, NormState, PARTS};
use crate::gemm::Panels;
use crate::graph::{Activation, ParameterId};
use crate::ops::batch_norm::{self, Moments};
use crate::ops::fake_quantize::Codes;
use crate::ops::{Window, activation, attention, layer_norm, pool};

/// Values of a chunk's widest map, so that a few such maps stay in the second-level cache.
const CHUNK: usize = 64 * 1024;

/// What parts of a batch read.
pub(super) struct Context<'a> {
    pub plan: &'a Plan,
    pub storages: &'a [Vec<f32>],
    pub norms: &'a [NormState],
    pub parameters: &'a [Vec<f32>],
    pub neutral: &'a [Vec<f32>; 2],
    pub mode: Mode,
    /// Factor of each layer's mean of ln(1 + A²) over its attention weights, over the batch.
    pub sparsity: f32,
}

/// Memory of a part.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Per source: values, slopes, gradients.
    pub values: Vec<Vec<f32>>,
    pub slopes: Vec<Vec<f32>>,
    pub gradients: Vec<Vec<f32>>,
    pub sums: Vec<Sums>,
    /// Gradient with respect to the output.
    pub dy: Vec<f32>,
    /// Windows of a convolution.
    pub columns: Vec<f32>,
    pub panels: Panels,
    pub attention: attention::Scratch,
    pub moments: Moments,
    /// Smallest and largest value seen, for ranges of codes.
    pub limits: [f32; 2],
    /// Gradients of weight and bias.
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Sums of a source's norm.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Of a batch norm; see [`batch_norm::add_gradient`].
    pub batch: [Vec<f64>; 2],
    /// Gradients of a layer norm's weight and bias, or sums of a batch norm over a chunk.
    pub rows: [Vec<f32>; 2],
}

/// A piece of a batch that a kernel takes at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub first: usize,
    pub count: usize,
    /// Whether it counts pixels of the batch; else samples.
    pub pixels: bool,
}

/// The source's gradient in a part.
pub(super) struct Target<'a> {
    pub data: &'a mut [f32],
    /// Where in the whole gradient it starts.
    pub offset: usize,
    /// Whether to add.
    pub accumulate: bool,
}

impl Scratch {
    pub fn new(sources: usize) -> Self {
        let vectors = || (0..sources).map(|_| Vec::new()).collect();
        Scratch {
            values: vectors(),
            slopes: vectors(),
            gradients: vectors(),
            sums: (0..sources).map(|_| Sums::default()).collect(),
            ..Scratch::default()
        }
    }

    /// Number of values held, without the small ones.
    pub fn len(&self) -> usize {
        let sources = self
            .values
            .iter()
            .chain(&self.slopes)
            .chain(&self.gradients);
        let single = [&self.dy, &self.columns, &self.weight, &self.bias];
        sources.chain(single).map(Vec::capacity).sum()
    }
}

/// Samples of each part.
pub(super) fn parts(batch: usize) -> Vec<Range<usize>> {
    let per = batch.div_ceil(PARTS).max(1);
    (0..batch)
        .step_by(per)
        .map(|first| first..batch.min(first + per))
        .collect()
}

/// Cuts what has `len` values per sample into the parts.
pub(super) fn split<'a>(
    mut data: &'a mut [f32],
    parts: &[Range<usize>],
    len: usize,
) -> Vec<&'a mut [f32]> {
    let mut pieces = Vec::with_capacity(parts.len());
    for part in parts {
        let (piece, rest) = data.split_at_mut(part.len() * len);
        pieces.push(piece);
        data = rest;
    }
    pieces
}

impl Unit {
    /// Whether each pixel of the result depends only on the same pixel of the sources.
    fn pointwise(&self) -> bool {
        match &self.kernel {
            Kernel::Conv { window, .. } => *window == Window::POINT,
            Kernel::Add { drop_path } => *drop_path == 0.0,
            Kernel::NormGradient(_) | Kernel::Embedding(_) | Kernel::Normalize => true,
            Kernel::FakeQuantize { .. } => true,
            _ => false,
        }
    }
}

impl<'a> Context<'a> {
    /// Cuts the samples of a part into chunks for a unit.
    pub fn chunks(
        &self,
        unit: &Unit,
        samples: Range<usize>,
    ) -> impl Iterator<Item = Chunk> + use<> {
        let map = self.plan.storages[unit.output].map;
        let sources = unit
            .sources
            .iter()
            .map(|s| self.plan.storages[s.view.storage].map);
        let pixels = unit.pointwise();
        let (range, step) = if pixels {
            let widest = sources.map(|m| m.channels).fold(map.channels, usize::max);
            let range = samples.start * map.pixels()..samples.end * map.pixels();
            (range, (CHUNK / widest.max(1)).clamp(32, 1024))
        } else {
            (samples, 1)
        };
        range.clone().step_by(step).map(move |first| Chunk {
            first,
            count: step.min(range.end - first),
            pixels,
        })
    }

    /// Where a storage has a chunk.
    pub fn range(&self, storage: usize, chunk: Chunk) -> Range<usize> {
        let map = self.plan.storages[storage].map;
        let len = if chunk.pixels {
            map.channels
        } else {
            map.len()
        };
        chunk.first * len..(chunk.first + chunk.count) * len
    }

    /// A chunk of a storage.
    pub fn raw(&self, storage: usize, chunk: Chunk) -> &'a [f32] {
        &self.storages[storage][self.range(storage, chunk)]
    }

    /// A chunk as a view shows it.
    pub fn load<'s>(&self, view: &View, chunk: Chunk, value: &'s mut Vec<f32>) -> &'s [f32]
    where
        'a: 's,
    {
        let x = self.raw(view.storage, chunk);
        if view.is_plain() {
            return x;
        }
        let value = room(value, x.len());
        match view.normalize {
            Normalize::Layer(l) => {
                let [weight, bias] = self.layer(l);
                layer_norm::forward(weight, bias, self.plan.layers[l].epsilon, x, value);
            }
            _ => activation::forward(view.activation, self.affine(view), x, value),
        }
        value
    }

    /// As [`Context::load`], and the slopes of the activation if it has any.
    pub fn load_with_slope<'s>(
        &self,
        view: &View,
        chunk: Chunk,
        value: &'s mut Vec<f32>,
        slope: &'s mut Vec<f32>,
    ) -> (&'s [f32], Option<&'s [f32]>)
    where
        'a: 's,
    {
        if view.activation == Activation::Identity {
            return (self.load(view, chunk, value), None);
        }
        let x = self.raw(view.storage, chunk);
        let (value, slope) = (room(value, x.len()), room(slope, x.len()));
        activation::forward_with_slope(view.activation, self.affine(view), x, value, slope);
        (value, Some(slope))
    }

    /// Gives the gradient `d` with respect to what a view shows to what is behind it.
    pub fn unload(
        &self,
        view: &View,
        chunk: Chunk,
        d: &[f32],
        slope: Option<&[f32]>,
        target: &mut Target<'_>,
        sums: &mut Sums,
    ) {
        let range = self.range(view.storage, chunk);
        let x = &self.storages[view.storage][range.clone()];
        let accumulate = target.accumulate;
        let gradient = target.piece(range);
        match view.normalize {
            Normalize::Batch(n) => {
                for rows in &mut sums.rows {
                    rows.fill(0.0);
                }
                let [first, second] = &mut sums.rows;
                let mean = &self.norms[n].mean;
                batch_norm::add_gradient(d, slope, x, mean, accumulate, gradient, [first, second]);
                for (sum, rows) in sums.batch.iter_mut().zip(&sums.rows) {
                    sum.iter_mut()
                        .zip(rows)
                        .for_each(|(sum, x)| *sum += *x as f64);
                }
            }
            Normalize::Layer(l) => {
                let [first, second] = &mut sums.rows;
                let ([weight, _], epsilon) = (self.layer(l), self.plan.layers[l].epsilon);
                let sums = [&mut first[..], &mut second[..]];
                layer_norm::backward(weight, epsilon, x, d, accumulate, gradient, sums);
            }
            Normalize::None => match slope {
                Some(slope) => pool::product(d, slope, accumulate, gradient),
                None => pool::scaled(1.0, d, accumulate, gradient),
            },
        }
    }

    fn affine(&self, view: &View) -> [&'a [f32]; 2] {
        match view.normalize {
            Normalize::Batch(n) => [&self.norms[n].scale, &self.norms[n].shift],
            _ => {
                let c = self.plan.storages[view.storage].map.channels;
                [&self.neutral[0][..c], &self.neutral[1][..c]]
            }
        }
    }

    fn layer(&self, l: usize) -> [&'a [f32]; 2] {
        let layer = &self.plan.layers[l];
        [
            &self.parameters[layer.weight.0],
            &self.parameters[layer.bias.0],
        ]
    }

    /// The term of a unit's attention weights, with nothing summed yet.
    pub fn sparsity(&self, unit: &Unit) -> attention::Sparsity {
        let factor = match &unit.kernel {
            Kernel::Attention { geometry, .. } => self.sparsity / geometry.weights() as f32,
            _ => 0.0,
        };
        attention::Sparsity { factor, sum: 0.0 }
    }

    /// Codes of a range.
    pub fn codes(&self, range: ParameterId) -> Codes {
        let [low, high] = [0, 1].map(|i| self.parameters[range.0][i]);
        Codes::of_range(low, high)
    }

    /// Factor of a sample's branch of an addition.
    pub fn drop_path(&self, rate: f32, unit: usize, sample: usize) -> f32 {
        match self.mode.drop_path {
            Some(seed) if rate > 0.0 => {
                let kept = uniform(seed, unit as u64, sample as u64) >= rate as f64;
                if kept { 1.0 / (1.0 - rate) } else { 0.0 }
            }
            _ => 1.0,
        }
    }
}

impl Target<'_> {
    /// A range of the whole gradient.
    pub fn piece(&mut self, range: Range<usize>) -> &mut [f32] {
        &mut self.data[range.start - self.offset..range.end - self.offset]
    }
}

impl Sums {
    /// Zeros for a source's norm.
    pub fn reset(&mut self, source: &Source, channels: usize) {
        if source.view.normalize == Normalize::None {
            return;
        }
        for sum in &mut self.batch {
            sum.clear();
            sum.resize(channels, 0.0);
        }
        for sum in &mut self.rows {
            sum.clear();
            sum.resize(channels, 0.0);
        }
    }
}

/// The first `len` places of a buffer, which grows as needed.
pub(super) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// A number in [0, 1) that depends on all three, by SplitMix64.
fn uniform(seed: u64, unit: u64, sample: u64) -> f64 {
    let mix = |x: u64| {
        let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    (mix(mix(mix(seed) ^ unit) ^ sample) >> 11) as f64 / (1u64 << 53) as f64
}
