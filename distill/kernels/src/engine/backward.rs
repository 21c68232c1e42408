//! The backward pass.

use std::ops::Range;

use super::forward::resize;
use super::part::{Chunk, Context, Scratch, Target, parts, room, split};
use super::plan::{Kernel, Normalize, Slot, Unit};
use super::{Engine, NormState, Prepared, parallel};
use crate::gemm::{self, Start};
use crate::graph::{Activation, ParameterId};
use crate::loss::normalize_gradient;
use crate::ops::batch_norm;
use crate::ops::{Window, attention, conv, depthwise, fake_quantize, pool, token};

/// Elements of a gradient that one job adds up.
const REDUCTION: usize = 8192;

/// The gradient with respect to a unit's output.
#[derive(Clone, Copy)]
struct OutputGradient<'a> {
    gradient: &'a [f32],
    /// The norm it still has to pass.
    norm: Option<&'a NormState>,
}

impl Engine {
    /// Places the gradients with respect to the outputs.
    pub(super) fn start_backward(&mut self, outputs: &[&[f32]]) {
        let Engine {
            plan,
            gradients,
            free,
            norms,
            ..
        } = self;
        for (&storage, given) in plan.outputs.iter().zip(outputs) {
            let Some(slot) = plan.storages[storage].slot else {
                continue;
            };
            match &mut gradients[slot] {
                Some(gradient) => gradient.iter_mut().zip(*given).for_each(|(g, x)| *g += x),
                empty => {
                    let mut gradient = free.take(given.len());
                    gradient.copy_from_slice(given);
                    *empty = Some(gradient);
                }
            }
        }
        for sums in norms.iter_mut().flat_map(|n| &mut n.sums) {
            sums.fill(0.0);
        }
    }

    /// Gives the gradient of a unit's output to its sources and parameters.
    pub(super) fn backward_unit(
        &mut self,
        index: usize,
        parameters: &[Vec<f32>],
        gradients: &mut [Vec<f32>],
    ) {
        let unit = &self.plan.units[index];
        let storage = &self.plan.storages[unit.output];
        let (output, sources) = match unit.kernel {
            Kernel::NormGradient(norm) => {
                let of_norm = Slot {
                    storage: unit.output,
                    norm: Some(norm),
                };
                (
                    self.plan.slots.iter().position(|s| *s == of_norm),
                    vec![storage.slot],
                )
            }
            _ => (storage.slot, unit.sources.iter().map(|s| s.slot).collect()),
        };
        let Some(slot) = output else { return };
        let Some(gradient) = self.gradients[slot].take() else {
            return;
        };
        let norm = self.plan.slots[slot].norm;
        if let Some(norm) = norm {
            self.finish_norm(norm, gradients);
        }
        let mut targets = self.targets(&sources);
        let parts = parts(self.batch);
        let context = Context {
            plan: &self.plan,
            storages: &self.storages,
            norms: &self.norms,
            parameters,
            neutral: &self.neutral,
            mode: self.mode,
            sparsity: self.sparsity.factor(self.batch),
        };
        let output = OutputGradient {
            gradient: &gradient,
            norm: norm.map(|n| &self.norms[n]),
        };
        let (unit, prepared) = (&self.plan.units[index], &self.prepared[index]);
        let pieces = split_all(&mut targets.gradients, &parts, self.batch);
        let jobs: Vec<_> = parts.iter().zip(pieces).zip(&mut self.scratch).collect();
        let of_sources = &targets.of_sources;
        parallel(&self.pool, jobs, |((samples, pieces), scratch)| {
            scratch.start(unit, &context, samples.len());
            let mut part = Part {
                context: &context,
                index,
                unit,
                prepared,
                first: samples.start,
                of_sources,
                pieces,
            };
            for chunk in context.chunks(unit, samples.clone()) {
                part.run(chunk, output, scratch);
            }
        });
        for (slot, gradient) in targets.slots.into_iter().zip(targets.gradients) {
            self.gradients[slot] = Some(gradient);
        }
        self.free.give(Some(gradient));
        self.collect(index, parts.len(), gradients);
    }

    /// Takes the gradients of sources out of their slots.
    fn targets(&mut self, sources: &[Option<usize>]) -> Targets {
        let mut targets = Targets {
            slots: Vec::new(),
            gradients: Vec::new(),
            of_sources: Vec::new(),
        };
        for slot in sources {
            let target = slot.map(|slot| match targets.slots.iter().position(|&s| s == slot) {
                Some(known) => (known, true),
                None => {
                    let len = self.storages[self.plan.slots[slot].storage].len();
                    let present = self.gradients[slot].take();
                    let accumulate = present.is_some();
                    targets.slots.push(slot);
                    targets
                        .gradients
                        .push(present.unwrap_or_else(|| self.free.take(len)));
                    (targets.slots.len() - 1, accumulate)
                }
            });
            targets.of_sources.push(target);
        }
        targets
    }

