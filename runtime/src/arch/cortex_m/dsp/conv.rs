//! Int8 convolution: two pixels by two channels at a time.
//!
//! SMLAD multiplies halves, so bytes have to be widened. Activations are widened once per pixel, into a
//! buffer on the stack, and serve all channels; weights are widened when they are used, for two pixels. Bytes
//! 0 and 2 of a quad become one word, bytes 1 and 3 another, on both sides.

use super::epilogue::{Finish, clamp};
use crate::arch::cortex_m::Dsp;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, QUAD, WIDTH, conv_i8_reference};

/// Quads of a patch that are widened at a time.
const QUADS: usize = 128;
/// Pixels that are worked on together.
const PAIR: usize = 2;

/// Widened quads of a pair of pixels: `[even, odd]` of the one, then of the other.
type Widened = [[u32; 2 * PAIR]; QUADS];

/// Int8 convolution. Windows other than points need scratch for one row, better two; without it the slow
/// reference runs.
pub(crate) fn conv_i8(token: Dsp, call: CallI8<'_, '_>) {
    let patches = call.patches();
    let CallI8 {
        conv,
        x,
        first,
        y,
        scratch,
        ..
    } = call;
    let (channels, depth) = (conv.output[2], conv.depth());
    let finish = Finish::new(token, &conv.epilogue);
    let mut tile = Tile {
        token,
        conv,
        finish,
        widened: [[0; 2 * PAIR]; QUADS],
    };
    if conv.window.is_point() {
        let rows = x[first * depth..].chunks(PAIR * depth);
        for (i, (y, rows)) in y.chunks_mut(PAIR * channels).zip(rows).enumerate() {
            tile.run(rows, depth, first + PAIR * i, y);
        }
    } else {
        let rows: &mut [i8] = bytemuck::cast_slice_mut(scratch);
        let held = (rows.len() / depth).min(PAIR);
        if held == 0 {
            return conv_i8_reference(conv, x, first, y);
        }
        for (i, y) in y.chunks_mut(held * channels).enumerate() {
            let (at, count) = (first + held * i, y.len() / channels);
            patches.gather_rows(at, count, rows, depth);
            tile.run(rows, depth, at, y);
        }
    }
}

struct Tile<'a, 'c> {
    token: Dsp,
    conv: &'a ConvI8<'c>,
    finish: Finish<'c>,
    widened: Widened,
}

impl Tile<'_, '_> {
    /// One or two pixels, of which the first has number `at`, from rows of `depth` values.
    fn run(&mut self, rows: &[i8], depth: usize, at: usize, y: &mut [i8]) {
        let channels = self.conv.output[2];
        let (one, other) = rows.split_at(depth);
        if y.len() == channels {
            self.pixels::<1>([one], at, [&mut *y]);
        } else {
            let (y0, y1) = y.split_at_mut(channels);
            self.pixels::<PAIR>([one, &other[..depth]], at, [y0, y1]);
        }
        clamp(self.token, &self.conv.epilogue, y);
        if let Some(table) = self.conv.epilogue.table {
            y.iter_mut()
                .for_each(|code| *code = table[usize::from(*code as u8)]);
        }
    }

    fn pixels<const P: usize>(&mut self, rows: [&[i8]; P], at: usize, y: [&mut [i8]; P]) {
        let channels = self.conv.output[2];
        let quads = rows[0].len().div_ceil(QUAD);
        let whole = quads <= QUADS;
        if whole {
            self.widen(rows);
        }
        let mut weights = self.conv.weights;
        for n in (0..channels).step_by(WIDTH) {
            let width = (channels - n).min(WIDTH).next_multiple_of(QUAD);
            let (block, next) = weights.split_at(quads * width * QUAD);
            weights = next;
            let mut sums = [[0; WIDTH]; P];
            for sums in &mut sums {
                sums[..width].copy_from_slice(&self.conv.bias[n..n + width]);
            }
            if whole {
                self.block(&mut sums, block, width, quads);
            } else {
                for (i, block) in block.chunks(QUADS * width * QUAD).enumerate() {
                    let start = i * QUADS * QUAD;
                    self.widen(rows.map(|row| &row[start..row.len().min(start + QUADS * QUAD)]));
                    self.block(&mut sums, block, width, block.len() / (width * QUAD));
                }
            }
            for p in 0..P {
                let index = (at + p) * channels + n;
                let outputs = y[p][n..]
                    .iter_mut()
                    .zip(&self.conv.multipliers[n..n + width]);
                for (c, ((y, &m), &sum)) in outputs.zip(&sums[p]).enumerate() {
                    *y = self.finish.code(sum, m, index + c);
                }
            }
        }
    }

    /// Fills the buffer from rows of one length; of the last quad what is missing becomes 0.
    fn widen<const P: usize>(&mut self, rows: [&[i8]; P]) {
        for (p, row) in rows.into_iter().enumerate() {
            let (quads, rest) = row.as_chunks::<QUAD>();
            let mut last = [0; QUAD];
            last[..rest.len()].copy_from_slice(rest);
            let last = (!rest.is_empty()).then_some(&last);
            for (quad, to) in quads.iter().chain(last).zip(&mut self.widened) {
                let word = u32::from_ne_bytes(quad.map(|c| c as u8));
                to[2 * p] = self.token.even(word);
                to[2 * p + 1] = self.token.odd(word);
            }
        }
    }

    /// Adds the products of the widened quads with a block of `width` channels.
    fn block<const P: usize>(
        &self,
        sums: &mut [[i32; WIDTH]; P],
        block: &[i8],
        width: usize,
        quads: usize,
    ) {
        let words: &[u32] = bytemuck::cast_slice(block);
        for c in (0..width).step_by(2) {
            let mut acc: [[i32; 2]; P] = core::array::from_fn(|p| [sums[p][c], sums[p][c + 1]]);
            let weights = words.chunks_exact(width).map(|w| [w[c], w[c + 1]]);
            for (w, x) in weights.zip(&self.widened[..quads]) {
                for (j, w) in w.into_iter().enumerate() {
                    let (even, odd) = (self.token.even(w), self.token.odd(w));
                    for p in 0..P {
                        acc[p][j] = self.token.dot(x[2 * p], even, acc[p][j]);
                        acc[p][j] = self.token.dot(x[2 * p + 1], odd, acc[p][j]);
                    }
                }
            }
            for p in 0..P {
                sums[p][c..c + 2].copy_from_slice(&acc[p]);
            }
        }
    }
}
