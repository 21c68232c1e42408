//! Zeros in place of small weights, in the graph's shape.

use std::collections::BTreeSet;

use ampoule_runtime::ops::conv::QUAD;

use super::PruneError;
use crate::graph::{Graph, Op, ValueId};
use crate::lower::{pixels, runs_sparse};

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
    /// The blocks of four neighbours along a layer's inputs with the least sum of squares, this share of each layer that
    /// [can run from a list of blocks](crate::lower::runs_sparse). Others stay whole.
    Blocks(f32),
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
    /// Its output pixels.
    pub pixels: usize,
    /// Its output channels.
    pub channels: usize,
    /// Blocks of four neighbours along its inputs, where it [can run from a list of them](crate::lower::runs_sparse).
    pub blocks: usize,
    /// Blocks that are zero.
    pub empty_blocks: usize,
}

/// Sets small weights of convolutions and linear layers to zero; biases and norms stay
/// ("Sparse then Prune: Toward Efficient Vision Transformers", Prasetyo et al., 2023, after training with their
/// regulariser). Files compress better; kernels are faster only for [whole blocks](Sparsity::Blocks) of zeros.
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
        Sparsity::Global(share) | Sparsity::Blocks(share) if !(share > 0.0 && share < 1.0) => {
            return Err(PruneError::Share { share });
        }
        Sparsity::OutOf { n, m } if n == 0 || n >= m => return Err(PruneError::Pattern { n, m }),
        _ => {}
    }
    let limit = match sparsity {
        Sparsity::Global(share) => smallest(graph, &layers, share),
        _ => (0.0, 0),
    };
    let (bound, mut ties) = limit;
    let mut report = Vec::new();
    for Layer {
        name,
        w,
        pixels,
        runs_sparse,
    } in layers
    {
        let row = graph.shape(w).last().copied().unwrap_or(1).max(1);
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
            Sparsity::Blocks(share) if runs_sparse => empty_smallest(&mut data, row, share),
            Sparsity::Blocks(_) => {}
        }
        let blocks = || data.chunks(row).flat_map(|row| row.chunks(QUAD));
        let empty = |block: &&[f32]| block.iter().all(|&w| w == 0.0);
        report.push(LayerSparsity {
            name,
            weights: data.len(),
            zeros: data.iter().filter(|&&v| v == 0.0).count(),
            pixels,
            channels: data.len() / row,
            blocks: if runs_sparse { blocks().count() } else { 0 },
            empty_blocks: if runs_sparse {
                blocks().filter(empty).count()
            } else {
                0
            },
        });
        graph.value_mut(w).data = Some(data.into());
    }
    Ok(report)
}

/// Weights and the first layer that has them.
struct Layer {
    name: String,
    w: ValueId,
    pixels: usize,
    runs_sparse: bool,
}

/// Layers, each weights once.
fn layers(graph: &Graph) -> Vec<Layer> {
    let mut seen = BTreeSet::new();
    let layers = graph.nodes.iter().filter_map(|n| match n.op {
        Op::Conv { .. } | Op::Linear { .. } => Some(Layer {
            name: n.name.clone(),
            w: n.inputs[1],
            pixels: pixels(graph, n),
            runs_sparse: runs_sparse(graph, n),
        }),
        _ => None,
    });
    layers
        .filter(|l| graph.constant(l.w).is_some() && seen.insert(l.w))
        .collect()
}

/// The magnitude below which weights go, and how many of those that have it go, too.
fn smallest(graph: &Graph, layers: &[Layer], share: f32) -> (f32, usize) {
    let data = layers.iter().filter_map(|l| graph.constant(l.w));
    let mut all: Vec<f32> = data.flat_map(|d| d.iter().map(|v| v.abs())).collect();
    let gone = (all.len() as f64 * f64::from(share)).round() as usize;
    if gone == 0 {
        return (0.0, 0);
    }
    let (_, &mut bound, _) = all.select_nth_unstable_by(gone - 1, f32::total_cmp);
    let below = all.iter().filter(|&&v| v < bound).count();
    (bound, gone - below)
}

/// Sets the blocks of rows with the least sum of squares to zero.
fn empty_smallest(data: &mut [f32], row: usize, share: f32) {
    let mut blocks: Vec<&mut [f32]> = data
        .chunks_mut(row)
        .flat_map(|row| row.chunks_mut(QUAD))
        .collect();
    let gone = (blocks.len() as f64 * f64::from(share)).round() as usize;
    // The order of blocks that are equal is that of the layer.
    let square = |block: &[f32]| block.iter().map(|w| w * w).sum::<f32>();
    blocks.sort_by(|a, b| square(a).total_cmp(&square(b)));
    let smallest = blocks.into_iter().take(gone);
    smallest.for_each(|block| block.fill(0.0));
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
        layer_over(1, weights, inputs)
    }

    fn layer_over(pixels: usize, weights: Vec<f32>, inputs: usize) -> Graph {
        let mut g = Graph::default();
        let x = g.input("x", &[pixels, inputs]);
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
    fn the_smallest_blocks_go() {
        let plain = vec![
            1.0, 0.0, 0.0, 0.0, 3.0, -3.0, 0.5, 0.5, 0.5, 0.5, 0.0, 2.0, 0.1, 0.2,
        ];
        let mut g = layer_over(16, plain.clone(), 7);
        let report = magnitude(&mut g, Sparsity::Blocks(0.5)).unwrap();
        let expected = [
            0.0, 0.0, 0.0, 0.0, 3.0, -3.0, 0.5, 0.0, 0.0, 0.0, 0.0, 2.0, 0.1, 0.2,
        ];
        assert_eq!(weights(&g), expected);
        assert_eq!((report[0].blocks, report[0].empty_blocks), (4, 2));
        // A layer of few pixels has no kernel for them.
        let mut g = layer_over(15, plain.clone(), 7);
        let report = magnitude(&mut g, Sparsity::Blocks(0.5)).unwrap();
        assert_eq!(weights(&g), plain);
        assert_eq!((report[0].blocks, report[0].empty_blocks), (0, 0));
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
