//! The forward pass.

use super::part::{Chunk, Context, Scratch, parts, room, split};
use super::plan::{Kernel, Unit};
use super::{Engine, Prepared, parallel, set_norm};
use crate::gemm::{self, Start};
use crate::graph::ParameterId;
use crate::loss::normalize;
use crate::ops::batch_norm::Moments;
use crate::ops::fake_quantize::Codes;
use crate::ops::{Window, attention, conv, depthwise, fake_quantize, pool, token};

/// Rows whose moments are added at once.
const ROWS: usize = 256;

impl Engine {
    /// Computes a unit's output, and the statistics of the norms that read it.
    pub(super) fn forward_unit(&mut self, index: usize, parameters: &mut [Vec<f32>]) {
        let unit = &self.plan.units[index];
        if let Kernel::NormGradient(_) = unit.kernel {
            return;
        }
        let storage = &self.plan.storages[unit.output];
        let (len, channels) = (storage.map.len(), storage.map.channels);
        let mut out = std::mem::take(&mut self.storages[unit.output]);
        out.resize(self.batch * len, 0.0);
        let context = Context {
            plan: &self.plan,
            storages: &self.storages,
            norms: &self.norms,
            parameters,
            neutral: &self.neutral,
            mode: self.mode,
            sparsity: self.sparsity.factor(self.batch),
        };
        let statistics = self.mode.batch_statistics && !storage.norms.is_empty();
        let parts = parts(self.batch);
        let pieces = split(&mut out, &parts, len);
        let jobs: Vec<_> = parts.iter().zip(pieces).zip(&mut self.scratch).collect();
        let prepared = &self.prepared[index];
        parallel(&self.pool, jobs, |((samples, mut out), scratch)| {
            scratch.moments.reset(channels);
            scratch.limits = [f32::INFINITY, f32::NEG_INFINITY];
            scratch.attention.sparsity = context.sparsity(unit);
            for chunk in context.chunks(unit, samples.clone()) {
                let size = context.range(unit.output, chunk).len();
                let (piece, rest) = out.split_at_mut(size);
                context.forward(index, unit, prepared, chunk, piece, scratch);
                if statistics {
                    scratch.moments.add(piece);
                }
                out = rest;
            }
        });
        if let Kernel::Attention { geometry, .. } = &unit.kernel
            && self.sparsity.weight != 0.0
        {
            let sums = self.scratch[..parts.len()].iter();
            let sum: f64 = sums.map(|s| s.attention.sparsity.sum).sum();
            self.sparsity.sum += sum / (geometry.weights() * self.batch) as f64;
        }
        if let Kernel::FakeQuantize { range, momentum } = unit.kernel {
            let momentum = if self.mode.batch_statistics {
                momentum
            } else {
                0.0
            };
            follow(
                &mut parameters[range.0],
                momentum,
                &self.scratch[..parts.len()],
            );
            self.round(index, range, &mut out, parameters);
        }
        let output = self.plan.units[index].output;
        self.storages[output] = out;
        self.set_norms(output, parts.len(), parameters);
    }

    /// Rounds a unit's output to codes of a range, and takes the statistics of what is left.
    fn round(
        &mut self,
        index: usize,
        range: ParameterId,
        out: &mut [f32],
        parameters: &[Vec<f32>],
    ) {
        let storage = &self.plan.storages[self.plan.units[index].output];
        let (len, channels) = (storage.map.len(), storage.map.channels);
        let statistics = self.mode.batch_statistics && !storage.norms.is_empty();
        let codes = Codes::of_range(parameters[range.0][0], parameters[range.0][1]);
        let jobs = split(out, &parts(self.batch), len);
        let jobs: Vec<_> = jobs.into_iter().zip(&mut self.scratch).collect();
        parallel(&self.pool, jobs, |(out, scratch)| {
            scratch.moments.reset(channels);
            for rows in out.chunks_mut(ROWS * channels) {
                fake_quantize::round(codes, rows);
                if statistics {
                    scratch.moments.add(rows);
                }
            }
        });
    }

    /// Statistics of an input that norms read.
    pub(super) fn input_statistics(&mut self, storage: usize, parameters: &mut [Vec<f32>]) {
        let map = self.plan.storages[storage].map;
        if self.plan.storages[storage].norms.is_empty() {
            return;
        }
        let moments = &mut self.scratch[0].moments;
        moments.reset(map.channels);
        for rows in self.storages[storage].chunks(ROWS * map.channels) {
            moments.add(rows);
        }
        self.set_norms(storage, 1, parameters);
    }

    /// Sets the norms of a storage from the statistics of the parts.
    fn set_norms(&mut self, storage: usize, parts: usize, parameters: &mut [Vec<f32>]) {
        let norms = &self.plan.storages[storage].norms;
        if norms.is_empty() {
            return;
        }
        let mut total = Moments::default();
        total.reset(self.plan.storages[storage].map.channels);
        for scratch in &self.scratch[..parts] {
            total.merge(&scratch.moments);
        }
        let batch = self.mode.batch_statistics.then_some(&total);
        for &norm in norms {
            set_norm(
                &self.plan.norms[norm].of,
                &mut self.norms[norm],
                batch,
                parameters,
            );
        }
    }
}

