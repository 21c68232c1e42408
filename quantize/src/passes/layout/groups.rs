//! Which dimensions of a reshape's operand make which of its result.

use std::ops::Range;

/// Smallest groups of neighbouring dimensions with equal sizes on both sides of a reshape. A dimension of
/// size 1 is a group of its own, with nothing on the other side.
#[derive(Debug)]
pub(in crate::passes) struct Groups(Vec<(Range<usize>, Range<usize>)>);

impl Groups {
    /// Groups of a reshape between two shapes of the same number of elements.
    pub fn of(from: &[usize], to: &[usize]) -> Groups {
        let mut groups = Vec::new();
        let (mut i, mut j) = (0, 0);
        while i < from.len() || j < to.len() {
            let (start_i, start_j) = (i, j);
            if from.get(i) == Some(&1) {
                i += 1;
            } else if to.get(j) == Some(&1) {
                j += 1;
            } else {
                let (mut a, mut b) = (1, 1);
                while a != b || a == 1 {
                    if a <= b && i < from.len() {
                        a *= from[i];
                        i += 1;
                    } else if j < to.len() {
                        b *= to[j];
                        j += 1;
                    } else {
                        break;
                    }
                }
            }
            groups.push((start_i..i, start_j..j));
        }
        Groups(groups)
    }

    /// The reshape as one of `source` (the operand before it was transposed by `perm`), and the
    /// permutation to apply afterwards. Needs the dimensions of each group to be neighbours in `source`.
    pub fn moved(
        &self,
        source: &[usize],
        perm: &[usize],
        to: &[usize],
    ) -> Option<(Vec<usize>, Vec<usize>)> {
        // Dimensions of the result in source order: by the source dimension that their group starts at.
        let mut order: Vec<(Option<usize>, usize)> = Vec::with_capacity(to.len());
        for (from, into) in &self.0 {
            let dims: Vec<usize> = perm[from.clone()]
                .iter()
                .copied()
                .filter(|&d| source[d] != 1)
                .collect();
            let together = dims
                .windows(2)
                .all(|w| w[0] < w[1] && source[w[0] + 1..w[1]].iter().all(|&s| s == 1));
            if !together {
                return None;
            }
            order.extend(into.clone().map(|j| (dims.first().copied(), j)));
        }
        // A new dimension of size 1 stays before the next one, as the height of a row does before its width;
        // the batch stays first.
        let leading = order.iter().take_while(|o| o.0.is_none()).count();
        let mut next = usize::MAX;
        let order = order.into_iter().enumerate().rev().map(|(at, (place, j))| {
            next = place.unwrap_or(next);
            (if at < leading { 0 } else { next }, j)
        });
        let mut order: Vec<(usize, usize)> = order.collect();
        order.sort_unstable();
        let shape = order.iter().map(|&(_, j)| to[j]).collect();
        let mut perm = vec![0; to.len()];
        order
            .iter()
            .enumerate()
            .for_each(|(at, &(_, j))| perm[j] = at);
        Some((shape, perm))
    }

    /// The groups: dimensions of the operand and of the result.
    pub fn iter(&self) -> impl Iterator<Item = &(Range<usize>, Range<usize>)> {
        self.0.iter()
    }

    /// The group that a dimension of the result is in: dimensions of the operand and of the result.
    pub fn with(&self, axis: usize) -> Option<(Range<usize>, Range<usize>)> {
        self.0
            .iter()
            .find(|(_, into)| into.contains(&axis))
            .cloned()
    }

    /// The group of the result's last dimension, where it has no other.
    pub fn last(&self, rank: usize) -> Option<Range<usize>> {
        let (from, into) = self.0.iter().rev().find(|(_, into)| !into.is_empty())?;
        (*into == (rank - 1..rank)).then(|| from.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_into_smallest_groups() {
        assert_eq!(
            Groups::of(&[1, 8, 2, 3], &[1, 8, 6]).0,
            [(0..1, 0..0), (1..1, 0..1), (1..2, 1..2), (2..4, 2..3)]
        );
        assert_eq!(
            Groups::of(&[12, 5], &[3, 4, 5]).0,
            [(0..1, 0..2), (1..2, 2..3)]
        );
        assert_eq!(Groups::of(&[4, 6], &[8, 3]).0, [(0..2, 0..2)]);
    }

    #[test]
    fn merging_height_and_width_moves() {
        // [1, H, W, C] as [1, C, H, W] as [1, C, H·W] is [1, H·W, C] transposed.
        let groups = Groups::of(&[1, 8, 2, 3], &[1, 8, 6]);
        assert_eq!(
            groups.moved(&[1, 2, 3, 8], &[0, 3, 1, 2], &[1, 8, 6]),
            Some((vec![1, 6, 8], vec![0, 2, 1]))
        );
    }

    #[test]
    fn flattening_channels_with_the_map_does_not() {
        let groups = Groups::of(&[1, 8, 2, 3], &[1, 48]);
        assert_eq!(groups.moved(&[1, 2, 3, 8], &[0, 3, 1, 2], &[1, 48]), None);
        assert_eq!(groups.last(2), Some(1..4));
    }
}
