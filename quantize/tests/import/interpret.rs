//! A plain interpreter of the float graph: loops that follow the documentation of each operator.

use std::collections::HashMap;

use ampoule_quantize::graph::{
    Attention, Graph, Node, Op, ReduceKind, ResizeCoordinates, ResizeMode, ValueId,
};
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::merge;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;

/// Runs `graph` on inputs in the graph's own layout; gives its outputs in that layout.
pub fn interpret(graph: &Graph, inputs: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, String> {
    let mut values: HashMap<ValueId, Vec<f32>> = HashMap::new();
    for (port, data) in graph.inputs.iter().zip(inputs) {
        values.insert(port.value, data.clone());
    }
    for node in &graph.nodes {
        let result = run(graph, node, &|i| read(graph, &values, node.inputs[i]));
        assert_eq!(
            result.len(),
            graph.shape(node.output).iter().product::<usize>(),
            "{}",
            node.name
        );
        values.insert(node.output, result);
    }
    Ok(graph
        .outputs
        .iter()
        .map(|p| read(graph, &values, p.value).to_vec())
        .collect())
}

fn read<'a>(graph: &'a Graph, values: &'a HashMap<ValueId, Vec<f32>>, v: ValueId) -> &'a [f32] {
    match graph.constant(v) {
        Some(constant) => constant,
        None => &values[&v],
    }
}

fn run<'a>(graph: &Graph, node: &Node, input: &dyn Fn(usize) -> &'a [f32]) -> Vec<f32> {
    let shape = |i: usize| graph.shape(node.inputs[i]);
    let out = graph.shape(node.output);
    let mut y = match &node.op {
        Op::Conv { window, groups, .. } => conv(
            input(0),
            shape(0),
            input(1),
            shape(1),
            input(2),
            window,
            *groups,
            out,
        ),
        Op::Linear { .. } => linear(input(0), input(1), input(2)),
        Op::MatMul => matmul(input(0), shape(0), input(1), shape(1), out),
        Op::Binary { kind, .. } => {
            let (a, b) = (
                spread(input(0), shape(0), out),
                spread(input(1), shape(1), out),
            );
            a.iter()
                .zip(&b)
                .map(|(&a, &b)| binary(*kind, a, b))
                .collect()
        }
        Op::Unary(kind) => input(0).iter().map(|&x| unary(*kind, x)).collect(),
        Op::Pool {
            kind,
            window,
            include_pad,
        } => pool(input(0), shape(0), *kind, window, *include_pad, out),
        Op::Reduce { kind, axes } => reduce(input(0), shape(0), *kind, axes, out),
        Op::Softmax { log } => input(0)
            .chunks(*out.last().unwrap())
            .flat_map(|row| softmax(row, *log))
            .collect(),
        Op::LayerNorm { epsilon } => {
            let c = *out.last().unwrap();
            input(0)
                .chunks(c)
                .flat_map(|row| layer_norm(row, input(1), input(2), *epsilon))
                .collect()
        }
        Op::Reshape(_) | Op::Quantize(_) => input(0).to_vec(),
        Op::Transpose(perm) => gather(out, |at| {
            let mut from = vec![0; at.len()];
            perm.iter().zip(at).for_each(|(&p, &i)| from[p] = i);
            input(0)[offset(shape(0), &from)]
        }),
        Op::Slice {
            axis, start, step, ..
        } => gather(out, |at| {
            let mut from = at.to_vec();
            from[*axis] = (*start as isize + at[*axis] as isize * step) as usize;
            input(0)[offset(shape(0), &from)]
        }),
        Op::Concat { axis } => gather(out, |at| {
            let mut from = at.to_vec();
            let mut which = 0;
            while from[*axis] >= shape(which)[*axis] {
                from[*axis] -= shape(which)[*axis];
                which += 1;
            }
            input(which)[offset(shape(which), &from)]
        }),
        Op::Pad { before, value, .. } => gather(out, |at| {
            let from: Option<Vec<usize>> = at
                .iter()
                .zip(before)
                .zip(shape(0))
                .map(|((&i, &b), &n)| i.checked_sub(b).filter(|&i| i < n))
                .collect();
            from.map_or(*value, |from| input(0)[offset(shape(0), &from)])
        }),
        Op::Broadcast(_) => spread(input(0), shape(0), out),
        Op::Gather { axis } => {
            let picked = shape(1).len();
            gather(out, |at| {
                let (index, rest) = at[*axis..].split_at(picked);
                let index = input(1)[offset(shape(1), index)] as usize;
                let from = [&at[..*axis], &[index], rest].concat();
                input(0)[offset(shape(0), &from)]
            })
        }
        Op::ArgMax { axis, last } => gather(out, |at| {
            let mut from = at.to_vec();
            let mut best = (f32::NEG_INFINITY, 0);
            for i in 0..shape(0)[*axis] {
                from[*axis] = i;
                let x = input(0)[offset(shape(0), &from)];
                if x > best.0 || (*last && x == best.0) {
                    best = (x, i);
                }
            }
            best.1 as f32
        }),
        Op::Resize {
            mode, coordinates, ..
        } => resize(input(0), shape(0), *mode, *coordinates, out),
        Op::Attention(a) => {
            let bias = match (a.bias, a.sizes) {
                (true, _) => Some(spread_bias(input(3), shape(3), a)),
                (_, true) => {
                    let row: Vec<f32> = input(3).iter().map(|size| size.ln()).collect();
                    let rows = a.geometry.outer_count() * a.geometry.query_count();
                    Some(row.repeat(rows))
                }
                _ => None,
            };
            attention(a, input(0), input(1), input(2), bias.as_deref(), out)
        }
        Op::Match(matching) => {
            let tokens = matching.tokens as usize;
            let (mut best, mut places) = (vec![(0, 0.0); tokens], vec![0; tokens]);
            let key = |at: usize| f64::from(input(0)[at]);
            merge::match_tokens_reference(matching, key, &mut best, &mut places);
            places.iter().map(|&p| p as f32).collect()
        }
        Op::Merge { left } => {
            let count = input(1).len();
            let channels = input(0).len() / count;
            let sized = node.inputs.len() == 3;
            let (mut sums, mut total) = (vec![0.0; left * channels], vec![0.0; *left]);
            for (i, &place) in input(1).iter().enumerate() {
                let size = if sized { input(2)[i] } else { 1.0 };
                total[place as usize] += size;
                for c in 0..channels {
                    sums[place as usize * channels + c] += size * input(0)[i * channels + c];
                }
            }
            if sized {
                let mean = |(i, sum): (usize, &f32)| sum / total[i / channels];
                sums = sums.iter().enumerate().map(mean).collect();
            }
            sums
        }
    };
    if matches!(
        node.op,
        Op::Conv { residual: true, .. } | Op::Linear { residual: true, .. }
    ) {
        y.iter_mut().zip(input(3)).for_each(|(y, r)| *y += r);
    }
    if let Some(kind) = node.op.activation() {
        y.iter_mut().for_each(|y| *y = unary(kind, *y));
    }
    y
}

