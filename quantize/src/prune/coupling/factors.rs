//! Axes as products of factors, whose indices are tied to one another.

/// A factor of an axis, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Factor(usize);

/// An axis, outermost factor first; of size 1 without factors.
pub(super) type Axis = Vec<Factor>;

/// All factors of a graph. Two kinds of facts are known of them: factors that are one, and indices of
/// factors that go together.
#[derive(Debug, Default)]
pub(super) struct Factors {
    /// Itself, or the factor that it is one with.
    same: Vec<usize>,
    facts: Vec<Facts>,
    /// Itself, or an index that it goes with.
    tied: Vec<usize>,
    /// Indices that must stay.
    kept: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Facts {
    size: usize,
    /// The factors that it turned out to be the product of.
    parts: Option<[Factor; 2]>,
    /// First of its indices.
    first: usize,
    /// Whether single indices of it are tied to those of others.
    partly: bool,
}

impl Factors {
    /// An axis of that size that nothing is known of.
    pub fn axis(&mut self, size: usize) -> Axis {
        match size {
            1 => Vec::new(),
            _ => vec![self.factor(size)],
        }
    }

    /// An axis all of whose indices stay.
    pub fn kept_axis(&mut self, size: usize) -> Axis {
        let axis = self.axis(size);
        self.keep(&axis);
        axis
    }

    /// Makes all indices of an axis stay.
    pub fn keep(&mut self, axis: &Axis) {
        for f in self.resolved(axis) {
            let Facts { first, size, .. } = self.facts[f.0];
            for index in first..first + size {
                let index = self.index_root(index);
                self.kept[index] = true;
            }
        }
    }

    /// The factors that an axis is known to have by now.
    pub fn resolved(&mut self, axis: &[Factor]) -> Axis {
        let mut out = Vec::new();
        for &f in axis {
            let f = self.root(f);
            match self.facts[f.0].parts {
                Some(parts) => out.extend(self.resolved(&parts)),
                None => out.push(f),
            }
        }
        out
    }

    /// Size of an axis.
    pub fn size(&self, axis: &[Factor]) -> usize {
        axis.iter().map(|f| self.facts[f.0].size).product()
    }

    /// Two axes of one size are the same.
    pub fn unify(&mut self, a: &Axis, b: &Axis) {
        let (mut a, mut b) = (self.resolved(a), self.resolved(b));
        (a.reverse(), b.reverse());
        while let (Some(x), Some(y)) = (a.pop(), b.pop()) {
            let (n, m) = (self.facts[x.0].size, self.facts[y.0].size);
            if x == y {
                continue;
            } else if n == m {
                self.merge(x, y);
            } else if n > m && n % m == 0 {
                let [outer, inner] = self.split(x, m);
                self.merge(outer, y);
                a.push(inner);
            } else if m > n && m % n == 0 {
                let [outer, inner] = self.split(y, n);
                self.merge(x, outer);
                b.push(inner);
            } else {
                a.push(x);
                b.push(y);
                (self.keep(&a), self.keep(&b));
                return;
            }
            // What was split may be a factor further on, too.
            a = a.into_iter().rev().collect::<Axis>();
            b = b.into_iter().rev().collect::<Axis>();
            (a, b) = (self.resolved(&a), self.resolved(&b));
            (a.reverse(), b.reverse());
        }
    }

    /// The factors of all axes dealt out to axes of other sizes; `None` where sizes cut through factors.
    pub fn reshape(&mut self, axes: &[Axis], sizes: &[usize]) -> Option<Vec<Axis>> {
        let mut left = self.resolved(&axes.concat());
        left.reverse();
        let mut out = Vec::new();
        for &size in sizes {
            let (mut axis, mut need) = (Axis::new(), size);
            while need > 1 {
                let f = left.pop()?;
                let n = self.facts[f.0].size;
                if need % n == 0 {
                    axis.push(f);
                    need /= n;
                } else if n % need == 0 {
                    let [outer, inner] = self.split(f, need);
                    axis.push(outer);
                    left.push(inner);
                    need = 1;
                } else {
                    return None;
                }
                left.reverse();
                left = self.resolved(&left);
                left.reverse();
            }
            out.push(axis);
        }
        Some(out)
    }

    /// An axis cut at a multiple of `size`: the outer factors and the inner ones, of that size.
    pub fn cut(&mut self, axis: &Axis, size: usize) -> Option<[Axis; 2]> {
        let whole = self.size(axis);
        let both = self.reshape(std::slice::from_ref(axis), &[whole / size, size])?;
        both.try_into().ok()
    }

