//! Working memory of the int8 kernels.

use super::Geometry;
use super::bias::LANES;
use crate::ops::conv::QUAD;

/// Most queries of a tile.
pub(super) const ROWS: usize = 8;
/// Every part starts at a multiple of this many bytes.
const ALIGN: usize = 64;

/// Bytes that the int8 kernels need.
///
/// ```
/// use ampoule_runtime::ops::attention::{Geometry, scratch_bytes};
/// let window = Geometry { queries: [7, 7], keys: [7, 7], depth: 32, width: 32, ..Default::default() };
/// assert_eq!(scratch_bytes(&window), 64 * 32 + 64 * 4 + 32 * 52 + 8 * 64 + 8 * 64 * 4 + 8 * 64 + (8 * 64 + 16) * 4);
/// ```
pub fn scratch_bytes(g: &Geometry) -> usize {
    Sizes::new(g).parts().iter().sum::<usize>()
}

/// Lengths that follow from the geometry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Keys rounded up to whole vectors: the length of a row of scores.
    pub keys: usize,
    /// Quads along the depth.
    pub depth_quads: usize,
    /// Quads along the keys.
    pub key_quads: usize,
    /// Blocks of 16 along the values.
    pub value_blocks: usize,
    /// Bytes from one query of a tile to the next.
    pub query_stride: usize,
}

impl Sizes {
    pub fn new(g: &Geometry) -> Self {
        let (depth, width) = (g.depth as usize, g.width as usize);
        Sizes {
            keys: g.key_count().next_multiple_of(LANES),
            depth_quads: depth.div_ceil(QUAD),
            key_quads: g.key_count().div_ceil(QUAD),
            value_blocks: width.div_ceil(LANES),
            query_stride: depth.next_multiple_of(ALIGN),
        }
    }

    /// Bytes of each part, rounded up.
    fn parts(&self) -> [usize; 7] {
        [
            self.keys * self.depth_quads * QUAD,
            self.keys * 4,
            self.value_blocks * LANES * self.key_quads * QUAD,
            ROWS * self.query_stride,
            ROWS * self.keys * 4,
            ROWS * self.keys,
            (ROWS * self.keys + LANES) * 4,
        ]
        .map(|n| n.next_multiple_of(ALIGN))
    }
}

/// The working memory, taken apart.
pub(super) struct Scratch<'s> {
    /// Keys, `[block of 16][quad of the depth][key in block][4]`.
    pub keys: &'s mut [i8],
    /// Per key what the shift to unsigned and the zero point of the queries take off its scores.
    pub offsets: &'s mut [i32],
    /// Values, `[block of 16][quad of keys][value in block][4]`.
    pub values: &'s mut [i8],
    /// Queries of a tile, shifted to unsigned.
    pub queries: &'s mut [u8],
    /// Scores of a tile: integers, then octaves.
    pub scores: &'s mut [f32],
    /// Weights of a tile.
    pub weights: &'s mut [u8],
    /// Rows of the bias of a tile.
    pub bias: &'s mut [f32],
}

impl<'s> Scratch<'s> {
    /// `None` when there is too little.
    pub fn new(sizes: &Sizes, scratch: &'s mut [u8]) -> Option<Self> {
        let padding = scratch.as_ptr().align_offset(4);
        let mut rest = scratch.get_mut(padding..)?;
        let mut next = |n: usize| {
            let (part, tail) = core::mem::take(&mut rest).split_at_mut_checked(n)?;
            rest = tail;
            Some(part)
        };
        let [keys, offsets, values, queries, scores, weights, bias] = sizes.parts();
        Some(Scratch {
            keys: bytemuck::cast_slice_mut(next(keys)?),
            offsets: bytemuck::try_cast_slice_mut(next(offsets)?).ok()?,
            values: bytemuck::cast_slice_mut(next(values)?),
            queries: next(queries)?,
            scores: bytemuck::try_cast_slice_mut(next(scores)?).ok()?,
            weights: next(weights)?,
            bias: bytemuck::try_cast_slice_mut(next(bias)?).ok()?,
        })
    }
}
