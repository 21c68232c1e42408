//! From a job to blocks of channels.
//!
//! Channels are taken in blocks of a vector's bytes. The channels left over from full blocks fill a
//! half or a quarter of a vector; there the other parts hold the same channels of output rows
//! further down.

use core::mem::MaybeUninit;

use super::Job;
use super::block::{Block, Buffers};
use super::column::{RING, ROWS};
use super::engine::Engine;
use super::pixels::{Line, WIDTH};

/// Input bytes that all blocks of channels read while they stay in the second-level cache.
const BAND: usize = 384 << 10;

/// Runs a job; `false` when its window is beyond the kernels.
#[inline(always)]
pub(super) fn run<E: Engine>(engine: E, job: Job<'_, '_>) -> bool {
    let w = &job.dw.window;
    let [height, width] = w.kernel.map(usize::from);
    let reach = (width.max(1) - 1) * usize::from(w.dilation[1]) + 1;
    if height == 0 || height > ROWS || width == 0 || width > WIDTH || reach > RING {
        return false;
    }
    if E::TAPS == 4 {
        match height {
            ..=4 => bands::<E, 1, 2>(engine, job),
            _ => bands::<E, 2, 4>(engine, job),
        }
    } else {
        // One more row than the kernel has lets two output rows share the columns.
        match height {
            ..=3 => bands::<E, 2, 2>(engine, job),
            4..=5 => bands::<E, 3, 2>(engine, job),
            _ => bands::<E, 4, 2>(engine, job),
        }
    }
    true
}

/// The job in bands of output rows, each for all channels.
#[inline(always)]
fn bands<E: Engine, const Q: usize, const W: usize>(engine: E, job: Job<'_, '_>) {
    let Job { dw, x, y, .. } = job;
    let [_, in_w, channels] = dw.input;
    let per_row = in_w * channels * usize::from(dw.window.stride[0]).max(1);
    let rows = (BAND / per_row).max(8).next_multiple_of(8);
    let row = dw.output[1] * channels;
    for (i, y) in y.chunks_mut(rows * row).enumerate() {
        let first_row = job.first_row + i * rows;
        blocks::<E, Q, W>(
            engine,
            Job {
                dw,
                x,
                first_row,
                y,
            },
        );
    }
}

/// All blocks, with `Q` groups of interleaved rows and at most `W` output rows that share them.
#[inline(always)]
fn blocks<E: Engine, const Q: usize, const W: usize>(engine: E, job: Job<'_, '_>) {
    let Job {
        dw,
        x,
        first_row,
        y,
    } = job;
    let channels = dw.input[2];
    let mut buffers = Buffers {
        ring: [const { MaybeUninit::uninit() }; RING],
        staging: [[Line([0; 64]); RING]; W],
    };
    let mut block = Block::<E, Q, W>::new(engine, dw, x, first_row);
    let mut first = 0;
    while first < channels {
        let rest = channels - first;
        let lanes = lanes(E::BYTES, rest);
        let count = rest.min(E::BYTES / lanes);
        block.set_channels(first, count, lanes);
        first += count;
        // The next block's weights are one line per tap, too far apart for the processor to guess.
        for tap in 0..dw.window.taps() {
            let at = tap * channels + first;
            engine.prefetch(dw.weights.as_ptr().wrapping_add(at));
        }
        block.run(&mut buffers, y);
    }
}

/// Into how many parts a vector of `bytes` is best divided when `rest` channels are left: the
/// fewest that one part of which is still filled, but for a vector that is nearly full.
fn lanes(bytes: usize, rest: usize) -> usize {
    if rest > bytes * 3 / 4 {
        1
    } else if rest > 16 || bytes < 64 {
        2
    } else {
        4
    }
}