    /// Some indices of an axis as an axis of their own: each is tied to where it comes from.
    pub fn pick(&mut self, axis: &Axis, indices: &[usize]) -> Axis {
        self.join(&[(axis.clone(), indices.to_vec())])
    }

    /// Indices of several axes one after the other as one axis.
    pub fn join(&mut self, from: &[(Axis, Vec<usize>)]) -> Axis {
        let size = from.iter().map(|(_, indices)| indices.len()).sum();
        let to = self.factor(size);
        let mut at = self.facts[to.0].first;
        self.facts[to.0].partly = true;
        for (axis, indices) in from {
            let axis = self.resolved(axis);
            match axis[..] {
                [one] => {
                    self.facts[one.0].partly = true;
                    let first = self.facts[one.0].first;
                    for &i in indices {
                        self.tie(first + i, at);
                        at += 1;
                    }
                }
                _ => {
                    self.keep(&axis);
                    for _ in indices {
                        let index = self.index_root(at);
                        self.kept[index] = true;
                        at += 1;
                    }
                }
            }
        }
        vec![to]
    }

    /// For each index of an axis the numbers of what it is cut with, one per factor.
    pub fn channels(&mut self, axis: &Axis) -> Vec<Vec<usize>> {
        let axis = self.resolved(axis);
        let mut out = vec![Vec::new()];
        for f in axis {
            let Facts { first, size, .. } = self.facts[f.0];
            let roots: Vec<usize> = (first..first + size)
                .map(|i| self.index_root_of(i))
                .collect();
            let longer = |known: &Vec<usize>| {
                let add = |&root: &usize| [&known[..], &[root]].concat();
                roots.iter().map(add).collect::<Vec<_>>()
            };
            out = out.iter().flat_map(longer).collect();
        }
        out
    }

    /// What the indices of a factor are cut with, where none of it has to stay, each once.
    pub fn free(&self, f: Factor) -> Option<Vec<usize>> {
        let Facts { first, size, .. } = self.facts[self.root(f).0];
        let roots = (first..first + size).map(|i| self.index_root_of(i));
        let mut channels: Vec<usize> = roots.collect();
        if channels.iter().any(|&c| self.kept[c]) {
            return None;
        }
        channels.sort_unstable();
        channels.dedup();
        Some(channels)
    }

    fn factor(&mut self, size: usize) -> Factor {
        let first = self.tied.len();
        self.tied.extend(first..first + size);
        self.kept.resize(first + size, false);
        self.same.push(self.same.len());
        self.facts.push(Facts {
            size,
            parts: None,
            first,
            partly: false,
        });
        Factor(self.facts.len() - 1)
    }

    fn merge(&mut self, a: Factor, b: Factor) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (of_a, of_b) = (self.facts[a.0].clone(), self.facts[b.0].clone());
        for i in 0..of_a.size {
            self.tie(of_a.first + i, of_b.first + i);
        }
        self.facts[a.0].partly |= of_b.partly;
        self.same[b.0] = a.0;
    }

    /// Splits a factor into one of `outer` and the rest.
    fn split(&mut self, f: Factor, outer: usize) -> [Factor; 2] {
        let f = self.root(f);
        let Facts {
            size,
            first,
            partly,
            ..
        } = self.facts[f.0].clone();
        let parts = [self.factor(outer), self.factor(size / outer)];
        let stays = (first..first + size).any(|i| self.kept[self.index_root_of(i)]);
        if stays || partly {
            self.keep(&vec![f]);
            parts.iter().for_each(|&p| self.keep(&vec![p]));
        }
        self.facts[f.0].parts = Some(parts);
        parts
    }

    fn root(&self, mut f: Factor) -> Factor {
        while self.same[f.0] != f.0 {
            f = Factor(self.same[f.0]);
        }
        f
    }

    fn tie(&mut self, a: usize, b: usize) {
        let (a, b) = (self.index_root(a), self.index_root(b));
        self.kept[a] |= self.kept[b];
        self.tied[b] = a;
    }

    fn index_root(&mut self, index: usize) -> usize {
        let root = self.index_root_of(index);
        let mut at = index;
        while self.tied[at] != root {
            at = std::mem::replace(&mut self.tied[at], root);
        }
        root
    }

    fn index_root_of(&self, mut index: usize) -> usize {
        while self.tied[index] != index {
            index = self.tied[index];
        }
        index
    }
}
