//! One block of channels: its weights, and the walk over the output.
//!
//! For each input column the rows under the window are interleaved once, so that one 32-bit element
//! holds a channel's values in [`Engine::TAPS`] neighbouring rows, and kept in a ring of columns;
//! each output pixel is then a few dot products per column. Output rows that lie below each other
//! share the interleaved columns: they differ in the weights, which are shifted down by the stride.

use super::column::{Edge, ROWS, Rows, Source};
use super::engine::{Engine, LANES};
use crate::numerics::MAGIC;
use crate::ops::depthwise::DepthwiseI8;

/// Columns that the ring holds: the widest window, dilation included. A power of two.
pub(super) const RING: usize = 16;
/// Widest kernel.
pub(super) const WIDTH: usize = 8;

/// Interleaved columns `[column][group of rows][vector]`.
pub(super) type Ring<E, const Q: usize> = [[[<E as Engine>::Int; 4]; Q]; RING];

/// A block of channels, with `Q` groups of interleaved rows and weights for `W` output rows.
pub(super) struct Block<'a, 'b, E: Engine, const Q: usize, const W: usize> {
    engine: E,
    dw: &'a DepthwiseI8<'b>,
    x: &'a [i8],
    /// First output row of the chunk.
    first_row: usize,
    /// Output rows that share columns: as many as the interleaved rows allow.
    shared: usize,
    /// A pixel of padding.
    padding: [i8; 64],
    /// First channel.
    first: usize,
    /// Channels that are stored.
    count: usize,
    /// Parts of the vectors, each with the same channels of other output rows.
    lanes: usize,
    /// `[kernel column][group of rows][output row][vector]`.
    weights: [[[[E::Int; 4]; W]; Q]; WIDTH],
    bias: [E::Int; 4],
    multipliers: [E::Float; 4],
}

impl<'a, 'b, E: Engine, const Q: usize, const W: usize> Block<'a, 'b, E, Q, W> {
    /// A block without channels.
    #[inline(always)]
    pub fn new(engine: E, dw: &'a DepthwiseI8<'b>, x: &'a [i8], first_row: usize) -> Self {
        let height = usize::from(dw.window.kernel[0]);
        let stride = usize::from(dw.window.stride[0]).max(1);
        let dense = dw.window.dilation[0] == 1;
        let shared = if dense {
            (Q * E::TAPS - height) / stride + 1
        } else {
            1
        };
        Block {
            engine,
            dw,
            x,
            first_row,
            shared: shared.min(W),
            padding: [dw.input_zero; 64],
            first: 0,
            count: 0,
            lanes: 1,
            weights: [[[[engine.zero(); 4]; W]; Q]; WIDTH],
            bias: [engine.zero(); 4],
            multipliers: [engine.splat_f32(0.0); 4],
        }
    }

    /// Takes up channels `first..first + count`, repeated in `lanes` lanes.
    #[inline(always)]
    pub fn set_channels(&mut self, first: usize, count: usize, lanes: usize) {
        let Block { engine, dw, .. } = *self;
        self.first = first;
        self.count = count;
        self.lanes = lanes;
        for j in 0..4 {
            let channel = |i: usize| first + (i / 4 * 16 + j * 4 + i % 4) % (E::BYTES / lanes);
            // Kernels run on x + 128, so 128 · Σ w too much arrives in the accumulator.
            self.bias[j] = engine.int_from(|i| {
                let c = channel(i);
                let sum = dw.weight_sums.get(c).copied().unwrap_or(0);
                dw.bias
                    .get(c)
                    .copied()
                    .unwrap_or(0)
                    .wrapping_sub(sum.wrapping_mul(128))
            });
            self.multipliers[j] =
                engine.float_from(|i| dw.multipliers.get(channel(i)).copied().unwrap_or(0.0));
        }
        let [height, width] = dw.window.kernel.map(usize::from);
        let stride = usize::from(dw.window.stride[0]);
        for kx in 0..width {
            // The kernel's column, below and above zeros.
            let mut column = [engine.zero(); 3 * ROWS];
            for ky in 0..height {
                let at = (ky * width + kx) * dw.input[2] + first;
                column[ROWS + ky] = self.repeat(dw.weights.get(at..).unwrap_or_default());
            }
            for r in 0..self.shared {
                for q in 0..Q {
                    let top = (ROWS + q * E::TAPS).wrapping_sub(r * stride);
                    let rows = column.get(top..top + E::TAPS).unwrap_or(&column[..E::TAPS]);
                    self.weights[kx][q][r] = engine.interleave_weights(rows);
                }
            }
        }
    }