    /// A norm whose gradient is complete: gradients of its weight and bias, and the linear function that
    /// takes the gradient through it.
    fn finish_norm(&mut self, norm: usize, gradients: &mut [Vec<f32>]) {
        let of = &self.plan.norms[norm].of;
        let map = self.plan.storages[self.plan.norms[norm].storage].map;
        let NormState {
            reciprocal,
            scale,
            sums,
            backward,
            ..
        } = &mut self.norms[norm];
        for (i, &r) in reciprocal.iter().enumerate() {
            gradients[of.weight.0][i] += (sums[1][i] * r as f64) as f32;
            gradients[of.bias.0][i] += sums[0][i] as f32;
        }
        if self.mode.batch_statistics {
            let count = (self.batch * map.pixels()) as f64;
            backward.set(scale, reciprocal, [&sums[0], &sums[1]], count);
        } else {
            backward.set_frozen(scale);
        }
    }

    /// Adds up what the parts have left.
    fn collect(&mut self, index: usize, count: usize, gradients: &mut [Vec<f32>]) {
        let unit = &self.plan.units[index];
        let scratch = &self.scratch[..count];
        for (s, source) in unit.sources.iter().enumerate() {
            match source.view.normalize {
                Normalize::Batch(norm) if source.slot.is_some() => {
                    for part in scratch {
                        for (total, sums) in
                            self.norms[norm].sums.iter_mut().zip(&part.sums[s].batch)
                        {
                            total.iter_mut().zip(sums).for_each(|(t, x)| *t += x);
                        }
                    }
                }
                Normalize::Layer(l) if source.slot.is_some() => {
                    let layer = &self.plan.layers[l];
                    for part in scratch {
                        for (p, sums) in [layer.weight, layer.bias].iter().zip(&part.sums[s].rows) {
                            gradients[p.0]
                                .iter_mut()
                                .zip(sums)
                                .for_each(|(g, x)| *g += x);
                        }
                    }
                }
                _ => {}
            }
        }
        let (weight, bias) = match &unit.kernel {
            Kernel::Conv { weight, bias, .. } | Kernel::Depthwise { weight, bias, .. } => {
                (*weight, *bias)
            }
            Kernel::Attention {
                bias: Some(bias),
                geometry,
            } => {
                let n = bias.index.len();
                let table = &mut gradients[bias.table.0];
                let entries = table.len() / geometry.heads;
                for part in scratch {
                    for (h, of_head) in part.weight.chunks_exact(n).enumerate() {
                        let table = &mut table[h * entries..];
                        bias.index
                            .iter()
                            .zip(of_head)
                            .for_each(|(&i, g)| table[i as usize] += g);
                    }
                }
                return;
            }
            Kernel::Embedding(table) => {
                let ids = &self.storages[unit.sources[0].view.storage];
                let pixels = self.plan.storages[unit.output].map.pixels();
                for (samples, part) in parts(self.batch).iter().zip(scratch) {
                    let ids = &ids[samples.start * pixels..samples.end * pixels];
                    token::add_rows(ids, &part.weight, &mut gradients[table.0]);
                }
                return;
            }
            Kernel::Positions(table) | Kernel::Queries(table) | Kernel::Tokens(table) => {
                for part in scratch {
                    pool::scaled(1.0, &part.weight, true, &mut gradients[table.0]);
                }
                return;
            }
            _ => return,
        };
        if let Some(bias) = bias {
            for part in scratch {
                gradients[bias.0]
                    .iter_mut()
                    .zip(&part.bias)
                    .for_each(|(g, x)| *g += x);
            }
        }
        let gradient = &mut gradients[weight.0];
        let window = match &unit.kernel {
            Kernel::Conv { window, .. } | Kernel::Depthwise { window, .. } => window,
            _ => return,
        };
        if *window == Window::POINT {
            let jobs = gradient.chunks_mut(REDUCTION).enumerate().collect();
            parallel(&self.pool, jobs, |(at, to): (usize, &mut [f32])| {
                for part in scratch {
                    let from = &part.weight[at * REDUCTION..][..to.len()];
                    to.iter_mut().zip(from).for_each(|(g, x)| *g += x);
                }
            });
            return;
        }
        // From `[.., taps, channels]` to `[.., channels, taps]`.
        let taps = window.taps();
        let channels = match &unit.kernel {
            Kernel::Conv { .. } => {
                self.plan.storages[unit.sources[0].view.storage]
                    .map
                    .channels
            }
            _ => gradient.len() / taps,
        };
        for part in scratch {
            let size = taps * channels;
            for (to, from) in gradient
                .chunks_exact_mut(size)
                .zip(part.weight.chunks_exact(size))
            {
                for (i, g) in to.iter_mut().enumerate() {
                    *g += from[i % taps * channels + i / taps];
                }
            }
        }
    }
}

