//! One block of channels: its weights, and the walk over the output.
//!
//! For each input column the rows under the window are interleaved once, so that one 32-bit element
//! holds a channel's values in [`Engine::TAPS`] neighbouring rows, and kept in a ring of columns;
//! each output pixel is then a few dot products per column. Output rows that lie below each other
//! share the interleaved columns: they differ in the weights, which are shifted down by the stride.

use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use core::mem::MaybeUninit;

use super::column::{PADDING, RING, ROWS, Ring, Rows};
use super::engine::{Engine, LANES};
use super::pixels::{Line, Pixels, Staging, WIDTH};
use crate::numerics::MAGIC;
use crate::ops::depthwise::DepthwiseI8;

/// Buffers that all blocks use in turn.
pub(super) struct Buffers<E: Engine, const Q: usize, const W: usize> {
    pub ring: Ring<E, Q>,
    pub staging: Staging<W>,
}

/// A block of channels, with `Q` groups of interleaved rows and weights for `W` output rows.
pub(super) struct Block<'a, 'b, E: Engine, const Q: usize, const W: usize> {
    engine: E,
    dw: &'a DepthwiseI8<'b>,
    x: &'a [i8],
    /// First output row of the chunk.
    first_row: usize,
    /// Output rows that share columns: as many as the interleaved rows allow. Residuals are rare,
    /// there it is one.
    shared: usize,
    /// A pixel of padding.
    padding: [i8; 64],
    /// First channel.
    first: usize,
    /// Channels that are stored.
    count: usize,
    /// Parts of the vectors, each with the same channels of other output rows.
    lanes: usize,
    /// Columns under a window, dilation included.
    reach: usize,
    /// Output columns whose windows the ring holds.
    tile: usize,
    pixels: Pixels<E, Q, W>,
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
        let epilogue = &dw.epilogue;
        let [width, dilation] = [dw.window.kernel[1], dw.window.dilation[1]].map(usize::from);
        let reach = (width - 1) * dilation + 1;
        Block {
            engine,
            dw,
            x,
            first_row,
            shared: if epilogue.residual.is_some() {
                1
            } else {
                shared.min(W)
            },
            padding: [dw.input_zero; 64],
            first: 0,
            count: 0,
            lanes: 1,
            reach,
            tile: (RING - reach) / usize::from(dw.window.stride[1]).max(1) + 1,
            pixels: Pixels {
                width,
                stride: usize::from(dw.window.stride[1]),
                dilation,
                weights: [const { MaybeUninit::uninit() }; WIDTH],
                bias: [engine.zero(); 4],
                multipliers: [engine.splat_f32(0.0); 4],
                base: engine.splat_f32(MAGIC + epilogue.zero as f32),
                bounds: [engine.splat_i8(epilogue.lo), engine.splat_i8(epilogue.hi)],
                residual: epilogue.residual.is_some(),
                // Codes are read as x + 128.
                residual_zero: engine
                    .splat_i32(epilogue.residual.map_or(0, |r| r.zero).wrapping_add(128)),
                residual_multiplier: engine
                    .splat_f32(epilogue.residual.map_or(0.0, |r| r.multiplier)),
            },
        }
    }

    /// Takes up channels `first..first + count`, repeated in `lanes` lanes.
    #[inline(always)]
    pub fn set_channels(&mut self, first: usize, count: usize, lanes: usize) {
        let Block { engine, dw, .. } = *self;
        self.first = first;
        self.count = count;
        self.lanes = lanes;
        let part = E::BYTES / lanes;
        let mut bias = [engine.zero(); 4];
        let mut multipliers = [engine.splat_f32(0.0); 4];
        for i in 0..4 {
            let c = first + i * (E::BYTES / 4) % part;
            let sums = engine.load_i32(dw.weight_sums.get(c..).unwrap_or_default());
            let start = engine.load_i32(dw.bias.get(c..).unwrap_or_default());
            // Kernels run on x + 128, so 128 · Σ w too much arrives in the accumulator.
            bias[i] = engine.sub(start, engine.times_128(sums));
            multipliers[i] = engine.load_f32(dw.multipliers.get(c..).unwrap_or_default());
        }
        self.pixels.bias = engine.deal_int(bias);
        self.pixels.multipliers = engine.deal_float(multipliers);
        let [height, width] = dw.window.kernel.map(usize::from);
        let stride = usize::from(dw.window.stride[0]);
        // A column of the kernel, with zeros above and below.
        let mut column = [engine.zero(); 3 * ROWS];
        for kx in 0..width {
            for ky in 0..height {
                let at = (ky * width + kx) * dw.input[2] + first;
                column[(ROWS + ky).min(3 * ROWS - 1)] =
                    self.repeat(dw.weights.get(at..).unwrap_or_default());
            }
            let mut weights = [[[engine.zero(); 4]; W]; Q];
            for r in 0..self.shared.min(W) {
                let top = ROWS.saturating_sub(r * stride);
                for q in 0..Q {
                    let mut rows = [engine.zero(); 4];
                    rows[..E::TAPS].copy_from_slice(&column[top + q * E::TAPS..][..E::TAPS]);
                    weights[q][r] = engine.interleave_weights(&rows);
                }
            }
            self.pixels.weights[kx % WIDTH].write(weights);
        }
        self.prefetch(first + count);
    }

    /// Asks for the weights from channel `first` on: a block's lie far apart, and each is a wait.
    #[inline(always)]
    fn prefetch(&self, first: usize) {
        for tap in 0..self.dw.window.taps() {
            let at = self
                .dw
                .weights
                .as_ptr()
                .wrapping_add(tap * self.dw.input[2] + first);
            // SAFETY: every x86-64 processor has the instruction, which may be given any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
        }
    }

    /// The first bytes of a slice in every lane, filled up with zeros.
    #[inline(always)]
    fn repeat(&self, from: &[i8]) -> E::Int {
        let part = E::BYTES / self.lanes;
        let mut bytes = [0; 64];
        let mut at = from.as_ptr();
        if from.len() < part {
            bytes[..from.len()].copy_from_slice(from);
            at = bytes.as_ptr();
        }
        // SAFETY: the bytes of a part follow the address.
        unsafe {
            match self.lanes {
                1 => self.engine.load::<1>(|_| at),
                2 => self.engine.load::<2>(|_| at),
                _ => self.engine.load::<4>(|_| at),
            }
        }
    }

    /// Computes the block's channels of all rows of `y`.
    #[inline(always)]
    pub fn run(&self, buffers: &mut Buffers<E, Q, W>, y: &mut [i8]) {
        let rows = y.len() / (self.dw.output[1] * self.dw.input[2]);
        let mut row = 0;
        while row < rows {
            let shared = self.shared.min((rows - row).div_ceil(self.lanes));
            self.pass(buffers, row, shared, y);
            row += shared * self.lanes;
        }
    }

    /// Computes `lanes · shared` rows of `y`: lane `g` has the rows from `row + g · shared` on.
    #[inline(always)]
    fn pass(&self, buffers: &mut Buffers<E, Q, W>, row: usize, shared: usize, y: &mut [i8]) {
        let Buffers { ring, staging } = buffers;
        let stride = self.pixels.stride;
        let rows = self.rows(row, shared);
        let out_w = self.dw.output[1];
        let (mut first, mut filled) = (0, 0);
        while first < out_w {
            let n = self.tile.min(out_w - first);
            let start = first * stride;
            let end = start + (n - 1) * stride + self.reach;
            rows.fill(self.engine, ring, [filled.max(start), end]);
            filled = end;
            let run = Run {
                first_row: row,
                shared,
                first,
                n,
            };
            if let Some(residual) = self.dw.epilogue.residual {
                self.load_residual(&run, residual.data, staging);
            }
            // SAFETY: columns `start..end` have been filled, and `set_channels` the weights.
            unsafe {
                self.pixels
                    .run(self.engine, ring, start, n, shared, staging)
            };
            self.store(&run, staging, y);
            first += n;
        }
    }

    /// The input rows of the pass from output row `row` on.
    #[inline(always)]
    fn rows(&self, row: usize, shared: usize) -> Rows<'_> {
        let w = &self.dw.window;
        let [in_h, in_w, channels] = self.dw.input;
        let (stride, dilation) = (usize::from(w.stride[0]), usize::from(w.dilation[0]));
        let mut rows = Rows {
            data: &self.x[self.first..],
            starts: [[PADDING; LANES]; ROWS],
            count: Q * E::TAPS,
            lanes: self.lanes,
            step: channels,
            width: in_w,
            pad: w.pad[1].into(),
            padding: &self.padding,
        };
        for i in 0..Q * E::TAPS {
            for g in 0..self.lanes {
                let top = (self.first_row + row + g * shared) * stride;
                let iy = (top + i * dilation).wrapping_sub(w.pad[0].into());
                if iy < in_h {
                    rows.starts[i][g] = iy * in_w * channels;
                }
            }
        }
        rows
    }

    /// Brings the residual's codes to the places of the outputs they are added to.
    #[inline(always)]
    fn load_residual(&self, run: &Run, residual: &[i8], staging: &mut Staging<W>) {
        let part = E::BYTES / self.lanes;
        for r in 0..run.shared {
            for g in 0..self.lanes {
                let row = self.first_row + run.first_row + g * run.shared + r;
                for (i, line) in staging[r].iter_mut().enumerate().take(run.n) {
                    let at = self.offset(row, run.first + i);
                    if let Some(codes) = residual.get(at..at + self.count) {
                        line.0[g * part..g * part + self.count].copy_from_slice(codes);
                    }
                }
            }
        }
    }

    /// Copies the outputs of a run to the rows that the chunk has.
    #[inline(always)]
    fn store(&self, run: &Run, staging: &Staging<W>, y: &mut [i8]) {
        for r in 0..run.shared {
            for g in 0..self.lanes {
                let at = self.offset(run.first_row + g * run.shared + r, run.first);
                let Some(row) = y.get_mut(at..) else { continue };
                let lines = &staging[r][..run.n];
                let (lane, step) = (g * (E::BYTES / self.lanes), self.dw.input[2]);
                match self.count {
                    64 => copy_parts::<64>(lines, lane, row, step),
                    32 => copy_parts::<32>(lines, lane, row, step),
                    16 => copy_parts::<16>(lines, lane, row, step),
                    n => {
                        for (y, line) in row.chunks_mut(step).zip(lines) {
                            y[..n].copy_from_slice(&line.0[lane..][..n]);
                        }
                    }
                }
            }
        }
    }

    /// Where the block's channels of a pixel are in a map of the output's shape.
    #[inline(always)]
    fn offset(&self, row: usize, ox: usize) -> usize {
        (row * self.dw.output[1] + ox) * self.dw.input[2] + self.first
    }
}

/// Neighbouring output pixels in the rows of a pass.
struct Run {
    /// First output row of the pass, in the chunk.
    first_row: usize,
    /// Output rows per lane.
    shared: usize,
    /// First output column.
    first: usize,
    /// Output columns.
    n: usize,
}

/// Copies `N` bytes from `lane` on of each line to the next pixel of a row, `step` elements further.
/// A constant length is a move of one register.
#[inline(always)]
fn copy_parts<const N: usize>(lines: &[Line], lane: usize, row: &mut [i8], step: usize) {
    let lane = lane.min(64 - N);
    let mut at = 0;
    for line in lines {
        if let Some(y) = row.get_mut(at..at + N) {
            y.copy_from_slice(&line.0[lane..lane + N]);
        }
        at += step;
    }
}
