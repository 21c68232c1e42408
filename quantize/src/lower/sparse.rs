//! Linear layers whose weights are mostly zero, as lists of 1×4 blocks.

use ampoule_runtime::Isa;
use ampoule_runtime::artifact::Blob;
use ampoule_runtime::ops::conv::QUAD;
use ampoule_runtime::ops::sparse::{count_blocks, pack_blocks, scratch_bytes};

use crate::graph::{Graph, Node, Op};
use crate::program::Constants;

/// Fewest pixels: kernels have them in the lanes of vectors.
const PIXELS: usize = 16;
/// Most input channels: the number of a block has 16 bits and a sum no more than 32.
const DEPTH: usize = 1 << 16;

/// Share of blocks that has to be zero for the sparse form to be faster than the dense one, as `sparse_times` measures
/// it; `None` where no kernel is.
///
/// ```
/// use ampoule_quantize::lower::sparse_threshold;
/// use ampoule_runtime::Isa;
/// assert_eq!(sparse_threshold(Isa::Avx512Vnni), Some(0.6));
/// assert_eq!(sparse_threshold(Isa::Amx), None);
/// ```
pub fn sparse_threshold(isa: Isa) -> Option<f64> {
    match isa {
        Isa::Avx512Vnni => Some(0.6),
        _ => None,
    }
}

/// Whether a layer has a kernel for lists of blocks: a linear layer or 1×1 convolution over at least 16 pixels.
pub fn runs_sparse(graph: &Graph, node: &Node) -> bool {
    let is_point = match node.op {
        Op::Linear { .. } => true,
        Op::Conv { window, groups, .. } => groups == 1 && window.is_point(),
        _ => false,
    };
    let y = graph.shape(node.output);
    let elements: usize = y.iter().product();
    let pixels = elements / y.last().copied().unwrap_or(1).max(1);
    let depth = node
        .inputs
        .get(1)
        .and_then(|&w| graph.shape(w).last().copied());
    is_point && pixels >= PIXELS && depth.is_some_and(|depth| (1..=DEPTH).contains(&depth))
}

/// Whether a layer of row-major codes `[channel][depth]` that [has a kernel](runs_sparse) is faster on `isa` as a list of
/// blocks.
pub(super) fn pays(isa: Isa, codes: &[i8], depth: usize) -> bool {
    let Some(threshold) = sparse_threshold(isa) else {
        return false;
    };
    let rows = codes.len() / depth.max(1);
    let all = rows * depth.div_ceil(QUAD);
    let gone = all - count_blocks(codes, depth);
    gone as f64 >= threshold * all as f64
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