/// The gradients that a unit's sources get.
struct Targets {
    slots: Vec<usize>,
    gradients: Vec<Vec<f32>>,
    /// Per source: which gradient, and whether to add to it.
    of_sources: Vec<Option<(usize, bool)>>,
}

/// A part of the batch on its way back through a unit.
struct Part<'a> {
    context: &'a Context<'a>,
    index: usize,
    unit: &'a Unit,
    prepared: &'a Prepared,
    /// First sample.
    first: usize,
    of_sources: &'a [Option<(usize, bool)>],
    /// Of the targets' gradients.
    pieces: Vec<&'a mut [f32]>,
}

impl<'a> Part<'a> {
    fn run(&mut self, chunk: Chunk, output: OutputGradient<'_>, scratch: &mut Scratch) {
        let context = self.context;
        let range = context.range(self.unit.output, chunk);
        let y = context.raw(self.unit.output, chunk);
        let d = &output.gradient[range.clone()];
        if let (Kernel::NormGradient(_), Some(norm)) = (&self.unit.kernel, output.norm) {
            if let Some((target, accumulate)) = self.of_sources[0] {
                let offset = self.first * context.plan.storages[self.unit.output].map.len();
                let mut target = Target {
                    data: self.pieces[target],
                    offset,
                    accumulate,
                };
                let to = target.piece(range);
                batch_norm::input_gradient(&norm.backward, d, y, &norm.mean, accumulate, to);
            }
            return;
        }
        let mut dy = std::mem::take(&mut scratch.dy);
        let d = match output.norm {
            Some(norm) => {
                let dy = room(&mut dy, d.len());
                batch_norm::input_gradient(&norm.backward, d, y, &norm.mean, false, dy);
                dy
            }
            None => d,
        };
        let mut values = std::mem::take(&mut scratch.values);
        let mut slopes = std::mem::take(&mut scratch.slopes);
        let mut gradients = std::mem::take(&mut scratch.gradients);
        self.through(
            chunk,
            d,
            scratch,
            [&mut values, &mut slopes, &mut gradients],
        );
        (scratch.values, scratch.slopes, scratch.gradients) = (values, slopes, gradients);
        scratch.dy = dy;
    }

