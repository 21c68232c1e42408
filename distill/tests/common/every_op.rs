//! A network with every layer that training has, in forms that the zoo does not use.

use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;

/// A number in [-1, 1) from an index and a salt.
pub fn noise(index: u32, salt: u32) -> f32 {
    let mut x = index
        .wrapping_mul(2_654_435_761)
        .wrapping_add(salt.wrapping_mul(2_246_822_519));
    x = (x ^ (x >> 15)).wrapping_mul(2_246_822_519);
    x = (x ^ (x >> 13)).wrapping_mul(3_266_489_917);
    x ^= x >> 16;
    (x >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// `len` of them.
pub fn noises(len: usize, salt: u32) -> Vec<f32> {
    (0..len as u32).map(|i| noise(i, salt)).collect()
}

/// Values for parameters: variances and gains around 1, weights of variance 1 / fan-in, the rest ±0.5.
pub fn values(graph: &Graph) -> Vec<Vec<f32>> {
    let parameters = graph.parameters().iter().enumerate();
    parameters
        .map(|(salt, p)| {
            let fan_in = p.shape[1..].iter().product::<usize>() as f32;
            let of = |x: f32| match p.kind {
                _ if p.name.ends_with("running_var") => 1.0 + 0.9 * x,
                Kind::Weight => x * (3.0 / fan_in).sqrt(),
                _ if p.name.ends_with("weight") => 1.0 + 0.5 * x,
                _ => 0.5 * x,
            };
            noises(p.len(), salt as u32).into_iter().map(of).collect()
        })
        .collect()
}

/// Inputs: a map of 12×10×3 and a row of 6 tokens. Outputs: a vector, a map, the tokens, the vector again.
pub fn every_op() -> Graph {
    let mut net = Layers(Graph::new());
    let picture = net.0.input(Map::new(12, 10, 3));
    let tokens = net.0.input(Map::new(1, 6, 8));

    let wide = Window {
        kernel: [3, 5],
        stride: [1, 1],
        pads: [1, 2, 1, 2],
    };
    let uneven = Window {
        kernel: [3, 3],
        stride: [2, 2],
        pads: [0, 0, 1, 1],
    };
    let x = net.conv(picture, "stem", 8, wide, true);
    let x = net.batch_norm(x, "stem_norm");
    let x = net.act(x, "stem", Activation::HardSwish);
    let y = net.depthwise(x, "depthwise", Window::square(3, 1), true);
    let y = net.batch_norm(y, "depthwise_norm");
    let y = net.act(y, "depthwise", Activation::Relu6);
    let x = net.add(&[x, y, x], "sum of three");
    // In front of a padded convolution: stays.
    let y = net.batch_norm(x, "norm in front of padding");
    let y = net.conv(y, "padded", 8, Window::square(3, 1), false);
    let x = net.add(&[x, y], "sum");
    // Between norm and convolution nothing else reads: folds forwards, and the next one backwards.
    let y = net.batch_norm(x, "pre_norm");
    let y = net.conv(y, "expand", 12, Window::POINT, false);
    let y = net.batch_norm(y, "post_norm");
    let mut y = net.act(y, "silu", Activation::Silu);
    for f in [
        Activation::Relu,
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::HardSigmoid,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Identity,
    ] {
        let z = net.act(y, "activation", f);
        y = net.add(&[y, z], "activations");
    }
    let gate = net.push("gate", Op::Mean, &[y]);
    let gate = net.conv(gate, "gate", 12, Window::POINT, true);
    let gate = net.act(gate, "gate", Activation::HardSigmoid);
    let y = net.push("gated", Op::Gate, &[y, gate]);
    let y = net.conv(y, "shrink", 8, Window::POINT, true);
    let x = net.add(&[x, y], "bottleneck");
    let pool = Window::square(3, 2);
    let largest = net.push("largest", Op::MaxPool(pool), &[x]);
    let x = net.push("pool", Op::AveragePool(pool), &[x]);
    let x = net.add(&[x, largest], "pools");
    let x = net.conv(x, "down", 12, Window::POINT, true);
    let map = x;

    // 6×5 padded to 6×6, in windows of 3×2, packed [3][heads][d].
    let y = net.push("pad", Op::Pad([0, 1]), &[x]);
    let y = net.layer_norm(y, "windows.norm");
    let y = net.linear(y, "windows.qkv", 36);
    let lanes = [0, 1, 2].map(|i| Lane {
        input: 0,
        offset: 12 * i,
        stride: 4,
    });
    let y = net.attention(&[y], "windows", [3, 4], lanes, [3, 2], true, false);
    let y = net.push("crop", Op::Crop([0, 1]), &[y]);
    let x = net.add(&[x, y], "windows");
    let down = net.conv(x, "uneven", 10, uneven, true);

    // Each pixel has its vector; class tokens in front of them all.
    let size = net.0.map(down);
    let table = net.parameter("places", "weight", &[size.pixels(), size.channels]);
    let down = net.push("places", Op::Positions { table }, &[down]);
    let table = net.parameter("class", "weight", &[2, size.channels]);
    let y = net.push("class", Op::Tokens { table }, &[down]);
    let y = net.layer_norm(y, "class.norm");
    let class = net.push("first", Op::Crop([0, size.pixels() + 1]), &[y]);

    // Queries of one input, keys and values interleaved in another, values narrower apart than packed.
    let q = net.linear(tokens, "rows.q", 8);
    let kv = net.linear(tokens, "rows.kv", 20);
    let lane = |input, offset, stride| Lane {
        input,
        offset,
        stride,
    };
    let lanes = [lane(0, 0, 4), lane(1, 1, 5), lane(1, 11, 4)];
    let y = net.attention(&[q, kv], "rows", [2, 4], lanes, [1, 6], false, true);
    let row = net.add(&[tokens, y], "rows");
    let row = net.layer_norm(row, "rows.last");

    let a = net.push("mean of a map", Op::Mean, &[down]);
    let a = net.add(&[a, class], "class and mean");
    let tokens = net.layer_norm(row, "again");
    let b = net.push("mean of tokens", Op::Mean, &[tokens]);
    let a = net.linear(a, "a", 5);
    let b = net.linear(b, "b", 5);
    let sum = net.add(&[a, b], "logits");
    let logits = net.layer_norm(sum, "logits");
    for output in [logits, map, row, logits] {
        net.0.output(output);
    }
    net.0
}

struct Layers(Graph);

impl Layers {
    fn push(&mut self, name: &str, op: Op, inputs: &[Value]) -> Value {
        self.0.push(name, op, inputs).expect("the layer fits")
    }

    fn parameter(&mut self, layer: &str, name: &str, shape: &[usize]) -> ParameterId {
        let kind = match name {
            "running_mean" | "running_var" => Kind::Statistic,
            "weight" if shape.len() > 1 => Kind::Weight,
            _ => Kind::Undecayed,
        };
        self.0.parameter(format!("{layer}.{name}"), shape, kind)
    }

    fn conv(&mut self, x: Value, name: &str, out: usize, window: Window, bias: bool) -> Value {
        let [h, w] = window.kernel;
        let shape = [out, self.0.map(x).channels, h, w];
        let weight = self.parameter(name, "weight", &shape);
        let bias = bias.then(|| self.parameter(name, "bias", &[out]));
        let op = Op::Conv {
            weight,
            bias,
            window,
        };
        self.push(name, op, &[x])
    }

    fn depthwise(&mut self, x: Value, name: &str, window: Window, bias: bool) -> Value {
        let ([h, w], c) = (window.kernel, self.0.map(x).channels);
        let weight = self.parameter(name, "weight", &[c, 1, h, w]);
        let bias = bias.then(|| self.parameter(name, "bias", &[c]));
        let op = Op::Depthwise {
            weight,
            bias,
            window,
        };
        self.push(name, op, &[x])
    }

    fn linear(&mut self, x: Value, name: &str, out: usize) -> Value {
        let weight = self.parameter(name, "weight", &[out, self.0.map(x).channels]);
        let bias = Some(self.parameter(name, "bias", &[out]));
        let op = Op::Conv {
            weight,
            bias,
            window: Window::POINT,
        };
        self.push(name, op, &[x])
    }

    fn batch_norm(&mut self, x: Value, name: &str) -> Value {
        let c = [self.0.map(x).channels];
        let op = Op::BatchNorm(BatchNorm {
            weight: self.parameter(name, "weight", &c),
            bias: self.parameter(name, "bias", &c),
            mean: self.parameter(name, "running_mean", &c),
            variance: self.parameter(name, "running_var", &c),
            epsilon: 1e-3,
            momentum: 0.1,
        });
        self.push(name, op, &[x])
    }

    fn layer_norm(&mut self, x: Value, name: &str) -> Value {
        let c = [self.0.map(x).channels];
        let op = Op::LayerNorm {
            weight: self.parameter(name, "weight", &c),
            bias: self.parameter(name, "bias", &c),
            epsilon: 1e-6,
        };
        self.push(name, op, &[x])
    }

    fn act(&mut self, x: Value, name: &str, f: Activation) -> Value {
        self.push(name, Op::Activation(f), &[x])
    }

    fn add(&mut self, inputs: &[Value], name: &str) -> Value {
        self.push(name, Op::Add { drop_path: 0.5 }, inputs)
    }

    fn attention(
        &mut self,
        inputs: &[Value],
        name: &str,
        [heads, head_size]: [usize; 2],
        lanes: [Lane; 3],
        window: [usize; 2],
        bias: bool,
        causal: bool,
    ) -> Value {
        let tokens = window[0] * window[1];
        let bias = bias.then(|| PositionBias {
            table: self.parameter(name, "table", &[heads, 4, 4]),
            index: (0..tokens * tokens).map(|i| i as u32 * 7 % 16).collect(),
        });
        let map = self.0.map(inputs[0]);
        let op = Op::Attention(Attention {
            heads,
            head_size,
            scale: 0.7,
            lanes,
            window: (window != [map.height, map.width]).then_some(window),
            bias,
            causal,
            mask: None,
        });
        self.push(name, op, inputs)
    }
}
