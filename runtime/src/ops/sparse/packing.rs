//! Lists of blocks from dense weights.

use super::QUAD;

/// Blocks of row-major weights `w[n][k]` with rows of `depth` that are not all zero.
pub fn count_blocks(w: &[i8], depth: usize) -> usize {
    blocks(w, depth)
        .filter(|(.., block)| *block != [0; QUAD])
        .count()
}

/// Calls `f(n, quad, weights)` for each block of row-major weights `w[n][k]` with rows of `depth` that is not all zero, in
/// the order of [`Blocks`](super::Blocks). A row's last block is filled up with zeros.
///
/// ```
/// use ampoule_runtime::ops::sparse::pack_blocks;
/// let mut found = Vec::new();
/// pack_blocks(&[0, 0, 0, 0, 5, 0, 1, 2, 3, 4, 0, 0], 6, |n, quad, weights| found.push((n, quad, weights)));
/// assert_eq!(found, [(0, 1, [5, 0, 0, 0]), (1, 0, [1, 2, 3, 4])]);
/// ```
pub fn pack_blocks(w: &[i8], depth: usize, mut f: impl FnMut(usize, u16, [i8; QUAD])) {
    for (n, quad, block) in blocks(w, depth) {
        if block != [0; QUAD] {
            f(n, quad as u16, block);
        }
    }
}

fn blocks(w: &[i8], depth: usize) -> impl Iterator<Item = (usize, usize, [i8; QUAD])> {
    let rows = w.chunks_exact(depth.max(1)).enumerate();
    rows.flat_map(|(n, row)| {
        row.chunks(QUAD).enumerate().map(move |(quad, values)| {
            let mut block = [0; QUAD];
            block[..values.len()].copy_from_slice(values);
            (n, quad, block)
        })
    })
}
