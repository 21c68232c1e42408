//! The one weight layout that every instruction set reads in place.
//!
//! Output channels come in blocks of [`WIDTH`]; inside a block, patches come in quads of
//! [`QUAD`] values: `[block][quad][channel in block][4]`. That is the operand layout of `vpdpbusd`,
//! of an AMX B tile, and of SDOT. The last block is as wide as it has to be (a multiple of
//! [`QUAD`] channels), so small layers waste little flash.

/// Output channels in a full block.
pub const WIDTH: usize = 16;
/// Patch values that stand side by side.
pub const QUAD: usize = 4;
/// Bytes past the end of packed weights that kernels may read (and ignore).
pub const WEIGHT_SLACK: usize = 64;

/// Sizes of packed weights.
///
/// ```
/// use ampoule_runtime::ops::conv::PackedShape;
/// let p = PackedShape::new(24, 27);
/// assert_eq!((p.quads(), p.blocks(), p.bytes()), (7, 2, 7 * 16 * 4 + 7 * 8 * 4));
/// assert_eq!(p.block_width(1), 8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedShape {
    channels: usize,
    depth: usize,
}

impl PackedShape {
    /// For `channels` output channels and patches of `depth` values.
    pub const fn new(channels: usize, depth: usize) -> Self {
        PackedShape { channels, depth }
    }

    /// Quads along the patch.
    pub const fn quads(&self) -> usize {
        self.depth.div_ceil(QUAD)
    }

    /// Blocks along the output channels.
    pub const fn blocks(&self) -> usize {
        self.channels.div_ceil(WIDTH)
    }

    /// Channels stored in block `b`: [`WIDTH`], or the rest rounded up to a multiple of 4.
    pub const fn block_width(&self, b: usize) -> usize {
        let rest = self.channels - b * WIDTH;
        if rest >= WIDTH {
            WIDTH
        } else {
            rest.div_ceil(4) * 4
        }
    }

    /// Byte offset of block `b`.
    pub const fn block_offset(&self, b: usize) -> usize {
        b * WIDTH * self.quads() * QUAD
    }

    /// Byte offset of the weight of output channel `n` at patch position `k`.
    pub const fn index(&self, n: usize, k: usize) -> usize {
        let b = n / WIDTH;
        self.block_offset(b)
            + (k / QUAD) * self.block_width(b) * QUAD
            + (n % WIDTH) * QUAD
            + k % QUAD
    }

    /// Bytes of all blocks, without the slack.
    pub const fn bytes(&self) -> usize {
        if self.channels == 0 {
            return 0;
        }
        let last = self.blocks() - 1;
        self.block_offset(last) + self.block_width(last) * self.quads() * QUAD
    }

    /// Channels rounded up to a multiple of [`WIDTH`]: the length of bias-like vectors.
    pub const fn padded_channels(&self) -> usize {
        self.blocks() * WIDTH
    }
}

/// Packs row-major weights `w[n][k]` into `out`, which must hold [`PackedShape::bytes`]; padding is 0.
pub fn pack_i8(shape: PackedShape, w: &[i8], out: &mut [i8]) {
    out.fill(0);
    for (n, row) in w
        .chunks_exact(shape.depth.max(1))
        .take(shape.channels)
        .enumerate()
    {
        for (k, &v) in row.iter().enumerate() {
            if let Some(slot) = out.get_mut(shape.index(n, k)) {
                *slot = v;
            }
        }
    }
}
