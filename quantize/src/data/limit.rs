//! Choosing a few entries of many, spread evenly and balanced over the classes.

use std::collections::BTreeMap;

/// Indices of at most `limit` entries, ascending. Classes get equal shares as far as they reach (what
/// is left over goes to evenly spaced classes), and within a class the picks are evenly spaced.
/// Entries without a class are a class of their own.
pub(super) fn pick(classes: &[Option<u32>], limit: usize) -> Vec<usize> {
    let mut members: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for (i, class) in classes.iter().enumerate() {
        members.entry(*class).or_default().push(i);
    }
    let members: Vec<Vec<usize>> = members.into_values().collect();
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let shares = shares(&sizes, limit);
    let chosen = members
        .iter()
        .zip(shares)
        .flat_map(|(m, n)| evenly(m.len(), n).map(|i| m[i]));
    let mut chosen: Vec<usize> = chosen.collect();
    chosen.sort_unstable();
    chosen
}

/// How many of each class: rounds in which every class that has more gives one.
fn shares(sizes: &[usize], limit: usize) -> Vec<usize> {
    let mut shares = vec![0; sizes.len()];
    let mut left = limit.min(sizes.iter().sum());
    while left > 0 {
        let open: Vec<usize> = (0..sizes.len()).filter(|&c| shares[c] < sizes[c]).collect();
        let round = left.min(open.len());
        evenly(open.len(), round).for_each(|i| shares[open[i]] += 1);
        left -= round;
    }
    shares
}

/// `count ≤ of` indices below `of` with equal gaps.
fn evenly(of: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |i| (2 * i + 1) * of / (2 * count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_by_hand() {
        assert_eq!(pick(&[None; 10], 5), [1, 3, 5, 7, 9]);
        assert_eq!(pick(&[None; 3], 9), [0, 1, 2]);
        assert_eq!(pick(&[None; 3], 0), [0usize; 0]);
        let classes: Vec<_> = [0, 0, 0, 0, 1, 1, 2, 2, 2].map(Some).to_vec();
        assert_eq!(pick(&classes, 3), [2, 5, 7]); // one each, from the middle
        assert_eq!(pick(&classes, 8), [0, 2, 3, 4, 5, 6, 7, 8]); // class 1 has only two
        assert_eq!(pick(&classes, 2), [2, 7]); // classes 0 and 2
    }

    #[test]
    fn counts_are_exact_and_balanced() {
        let classes: Vec<_> = (0..997)
            .map(|i| (i % 7 > 0).then_some((i * i % 11) as u32))
            .collect();
        for limit in [1, 5, 11, 12, 100, 996, 997, 5000] {
            let picked = pick(&classes, limit);
            assert_eq!(picked.len(), limit.min(997));
            assert!(picked.is_sorted_by(|a, b| a < b));
        }
    }
}
