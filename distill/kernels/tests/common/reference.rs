//! The layers in double precision, written plainly: the oracle of the gradient tests.

use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;

/// Outputs of a graph. `statistics` has norms use those of the batch.
pub fn forward(
    graph: &Graph,
    parameters: &[Vec<f64>],
    inputs: &[Vec<f64>],
    batch: usize,
    statistics: bool,
) -> Vec<f64> {
    let plain = |_: &Node, x: &[&[f64]], layer: &Layer<'_>| layer(x);
    forward_with(graph, parameters, inputs, batch, statistics, &plain)
}

/// A layer on its inputs.
pub type Layer<'l> = dyn Fn(&[&[f64]]) -> Vec<f64> + 'l;

/// [`forward`] with something else in the place of each layer: `compute` gets the node, its inputs and the layer.
pub fn forward_with(
    graph: &Graph,
    parameters: &[Vec<f64>],
    inputs: &[Vec<f64>],
    batch: usize,
    statistics: bool,
    compute: &dyn Fn(&Node, &[&[f64]], &Layer<'_>) -> Vec<f64>,
) -> Vec<f64> {
    let last = graph.nodes().iter().map(|n| n.output).max();
    let count = 1 + last
        .max(graph.inputs().iter().copied().max())
        .map_or(0, |v| v.0);
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); count];
    for (value, input) in graph.inputs().iter().zip(inputs) {
        values[value.0] = input.clone();
    }
    for node in graph.nodes() {
        let x: Vec<&[f64]> = node.inputs.iter().map(|v| &values[v.0][..]).collect();
        let maps: Vec<Map> = node.inputs.iter().map(|&v| graph.map(v)).collect();
        let to = graph.map(node.output);
        let plain = |x: &[&[f64]]| layer(&node.op, parameters, x, &maps, to, batch, statistics);
        values[node.output.0] = compute(node, &x, &plain);
    }
    graph
        .outputs()
        .iter()
        .flat_map(|o| values[o.0].clone())
        .collect()
}

fn layer(
    op: &Op,
    p: &[Vec<f64>],
    x: &[&[f64]],
    maps: &[Map],
    to: Map,
    batch: usize,
    statistics: bool,
) -> Vec<f64> {
    let of = |id: &ParameterId| &p[id.0];
    let (x0, m) = (x[0], maps[0]);
    let c = m.channels;
    match op {
        Op::Conv {
            weight,
            bias,
            window,
        } => pixels(batch, to, |b, y, x, o| {
            let taps = taps(window, m, y, x).map(|(t, at)| {
                let place = |i: usize| x0[(b * m.pixels() + at) * c + i];
                (0..c)
                    .map(|i| place(i) * of(weight)[(o * c + i) * window.taps() + t])
                    .sum::<f64>()
            });
            taps.sum::<f64>() + bias.map_or(0.0, |b| p[b.0][o])
        }),
        Op::Depthwise {
            weight,
            bias,
            window,
        } => pixels(batch, to, |b, y, x, o| {
            let taps = taps(window, m, y, x);
            let products = taps.map(|(t, at)| {
                x0[(b * m.pixels() + at) * c + o] * of(weight)[o * window.taps() + t]
            });
            products.sum::<f64>() + bias.map_or(0.0, |b| p[b.0][o])
        }),
        Op::BatchNorm(n) => {
            let rows = batch * m.pixels();
            let column = |o: usize| (0..rows).map(move |r| x0[r * c + o]);
            let moments = |o: usize| {
                let mean = column(o).sum::<f64>() / rows as f64;
                (
                    mean,
                    column(o).map(|x| (x - mean).powi(2)).sum::<f64>() / rows as f64,
                )
            };
            let moments: Vec<_> = (0..c)
                .map(|o| {
                    if statistics {
                        moments(o)
                    } else {
                        (of(&n.mean)[o], of(&n.variance)[o])
                    }
                })
                .collect();
            let one = |(i, x): (usize, &f64)| {
                let (mean, variance) = moments[i % c];
                (x - mean) / (variance + n.epsilon as f64).sqrt() * of(&n.weight)[i % c]
                    + of(&n.bias)[i % c]
            };
            x0.iter().enumerate().map(one).collect()
        }
        Op::LayerNorm {
            weight,
            bias,
            epsilon,
        } => x0
            .chunks_exact(c)
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / c as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
                let r = 1.0 / (variance + *epsilon as f64).sqrt();
                let one = move |(i, x): (usize, &f64)| (x - mean) * r * of(weight)[i] + of(bias)[i];
                row.iter().enumerate().map(one).collect::<Vec<_>>()
            })
            .collect(),
        Op::Activation(f) => x0.iter().map(|&x| activation(*f, x)).collect(),
        Op::Attention(a) => attention(a, p, x, maps, batch),
        Op::Add { .. } => (0..x0.len())
            .map(|i| x.iter().map(|x| x[i]).sum())
            .collect(),
        Op::Gate => pixels(batch, to, |b, y, x_, o| {
            let at = ((b * m.height + y) * m.width + x_) * c + o;
            x0[at]
                * x[1][if x[1].len() == x0.len() {
                    at
                } else {
                    b * c + o
                }]
        }),
        Op::AveragePool(window) => pixels(batch, to, |b, y, x, o| {
            let taps: Vec<_> = taps(window, m, y, x).collect();
            let sum: f64 = taps
                .iter()
                .map(|(_, at)| x0[(b * m.pixels() + at) * c + o])
                .sum();
            sum / taps.len() as f64
        }),
        Op::MaxPool(window) => pixels(batch, to, |b, y, x, o| {
            taps(window, m, y, x)
                .map(|(_, at)| x0[(b * m.pixels() + at) * c + o])
                .fold(f64::NEG_INFINITY, f64::max)
        }),
        Op::Mean => pixels(batch, to, |b, _, _, o| {
            (0..m.pixels())
                .map(|at| x0[(b * m.pixels() + at) * c + o])
                .sum::<f64>()
                / m.pixels() as f64
        }),
        Op::MaskedMean => pixels(batch, to, |b, _, _, o| {
            let seen = (0..m.pixels()).filter(|at| x[1][b * m.pixels() + at] != 0.0);
            let seen: Vec<usize> = seen.map(|at| b * m.pixels() + at).collect();
            let weight = |at: usize| x.get(2).map_or(1.0, |w| w[at]);
            let sum: f64 = seen.iter().map(|&at| weight(at) * x0[at * c + o]).sum();
            sum / seen.len().max(1) as f64
        }),
        Op::Embedding { table } => x0
            .iter()
            .flat_map(|&id| of(table)[id as usize * to.channels..][..to.channels].to_vec())
            .collect(),
        Op::Positions { table } => (0..x0.len())
            .map(|i| x0[i] + of(table)[i % m.len()])
            .collect(),
        Op::Queries { table, .. } => of(table).repeat(batch),
        Op::Tokens { table } => x0
            .chunks_exact(m.len())
            .flat_map(|x| [of(table), x].concat())
            .collect(),
        Op::Normalize => x0
            .chunks_exact(c)
            .flat_map(|row| {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.iter().map(move |x| x / norm)
            })
            .collect(),
        Op::Pad(_) | Op::Crop(_) => pixels(batch, to, |b, y, x, o| {
            let inside = y < m.height && x < m.width;
            if inside {
                x0[((b * m.height + y) * m.width + x) * c + o]
            } else {
                0.0
            }
        }),
        other => panic!("no reference for {other:?}"),
    }
}

