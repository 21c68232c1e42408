//! The whole network's parameters as a smaller one sees them.

use std::collections::HashMap;

use ampoule_distill_kernels::graph::{GraphError, Kind, Op};

use super::Size;
use crate::zoo::Network;

/// Where the parameters of a size are in the whole network's.
#[derive(Debug, Clone)]
pub(crate) struct Slices(Vec<Slice>);

#[derive(Debug, Clone)]
struct Slice {
    /// The whole network's parameter.
    of: usize,
    /// Rows, columns and places behind them: of the whole, and of the slice.
    whole: [usize; 3],
    own: [usize; 3],
    /// Whole columns over own ones, for weights that multiply channels.
    factor: f32,
    kind: Kind,
}

impl Slices {
    /// Those of a size.
    pub fn new(whole: &Network, size: &Size) -> Result<Self, GraphError> {
        let known: HashMap<&str, usize> = whole
            .parameters()
            .iter()
            .enumerate()
            .map(|(i, p)| (&*p.name, i))
            .collect();
        let graph = size.network().graph();
        let dense: Vec<usize> = graph
            .nodes()
            .iter()
            .filter_map(|n| match n.op {
                Op::Conv { weight, .. } => Some(weight.0),
                _ => None,
            })
            .collect();
        let slice = |(i, p): (usize, &ampoule_distill_kernels::graph::Parameter)| {
            let other = |what: String| GraphError {
                layer: p.name.clone(),
                what,
            };
            let name = size.original(&p.name);
            let of = known.get(&*name).copied();
            let of = of.ok_or_else(|| other(format!("the whole network has no `{name}`")))?;
            let (whole, own) = (blocks(&whole.parameters()[of].shape), blocks(&p.shape));
            if own[2] != whole[2] || own[0] > whole[0] || own[1] > whole[1] {
                return Err(other(format!("{own:?} is no part of {whole:?}")));
            }
            let is_dense = dense.contains(&i);
            Ok(Slice {
                of,
                whole,
                own,
                factor: if is_dense {
                    whole[1] as f32 / own[1] as f32
                } else {
                    1.0
                },
                kind: p.kind,
            })
        };
        let parameters = graph.parameters().iter().enumerate();
        Ok(Slices(parameters.map(slice).collect::<Result<_, _>>()?))
    }

    /// Zeros for all of its parameters.
    pub fn room(&self) -> Vec<Vec<f32>> {
        let len = |s: &Slice| s.own.iter().product();
        self.0.iter().map(|s| vec![0.0; len(s)]).collect()
    }

    /// Takes its parameters and statistics out of the whole network's.
    pub fn gather(&self, whole: &[Vec<f32>], own: &mut [Vec<f32>]) {
        for (slice, own) in self.0.iter().zip(own) {
            slice.rows(|from, to| {
                let pairs = own[to.clone()].iter_mut().zip(&whole[slice.of][from]);
                pairs.for_each(|(own, whole)| *own = slice.factor * whole);
            });
        }
    }

    /// Adds gradients of its parameters to those of the whole network's.
    pub fn scatter(&self, own: &[Vec<f32>], whole: &mut [Vec<f32>]) {
        for (slice, own) in self.0.iter().zip(own) {
            if slice.kind == Kind::Statistic {
                continue;
            }
            let whole = &mut whole[slice.of];
            slice.rows(|from, to| {
                let pairs = whole[from].iter_mut().zip(&own[to.clone()]);
                pairs.for_each(|(whole, own)| *whole += slice.factor * own);
            });
        }
    }
}

impl Slice {
    /// Calls `each` with the places of each row in the whole and in the slice.
    fn rows(&self, mut each: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>)) {
        let ([_, whole, places], [rows, own, _]) = (self.whole, self.own);
        for row in 0..rows {
            let (from, to) = (row * whole * places, row * own * places);
            each(from..from + own * places, to..to + own * places);
        }
    }
}

/// Rows, columns, and all behind them.
fn blocks(shape: &[usize]) -> [usize; 3] {
    let at = |axis: usize| shape.get(axis).copied().unwrap_or(1);
    [at(0), at(1), shape.iter().skip(2).product()]
}
