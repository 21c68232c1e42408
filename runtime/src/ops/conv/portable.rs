//! Kernels in plain Rust, for every processor without a kernel of its own.

use half::f16;

use super::kernel::{CallF32, CallI8};
use super::{ConvF32, ConvI8, EpilogueI8, QUAD, WIDTH, WeightsF32, reference, reference_f32};
use crate::numerics::{requantize, requantize_add};

/// Output channels whose sums are held at once: a block where there are vector registers, else as
/// many as a small register file holds.
const LANES: usize = if cfg!(any(
    target_feature = "sse2",
    target_feature = "neon",
    target_feature = "simd128"
)) {
    WIDTH
} else {
    4
};

/// Int8 convolution. Windows other than points need scratch for one row, without which the slow
/// reference runs.
pub(crate) fn conv_i8(call: CallI8<'_, '_>) {
    let patches = call.patches();
    let CallI8 {
        conv,
        x,
        first,
        y,
        scratch,
        ..
    } = call;
    let channels = conv.output[2];
    let depth = conv.depth();
    if conv.window.is_point() {
        let rows = x[first * depth..].chunks_exact(depth);
        for (i, (pixel, row)) in y.chunks_exact_mut(channels).zip(rows).enumerate() {
            pixel_i8(conv, row, (first + i) * channels, pixel);
        }
        return;
    }
    let Some(row) = bytemuck::cast_slice_mut(scratch).get_mut(..depth) else {
        return reference::conv_i8(conv, x, first, y);
    };
    for (i, pixel) in y.chunks_exact_mut(channels).enumerate() {
        patches.gather_rows(first + i, 1, row, depth);
        pixel_i8(conv, row, (first + i) * channels, pixel);
    }
}

/// One output pixel; `index` is the position of its first value in the whole output.
fn pixel_i8(conv: &ConvI8<'_>, row: &[i8], index: usize, out: &mut [i8]) {
    let (quads, rest) = row.as_chunks::<QUAD>();
    let mut last = [0; QUAD];
    last[..rest.len()].copy_from_slice(rest);
    let mut weights = conv.weights;
    for (n, out) in (0..).step_by(WIDTH).zip(out.chunks_mut(WIDTH)) {
        let width = out.len().next_multiple_of(QUAD);
        let (block, next) = weights.split_at(row.len().div_ceil(QUAD) * width * QUAD);
        weights = next;
        for (lane, out) in (0..).step_by(LANES).zip(out.chunks_mut(LANES)) {
            let mut acc = [0; LANES];
            for (c, acc) in acc.iter_mut().enumerate().take(out.len()) {
                *acc = conv.bias[n + lane + c];
            }
            let mut steps = block.chunks_exact(width * QUAD);
            for (x, w) in quads.iter().zip(&mut steps) {
                multiply(&mut acc, x, &w[lane * QUAD..]);
            }
            if let Some(w) = steps.next() {
                multiply(&mut acc, &last, &w[lane * QUAD..]);
            }
            for (c, out) in out.iter_mut().enumerate() {
                let m = conv.multipliers[n + lane + c];
                *out = finish(&conv.epilogue, acc[c], m, index + n + lane + c);
            }
        }
    }
}

/// Adds the products of one quad to the sums of up to [`LANES`] channels.
#[inline(always)]
fn multiply(acc: &mut [i32; LANES], x: &[i8; QUAD], w: &[i8]) {
    let x = x.map(i32::from);
    if let Some(w) = w.first_chunk::<{ LANES * QUAD }>() {
        for c in 0..LANES {
            let w = |i: usize| i32::from(w[c * QUAD + i]);
            let low = x[0] * w(0) + x[1] * w(1);
            let high = x[2] * w(2) + x[3] * w(3);
            acc[c] = acc[c].wrapping_add(low).wrapping_add(high);
        }
    } else {
        for (acc, w) in acc.iter_mut().zip(w.as_chunks::<QUAD>().0) {
            let sum: i32 = (0..QUAD).map(|i| x[i] * i32::from(w[i])).sum();
            *acc = acc.wrapping_add(sum);
        }
    }
}