fn pixels(batch: usize, to: Map, of: impl Fn(usize, usize, usize, usize) -> f64) -> Vec<f64> {
    let mut out = Vec::new();
    for b in 0..batch {
        for y in 0..to.height {
            for x in 0..to.width {
                out.extend((0..to.channels).map(|o| of(b, y, x, o)));
            }
        }
    }
    out
}

/// Places of a window on the map, with their pixels.
fn taps(w: &Window, m: Map, y: usize, x: usize) -> impl Iterator<Item = (usize, usize)> {
    let w = *w;
    (0..w.taps()).filter_map(move |t| {
        let at = |at: usize, axis: usize, tap: usize, size: usize| {
            let place = (at * w.stride[axis] + tap).checked_sub(w.pads[axis])?;
            (place < size).then_some(place)
        };
        let row = at(y, 0, t / w.kernel[1], m.height)?;
        Some((t, row * m.width + at(x, 1, t % w.kernel[1], m.width)?))
    })
}

fn attention(a: &Attention, p: &[Vec<f64>], x: &[&[f64]], maps: &[Map], batch: usize) -> Vec<f64> {
    let m = maps[0];
    let [wh, ww] = a.window.unwrap_or([m.height, m.width]);
    let (n, d) = (wh * ww, a.head_size);
    let mut out = vec![0.0; batch * m.pixels() * a.heads * d];
    for b in 0..batch {
        for (window, h) in (0..m.pixels() / n).flat_map(|w| (0..a.heads).map(move |h| (w, h))) {
            let across = m.width / ww;
            let row = |t: usize| {
                let (y, x) = (window / across * wh + t / ww, window % across * ww + t % ww);
                b * m.pixels() + y * m.width + x
            };
            let get = |part: usize, t: usize, i: usize| {
                let lane = &a.lanes[part];
                x[lane.input]
                    [row(t) * maps[lane.input].channels + lane.offset + h * lane.stride + i]
            };
            for t in 0..n {
                let logit = |u: usize| {
                    let product: f64 = (0..d).map(|i| get(0, t, i) * get(1, u, i)).sum();
                    let bias = a.bias.as_ref().map_or(0.0, |bias| {
                        let table = &p[bias.table.0];
                        table[h * table.len() / a.heads + bias.index[t * n + u] as usize]
                    });
                    let padding = a.mask.is_some_and(|mask| x[mask][row(u)] == 0.0);
                    if padding || (a.causal && u > t) {
                        f64::NEG_INFINITY
                    } else {
                        product * a.scale as f64 + bias
                    }
                };
                let weights: Vec<f64> = (0..n).map(|u| logit(u).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..d {
                    let sum: f64 = (0..n).map(|u| weights[u] * get(2, u, i)).sum();
                    out[(row(t) * a.heads + h) * d + i] = sum / total;
                }
            }
        }
    }
    out
}

fn activation(f: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let hard = ((x + 3.0) / 6.0).clamp(0.0, 1.0);
    match f {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Gelu => x * distribution(x),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
        Activation::HardSwish => x * hard,
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSigmoid => hard,
        Activation::Tanh => x.tanh(),
        other => panic!("no reference for {other:?}"),
    }
}

/// Φ(x) by the series of erf, for the moderate values of the tests.
fn distribution(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..150 {
        term *= -z * z / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    0.5 + sum / std::f64::consts::PI.sqrt()
}
