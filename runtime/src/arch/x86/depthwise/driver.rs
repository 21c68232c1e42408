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
            ..=4 => blocks::<E, 1, 2>(engine, job),
            _ => blocks::<E, 2, 4>(engine, job),
        }
    } else {
        // One more row than the kernel has lets two output rows share the columns.
        match height {
            ..=3 => blocks::<E, 2, 2>(engine, job),
            4..=5 => blocks::<E, 3, 2>(engine, job),
            _ => blocks::<E, 4, 2>(engine, job),
        }
    }
    true
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