    fn through(
        &mut self,
        chunk: Chunk,
        d: &[f32],
        scratch: &mut Scratch,
        [values, slopes, gradients]: [&mut Vec<Vec<f32>>; 3],
    ) {
        let (context, unit, prepared) = (self.context, self.unit, self.prepared);
        if let Kernel::Add { drop_path } = unit.kernel {
            for i in 0..unit.sources.len() {
                let rate = if i == 0 { 0.0 } else { drop_path };
                let factor = context.drop_path(rate, self.index, chunk.first);
                let slope = self.slope(i, chunk, &mut values[i], &mut slopes[i]);
                self.emit(i, chunk, slope, &mut gradients[i], scratch, |to| {
                    pool::scaled(factor, d, false, to)
                });
            }
            return;
        }
        let map = |source: usize| context.plan.storages[unit.sources[source].view.storage].map;
        let loaded = unit.sources.iter().zip(&mut *values).zip(&mut *slopes);
        let loaded: Vec<_> = loaded
            .map(|((s, v), slope)| context.load_with_slope(&s.view, chunk, v, slope))
            .collect();
        let (x, slope) = loaded[0];
        match &unit.kernel {
            Kernel::Conv { bias, window, .. } => {
                let [k, n] = prepared.forward.shape();
                let rows = d.len() / n;
                let mut columns = std::mem::take(&mut scratch.columns);
                let point = *window == Window::POINT;
                let rows_of_x = if point {
                    x
                } else {
                    let columns = room(&mut columns, rows * k);
                    conv::windows(window, map(0).dims(), x, columns);
                    columns
                };
                let weight = &mut scratch.weight;
                gemm::accumulate_transposed(
                    rows,
                    d,
                    [n, n],
                    rows_of_x,
                    [k, k],
                    weight,
                    &mut scratch.panels,
                );
                if bias.is_some() {
                    batch_norm::add_column_sums(d, &mut scratch.bias);
                }
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    if point {
                        gemm::product(rows, d, n, &prepared.backward, Start::Zero, to, k);
                    } else {
                        let columns = &mut columns[..rows * k];
                        gemm::product(rows, d, n, &prepared.backward, Start::Zero, columns, k);
                        to.fill(0.0);
                        conv::add_windows(window, map(0).dims(), columns, to);
                    }
                });
                scratch.columns = columns;
            }
            Kernel::Depthwise { bias, window, .. } => {
                let dims = map(0).dims();
                depthwise::weight_gradient(window, dims, x, d, &mut scratch.weight);
                if bias.is_some() {
                    batch_norm::add_column_sums(d, &mut scratch.bias);
                }
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    depthwise::input_gradient(window, dims, d, &prepared.rows, to);
                });
            }
            Kernel::Attention { geometry, bias } => {
                let inputs: Vec<&[f32]> = loaded.iter().map(|(x, _)| *x).collect();
                let mut of_inputs: Vec<&mut [f32]> = Vec::with_capacity(inputs.len());
                for (gradient, x) in gradients.iter_mut().zip(&inputs) {
                    let gradient = room(gradient, x.len());
                    gradient.fill(0.0);
                    of_inputs.push(gradient);
                }
                let (bias, of_bias) = match bias {
                    Some(_) => (Some(&prepared.rows[..]), Some(&mut scratch.weight[..])),
                    None => (None, None),
                };
                let s = &mut scratch.attention;
                attention::backward(geometry, &inputs, bias, d, &mut of_inputs, of_bias, s);
                for i in 0..inputs.len() {
                    self.give(
                        i,
                        chunk,
                        loaded[i].1,
                        &gradients[i][..inputs[i].len()],
                        scratch,
                    );
                }
            }
            Kernel::Gate => {
                let (gate, gate_slope) = loaded[1];
                let [of_x, of_gate] = gradients
                    .first_chunk_mut::<2>()
                    .map(|g| g.each_mut())
                    .unwrap_or_else(|| unreachable!("scratch has a gradient per source"));
                let (of_x, of_gate) = (room(of_x, x.len()), room(of_gate, gate.len()));
                pool::gate_gradients(x, gate, d, of_x, of_gate);
                self.give(0, chunk, slope, of_x, scratch);
                self.give(1, chunk, gate_slope, of_gate, scratch);
            }
            Kernel::AveragePool(window) => {
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    pool::average_gradient(window, map(0).dims(), d, to);
                });
            }
            Kernel::MaxPool(window) => {
                let y = context.raw(unit.output, chunk);
                let mut columns = std::mem::take(&mut scratch.columns);
                let left = room(&mut columns, y.len());
                left.copy_from_slice(y);
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    pool::largest_gradient(window, map(0).dims(), x, left, d, to);
                });
                scratch.columns = columns;
            }
            Kernel::Mean => {
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    pool::mean_gradient(d, to)
                });
            }
            Kernel::MaskedMean => {
                let mask = loaded[1].0;
                let weights = loaded.get(2).copied();
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    token::masked_mean_gradient(mask, weights.map(|w| w.0), d, to);
                });
                if let Some((_, slope)) = weights {
                    self.emit(2, chunk, slope, &mut gradients[2], scratch, |to| {
                        token::weights_gradient(x, mask, d, to);
                    });
                }
            }
            Kernel::Embedding(_) => {
                // Rows of the table are few and far apart: `collect` adds them up.
                let first = self.first * context.plan.storages[unit.output].map.len();
                let at = context.range(unit.output, chunk).start - first;
                scratch.weight[at..][..d.len()].copy_from_slice(d);
            }
            Kernel::Tokens(_) => {
                let (tokens, pixels) = d.split_at(scratch.weight.len());
                pool::scaled(1.0, tokens, true, &mut scratch.weight);
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    to.copy_from_slice(pixels)
                });
            }
            Kernel::Positions(_) => {
                pool::scaled(1.0, d, true, &mut scratch.weight);
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    to.copy_from_slice(d)
                });
            }
            Kernel::Queries(_) => {
                let samples = d.chunks_exact(scratch.weight.len());
                samples.for_each(|d| pool::scaled(1.0, d, true, &mut scratch.weight));
            }
            Kernel::Normalize => {
                let y = context.raw(unit.output, chunk);
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    normalize_gradient(map(0).channels, x, y, d, to)
                });
            }
            Kernel::FakeQuantize { range, .. } => {
                let codes = context.codes(*range);
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |to| {
                    fake_quantize::gradient(codes, x, d, to)
                });
            }
            Kernel::Resize => {
                let (from, to) = (context.plan.storages[unit.output].map, map(0));
                self.emit(0, chunk, slope, &mut gradients[0], scratch, |x| {
                    resize(d, [from.height, from.width], x, [to.height, to.width]);
                });
            }
            Kernel::Add { .. } | Kernel::NormGradient(_) => {}
        }
    }

    /// The slopes of a source's activation, if it has any.
    fn slope<'s>(
        &self,
        source: usize,
        chunk: Chunk,
        value: &'s mut Vec<f32>,
        slope: &'s mut Vec<f32>,
    ) -> Option<&'s [f32]>
    where
        'a: 's,
    {
        let view = &self.unit.sources[source].view;
        if view.activation == Activation::Identity {
            return None;
        }
        self.context.load_with_slope(view, chunk, value, slope).1
    }

    /// Has `compute` write the gradient with respect to what a source shows, and gives it on.
    fn emit(
        &mut self,
        source: usize,
        chunk: Chunk,
        slope: Option<&[f32]>,
        gradient: &mut Vec<f32>,
        scratch: &mut Scratch,
        compute: impl FnOnce(&mut [f32]),
    ) {
        let view = &self.unit.sources[source].view;
        let Some((target, accumulate)) = self.of_sources[source] else {
            return;
        };
        let range = self.context.range(view.storage, chunk);
        if view.is_plain() && !accumulate {
            let offset = self.first * self.context.plan.storages[view.storage].map.len();
            let mut target = Target {
                data: self.pieces[target],
                offset,
                accumulate,
            };
            return compute(target.piece(range));
        }
        let gradient = room(gradient, range.len());
        compute(gradient);
        self.give(source, chunk, slope, gradient, scratch);
    }

    /// Gives a gradient with respect to what a source shows to what is behind it.
    fn give(
        &mut self,
        source: usize,
        chunk: Chunk,
        slope: Option<&[f32]>,
        d: &[f32],
        scratch: &mut Scratch,
    ) {
        let view = &self.unit.sources[source].view;
        let Some((target, accumulate)) = self.of_sources[source] else {
            return;
        };
        let offset = self.first * self.context.plan.storages[view.storage].map.len();
        let mut target = Target {
            data: self.pieces[target],
            offset,
            accumulate,
        };
        self.context.unload(
            view,
            chunk,
            d,
            slope,
            &mut target,
            &mut scratch.sums[source],
        );
    }
}