    /// The first bytes of a slice in every lane.
    #[inline(always)]
    fn repeat(&self, from: &[i8]) -> E::Int {
        let mut bytes = [0; 64];
        let n = from.len().min(E::BYTES / self.lanes);
        bytes[..n].copy_from_slice(&from[..n]);
        // SAFETY: the array has the bytes of a whole vector.
        unsafe { self.engine.load(self.lanes, |_| bytes.as_ptr()) }
    }

    /// Computes the block's channels of all rows of `y`.
    #[inline(always)]
    pub fn run(&self, ring: &mut Ring<E, Q>, y: &mut [i8]) {
        let rows = y.len() / (self.dw.output[1] * self.dw.input[2]);
        let mut row = 0;
        while row < rows {
            row += match self.shared.min((rows - row).div_ceil(self.lanes)) {
                1 => self.pass::<1>(ring, row, y),
                3 if W > 2 => self.pass::<3>(ring, row, y),
                4 if W > 2 => self.pass::<4>(ring, row, y),
                _ => self.pass::<2>(ring, row, y),
            };
        }
    }

    /// Computes `lanes · R` rows of `y`: lane `g` has the `R` rows from `row + g · R` on. Returns
    /// the number of rows.
    #[inline(always)]
    fn pass<const R: usize>(&self, ring: &mut Ring<E, Q>, row: usize, y: &mut [i8]) -> usize {
        let engine = self.engine;
        let w = &self.dw.window;
        let (stride, dilation) = (usize::from(w.stride[1]), usize::from(w.dilation[1]));
        let (width, pad) = (usize::from(w.kernel[1]), usize::from(w.pad[1]));
        let reach = (width - 1) * dilation + 1;
        let input = self.rows::<R>(row);
        let whole = input.whole().min(self.dw.input[1]);
        // Columns are numbered from the left padding on.
        let mut filled = 0;
        for ox in 0..self.dw.output[1] {
            let start = ox * stride;
            filled = filled.max(start);
            while filled < start + reach {
                self.fill(
                    &mut ring[filled % RING],
                    &input,
                    filled.wrapping_sub(pad),
                    whole,
                );
                filled += 1;
            }
            let mut acc = [self.bias; R];
            let mut side = 0;
            while side < 4 {
                for (kx, weights) in self.weights.iter().enumerate().take(width) {
                    let column = &ring[(start + kx * dilation) % RING];
                    for q in 0..Q {
                        for j in side..side + E::SIDE {
                            for r in 0..R {
                                let w = weights[q][r][j];
                                acc[r][j] = engine.dot(acc[r][j], column[q][j], w);
                            }
                        }
                    }
                }
                side += E::SIDE;
            }
            for r in 0..R {
                self.finish(acc[r], row + r, R, ox, y);
            }
        }
        self.lanes * R
    }

