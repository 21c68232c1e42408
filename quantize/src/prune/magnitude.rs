//! Zeros in place of small weights, in the graph's shape.

use std::collections::BTreeSet;

use super::PruneError;
use crate::graph::{Graph, Op, ValueId};

/// Which weights become zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sparsity {
    /// The smallest of all layers together, this share of them.
    Global(f32),
    /// Of each `m` neighbours along a layer's inputs all but the `n` largest, as sparse tensor cores take them (2:4).
    OutOf {
        /// How many stay.
        n: usize,
        /// Of how many.
        m: usize,
    },
}

/// What became zero.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LayerSparsity {
    /// The layer.
    pub name: String,
    /// Its weights.
    pub weights: usize,
    /// Those that are zero now.
    pub zeros: usize,
}

/// Sets small weights of convolutions and linear layers to zero; biases and norms stay
/// ("Sparse then Prune: Toward Efficient Vision Transformers", Prasetyo et al., 2023, after training with their
/// regulariser). Files compress better, but no kernel here is faster for scattered zeros.
///
/// # Errors
///
/// [`PruneError::Share`] for a share that is not between 0 and 1, [`PruneError::Pattern`] for a pattern that leaves
/// nothing or everything, [`PruneError::Nothing`] without layers.
pub fn magnitude(graph: &mut Graph, sparsity: Sparsity) -> Result<Vec<LayerSparsity>, PruneError> {
    let layers = layers(graph);
    if layers.is_empty() {
        return Err(PruneError::Nothing {
            nodes: graph.nodes.len(),
        });
    }
    match sparsity {
        Sparsity::Global(share) if !(share > 0.0 && share < 1.0) => {
            return Err(PruneError::Share { share });
        }
        Sparsity::OutOf { n, m } if n == 0 || n >= m => return Err(PruneError::Pattern { n, m }),
        _ => {}
    }
    let limit = match sparsity {
        Sparsity::Global(share) => smallest(graph, &layers, share),
        Sparsity::OutOf { .. } => (0.0, 0),
    };
    let (bound, mut ties) = limit;
    let mut report = Vec::new();
    for (name, w) in layers {
        let row = *graph.shape(w).last().unwrap_or(&1);
        let Some(data) = graph.constant(w) else {
            continue;
        };
        let mut data = data.to_vec();
        match sparsity {
            Sparsity::Global(_) => {
                for v in &mut data {
                    let equal = v.abs() == bound && ties > 0;
                    if v.abs() < bound || equal {
                        ties -= usize::from(equal);
                        *v = 0.0;
                    }
                }
            }
            Sparsity::OutOf { n, m } => {
                let groups = data.chunks_mut(row).flat_map(|row| row.chunks_mut(m));
                groups.for_each(|group| keep_largest(group, n));
            }
        }
        report.push(LayerSparsity {
            name,
            weights: data.len(),
            zeros: data.iter().filter(|&&v| v == 0.0).count(),
        });
        graph.value_mut(w).data = Some(data.into());
    }
    Ok(report)
}

/// Weights of layers, each once, with the layer's name.
fn layers(graph: &Graph) -> Vec<(String, ValueId)> {
    let mut seen = BTreeSet::new();
    let weights = graph.nodes.iter().filter_map(|n| match n.op {
        Op::Conv { .. } | Op::Linear { .. } => Some((n.name.clone(), n.inputs[1])),
        _ => None,
    });
    weights
        .filter(|(_, w)| graph.constant(*w).is_some() && seen.insert(*w))
        .collect()
}

/// The magnitude below which weights go, and how many of those that have it go, too.
fn smallest(graph: &Graph, layers: &[(String, ValueId)], share: f32) -> (f32, usize) {
    let data = layers.iter().filter_map(|(_, w)| graph.constant(*w));
    let mut all: Vec<f32> = data.flat_map(|d| d.iter().map(|v| v.abs())).collect();
    let gone = (all.len() as f64 * f64::from(share)).round() as usize;
    if gone == 0 {
        return (0.0, 0);
    }
    let (_, &mut bound, _) = all.select_nth_unstable_by(gone - 1, f32::total_cmp);
    let below = all.iter().filter(|&&v| v < bound).count();
    (bound, gone - below)
}

fn keep_largest(group: &mut [f32], n: usize) {
    let mut order: Vec<usize> = (0..group.len()).collect();
    order.sort_by(|&a, &b| group[b].abs().total_cmp(&group[a].abs()));
    order.iter().skip(n).for_each(|&i| group[i] = 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(weights: Vec<f32>, inputs: usize) -> Graph {
        let mut g = Graph::default();
        let x = g.input("x", &[1, inputs]);
        let outputs = weights.len() / inputs;
        let w = g.constant_value("w", &[outputs, inputs], weights);
        let b = g.constant_value("b", &[outputs], vec![0.0; outputs]);
        let op = Op::Linear {
            residual: false,
            activation: None,
        };
        let y = g.push("fc", op, &[x, w, b]).unwrap();
        g.output("y", y);
        g
    }

    fn weights(g: &Graph) -> Vec<f32> {
        g.constant(g.nodes[0].inputs[1]).unwrap().to_vec()
    }

    #[test]
    fn the_smallest_go_and_ties_are_counted() {
        let mut g = layer(vec![1.0, -2.0, 2.0, 0.5, 2.0, 3.0], 3);
        let report = magnitude(&mut g, Sparsity::Global(0.5)).unwrap();
        assert_eq!(weights(&g), [0.0, 0.0, 2.0, 0.0, 2.0, 3.0]);
        assert_eq!((report[0].weights, report[0].zeros), (6, 3));
    }

    #[test]
    fn two_of_four_stay() {
        let mut g = layer(vec![1.0, -2.0, 3.0, 0.5, 0.1, 0.2, 0.3, -0.4], 4);
        magnitude(&mut g, Sparsity::OutOf { n: 2, m: 4 }).unwrap();
        assert_eq!(weights(&g), [0.0, -2.0, 3.0, 0.0, 0.0, 0.0, 0.3, -0.4]);
    }

    #[test]
    fn bad_requests_are_refused() {
        let mut g = layer(vec![1.0; 4], 2);
        for share in [0.0, 1.0, -0.5, f32::NAN, f32::INFINITY] {
            let error = magnitude(&mut g, Sparsity::Global(share)).unwrap_err();
            assert!(matches!(error, PruneError::Share { .. }), "{error}");
        }
        let error = magnitude(&mut g, Sparsity::OutOf { n: 4, m: 4 }).unwrap_err();
        assert!(matches!(error, PruneError::Pattern { n: 4, m: 4 }));
        let error = magnitude(&mut Graph::default(), Sparsity::Global(0.5)).unwrap_err();
        assert!(matches!(error, PruneError::Nothing { nodes: 0 }));
    }
}
