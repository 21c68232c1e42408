//! Common loops of several views.

use ampoule_runtime::ops::attention::{Geometry, View};

use super::strides::Loop;

/// A loop with its step in each of `N` tensors.
pub(super) type Factor<const N: usize> = (usize, [usize; N]);

/// Splits loops of equal length into common ones. A list that is empty repeats its tensor: its steps
/// are 0.
pub(super) fn refine<const N: usize>(size: usize, lists: [&[Loop]; N]) -> Option<Vec<Factor<N>>> {
    let mut cuts = vec![1, size];
    for list in lists {
        let mut inner = 1;
        for &(n, _) in list.iter().rev() {
            inner *= n;
            cuts.push(inner);
        }
        if inner != size && !list.is_empty() {
            return None;
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    if cuts.windows(2).any(|c| c[1] % c[0] != 0) {
        return None;
    }
    let factor = |c: &[usize]| (c[1] / c[0], lists.map(|list| step_at(list, c[0])));
    let mut out: Vec<_> = cuts.windows(2).map(factor).collect();
    out.reverse();
    Some(merge(&out))
}

/// Step of the loops at the index whose inner part has `inner` iterations.
fn step_at(list: &[Loop], inner: usize) -> usize {
    let mut below = 1;
    for &(n, step) in list.iter().rev() {
        if inner < below * n {
            return step * (inner / below);
        }
        below *= n;
    }
    0
}

/// Neighbours that go on evenly in every tensor as one, and no loops of one iteration.
pub(super) fn merge<const N: usize>(factors: &[Factor<N>]) -> Vec<Factor<N>> {
    let mut out: Vec<Factor<N>> = Vec::new();
    for &(n, steps) in factors.iter().filter(|f| f.0 > 1) {
        match out.last_mut() {
            Some((m, outer)) if (0..N).all(|i| outer[i] == n * steps[i]) => {
                (*m, *outer) = (*m * n, steps);
            }
            _ => out.push((n, steps)),
        }
    }
    out
}

/// The loops of an attention.
#[derive(Debug, Clone)]
pub(super) struct Loops {
    /// Steps in q, k, v, y.
    pub outer: Vec<Factor<4>>,
    /// Steps in q, y.
    pub queries: Vec<Factor<2>>,
    /// Steps in k, v.
    pub keys: Vec<Factor<2>>,
    /// Values per query and key, per row of the result.
    pub depth: usize,
    pub width: usize,
    /// First elements of q, k, v, y.
    pub starts: [usize; 4],
}

impl Loops {
    /// `None` when there are more loops than the operator has, or larger steps.
    pub fn geometry(&self) -> Option<Geometry> {
        let outer = fixed::<4, 4>(&merge(&self.outer))?;
        let queries = fixed::<2, 2>(&merge(&self.queries))?;
        let keys = fixed::<2, 2>(&merge(&self.keys))?;
        let view = |i: usize, token: [u32; 2]| {
            Some(View {
                start: u32::try_from(self.starts[i]).ok()?,
                outer: outer.map(|f| f.1[i]),
                token,
            })
        };
        Some(Geometry {
            outer: outer.map(|f| f.0),
            queries: queries.map(|f| f.0),
            keys: keys.map(|f| f.0),
            depth: u32::try_from(self.depth).ok()?,
            width: u32::try_from(self.width).ok()?,
            q: view(0, queries.map(|f| f.1[0]))?,
            k: view(1, keys.map(|f| f.1[0]))?,
            v: view(2, keys.map(|f| f.1[1]))?,
            y: view(3, queries.map(|f| f.1[1]))?,
        })
    }

    /// The loops of a geometry.
    pub fn of(g: &Geometry) -> Self {
        let wide = |n: u32| n as usize;
        let outer = |d: usize| {
            (
                wide(g.outer[d]),
                [&g.q, &g.k, &g.v, &g.y].map(|v| wide(v.outer[d])),
            )
        };
        let query = |d: usize| (wide(g.queries[d]), [&g.q, &g.y].map(|v| wide(v.token[d])));
        let key = |d: usize| (wide(g.keys[d]), [&g.k, &g.v].map(|v| wide(v.token[d])));
        Loops {
            outer: merge(&[0, 1, 2, 3].map(outer)),
            queries: merge(&[0, 1].map(query)),
            keys: merge(&[0, 1].map(key)),
            depth: wide(g.depth),
            width: wide(g.width),
            starts: [&g.q, &g.k, &g.v, &g.y].map(|v| wide(v.start)),
        }
    }
}

/// At most `D` loops, with loops of one iteration before them.
fn fixed<const D: usize, const N: usize>(factors: &[Factor<N>]) -> Option<[(u32, [u32; N]); D]> {
    let lead = D.checked_sub(factors.len())?;
    let mut out = [(1, [0; N]); D];
    for (slot, (n, steps)) in out[lead..].iter_mut().zip(factors) {
        slot.0 = u32::try_from(*n).ok()?;
        for (to, &step) in slot.1.iter_mut().zip(steps) {
            *to = u32::try_from(step).ok()?;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_loops() {
        // 12 iterations as 3 × 4 here, 6 × 2 there, and repeated.
        let refined = refine(12, [&[(3, 40), (4, 1)], &[(6, 20), (2, 5)], &[]]).unwrap();
        assert_eq!(refined, [(3, [40, 40, 0]), (2, [2, 20, 0]), (2, [1, 5, 0])]);
        assert_eq!(refine(6, [&[(2, 3), (3, 1)], &[(3, 2), (2, 1)]]), None);
        assert_eq!(
            refine(6, [&[(2, 3), (3, 1)], &[(6, 1)]]).unwrap(),
            [(6, [1, 1])]
        );
        assert_eq!(refine(1, [&[], &[]]).unwrap(), []);
    }

    #[test]
    fn geometry_and_back() {
        let loops = Loops {
            outer: vec![(4, [96, 96, 96, 32])],
            queries: vec![(7, [700, 200]), (7, [30, 10])],
            keys: vec![(49, [10, 20])],
            depth: 8,
            width: 9,
            starts: [0, 1, 2, 3],
        };
        let g = loops.geometry().unwrap();
        assert_eq!(
            (g.outer, g.queries, g.keys),
            ([1, 1, 1, 4], [7, 7], [1, 49])
        );
        assert_eq!(Loops::of(&g).geometry(), Some(g));
    }
}
