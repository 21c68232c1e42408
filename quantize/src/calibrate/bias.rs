//! Bias correction: the mean error that rounded weights make.

use ampoule_runtime::ops::Window;

use super::CalibrateError;
use crate::graph::{Graph, Node, Op};

/// How the rows of a weight tensor meet input channels. Weights are `[rows, taps, channels]`, and row
/// `r` reads the channels of group `r · groups / rows`.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Output channels.
    pub rows: usize,
    /// Input channels per group.
    pub channels: usize,
    /// Groups.
    pub groups: usize,
    /// Per kernel position, the share of output positions at which it lies inside the map; padding
    /// contributes nothing to the mean.
    pub coverage: Vec<f64>,
}

impl Geometry {
    /// A linear layer.
    pub fn linear(rows: usize, channels: usize) -> Geometry {
        Geometry {
            rows,
            channels,
            groups: 1,
            coverage: vec![1.0],
        }
    }

    /// A convolution of a map of height and width `input` with zero padding; `channels` per group.
    pub fn conv(
        rows: usize,
        channels: usize,
        groups: usize,
        window: &Window,
        input: [usize; 2],
    ) -> Geometry {
        let (down, across) = (
            axis_coverage(window, 0, input[0]),
            axis_coverage(window, 1, input[1]),
        );
        let coverage = down
            .iter()
            .flat_map(|y| across.iter().map(move |x| y * x))
            .collect();
        Geometry {
            rows,
            channels,
            groups,
            coverage,
        }
    }

    /// The geometry of a convolution or linear node, `None` for any other.
    pub fn of(graph: &Graph, node: &Node) -> Option<Geometry> {
        let (x, w) = (
            graph.shape(*node.inputs.first()?),
            graph.shape(*node.inputs.get(1)?),
        );
        match (&node.op, x, w) {
            (Op::Conv { window, groups, .. }, [_, height, width, _], [rows, _, _, channels]) => {
                Some(Geometry::conv(
                    *rows,
                    *channels,
                    *groups,
                    window,
                    [*height, *width],
                ))
            }
            (Op::Linear { .. }, _, [rows, channels]) => Some(Geometry::linear(*rows, *channels)),
            _ => None,
        }
    }
}

/// Per tap along an axis, the share of output positions at which it lies inside the input.
fn axis_coverage(window: &Window, axis: usize, input: usize) -> Vec<f64> {
    let outputs = window.output(axis, input).unwrap_or(0);
    let (stride, dilation) = (
        usize::from(window.stride[axis]),
        usize::from(window.dilation[axis]),
    );
    let pad = usize::from(window.pad[axis]);
    let inside = |tap: usize| {
        let at = |o: usize| o * stride + tap * dilation;
        (0..outputs)
            .filter(|&o| (pad..pad + input).contains(&at(o)))
            .count()
    };
    (0..usize::from(window.kernel[axis]))
        .map(|tap| inside(tap) as f64 / outputs.max(1) as f64)
        .collect()
}

/// Expected error per output channel, `E[Δ] = Σ_k (ŵ_k − w_k) · E[x_k]`, of using `rounded` weights
/// in place of `weights` on inputs with these channel `means`. Subtract it from the bias.
///
/// # Errors
///
/// [`CalibrateError::Length`] when a slice does not fit the geometry.
pub fn expected_shift(
    weights: &[f32],
    rounded: &[f32],
    means: &[f32],
    geometry: &Geometry,
) -> Result<Vec<f32>, CalibrateError> {
    let Geometry {
        rows,
        channels,
        groups,
        ref coverage,
    } = *geometry;
    let row_len = coverage.len() * channels;
    check_length("weights", rows * row_len, weights.len())?;
    check_length("rounded weights", rows * row_len, rounded.len())?;
    check_length("channel means", groups * channels, means.len())?;
    if row_len == 0 || groups == 0 || !rows.is_multiple_of(groups) {
        return Ok(vec![0.0; rows]);
    }
    let row_pairs = weights
        .chunks_exact(row_len)
        .zip(rounded.chunks_exact(row_len));
    let shift = |(row, (w, r)): (usize, (&[f32], &[f32]))| {
        let group = row / (rows / groups);
        let means = &means[group * channels..][..channels];
        let taps = w
            .chunks_exact(channels)
            .zip(r.chunks_exact(channels))
            .zip(coverage);
        taps.map(|((w, r), inside)| inside * mean_error(w, r, means))
            .sum::<f64>() as f32
    };
    Ok(row_pairs.enumerate().map(shift).collect())
}

fn mean_error(weights: &[f32], rounded: &[f32], means: &[f32]) -> f64 {
    let difference = weights
        .iter()
        .zip(rounded)
        .map(|(w, r)| f64::from(*r) - f64::from(*w));
    difference.zip(means).map(|(d, m)| d * f64::from(*m)).sum()
}