impl Scratch {
    /// Zeros for a unit's sums.
    fn start(&mut self, unit: &Unit, context: &Context<'_>, samples: usize) {
        for (source, sums) in unit.sources.iter().zip(&mut self.sums) {
            let map = context.plan.storages[source.view.storage].map;
            sums.reset(source, map.channels);
        }
        let len = |p: ParameterId| context.parameters[p.0].len();
        let (weight, bias) = match &unit.kernel {
            Kernel::Conv { weight, bias, .. } | Kernel::Depthwise { weight, bias, .. } => {
                (len(*weight), bias.map_or(0, len))
            }
            Kernel::Attention {
                geometry,
                bias: Some(bias),
            } => (geometry.heads * bias.index.len(), 0),
            Kernel::Embedding(_) => (samples * context.plan.storages[unit.output].map.len(), 0),
            Kernel::Positions(table) | Kernel::Queries(table) | Kernel::Tokens(table) => {
                (len(*table), 0)
            }
            _ => (0, 0),
        };
        for (sums, len) in [(&mut self.weight, weight), (&mut self.bias, bias)] {
            sums.clear();
            sums.resize(len, 0.0);
        }
        self.attention.sparsity = context.sparsity(unit);
    }
}

/// Cuts gradients into the parts.
fn split_all<'a>(
    gradients: &'a mut [Vec<f32>],
    parts: &[Range<usize>],
    batch: usize,
) -> Vec<Vec<&'a mut [f32]>> {
    let mut pieces: Vec<Vec<&mut [f32]>> = parts.iter().map(|_| Vec::new()).collect();
    for gradient in gradients {
        let len = gradient.len() / batch;
        for (pieces, piece) in pieces.iter_mut().zip(split(gradient, parts, len)) {
            pieces.push(piece);
        }
    }
    pieces
}