impl Context<'_> {
    /// A unit on a chunk.
    fn forward(
        &self,
        index: usize,
        unit: &Unit,
        prepared: &Prepared,
        chunk: Chunk,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let map = |source: usize| self.plan.storages[unit.sources[source].view.storage].map;
        let mut values = std::mem::take(&mut scratch.values);
        if let Kernel::Add { drop_path } = unit.kernel {
            for (i, (source, value)) in unit.sources.iter().zip(&mut values).enumerate() {
                let x = self.load(&source.view, chunk, value);
                let rate = if i == 0 { 0.0 } else { drop_path };
                pool::scaled(self.drop_path(rate, index, chunk.first), x, i > 0, out);
            }
            scratch.values = values;
            return;
        }
        let inputs = unit.sources.iter().zip(&mut values);
        let inputs: Vec<&[f32]> = inputs.map(|(s, v)| self.load(&s.view, chunk, v)).collect();
        match &unit.kernel {
            Kernel::Conv { bias, window, .. } => {
                let [k, n] = prepared.forward.shape();
                let rows = out.len() / n;
                let x = if *window == Window::POINT {
                    inputs[0]
                } else {
                    let columns = room(&mut scratch.columns, rows * k);
                    conv::windows(window, map(0).dims(), inputs[0], columns);
                    columns
                };
                let start = bias.map_or(Start::Zero, |b| Start::Bias(&self.parameters[b.0]));
                gemm::product(rows, x, k, &prepared.forward, start, out, n);
            }
            Kernel::Depthwise { bias, window, .. } => {
                let bias = bias.map(|b| &self.parameters[b.0][..]);
                depthwise::forward(window, map(0).dims(), inputs[0], &prepared.rows, bias, out);
            }
            Kernel::Attention { geometry, bias } => {
                let bias = bias.is_some().then_some(&prepared.rows[..]);
                attention::forward(geometry, &inputs, bias, out, &mut scratch.attention);
            }
            Kernel::Gate => pool::gate(inputs[0], inputs[1], out),
            Kernel::AveragePool(window) => pool::average(window, map(0).dims(), inputs[0], out),
            Kernel::MaxPool(window) => pool::largest(window, map(0).dims(), inputs[0], out),
            Kernel::Mean => pool::mean(inputs[0], out),
            Kernel::MaskedMean => {
                token::masked_mean(inputs[0], inputs[1], inputs.get(2).copied(), out)
            }
            Kernel::Embedding(table) => token::rows(&self.parameters[table.0], inputs[0], out),
            Kernel::Tokens(table) => {
                let (tokens, pixels) = out.split_at_mut(self.parameters[table.0].len());
                tokens.copy_from_slice(&self.parameters[table.0]);
                pixels.copy_from_slice(inputs[0]);
            }
            Kernel::Positions(table) => {
                out.copy_from_slice(inputs[0]);
                pool::scaled(1.0, &self.parameters[table.0], true, out);
            }
            Kernel::Queries(table) => {
                let table = &self.parameters[table.0];
                let samples = out.chunks_exact_mut(table.len());
                samples.for_each(|out| out.copy_from_slice(table));
            }
            Kernel::Normalize => normalize(map(0).channels, inputs[0], out),
            // Rounded once the range of the whole batch is known.
            Kernel::FakeQuantize { .. } => {
                fake_quantize::widen(inputs[0], &mut scratch.limits);
                out.copy_from_slice(inputs[0]);
            }
            Kernel::Resize => {
                let to = self.plan.storages[unit.output].map;
                resize(
                    inputs[0],
                    [map(0).height, map(0).width],
                    out,
                    [to.height, to.width],
                );
            }
            Kernel::Add { .. } | Kernel::NormGradient(_) => {}
        }
        scratch.values = values;
    }
}

/// Moves a range towards that of the batch; the first one takes it over.
fn follow(range: &mut [f32], momentum: f32, parts: &[Scratch]) {
    let mut limits = [f32::INFINITY, f32::NEG_INFINITY];
    for part in parts {
        limits = [limits[0].min(part.limits[0]), limits[1].max(part.limits[1])];
    }
    if momentum == 0.0 || limits[0] > limits[1] {
        return;
    }
    let momentum = if range == [0.0; 2] { 1.0 } else { momentum };
    for (limit, new) in range.iter_mut().zip(limits) {
        *limit += momentum * (new - *limit);
    }
}

/// Copies what two maps of one width of channels share, from the top left; the rest is zero.
pub(super) fn resize(
    from: &[f32],
    [h, w]: [usize; 2],
    to: &mut [f32],
    [height, width]: [usize; 2],
) {
    let c = from.len() / (h * w).max(1);
    let shared = w.min(width) * c;
    to.fill(0.0);
    for y in 0..h.min(height) {
        to[y * width * c..][..shared].copy_from_slice(&from[y * w * c..][..shared]);
    }
}
