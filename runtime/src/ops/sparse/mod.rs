//! Linear layer whose weights are mostly zero: blocks of 1×4 weights, of which only some are stored.
//!
//! Contract: that of a point [convolution](super::conv), `y[p, n] = epilogue(bias[n] + Σₖ x[p, k] · w[n, k])`, where
//! `w` is zero but for [`Blocks`]: [`QUAD`] neighbours along `k` each, starting at multiples of [`QUAD`]. The sum is the
//! same integer as that of the dense layer, and so is the result.
//!
//! Kernels with vectors have pixels in the lanes: a block is then one product of a vector of pixels with four
//! weights that are the same in all lanes, whatever the pattern, and the work is proportional to the blocks.

pub(crate) mod kernel;
mod packing;
pub(crate) mod portable;
mod reference;
#[cfg(test)]
mod tests;

pub use kernel::{scratch_bytes, sparse_i8};
pub use packing::{count_blocks, pack_blocks};
pub use reference::sparse_i8 as sparse_i8_reference;

use super::conv::{ConvI8, QUAD};

/// Everything about a sparse linear layer but the data that changes with each run.
#[derive(Debug, Clone, Copy)]
pub struct SparseI8<'a> {
    /// The layer, a point window. Its `weights` are not read and may be empty.
    pub conv: ConvI8<'a>,
    /// The weights.
    pub blocks: Blocks<'a>,
}

/// Weights of the blocks that are not all zero, one output channel after the other.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// Number of each output channel's first block, then the number of all blocks.
    pub starts: &'a [u32],
    /// Where each block is: input channel over [`QUAD`], ascending within an output channel.
    pub quads: &'a [u16],
    /// Weights of each block. Those of input channels that do not exist are 0.
    pub weights: &'a [[i8; QUAD]],
}

impl<'a> Blocks<'a> {
    /// Places and weights of an output channel's blocks, equally many; none where the lists contradict themselves.
    #[inline(always)]
    pub fn of(&self, channel: usize) -> (&'a [u16], &'a [[i8; QUAD]]) {
        let at = |i: usize| self.starts.get(i).map_or(0, |&v| v as usize);
        let range = at(channel)..at(channel + 1);
        let lists = (self.quads.get(range.clone()), self.weights.get(range));
        match lists {
            (Some(quads), Some(weights)) => (quads, weights),
            _ => (&[], &[]),
        }
    }

    /// Whether the lists say the same about `channels` output and `depth` input channels, each block is in its place, and weights of
    /// input channels that do not exist are 0.
    pub fn are_sound(&self, channels: usize, depth: usize) -> bool {
        let count = self.quads.len();
        let ends = self.starts.first() == Some(&0)
            && self.starts.last().is_some_and(|&n| n as usize == count);
        let lists = self.starts.len() == channels + 1 && self.weights.len() == count;
        let ascending = self.starts.windows(2).all(|pair| pair[0] <= pair[1]);
        let (last, rest) = (depth / QUAD, depth % QUAD);
        let inside = |(&quad, weights): (&u16, &[i8; QUAD])| {
            let quad = usize::from(quad);
            quad < last || (quad == last && rest > 0 && weights[rest..] == [0; QUAD][rest..])
        };
        ends && lists
            && ascending
            && self.quads.iter().zip(self.weights).all(inside)
            && (0..channels).all(|n| self.of(n).0.windows(2).all(|pair| pair[0] < pair[1]))
    }
}
