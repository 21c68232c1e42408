//! Small models for the cross-crate tests, built without an importer.
#![allow(dead_code, missing_docs)]

use ampoule_quantize::graph::{
    Attention, Graph, Op, ReduceKind, ResizeCoordinates, ResizeMode, ValueId,
};
use ampoule_quantize::pipeline::{QuantizeOptions, Quantized, Silent, quantize};
use ampoule_runtime::Session;
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::attention::{Geometry, View};
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;

/// A deterministic generator.
pub struct Lcg(pub u32);

impl Lcg {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// Roughly normal, unit variance.
    pub fn normal(&mut self) -> f32 {
        (0..6)
            .map(|_| self.next() as f32 / (1 << 24) as f32 - 0.5)
            .sum::<f32>()
            * 1.414
    }

    pub fn values(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.normal() * scale).collect()
    }
}

/// Output bytes of a run on codes made from a seed.
pub fn outputs(session: &mut Session<'_, '_>, seed: u32) -> Vec<u8> {
    let mut rng = Lcg(seed);
    session
        .input_bytes(0)
        .unwrap()
        .fill_with(|| rng.next() as u8);
    session.run().unwrap();
    (0..session.artifact().outputs().count())
        .flat_map(|i| session.output_bytes(i).unwrap().to_vec())
        .collect()
}

pub struct Builder {
    pub graph: Graph,
    pub rng: Lcg,
    count: usize,
}