fn check_length(what: &str, expected: usize, got: usize) -> Result<(), CalibrateError> {
    if expected == got {
        return Ok(());
    }
    Err(CalibrateError::Length {
        tensor: what.to_owned(),
        expected: expected.to_string(),
        got,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;

    const SAME_3X3: Window = Window {
        kernel: [3, 3],
        stride: [2, 1],
        dilation: [1, 2],
        pad: [1, 2, 1, 2],
    };

    #[test]
    fn linear_by_hand() {
        let g = Geometry::linear(2, 3);
        let w = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let r = [1.5, 2.0, 2.0, 4.0, 5.25, 6.0];
        assert_eq!(
            expected_shift(&w, &r, &[2.0, 7.0, 10.0], &g),
            Ok(vec![0.5 * 2.0 - 10.0, 0.25 * 7.0])
        );
    }

    #[test]
    fn coverage_counts_positions_inside_the_map() {
        let g = Geometry::conv(
            1,
            1,
            1,
            &Window {
                pad: [1, 1, 1, 1],
                kernel: [3, 3],
                ..Window::POINT
            },
            [4, 2],
        );
        let (down, across) = ([0.75, 1.0, 0.75], [0.5, 1.0, 0.5]);
        let expected: Vec<f64> = down.iter().flat_map(|y| across.map(|x| x * y)).collect();
        assert_eq!(g.coverage, expected);
    }

    /// The shift is the measured mean difference of the outputs when a channel is constant.
    #[test]
    fn shift_is_the_measured_one_for_dense_grouped_and_depthwise() {
        let mut rng = Lcg(8);
        let (height, width) = (7, 6);
        for (rows, channels, groups) in [(4, 3, 1), (4, 2, 2), (5, 1, 5), (6, 1, 3)] {
            let g = Geometry::conv(rows, channels, groups, &SAME_3X3, [height, width]);
            let w = rng.gaussians(rows * 9 * channels);
            let r: Vec<f32> = w.iter().map(|w| (w * 8.0).round() / 8.0).collect();
            let means = rng.gaussians(groups * channels);
            let shift = expected_shift(&w, &r, &means, &g).unwrap();
            let (before, after) = (
                mean_output(&w, &means, &g, height, width),
                mean_output(&r, &means, &g, height, width),
            );
            for row in 0..rows {
                let measured = after[row] - before[row];
                assert!(
                    (measured - f64::from(shift[row])).abs() < 1e-5,
                    "{measured} {}",
                    shift[row]
                );
            }
        }
    }

    fn mean_output(
        weights: &[f32],
        means: &[f32],
        g: &Geometry,
        height: usize,
        width: usize,
    ) -> Vec<f64> {
        let window = SAME_3X3;
        let (oh, ow) = (
            window.output(0, height).unwrap(),
            window.output(1, width).unwrap(),
        );
        let inside = |o: usize, tap: usize, axis: usize, size: usize| {
            let at = o * window.stride[axis] as usize + tap * window.dilation[axis] as usize;
            (window.pad[axis] as usize..window.pad[axis] as usize + size).contains(&at)
        };
        (0..g.rows)
            .map(|row| {
                let group = row * g.groups / g.rows;
                let mut sum = 0.0;
                for (y, x, i) in
                    (0..oh).flat_map(|y| (0..ow).flat_map(move |x| (0..9).map(move |i| (y, x, i))))
                {
                    if !inside(y, i / 3, 0, height) || !inside(x, i % 3, 1, width) {
                        continue;
                    }
                    for c in 0..g.channels {
                        let w = weights[(row * 9 + i) * g.channels + c];
                        sum += f64::from(w) * f64::from(means[group * g.channels + c]);
                    }
                }
                sum / (oh * ow) as f64
            })
            .collect()
    }

    #[test]
    fn lengths_are_checked() {
        let g = Geometry::linear(2, 3);
        let message = expected_shift(&[0.0; 6], &[0.0; 6], &[0.0; 2], &g)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("channel means") && message.contains("expected 3, got 2"),
            "{message}"
        );
    }

    #[test]
    fn nodes_give_their_geometry() {
        let mut graph = Graph::default();
        let x = graph.input("x", &[1, 4, 2, 6]);
        let w = graph.constant_value("w", &[6, 1, 1, 1], vec![0.0; 6]);
        let b = graph.constant_value("b", &[6], vec![0.0; 6]);
        let conv = Op::Conv {
            window: Window::POINT,
            groups: 6,
            residual: false,
            activation: None,
        };
        graph.push("dw", conv, &[x, w, b]).unwrap();
        let g = Geometry::of(&graph, &graph.nodes[0]).unwrap();
        assert_eq!(
            (g.rows, g.channels, g.groups, g.coverage),
            (6, 1, 6, vec![1.0])
        );
    }
}
