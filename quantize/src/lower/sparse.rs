//! Linear layers whose weights are mostly zero, as lists of 1×4 blocks.

use ampoule_runtime::Isa;
use ampoule_runtime::artifact::Blob;
use ampoule_runtime::ops::conv::{QUAD, WIDTH};
use ampoule_runtime::ops::sparse::{count_blocks, pack_blocks, scratch_bytes};

use crate::graph::{Graph, Node, Op};
use crate::program::Constants;

/// Fewest pixels: kernels have them in the lanes of vectors.
const PIXELS: usize = 16;
/// Most input channels: the number of a block has 16 bits and a sum no more than 32.
const DEPTH: usize = 1 << 16;

/// What the sparse kernel of an instruction set takes, in units of the dense kernel's product of a vector with a quad of
/// weights, fitted to layers of TinyViT and EfficientNet-Lite0 (`runtime/examples/sparse_times.rs`,
/// `targets/count.sh`).
struct Cost {
    /// Fewest pixels that fill enough vectors for a walk over the blocks.
    pixels: usize,
    /// A block.
    block: f64,
    /// A block where 64 pixels of all inputs are more than the nearest cache holds.
    far_block: f64,
    /// Quads of inputs that it holds of so many.
    near: usize,
    /// An output channel: sums that begin, and what becomes of them.
    channel: f64,
    /// The same for a dense layer.
    dense_channel: f64,
    /// Packing a quad of inputs.
    quad: f64,
}

/// A layer that is faster by less is not worth a kernel that is slow elsewhere.
const MARGIN: f64 = 0.9;

/// Measured on a Zen 4.
const AVX512VNNI: Cost = Cost {
    pixels: 48,
    block: 1.2,
    far_block: 1.65,
    near: 112,
    channel: 10.0,
    dense_channel: 2.3,
    quad: 12.0,
};

/// Likewise, with `--isa avx2`.
const AVX2: Cost = Cost {
    pixels: 24,
    block: 1.18,
    far_block: 1.6,
    near: 128,
    channel: 7.2,
    dense_channel: 3.0,
    quad: 32.0,
};

/// Instructions that an emulator counted: no time was ever measured.
const NEON: Cost = Cost {
    pixels: PIXELS,
    block: 2.5,
    far_block: 2.5,
    near: usize::MAX,
    channel: 6.2,
    dense_channel: 7.9,
    quad: 4.2,
};

/// Likewise.
const DOTPROD: Cost = Cost {
    pixels: PIXELS,
    block: 2.5,
    far_block: 2.5,
    near: usize::MAX,
    channel: 14.3,
    dense_channel: 6.5,
    quad: 11.4,
};

fn cost(isa: Isa) -> Option<Cost> {
    match isa {
        Isa::Avx2 => Some(AVX2),
        Isa::Avx512Vnni => Some(AVX512VNNI),
        Isa::Neon => Some(NEON),
        Isa::Dotprod => Some(DOTPROD),
        _ => None,
    }
}

/// Whether an instruction set has a kernel for lists of blocks that is faster than the dense one for any layer.
pub fn has_sparse_kernel(isa: Isa) -> bool {
    cost(isa).is_some()
}

/// Whether a layer over so many pixels, of which so many blocks are left, is faster on `isa` as a list of them.
///
/// ```
/// use ampoule_quantize::lower::sparse_pays;
/// use ampoule_runtime::Isa;
/// // Three quarters of the blocks are gone, or an eighth of them.
/// assert!(sparse_pays(Isa::Avx512Vnni, 196, 768, 192, 768 * 12));
/// assert!(!sparse_pays(Isa::Avx512Vnni, 196, 768, 192, 768 * 42));
/// // Tiles are too fast to keep up with.
/// assert!(!sparse_pays(Isa::Amx, 196, 768, 192, 768 * 12));
/// ```
pub fn sparse_pays(isa: Isa, pixels: usize, channels: usize, depth: usize, blocks: usize) -> bool {
    let Some(cost) = cost(isa) else {
        return false;
    };
    let quads = depth.div_ceil(QUAD);
    let vectors = channels.next_multiple_of(WIDTH) as f64;
    let dense = vectors * (quads as f64 + cost.dense_channel);
    let block = match quads <= cost.near {
        true => cost.block,
        false => cost.far_block,
    };
    let sparse = blocks as f64 * block + channels as f64 * cost.channel + quads as f64 * cost.quad;
    pixels >= cost.pixels && sparse < MARGIN * dense
}

/// Whether a layer has a kernel for lists of blocks: a linear layer or 1×1 convolution over at least 16 pixels.
pub fn runs_sparse(graph: &Graph, node: &Node) -> bool {
    let is_point = match node.op {
        Op::Linear { .. } => true,
        Op::Conv { window, groups, .. } => groups == 1 && window.is_point(),
        _ => false,
    };
    let depth = node
        .inputs
        .get(1)
        .and_then(|&w| graph.shape(w).last().copied());
    is_point
        && pixels(graph, node) >= PIXELS
        && depth.is_some_and(|depth| (1..=DEPTH).contains(&depth))
}

/// Output pixels of a layer, those of a batch together.
pub(crate) fn pixels(graph: &Graph, node: &Node) -> usize {
    let y = graph.shape(node.output);
    y.split_last().map_or(1, |(_, rest)| rest.iter().product())
}

/// Whether a layer of row-major codes `[channel][depth]` over so many pixels that [has a kernel](runs_sparse) is faster on
/// `isa` as a list of blocks.
pub(super) fn pays(isa: Isa, pixels: usize, codes: &[i8], depth: usize) -> bool {
    let depth = depth.max(1);
    let blocks = count_blocks(codes, depth);
    sparse_pays(isa, pixels, codes.len() / depth, depth, blocks)
}

/// A layer's blocks in the constants.
pub(super) struct Blocks {
    /// Their weights.
    pub(super) weights: Blob,
    /// Where each output channel's begin.
    pub(super) starts: Blob,
    /// Where they are along the inputs.
    pub(super) quads: Blob,
}

/// Stores the blocks of row-major codes.
pub(super) fn store(constants: &mut Constants, codes: &[i8], depth: usize) -> Blocks {
    let mut counts = vec![0u32; codes.len() / depth];
    let (mut quads, mut weights) = (Vec::new(), Vec::new());
    pack_blocks(codes, depth, |n, quad, block| {
        counts[n] += 1;
        quads.extend(quad.to_le_bytes());
        weights.extend(block.map(|w| w as u8));
    });
    let mut starts = vec![0u8; 4];
    let mut end = 0;
    for count in counts {
        end += count;
        starts.extend(u32::to_le_bytes(end));
    }
    Blocks {
        weights: constants.add(&weights),
        starts: constants.add(&starts),
        quads: constants.add(&quads),
    }
}

/// Bytes of working memory that such a layer wants.
pub(super) fn scratch(depth: usize) -> Option<usize> {
    Some(scratch_bytes(depth)).filter(|&bytes| bytes > 0)
}