    /// The input rows of the pass from output row `row` on.
    #[inline(always)]
    fn rows<const R: usize>(&self, row: usize) -> Rows<'_> {
        let w = &self.dw.window;
        let [in_h, in_w, channels] = self.dw.input;
        let (stride, dilation) = (usize::from(w.stride[0]), usize::from(w.dilation[0]));
        let mut sources = [[Source {
            data: &self.padding,
            step: 0,
        }; LANES]; ROWS];
        for (i, row_sources) in sources.iter_mut().enumerate().take(Q * E::TAPS) {
            for (g, source) in row_sources.iter_mut().enumerate().take(self.lanes) {
                let top = (self.first_row + row + g * R) * stride;
                let iy = (top + i * dilation).wrapping_sub(w.pad[0].into());
                if iy < in_h {
                    let at = iy * in_w * channels + self.first;
                    *source = Source {
                        data: &self.x[at..],
                        step: channels,
                    };
                }
            }
        }
        Rows {
            sources,
            lanes: self.lanes,
            bytes: E::BYTES / self.lanes,
        }
    }

    /// Interleaves input column `ix`, which reads as padding outside the map. Columns from `whole`
    /// on are too close to the end of the input to be read in place.
    #[inline(always)]
    fn fill(&self, column: &mut [[E::Int; 4]; Q], input: &Rows<'_>, ix: usize, whole: usize) {
        let engine = self.engine;
        if ix >= self.dw.input[1] {
            let padding = engine.to_unsigned(engine.splat_i8(self.dw.input_zero));
            *column = [engine.interleave(&[padding; 4]); Q];
            return;
        }
        let mut edge: Edge;
        let copy;
        let mut input = input;
        if ix >= whole {
            edge = [[[0; 64]; LANES]; ROWS];
            copy = input.at_the_edge(ix, &mut edge);
            input = &copy;
        }
        for q in 0..Q {
            let mut rows = [engine.zero(); 4];
            for t in 0..E::TAPS {
                // SAFETY: `ix` is less than `whole`, or the rows are copies of 64 bytes each.
                let v = unsafe { input.load(engine, q * E::TAPS + t, ix) };
                rows[t] = engine.to_unsigned(v);
            }
            column[q] = engine.interleave(&rows[..E::TAPS]);
        }
    }

    /// Requantises and stores the pixel `ox` of row `row + g · step` for each lane `g`.
    #[inline(always)]
    fn finish(&self, acc: [E::Int; 4], row: usize, step: usize, ox: usize, y: &mut [i8]) {
        let Block {
            engine,
            dw,
            multipliers: m,
            ..
        } = self;
        let epilogue = &dw.epilogue;
        let at = |row: usize| (row * dw.output[1] + ox) * dw.input[2] + self.first;
        let mut t = [
            engine.scale(acc[0], m[0]),
            engine.scale(acc[1], m[1]),
            engine.scale(acc[2], m[2]),
            engine.scale(acc[3], m[3]),
        ];
        if let Some(residual) = epilogue.residual {
            let mut bytes = [[0i8; 64]; LANES];
            for (g, bytes) in bytes.iter_mut().enumerate().take(self.lanes) {
                let rest = residual.data.get(at(self.first_row + row + g * step)..);
                let rest = rest.unwrap_or_default();
                let n = rest.len().min(self.count);
                bytes[..n].copy_from_slice(&rest[..n]);
            }
            // SAFETY: every lane has the bytes of a whole vector.
            let codes = unsafe { engine.load(self.lanes, |g| bytes[g].as_ptr()) };
            let addends = engine.widen(engine.to_unsigned(codes));
            let zero = engine.splat_i32(residual.zero.wrapping_add(128));
            let multiplier = engine.splat_f32(residual.multiplier);
            for j in 0..4 {
                let addend = engine.scale(engine.sub(addends[j], zero), multiplier);
                t[j] = engine.add(t[j], addend);
            }
        }
        let base = engine.splat_f32(MAGIC + epilogue.zero as f32);
        let codes = [
            engine.integers(engine.add(t[0], base)),
            engine.integers(engine.add(t[1], base)),
            engine.integers(engine.add(t[2], base)),
            engine.integers(engine.add(t[3], base)),
        ];
        let (lo, hi) = (engine.splat_i8(epilogue.lo), engine.splat_i8(epilogue.hi));
        let bytes = engine.pack(codes, lo, hi);
        for g in 0..self.lanes {
            let at = at(row + g * step);
            if let Some(out) = y.get_mut(at..at + self.count) {
                engine.store(bytes, self.lanes, g, out);
            }
        }
    }
}