/// From accumulator to code; `index` is the position in the whole output.
#[inline(always)]
pub(crate) fn finish(e: &EpilogueI8<'_>, acc: i32, multiplier: f32, index: usize) -> i8 {
    let (lo, hi) = (i32::from(e.lo), i32::from(e.hi));
    let code = match e.residual {
        None => requantize(acc, multiplier, e.zero, lo, hi),
        Some(r) => {
            let addend = i32::from(r.data[index]) - r.zero;
            requantize_add(acc, multiplier, addend, r.multiplier, e.zero, lo, hi)
        }
    } as i8;
    e.table.map_or(code, |t| t[code as u8 as usize])
}

/// Float convolution. Windows other than points need scratch for one row, without which the slow
/// reference runs.
pub(crate) fn conv_f32(call: CallF32<'_, '_>) {
    let patches = call.patches();
    let CallF32 {
        conv,
        x,
        first,
        y,
        scratch,
        ..
    } = call;
    let channels = conv.output[2];
    let depth = conv.depth();
    if conv.window.is_point() {
        let rows = x[first * depth..].chunks_exact(depth);
        for (i, (pixel, row)) in y.chunks_exact_mut(channels).zip(rows).enumerate() {
            pixel_f32(conv, row, (first + i) * channels, pixel);
        }
        return;
    }
    let padding = scratch.as_ptr().align_offset(align_of::<f32>());
    let bytes = scratch
        .get_mut(padding..)
        .and_then(|s| s.get_mut(..depth * size_of::<f32>()));
    let Some(row) = bytes.and_then(|b| bytemuck::try_cast_slice_mut(b).ok()) else {
        return reference_f32::conv_f32(conv, x, first, y);
    };
    for (i, pixel) in y.chunks_exact_mut(channels).enumerate() {
        patches.gather_rows(first + i, 1, row, depth);
        pixel_f32(conv, row, (first + i) * channels, pixel);
    }
}

/// One output pixel; `index` is the position of its first value in the whole output.
fn pixel_f32(conv: &ConvF32<'_>, row: &[f32], index: usize, out: &mut [f32]) {
    for (n, out) in (0..).step_by(WIDTH).zip(out.chunks_mut(WIDTH)) {
        let width = out.len().next_multiple_of(4);
        let block = n * row.len()..n * row.len() + width * row.len();
        let mut acc = [0.0; WIDTH];
        match conv.weights {
            WeightsF32::F32(w) => accumulate(&mut acc, row, &w[block], width, |w| w),
            WeightsF32::F16(w) => {
                accumulate(&mut acc, row, &w[block], width, |w| {
                    f16::from_bits(w).to_f32()
                });
            }
        }
        for (c, out) in out.iter_mut().enumerate() {
            let residual = conv.residual.map_or(0.0, |r| r[index + n + c]);
            *out = (acc[c] + conv.bias[n + c] + residual)
                .max(conv.lo)
                .min(conv.hi);
        }
    }
}

/// Adds the products of a row with a block of weights.
#[inline(always)]
fn accumulate<W: Copy>(
    acc: &mut [f32; WIDTH],
    row: &[f32],
    block: &[W],
    width: usize,
    widen: impl Fn(W) -> f32,
) {
    if width == WIDTH {
        for (&x, w) in row.iter().zip(block.as_chunks::<WIDTH>().0) {
            for c in 0..WIDTH {
                acc[c] += x * widen(w[c]);
            }
        }
    } else {
        for (&x, w) in row.iter().zip(block.chunks_exact(width)) {
            acc.iter_mut()
                .zip(w)
                .for_each(|(acc, &w)| *acc += x * widen(w));
        }
    }
}
