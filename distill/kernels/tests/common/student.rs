//! Small hybrid networks, built layer by layer, with weights that any language can compute.

use ampoule_distill_kernels::graph::*;
use ampoule_distill_kernels::ops::Window;

/// A number in [-1, 1) from an index and a salt; `benches/training/student.py` has the same.
pub fn noise(index: u32, salt: u32) -> f32 {
    let mut x = index
        .wrapping_mul(2654435761)
        .wrapping_add(salt.wrapping_mul(2246822519));
    x = (x ^ (x >> 15)).wrapping_mul(2246822519);
    x = (x ^ (x >> 13)).wrapping_mul(3266489917);
    x ^= x >> 16;
    (x >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// `len` of them.
pub fn noises(len: usize, salt: u32) -> Vec<f32> {
    (0..len as u32).map(|i| noise(i, salt)).collect()
}

/// First values: weights uniform with variance 1 / fan-in, gains near 1, the rest near 0.
pub fn initial(parameters: &[Parameter]) -> Vec<Vec<f32>> {
    let one = |(salt, p): (usize, &Parameter)| -> Vec<f32> {
        let fan_in = p.shape[1..].iter().product::<usize>() as f32;
        let name = p.name.as_str();
        let of = |x: f32| match () {
            _ if name.ends_with("running_mean") => 0.0,
            _ if name.ends_with("running_var") => 1.0,
            _ if p.shape.len() > 1 && name.ends_with("weight") => x * (3.0 / fan_in).sqrt(),
            _ if name.ends_with("weight") => 1.0 + 0.1 * x,
            _ => 0.1 * x,
        };
        noises(p.len(), salt as u32).into_iter().map(of).collect()
    };
    parameters.iter().enumerate().map(one).collect()
}

/// Builds layers with their parameters.
pub struct Layers {
    pub graph: Graph,
}

#[allow(dead_code)]
impl Layers {
    pub fn push(&mut self, name: &str, op: Op, inputs: &[Value]) -> Value {
        self.graph.push(name, op, inputs).expect("the layer fits")
    }

    pub fn parameter(&mut self, name: &str, part: &str, shape: &[usize]) -> ParameterId {
        let kind = match part {
            "running_mean" | "running_var" => Kind::Statistic,
            "weight" if shape.len() > 1 => Kind::Weight,
            _ => Kind::Undecayed,
        };
        self.graph.parameter(format!("{name}.{part}"), shape, kind)
    }

    pub fn conv(&mut self, x: Value, name: &str, out: usize, window: Window, bias: bool) -> Value {
        let c = self.graph.map(x).channels;
        let [h, w] = window.kernel;
        let weight = self.parameter(name, "weight", &[out, c, h, w]);
        let bias = bias.then(|| self.parameter(name, "bias", &[out]));
        self.push(
            name,
            Op::Conv {
                weight,
                bias,
                window,
            },
            &[x],
        )
    }

    pub fn depthwise(&mut self, x: Value, name: &str, window: Window, bias: bool) -> Value {
        let c = self.graph.map(x).channels;
        let [h, w] = window.kernel;
        let weight = self.parameter(name, "weight", &[c, 1, h, w]);
        let bias = bias.then(|| self.parameter(name, "bias", &[c]));
        self.push(
            name,
            Op::Depthwise {
                weight,
                bias,
                window,
            },
            &[x],
        )
    }

    pub fn linear(&mut self, x: Value, name: &str, out: usize) -> Value {
        let weight = self.parameter(name, "weight", &[out, self.graph.map(x).channels]);
        let bias = Some(self.parameter(name, "bias", &[out]));
        self.push(
            name,
            Op::Conv {
                weight,
                bias,
                window: Window::POINT,
            },
            &[x],
        )
    }

    pub fn batch_norm(&mut self, x: Value, name: &str) -> Value {
        let c = [self.graph.map(x).channels];
        let op = Op::BatchNorm(BatchNorm {
            weight: self.parameter(name, "weight", &c),
            bias: self.parameter(name, "bias", &c),
            mean: self.parameter(name, "running_mean", &c),
            variance: self.parameter(name, "running_var", &c),
            epsilon: 1e-5,
            momentum: 0.1,
        });
        self.push(name, op, &[x])
    }

    pub fn layer_norm(&mut self, x: Value, name: &str) -> Value {
        let c = [self.graph.map(x).channels];
        let op = Op::LayerNorm {
            weight: self.parameter(name, "weight", &c),
            bias: self.parameter(name, "bias", &c),
            epsilon: 1e-5,
        };
        self.push(name, op, &[x])
    }

    pub fn activation(&mut self, x: Value, f: Activation) -> Value {
        self.push("activation", Op::Activation(f), &[x])
    }

    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.push("add", Op::Add { drop_path: 0.0 }, &[a, b])
    }

    /// Convolution, batch norm, GELU.
    pub fn conv_norm_gelu(&mut self, x: Value, name: &str, out: usize, window: Window) -> Value {
        let x = self.conv(x, &format!("{name}.conv"), out, window, false);
        let x = self.batch_norm(x, &format!("{name}.bn"));
        self.activation(x, Activation::Gelu)
    }

    /// Inverted bottleneck, with a shortcut where shapes allow.
    pub fn bottleneck(&mut self, x: Value, name: &str, out: usize, stride: usize) -> Value {
        let wide = 4 * self.graph.map(x).channels;
        let y = self.conv_norm_gelu(x, &format!("{name}.expand"), wide, Window::POINT);
        let y = self.depthwise(
            y,
            &format!("{name}.depthwise.conv"),
            Window::square(3, stride),
            false,
        );
        let y = self.batch_norm(y, &format!("{name}.depthwise.bn"));
        let y = self.activation(y, Activation::Gelu);
        let y = self.conv(
            y,
            &format!("{name}.project.conv"),
            out,
            Window::POINT,
            false,
        );
        let y = self.batch_norm(y, &format!("{name}.project.bn"));
        if self.graph.map(x) == self.graph.map(y) {
            self.add(x, y)
        } else {
            y
        }
    }

    /// Attention on tokens, `[3][heads][d]` packed, with a table of position biases if asked for.
    pub fn attention(&mut self, x: Value, name: &str, heads: usize, table: bool) -> Value {
        let map = self.graph.map(x);
        let (c, n) = (map.channels, map.pixels());
        let d = c / heads;
        let y = self.layer_norm(x, &format!("{name}.norm"));
        let y = self.linear(y, &format!("{name}.qkv"), 3 * c);
        let bias = table.then(|| {
            let table = self.parameter(name, "attention_biases", &[heads, n]);
            let offset = |t: usize, u: usize| {
                let (dy, dx) = (
                    (t / map.width).abs_diff(u / map.width),
                    (t % map.width).abs_diff(u % map.width),
                );
                (dy * map.width + dx) as u32
            };
            let index = (0..n * n).map(|i| offset(i / n, i % n)).collect();
            PositionBias { table, index }
        });
        let lane = |i: usize| Lane {
            input: 0,
            offset: i * c,
            stride: d,
        };
        let op = Op::Attention(Attention {
            heads,
            head_size: d,
            scale: (d as f32).powf(-0.5),
            lanes: [lane(0), lane(1), lane(2)],
            window: None,
            bias,
            causal: false,
            mask: None,
        });
        let y = self.push(name, op, &[y]);
        let y = self.linear(y, &format!("{name}.proj"), c);
        self.add(x, y)
    }

    pub fn mlp(&mut self, x: Value, name: &str) -> Value {
        let c = self.graph.map(x).channels;
        let y = self.layer_norm(x, &format!("{name}.norm"));
        let y = self.linear(y, &format!("{name}.fc1"), 4 * c);
        let y = self.activation(y, Activation::Gelu);
        let y = self.linear(y, &format!("{name}.fc2"), c);
        self.add(x, y)
    }
}

/// Sizes of the student.
#[derive(Clone, Copy)]
pub struct Student {
    pub size: usize,
    pub widths: [usize; 3],
    pub heads: usize,
    pub blocks: usize,
    pub classes: usize,
    pub table: bool,
}

/// The one of the training measurements: 518,148 parameters.
#[allow(dead_code)]
pub const MEASURED: Student = Student {
    size: 64,
    widths: [32, 64, 128],
    heads: 4,
    blocks: 2,
    classes: 100,
    table: false,
};

impl Student {
    pub fn build(&self) -> Graph {
        let mut l = Layers {
            graph: Graph::new(),
        };
        let [a, b, c] = self.widths;
        let x = l.graph.input(Map::new(self.size, self.size, 3));
        let x = l.conv_norm_gelu(x, "stem.0", a, Window::square(3, 2));
        let x = l.conv_norm_gelu(x, "stem.1", b, Window::square(3, 2));
        let x = l.bottleneck(x, "stage.0", b, 1);
        let mut x = l.bottleneck(x, "stage.1", c, 2);
        for i in 0..self.blocks {
            x = l.attention(x, &format!("blocks.{i}.attn"), self.heads, self.table);
            x = l.mlp(x, &format!("blocks.{i}.mlp"));
        }
        let x = l.push("mean", Op::Mean, &[x]);
        let x = l.layer_norm(x, "norm");
        let x = l.linear(x, "head", self.classes);
        l.graph.output(x);
        l.graph
    }
}