impl Builder {
    pub fn new(seed: u32) -> Self {
        Builder {
            graph: Graph::default(),
            rng: Lcg(seed),
            count: 0,
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    pub fn push(&mut self, what: &str, op: Op, inputs: &[ValueId]) -> ValueId {
        let name = self.name(what);
        self.graph.push(&name, op, inputs).unwrap()
    }

    pub fn conv(
        &mut self,
        x: ValueId,
        out: usize,
        window: Window,
        groups: usize,
        activation: Option<UnaryKind>,
    ) -> ValueId {
        self.conv_with(x, out, window, groups, activation, None)
    }

    pub fn conv_with(
        &mut self,
        x: ValueId,
        out: usize,
        window: Window,
        groups: usize,
        activation: Option<UnaryKind>,
        residual: Option<ValueId>,
    ) -> ValueId {
        let c = self.graph.shape(x)[3];
        let [kh, kw] = window.kernel.map(usize::from);
        let fan = (kh * kw * c / groups) as f32;
        let w = self
            .rng
            .values(out * kh * kw * c / groups, 1.4 / fan.sqrt());
        let b = self.rng.values(out, 0.2);
        let (wn, bn) = (self.name("w"), self.name("b"));
        let w = self
            .graph
            .constant_value(&wn, &[out, kh, kw, c / groups], w);
        let b = self.graph.constant_value(&bn, &[out], b);
        let op = Op::Conv {
            window,
            groups,
            residual: residual.is_some(),
            activation,
        };
        let inputs: Vec<_> = [x, w, b].into_iter().chain(residual).collect();
        self.push("conv", op, &inputs)
    }

    pub fn linear(&mut self, x: ValueId, out: usize) -> ValueId {
        let c = *self.graph.shape(x).last().unwrap();
        let w = self.rng.values(out * c, 1.0 / (c as f32).sqrt());
        let b = self.rng.values(out, 0.1);
        let (wn, bn) = (self.name("w"), self.name("b"));
        let w = self.graph.constant_value(&wn, &[out, c], w);
        let b = self.graph.constant_value(&bn, &[out], b);
        self.push(
            "linear",
            Op::Linear {
                residual: false,
                activation: None,
            },
            &[x, w, b],
        )
    }

    /// Normalisation and attention over a map, with a bias per head and offset.
    pub fn attention(&mut self, x: ValueId, heads: usize) -> ValueId {
        let [_, h, w, c] = self.graph.shape(x)[..] else {
            panic!("needs a map")
        };
        let (gain, offset) = (self.rng.values(c, 1.0), self.rng.values(c, 0.3));
        let gain = self.graph.constant_value("gain", &[c], gain);
        let offset = self.graph.constant_value("offset", &[c], offset);
        let x = self.push("norm", Op::LayerNorm { epsilon: 1e-5 }, &[x, gain, offset]);
        let qkv = self.linear(x, 3 * c);
        let per_offset = self.rng.values(heads * (2 * h - 1) * (2 * w - 1), 1.0);
        let mut bias = Vec::new();
        for head in per_offset.chunks_exact((2 * h - 1) * (2 * w - 1)) {
            for i in 0..h * w {
                for j in 0..h * w {
                    let (dy, dx) = (j / w + h - 1 - i / w, j % w + w - 1 - i % w);
                    bias.push(head[dy * (2 * w - 1) + dx]);
                }
            }
        }
        let n = h * w;
        let bias = self
            .graph
            .constant_value("bias", &[1, 1, 1, heads, n, n], bias);
        let (width, channels) = ((c / heads) as u32, c as u32);
        let view = |start: u32, row: u32| View {
            start,
            outer: [0, 0, 0, width],
            token: [w as u32 * row, row],
        };
        let geometry = Geometry {
            outer: [1, 1, 1, heads as u32],
            queries: [h as u32, w as u32],
            keys: [h as u32, w as u32],
            depth: width,
            width,
            q: view(0, 3 * channels),
            k: view(channels, 3 * channels),
            v: view(2 * channels, 3 * channels),
            y: view(0, channels),
        };
        let op = Attention {
            geometry,
            scale: (width as f32).sqrt().recip(),
            bias: true,
            sizes: false,
            shape: vec![1, h, w, c],
        };
        let y = self.push(
            "attention",
            Op::Attention(Box::new(op)),
            &[qkv, qkv, qkv, bias],
        );
        self.linear(y, c)
    }

    pub fn samples(&mut self, n: usize) -> Vec<Vec<Vec<f32>>> {
        let shapes: Vec<usize> = self
            .graph
            .inputs
            .iter()
            .map(|p| self.graph.shape(p.value).iter().product())
            .collect();
        (0..n)
            .map(|_| {
                shapes
                    .iter()
                    .map(|&len| self.rng.values(len, 1.0))
                    .collect()
            })
            .collect()
    }
}

pub fn window(kernel: u16, stride: u16, pad: [u16; 4]) -> Window {
    Window {
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pad,
    }
}

/// A net that uses every int8 operator: inverted residuals with asymmetric pads, squeeze and
/// excitation, swish tables, pooling, concatenation, resizing, slicing, padding, attention and softmax.
pub fn zoo_net(seed: u32) -> Builder {
    let mut b = Builder::new(seed);
    let x = b.graph.input("image", &[1, 24, 20, 3]);
    let relu6 = Some(UnaryKind::Clamp(0.0, 6.0));
    let x = b.conv(x, 16, window(3, 2, [0, 0, 1, 1]), 1, relu6);
    let e = b.conv(x, 40, Window::POINT, 1, Some(UnaryKind::HardSwish));
    let d = b.conv(e, 40, window(3, 1, [1; 4]), 40, Some(UnaryKind::Silu));
    // Squeeze and excitation.
    let s = b.push(
        "mean",
        Op::Reduce {
            kind: ReduceKind::Mean,
            axes: vec![1, 2],
        },
        &[d],
    );
    let s = b.conv(s, 8, Window::POINT, 1, Some(UnaryKind::Relu));
    let s = b.conv(s, 40, Window::POINT, 1, Some(UnaryKind::Sigmoid));
    let g = b.push(
        "gate",
        Op::Binary {
            kind: BinaryKind::Mul,
            activation: None,
        },
        &[d, s],
    );
    let x = b.conv_with(g, 16, Window::POINT, 1, None, Some(x));
    // Branches.
    let p = b.push(
        "pool",
        Op::Pool {
            kind: PoolKind::Max,
            window: window(2, 2, [0; 4]),
            include_pad: false,
        },
        &[x],
    );
    let a = b.push(
        "avg",
        Op::Pool {
            kind: PoolKind::Average,
            window: window(3, 2, [1; 4]),
            include_pad: false,
        },
        &[x],
    );
    let a = b.push(
        "cut",
        Op::Slice {
            axis: 2,
            start: 0,
            len: 5,
            step: 1,
        },
        &[a],
    );
    let c = b.push("concat", Op::Concat { axis: 3 }, &[p, a]);
    let c = b.conv(c, 24, window(5, 2, [2; 4]), 1, Some(UnaryKind::Relu));
    let up = Op::Resize {
        size: [6, 5],
        mode: ResizeMode::Linear,
        coordinates: ResizeCoordinates::HalfPixel,
    };
    let u = b.push("up", up, &[c]);
    let q = b.push(
        "pad",
        Op::Pad {
            before: vec![0, 1, 0, 0],
            after: vec![0, 0, 1, 0],
            value: 0.0,
        },
        &[u],
    );
    let t = b.push("tanh", Op::Unary(UnaryKind::Tanh), &[q]);
    let t = b.attention(t, 3);
    let dw = b.conv(t, 24, window(5, 1, [2; 4]), 24, None);
    let m = b.push(
        "mean",
        Op::Reduce {
            kind: ReduceKind::Mean,
            axes: vec![1, 2],
        },
        &[dw],
    );
    let f = b.push("flat", Op::Reshape(vec![1, 24]), &[m]);
    // A product of two activations.
    let tokens = b.push("tokens", Op::Reshape(vec![42, 24]), &[t]);
    let turned = b.push("turned", Op::Transpose(vec![1, 0]), &[tokens]);
    let gram = b.push("gram", Op::MatMul, &[turned, tokens]);
    let l = b.linear(f, 10);
    let y = b.push("softmax", Op::Softmax { log: false }, &[l]);
    b.graph.output("probabilities", y);
    b.graph.output("features", f);
    b.graph.output("gram", gram);
    b
}

/// The block that sets the arena of most hybrids: expansion, depthwise convolution, projection, residual.
pub fn inverted_residual() -> Builder {
    let mut b = Builder::new(7);
    let x = b.graph.input("image", &[2, 24, 20, 8]);
    let e = b.conv(x, 64, Window::POINT, 1, Some(UnaryKind::HardSwish));
    let d = b.conv(
        e,
        64,
        window(5, 1, [2, 2, 2, 2]),
        64,
        Some(UnaryKind::GeluErf),
    );
    let y = b.conv_with(d, 8, Window::POINT, 1, None, Some(x));
    b.graph.output("y", y);
    b
}

/// Convolutions of many shapes, an inverted residual, pooling; then a head that needs the whole map.
pub fn rows_net() -> Builder {
    let mut b = Builder::new(11);
    let relu6 = Some(UnaryKind::Clamp(0.0, 6.0));
    let x = b.graph.input("image", &[1, 46, 40, 3]);
    let x = b.conv(x, 16, window(3, 2, [0, 0, 1, 1]), 1, relu6);
    let e = b.conv(x, 48, Window::POINT, 1, Some(UnaryKind::HardSwish));
    let d = b.conv(e, 48, window(5, 1, [2; 4]), 48, Some(UnaryKind::Silu));
    let x = b.conv_with(d, 16, Window::POINT, 1, None, Some(x));
    let x = b.conv(x, 24, window(3, 2, [1; 4]), 1, Some(UnaryKind::Relu));
    let x = b.conv(x, 24, window(7, 1, [3; 4]), 24, None);
    let x = b.conv(x, 8, window(3, 2, [1; 4]), 1, None);
    let x = b.attention(x, 2);
    let x = b.linear(x, 5);
    b.graph.output("y", x);
    b
}

pub fn quantized(mut b: Builder, options: &QuantizeOptions) -> Quantized {
    let samples = b.samples(8);
    quantize(b.graph, &samples, options, &Silent).unwrap()
}

/// A plain vision transformer: patches of 8×8 of a square picture, a class token, blocks with heads of 8.
pub fn vit(seed: u32, side: usize, channels: usize, blocks: usize) -> Builder {
    let mut b = Builder::new(seed);
    let image = b.graph.input("image", &[1, side, side, 3]);
    let patches = Window {
        kernel: [8; 2],
        stride: [8; 2],
        dilation: [1; 2],
        pad: [0; 4],
    };
    let x = b.conv(image, channels, patches, 1, None);
    let n = (side / 8) * (side / 8);
    let x = b.push("rows", Op::Reshape(vec![1, n, channels]), &[x]);
    let class = b.rng.values(channels, 0.5);
    let class = b.graph.constant_value("class", &[1, 1, channels], class);
    let x = b.push("tokens", Op::Concat { axis: 1 }, &[class, x]);
    let places = b.rng.values((n + 1) * channels, 0.02);
    let places = b
        .graph
        .constant_value("places", &[1, n + 1, channels], places);
    let add = Op::Binary {
        kind: BinaryKind::Add,
        activation: None,
    };
    let mut x = b.push("placed", add.clone(), &[x, places]);
    for _ in 0..blocks {
        let y = b.norm(x);
        let y = b.global_attention(y, channels / 8);
        let y = b.linear(y, channels);
        x = b.push("sum", add.clone(), &[x, y]);
        let y = b.norm(x);
        let y = b.linear(y, 4 * channels);
        let y = b.push("gelu", Op::Unary(UnaryKind::GeluErf), &[y]);
        let y = b.linear(y, channels);
        x = b.push("sum", add.clone(), &[x, y]);
    }
    let x = b.norm(x);
    let first = Op::Slice {
        axis: 1,
        start: 0,
        len: 1,
        step: 1,
    };
    let x = b.push("first", first, &[x]);
    let x = b.push("embedding", Op::Reshape(vec![1, channels]), &[x]);
    b.graph.output("embedding", x);
    b
}

impl Builder {
    fn norm(&mut self, x: ValueId) -> ValueId {
        let c = *self.graph.shape(x).last().unwrap();
        let gain: Vec<f32> = self.rng.values(c, 0.2).iter().map(|v| v + 1.0).collect();
        let offset = self.rng.values(c, 0.1);
        let gain = self.graph.constant_value("gain", &[c], gain);
        let offset = self.graph.constant_value("offset", &[c], offset);
        self.push("norm", Op::LayerNorm { epsilon: 1e-5 }, &[x, gain, offset])
    }

    /// Attention of all tokens, queries, keys and values from one layer.
    fn global_attention(&mut self, x: ValueId, heads: usize) -> ValueId {
        let shape = self.graph.shape(x).to_vec();
        let (n, c) = (shape[1] as u32, shape[2] as u32);
        let width = c / heads as u32;
        let qkv = self.linear(x, 3 * shape[2]);
        let view = |start: u32, row: u32| View {
            start,
            outer: [0, 0, 0, width],
            token: [0, row],
        };
        let geometry = Geometry {
            outer: [1, 1, 1, heads as u32],
            queries: [1, n],
            keys: [1, n],
            depth: width,
            width,
            q: view(0, 3 * c),
            k: view(c, 3 * c),
            v: view(2 * c, 3 * c),
            y: view(0, c),
        };
        let op = Attention {
            geometry,
            scale: (width as f32).sqrt().recip(),
            bias: false,
            sizes: false,
            shape,
        };
        self.push("attention", Op::Attention(Box::new(op)), &[qkv; 3])
    }
}
