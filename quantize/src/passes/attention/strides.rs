//! Values as strided views of the value they are moved from.

use crate::graph::{Node, Op, ValueId};
use crate::passes::edit::Edit;

/// One loop of an axis: size and step in elements of the base.
pub(super) type Loop = (usize, usize);

/// A view: each axis is a list of loops, outermost first, none of size 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Strided {
    pub start: usize,
    pub axes: Vec<Vec<Loop>>,
}

impl Strided {
    /// A whole tensor.
    pub fn contiguous(shape: &[usize]) -> Self {
        let mut step = 1;
        let mut axes: Vec<Vec<Loop>> = shape
            .iter()
            .rev()
            .map(|&n| {
                let axis = if n == 1 { vec![] } else { vec![(n, step)] };
                step *= n;
                axis
            })
            .collect();
        axes.reverse();
        Strided { start: 0, axes }
    }

    /// The result of a movement, `None` where that is no view.
    pub fn after(&self, op: &Op) -> Option<Strided> {
        let mut out = self.clone();
        match op {
            Op::Transpose(perm) => {
                out.axes = perm.iter().map(|&p| self.axes[p].clone()).collect();
            }
            Op::Slice {
                axis,
                start,
                len,
                step,
            } => {
                let step = usize::try_from(*step).ok()?;
                let loops = merged(&self.axes[*axis]);
                let at = match loops[..] {
                    [] => 0,
                    [(_, s)] => s,
                    _ => return None,
                };
                out.start += start * at;
                out.axes[*axis] = if *len == 1 {
                    vec![]
                } else {
                    vec![(*len, at * step)]
                };
            }
            Op::Reshape(shape) => {
                let flat: Vec<Loop> = self.axes.iter().flatten().copied().collect();
                let mut rest = merged(&flat);
                rest.reverse();
                out.axes = shape
                    .iter()
                    .map(|&n| take(&mut rest, n))
                    .collect::<Option<_>>()?;
            }
            _ => return None,
        }
        Some(out)
    }
}

/// Takes loops of `size` iterations from the end of a reversed list.
fn take(rest: &mut Vec<Loop>, mut size: usize) -> Option<Vec<Loop>> {
    let mut out = Vec::new();
    while size > 1 {
        let (n, step) = rest.pop()?;
        if size % n == 0 {
            out.push((n, step));
            size /= n;
        } else if n % size == 0 {
            let inner = n / size;
            out.push((size, step * inner));
            rest.push((inner, step));
            size = 1;
        } else {
            return None;
        }
    }
    Some(out)
}

/// Neighbouring loops that go on evenly as one.
pub(super) fn merged(loops: &[Loop]) -> Vec<Loop> {
    let mut out: Vec<Loop> = Vec::new();
    for &(n, step) in loops {
        match out.last_mut() {
            Some((m, outer)) if *outer == n * step => (*m, *outer) = (*m * n, step),
            _ => out.push((n, step)),
        }
    }
    out
}

/// The value that `v` is a view of, as far up as that goes.
pub(super) fn trace(edit: &Edit<'_>, v: ValueId) -> (ValueId, Strided) {
    let mut chain: Vec<&Node> = Vec::new();
    let mut base = v;
    while let Some(node) = edit
        .producer(base)
        .filter(|n| matches!(n.op, Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. }))
    {
        chain.push(node);
        base = node.inputs[0];
    }
    chain.reverse();
    for skip in 0..=chain.len() {
        let base = if skip == 0 {
            base
        } else {
            chain[skip - 1].output
        };
        let start = Strided::contiguous(edit.shape(base));
        let view = chain[skip..]
            .iter()
            .try_fold(start, |view, node| view.after(&node.op));
        if let Some(view) = view {
            return (base, view);
        }
    }
    (v, Strided::contiguous(edit.shape(v)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_a_map_are_loops() {
        let map = Strided::contiguous(&[1, 8, 6, 5]);
        let cut = map.after(&Op::Reshape(vec![1, 2, 4, 3, 2, 5])).unwrap();
        let cut = cut.after(&Op::Transpose(vec![0, 1, 3, 2, 4, 5])).unwrap();
        let windows = cut.after(&Op::Reshape(vec![6, 8, 5])).unwrap();
        assert_eq!(
            windows.axes,
            [vec![(2, 120), (3, 10)], vec![(4, 30), (2, 5)], vec![(5, 1)]]
        );
        let half = windows
            .after(&Op::Slice {
                axis: 2,
                start: 2,
                len: 3,
                step: 1,
            })
            .unwrap();
        assert_eq!((half.start, &half.axes[2][..]), (2, &[(3, 1)][..]));
        assert_eq!(
            windows.after(&Op::Reshape(vec![48, 5])).unwrap().axes.len(),
            2
        );
        assert!(
            windows
                .after(&Op::Slice {
                    axis: 1,
                    start: 1,
                    len: 2,
                    step: 1
                })
                .is_none()
        );
    }

    #[test]
    fn loops_are_split_and_merged() {
        let x = Strided::contiguous(&[6, 4]);
        assert_eq!(
            x.after(&Op::Reshape(vec![3, 8])).unwrap().axes,
            [vec![(3, 8)], vec![(8, 1)]]
        );
        let t = x.after(&Op::Transpose(vec![1, 0])).unwrap();
        assert_eq!(
            t.after(&Op::Reshape(vec![2, 12])).unwrap().axes,
            [vec![(2, 2)], vec![(2, 1), (6, 4)]]
        );
        assert!(t.after(&Op::Reshape(vec![3, 8])).is_none());
        assert_eq!(merged(&[(2, 12), (3, 4), (4, 1)]), [(24, 1)]);
    }
}