fn conv(
    x: &[f32],
    xs: &[usize],
    w: &[f32],
    ws: &[usize],
    bias: &[f32],
    window: &Window,
    groups: usize,
    out: &[usize],
) -> Vec<f32> {
    let (c, per) = (ws[3], ws[0] / groups);
    let mut y = Vec::with_capacity(out.iter().product());
    for n in 0..out[0] {
        for oh in 0..out[1] {
            for ow in 0..out[2] {
                for o in 0..out[3] {
                    let mut sum = bias[o];
                    for (kh, kw, ih, iw) in taps(window, xs, oh, ow) {
                        let at = offset(xs, &[n, ih, iw, o / per * c]);
                        let wt = offset(ws, &[o, kh, kw, 0]);
                        sum += x[at..at + c]
                            .iter()
                            .zip(&w[wt..wt + c])
                            .map(|(x, w)| x * w)
                            .sum::<f32>();
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

/// Kernel and input positions of a window that lie inside the map.
fn taps(window: &Window, xs: &[usize], oh: usize, ow: usize) -> Vec<(usize, usize, usize, usize)> {
    let mut taps = Vec::new();
    let at = |axis: usize, o: usize, k: usize| {
        let i = o * window.stride[axis] as usize + k * window.dilation[axis] as usize;
        i.checked_sub(window.pad[axis] as usize)
            .filter(|&i| i < xs[1 + axis])
    };
    for kh in 0..window.kernel[0] as usize {
        for kw in 0..window.kernel[1] as usize {
            if let (Some(ih), Some(iw)) = (at(0, oh, kh), at(1, ow, kw)) {
                taps.push((kh, kw, ih, iw));
            }
        }
    }
    taps
}

fn pool(
    x: &[f32],
    xs: &[usize],
    kind: PoolKind,
    window: &Window,
    include_pad: bool,
    out: &[usize],
) -> Vec<f32> {
    gather(out, |at| {
        let taps = taps(window, xs, at[1], at[2]);
        let values = taps
            .iter()
            .map(|&(_, _, ih, iw)| x[offset(xs, &[at[0], ih, iw, at[3]])]);
        match kind {
            PoolKind::Max => values.fold(f32::NEG_INFINITY, f32::max),
            _ => {
                let count = if include_pad {
                    window.taps()
                } else {
                    taps.len()
                };
                values.sum::<f32>() / count as f32
            }
        }
    })
}

fn linear(x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let k = w.len() / bias.len();
    let row = |x: &[f32]| -> Vec<f32> {
        w.chunks(k)
            .zip(bias)
            .map(|(w, b)| b + x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>())
            .collect()
    };
    x.chunks(k).flat_map(row).collect()
}

fn matmul(a: &[f32], sa: &[usize], b: &[f32], sb: &[usize], out: &[usize]) -> Vec<f32> {
    let r = out.len();
    let k = *sa.last().unwrap();
    let lead = |s: &[usize], at: &[usize], tail: [usize; 2]| {
        let skip = r - s.len();
        let mut index: Vec<usize> = (0..s.len() - 2)
            .map(|i| at[i + skip].min(s[i] - 1))
            .collect();
        index.extend(tail);
        offset(s, &index)
    };
    gather(out, |at| {
        (0..k)
            .map(|i| a[lead(sa, at, [at[r - 2], i])] * b[lead(sb, at, [i, at[r - 1]])])
            .sum()
    })
}

fn reduce(x: &[f32], xs: &[usize], kind: ReduceKind, axes: &[usize], out: &[usize]) -> Vec<f32> {
    let start = match kind {
        ReduceKind::Max => f32::NEG_INFINITY,
        ReduceKind::Min => f32::INFINITY,
        _ => 0.0,
    };
    let mut sums = vec![f64::from(start); out.iter().product()];
    let mut at = vec![0; xs.len()];
    for &x in x {
        let target: Vec<usize> = at
            .iter()
            .enumerate()
            .map(|(d, &i)| if axes.contains(&d) { 0 } else { i })
            .collect();
        let slot = &mut sums[offset(out, &target)];
        let x = f64::from(x);
        *slot = match kind {
            ReduceKind::Max => slot.max(x),
            ReduceKind::Min => slot.min(x),
            _ => *slot + x,
        };
        step(&mut at, xs);
    }
    let n: usize = if kind == ReduceKind::Mean {
        axes.iter().map(|&a| xs[a]).product()
    } else {
        1
    };
    sums.iter().map(|s| (s / n as f64) as f32).collect()
}

fn softmax(row: &[f32], log: bool) -> Vec<f32> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|x| (x - top).exp()).sum();
    row.iter()
        .map(|x| {
            if log {
                x - top - sum.ln()
            } else {
                (x - top).exp() / sum
            }
        })
        .collect()
}

/// The bias of every outer index, query and key.
fn spread_bias(data: &[f32], shape: &[usize], a: &Attention) -> Vec<f32> {
    let full: Vec<usize> = a.geometry.outer.iter().map(|&n| n as usize).collect();
    spread(data, shape, &[&full[..], &shape[4..]].concat())
}

fn attention(
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    bias: Option<&[f32]>,
    out: &[usize],
) -> Vec<f32> {
    let g = &a.geometry;
    let mut y = vec![f32::NAN; out.iter().product()];
    let (queries, keys) = (g.query_count(), g.key_count());
    for o in 0..g.outer_count() {
        let index = g.outer_index(o);
        for i in 0..queries {
            let query = &q[g.q.row(index, g.query(i))..];
            let scores: Vec<f32> = (0..keys)
                .map(|j| {
                    let key = &k[g.k.row(index, g.key(j))..];
                    let sum: f32 = (0..g.depth as usize).map(|d| query[d] * key[d]).sum();
                    sum * a.scale + bias.map_or(0.0, |b| b[(o * queries + i) * keys + j])
                })
                .collect();
            let weights = softmax(&scores, false);
            let at = g.y.row(index, g.query(i));
            for d in 0..g.width as usize {
                let value = |j: usize| v[g.v.row(index, g.key(j)) + d];
                y[at + d] = weights.iter().enumerate().map(|(j, w)| w * value(j)).sum();
            }
        }
    }
    y
}

fn layer_norm(row: &[f32], gain: &[f32], offset: &[f32], epsilon: f32) -> Vec<f32> {
    let n = row.len() as f32;
    let mean = row.iter().sum::<f32>() / n;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
    let scale = (variance + epsilon).sqrt().recip();
    row.iter()
        .zip(gain)
        .zip(offset)
        .map(|((x, g), o)| (x - mean) * scale * g + o)
        .collect()
}

fn resize(
    x: &[f32],
    xs: &[usize],
    mode: ResizeMode,
    coordinates: ResizeCoordinates,
    out: &[usize],
) -> Vec<f32> {
    let position = |o: usize, from: usize, to: usize| {
        let (o, from, to) = (o as f32, from as f32, to as f32);
        match coordinates {
            ResizeCoordinates::HalfPixel => (o + 0.5) * from / to - 0.5,
            ResizeCoordinates::AlignCorners if to == 1.0 => 0.0,
            ResizeCoordinates::AlignCorners => o * (from - 1.0) / (to - 1.0),
            _ => o * from / to,
        }
    };
    let pixel = |n: usize, h: f32, w: f32, c: usize| {
        let clamp = |v: f32, n: usize| v.clamp(0.0, n as f32 - 1.0) as usize;
        x[offset(xs, &[n, clamp(h, xs[1]), clamp(w, xs[2]), c])]
    };
    gather(out, |at| {
        let (h, w) = (
            position(at[1], xs[1], out[1]),
            position(at[2], xs[2], out[2]),
        );
        match mode {
            ResizeMode::Nearest { floor: true } => pixel(at[0], h.floor(), w.floor(), at[3]),
            ResizeMode::Nearest { floor: false } => {
                pixel(at[0], (h - 0.5).ceil(), (w - 0.5).ceil(), at[3])
            }
            _ => {
                let (h0, w0) = (h.floor(), w.floor());
                let (fh, fw) = (h - h0, w - w0);
                let row = |h: f32| {
                    pixel(at[0], h, w0, at[3]) * (1.0 - fw) + pixel(at[0], h, w0 + 1.0, at[3]) * fw
                };
                row(h0) * (1.0 - fh) + row(h0 + 1.0) * fh
            }
        }
    })
}

/// Repeats dimensions of size 1, right-aligned.
fn spread(x: &[f32], xs: &[usize], out: &[usize]) -> Vec<f32> {
    if xs == out {
        return x.to_vec();
    }
    let skip = out.len() - xs.len();
    gather(out, |at| {
        let from: Vec<usize> = xs
            .iter()
            .zip(&at[skip..])
            .map(|(&n, &i)| i.min(n - 1))
            .collect();
        x[offset(xs, &from)]
    })
}

fn gather(shape: &[usize], f: impl Fn(&[usize]) -> f32) -> Vec<f32> {
    let mut at = vec![0; shape.len()];
    (0..shape.iter().product())
        .map(|_| {
            let y = f(&at);
            step(&mut at, shape);
            y
        })
        .collect()
}

fn step(at: &mut [usize], shape: &[usize]) {
    for d in (0..shape.len()).rev() {
        at[d] += 1;
        if at[d] < shape[d] {
            return;
        }
        at[d] = 0;
    }
}

fn offset(shape: &[usize], at: &[usize]) -> usize {
    at.iter().zip(shape).fold(0, |o, (i, n)| o * n + i)
}

pub fn binary(kind: BinaryKind, a: f32, b: f32) -> f32 {
    match kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        BinaryKind::Div => a / b,
        BinaryKind::Max => a.max(b),
        BinaryKind::Min => a.min(b),
        BinaryKind::Pow => a.powf(b),
    }
}

pub fn unary(kind: UnaryKind, x: f32) -> f32 {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p();
    match kind {
        UnaryKind::Relu => x.max(0.0),
        UnaryKind::LeakyRelu(a) => {
            if x < 0.0 {
                a * x
            } else {
                x
            }
        }
        UnaryKind::Elu(a) => {
            if x < 0.0 {
                a * x.exp_m1()
            } else {
                x
            }
        }
        UnaryKind::Selu => 1.050_701 * if x < 0.0 { 1.673_263_2 * x.exp_m1() } else { x },
        UnaryKind::Sigmoid => sigmoid(x),
        UnaryKind::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
        UnaryKind::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        UnaryKind::Silu => x * sigmoid(x),
        UnaryKind::Tanh => x.tanh(),
        UnaryKind::GeluErf => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        UnaryKind::GeluTanh => {
            0.5 * x * (1.0 + (0.797_884_56 * (x + 0.044_715 * x * x * x)).tanh())
        }
        UnaryKind::QuickGelu => x * sigmoid(1.702 * x),
        UnaryKind::Exp => x.exp(),
        UnaryKind::Log => x.ln(),
        UnaryKind::Sqrt => x.sqrt(),
        UnaryKind::Rsqrt => x.sqrt().recip(),
        UnaryKind::Neg => -x,
        UnaryKind::Abs => x.abs(),
        UnaryKind::Reciprocal => x.recip(),
        UnaryKind::Erf => erf(x),
        UnaryKind::Softplus => softplus(x),
        UnaryKind::Softsign => x / (1.0 + x.abs()),
        UnaryKind::Floor => x.floor(),
        UnaryKind::Ceil => x.ceil(),
        UnaryKind::Round => x.round_ties_even(),
        UnaryKind::Clamp(lo, hi) => x.max(lo).min(hi),
        UnaryKind::Mish => x * softplus(x).tanh(),
        UnaryKind::Square => x * x,
    }
}

/// Error function by its series, whose terms cancel well enough below 4; beyond it is 1 to f32.
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    if x.abs() > 4.0 {
        return x.signum() as f32;
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    (sum * std::f64::consts::FRAC_2_SQRT_PI) as f32
}
