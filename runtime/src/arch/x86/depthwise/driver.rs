//! The instruction-set independent part of the depthwise kernels.
//!
//! Channels are taken in blocks of a vector's bytes. For each input column the rows under the
//! window are interleaved once, so that one 32-bit element holds a channel's values in neighbouring
//! rows, and kept in a ring of columns; each output pixel is then a few dot products per column.
//! Several output rows that lie below each other share the interleaved columns: they differ in the
//! weights, which are shifted down by the stride.
//!
//! The channels left over from full blocks fill a half or a quarter of a vector; there the other
//! parts hold the same channels of output rows further down.

use super::engine::Engine;
use super::{Geometry, Job};

/// Columns that the ring holds: the widest window, dilation included. A power of two.
const RING: usize = 16;
/// Widest kernel.
const WIDTH: usize = 8;
/// Most input rows that are interleaved.
const ROWS: usize = 8;

/// Interleaved columns `[column][group of rows][vector]`.
type Ring<E, const Q: usize> = [[[<E as Engine>::Int; 4]; Q]; RING];

/// Which part of the channels a call of [`block`] computes.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// First channel.
    first: usize,
    /// Channels, at most a lane's.
    count: usize,
}

/// Runs a job on an engine that takes four rows per dot product.
#[inline(always)]
pub(super) fn run_quads<E: Engine>(
    engine: E,
    job: Job<'_, '_>,
    blocks: impl Fn(&mut Call<'_, '_, E>, &dyn Fn()),
) -> bool {
    let _ = (engine, job, blocks);
    false
}
