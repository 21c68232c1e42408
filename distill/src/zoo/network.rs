//! A network as it is built: ONNX nodes, parameters without values, and what each part costs.
//!
//! Layers carry PyTorch's names and parameter shapes: `conv.weight[O, I/groups, k, k]`,
//! `linear.weight[O, I]`, `bn.{weight, bias, running_mean, running_var}`.

use ampoule_quantize::export::{Attribute, Dim, OnnxGraph};
use serde::Serialize;

/// A network without weights.
#[derive(Debug, Clone)]
pub struct Network {
    parameters: Vec<Parameter>,
    parts: Vec<Part>,
    /// Multiply-accumulates so far.
    macs: u64,
    graph: OnnxGraph,
}

/// A parameter of a layer, or a statistic of a batch norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name, as in PyTorch's state.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
}

/// What a parameter does, which decides its first value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Kernel of a convolution; whether its input comes from an activation.
    Kernel {
        /// It does.
        activated: bool,
    },
    /// Weights of a linear layer.
    Matrix,
    /// Added to a layer's result.
    Bias,
    /// Multiplied by a norm.
    Gain,
    /// Added by a norm.
    Offset,
    /// Running mean of a batch norm; not trained.
    Mean,
    /// Running variance of a batch norm; not trained.
    Variance,
    /// Position biases per head over a square of offsets.
    Table,
}

/// A part of a network and its cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Prefix of its parameters.
    pub name: String,
    /// What it is made of.
    pub operator: String,
    /// Shape of its result, without batch, channels first.
    pub output: Vec<usize>,
    /// Trained parameters.
    pub parameters: u64,
    /// Multiply-accumulates of convolutions and matrix products for one picture.
    pub macs: u64,
}

/// A value: maps are `[C, H, W]`, tokens `[.., C]`, without the batch in front.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub value: String,
    pub shape: Vec<usize>,
    /// Entries of the batch per picture: attention windows.
    pub batch: usize,
    /// Whether it comes from an activation.
    pub activated: bool,
}

/// Window of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub kernel: usize,
    pub stride: usize,
    /// TensorFlow's padding, whose odd pixel goes to the bottom and the right, instead of `kernel / 2`
    /// on all sides.
    pub same: bool,
}

/// A 1×1 convolution.
pub(super) const POINT: Window = Window {
    kernel: 1,
    stride: 1,
    same: false,
};

impl Network {
    /// Parameters and statistics, in execution order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Parts, in execution order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Number of trained parameters.
    pub fn parameter_count(&self) -> u64 {
        self.parameters.iter().map(Parameter::trained).sum()
    }

    /// Multiply-accumulates of convolutions and matrix products for one picture.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// The ONNX graph, with values for all parameters in their order.
    pub(super) fn onnx<'v>(&self, values: impl Iterator<Item = &'v [f32]>) -> OnnxGraph {
        let mut graph = self.graph.clone();
        for (parameter, values) in self.parameters.iter().zip(values) {
            graph.floats(&parameter.name, &parameter.shape, values);
        }
        graph
    }
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements that training changes by gradients.
    fn trained(&self) -> u64 {
        match self.role {
            Role::Mean | Role::Variance => 0,
            _ => self.elements() as u64,
        }
    }
}

/// Building.
impl Network {
    pub(super) fn new() -> Self {
        Network {
            parameters: Vec::new(),
            parts: Vec::new(),
            macs: 0,
            graph: OnnxGraph::new("main"),
        }
    }

    /// The picture, `[3, size, size]`.
    pub(super) fn input(&mut self, size: usize) -> Tensor {
        let shape = vec![3, size, size];
        Tensor {
            value: self.graph.input("input", &with_batch(&shape)),
            shape,
            batch: 1,
            activated: false,
        }
    }

    /// Makes a value the output.
    pub(super) fn output(&mut self, x: &Tensor) {
        self.graph.output("logits", &x.value, &with_batch(&x.shape));
    }

    /// Builds a part, and notes what it costs.
    pub(super) fn part(
        &mut self,
        name: &str,
        operator: String,
        build: impl FnOnce(&mut Network) -> Tensor,
    ) -> Tensor {
        let (first, macs) = (self.parameters.len(), self.macs);
        let x = build(self);
        let parameters = self.parameters[first..]
            .iter()
            .map(Parameter::trained)
            .sum();
        self.parts.push(Part {
            name: name.to_owned(),
            operator,
            output: x.shape.clone(),
            parameters,
            macs: self.macs - macs,
        });
        x
    }

    /// Convolution of a map.
    pub(super) fn conv(
        &mut self,
        x: &Tensor,
        name: &str,
        out: usize,
        window: Window,
        groups: usize,
        bias: bool,
    ) -> Tensor {
        let [channels, height, width] = x.map();
        let Window { kernel, stride, .. } = window;
        let mut inputs = vec![x.value.clone()];
        let role = Role::Kernel {
            activated: x.activated,
        };
        let shape = [out, channels / groups, kernel, kernel];
        inputs.push(self.parameter(name, "weight", &shape, role));
        if bias {
            inputs.push(self.parameter(name, "bias", &[out], Role::Bias));
        }
        let pads = window.pads([height, width]);
        let value = self.node(
            "Conv",
            name,
            &inputs.iter().map(String::as_str).collect::<Vec<_>>(),
            &[
                ("kernel_shape", Attribute::Ints(&[kernel as i64; 2])),
                ("strides", Attribute::Ints(&[stride as i64; 2])),
                ("pads", Attribute::Ints(&pads)),
                ("group", Attribute::Int(groups as i64)),
            ],
        );
        let y = x.then(
            value,
            vec![out, height.div_ceil(stride), width.div_ceil(stride)],
        );
        self.macs += (y.elements() * shape[1..].iter().product::<usize>()) as u64;
        y
    }

    /// Batch norm of a map, in the form for inference.
    pub(super) fn batch_norm(&mut self, x: &Tensor, name: &str, epsilon: f32) -> Tensor {
        let c = [x.shape[0]];
        let value = [
            self.parameter(name, "weight", &c, Role::Gain),
            self.parameter(name, "bias", &c, Role::Offset),
            self.parameter(name, "running_mean", &c, Role::Mean),
            self.parameter(name, "running_var", &c, Role::Variance),
        ];
        let [gain, offset, mean, variance] = &value;
        let value = self.node(
            "BatchNormalization",
            name,
            &[&x.value, gain, offset, mean, variance],
            &[("epsilon", Attribute::Float(epsilon))],
        );
        x.then(value, x.shape.clone())
    }

    /// Norm over the channels of tokens.
    pub(super) fn layer_norm(&mut self, x: &Tensor, name: &str) -> Tensor {
        let c = [x.channels()];
        let gain = self.parameter(name, "weight", &c, Role::Gain);
        let offset = self.parameter(name, "bias", &c, Role::Offset);
        let value = self.node(
            "LayerNormalization",
            name,
            &[&x.value, &gain, &offset],
            &[
                ("axis", Attribute::Int(-1)),
                ("epsilon", Attribute::Float(1e-5)),
            ],
        );
        x.then(value, x.shape.clone())
    }

    /// Linear layer on the channels of tokens.
    pub(super) fn linear(&mut self, x: &Tensor, name: &str, out: usize) -> Tensor {
        let weight = self.parameter(name, "weight", &[out, x.channels()], Role::Matrix);
        let bias = self.parameter(name, "bias", &[out], Role::Bias);
        let weight = self.node(
            "Transpose",
            name,
            &[&weight],
            &[("perm", Attribute::Ints(&[1, 0]))],
        );
        let product = self.node("MatMul", name, &[&x.value, &weight], &[]);
        let value = self.node("Add", name, &[&product, &bias], &[]);
        self.macs += (x.elements() * out) as u64;
        let mut shape = x.shape.clone();
        shape[x.shape.len() - 1] = out;
        x.then(value, shape)
    }

    /// The exact GELU.
    pub(super) fn gelu(&mut self, x: &Tensor, name: &str) -> Tensor {
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|c| self.graph.scalar(c));
        let scaled = self.node("Div", name, &[&x.value, &root], &[]);
        let erf = self.node("Erf", name, &[&scaled], &[]);
        let gate = self.node("Add", name, &[&erf, &one], &[]);
        let gated = self.node("Mul", name, &[&x.value, &gate], &[]);
        let value = self.node("Mul", name, &[&gated, &half], &[]);
        x.activated(value)
    }

    /// Swish.
    pub(super) fn silu(&mut self, x: &Tensor, name: &str) -> Tensor {
        let gate = self.sigmoid(x, name);
        let value = self.node("Mul", name, &[&x.value, &gate.value], &[]);
        x.activated(value)
    }

    pub(super) fn sigmoid(&mut self, x: &Tensor, name: &str) -> Tensor {
        let value = self.node("Sigmoid", name, &[&x.value], &[]);
        x.activated(value)
    }

    /// Sum of two values of one shape.
    pub(super) fn add(&mut self, a: &Tensor, b: &Tensor, name: &str) -> Tensor {
        debug_assert_eq!(a.shape, b.shape, "{name}");
        let value = self.node("Add", name, &[&a.value, &b.value], &[]);
        a.then(value, a.shape.clone())
    }

    /// A map times one factor per channel, which is activated as before.
    pub(super) fn scale(&mut self, x: &Tensor, factors: &Tensor, name: &str) -> Tensor {
        let value = self.node("Mul", name, &[&x.value, &factors.value], &[]);
        Tensor { value, ..x.clone() }
    }

    /// `[C, H, W]` to the mean of each channel, `[C, 1, 1]`.
    pub(super) fn mean(&mut self, x: &Tensor, name: &str) -> Tensor {
        let value = self.node("GlobalAveragePool", name, &[&x.value], &[]);
        x.then(value, vec![x.shape[0], 1, 1])
    }

    /// `[C, 1, 1]` to `[C]`.
    pub(super) fn flatten(&mut self, x: &Tensor, name: &str) -> Tensor {
        let value = self.node("Flatten", name, &[&x.value], &[("axis", Attribute::Int(1))]);
        x.then(value, vec![x.elements()])
    }

    /// Average over 2×2 pixels of a map of even sides.
    pub(super) fn halve(&mut self, x: &Tensor, name: &str) -> Tensor {
        let [c, height, width] = x.map();
        let value = self.node(
            "AveragePool",
            name,
            &[&x.value],
            &[
                ("kernel_shape", Attribute::Ints(&[2, 2])),
                ("strides", Attribute::Ints(&[2, 2])),
            ],
        );
        x.then(value, vec![c, height / 2, width / 2])
    }

    /// `[C, H, W]` to `[H, W, C]`.
    pub(super) fn channels_last(&mut self, x: &Tensor, name: &str) -> Tensor {
        self.transpose(x, name, &[1, 2, 0])
    }

    /// `[H, W, C]` to `[C, H, W]`.
    pub(super) fn channels_first(&mut self, x: &Tensor, name: &str) -> Tensor {
        self.transpose(x, name, &[2, 0, 1])
    }

    /// Dimension `i` of the result is dimension `order[i]`, the batch apart.
    pub(super) fn transpose(&mut self, x: &Tensor, name: &str, order: &[usize]) -> Tensor {
        let perm: Vec<i64> = std::iter::once(0)
            .chain(order.iter().map(|&d| d as i64 + 1))
            .collect();
        let value = self.node(
            "Transpose",
            name,
            &[&x.value],
            &[("perm", Attribute::Ints(&perm))],
        );
        x.then(value, order.iter().map(|&d| x.shape[d]).collect())
    }

    /// The same elements in another shape, the batch apart.
    pub(super) fn reshape(&mut self, x: &Tensor, name: &str, shape: &[usize]) -> Tensor {
        self.reshape_batch(x, name, x.batch, shape)
    }

    /// The same elements with another number of batch entries per picture.
    pub(super) fn reshape_batch(
        &mut self,
        x: &Tensor,
        name: &str,
        batch: usize,
        shape: &[usize],
    ) -> Tensor {
        debug_assert_eq!(
            x.elements(),
            batch * shape.iter().product::<usize>(),
            "{name}"
        );
        let dims: Vec<i64> = std::iter::once(-1)
            .chain(shape.iter().map(|&d| d as i64))
            .collect();
        let list = self.graph.list(&dims);
        let value = self.node("Reshape", name, &[&x.value, &list], &[]);
        Tensor {
            batch,
            ..x.then(value, shape.to_vec())
        }
    }

    /// Adds a parameter, and gives the name of its value.
    pub(super) fn parameter(
        &mut self,
        layer: &str,
        name: &str,
        shape: &[usize],
        role: Role,
    ) -> String {
        let name = format!("{layer}.{name}");
        self.parameters.push(Parameter {
            name: name.clone(),
            shape: shape.to_vec(),
            role,
        });
        name
    }

    /// Adds a node of a layer, and gives the name of its value.
    pub(super) fn node(
        &mut self,
        op: &str,
        layer: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        self.graph
            .node(op, &format!("{layer}/{op}"), inputs, attributes)
    }

    pub(super) fn graph(&mut self) -> &mut OnnxGraph {
        &mut self.graph
    }

    pub(super) fn count_macs(&mut self, macs: usize) {
        self.macs += macs as u64;
    }
}

impl Tensor {
    /// A value computed from this one, not activated.
    pub fn then(&self, value: String, shape: Vec<usize>) -> Tensor {
        Tensor {
            value,
            shape,
            batch: self.batch,
            activated: false,
        }
    }

    fn activated(&self, value: String) -> Tensor {
        Tensor {
            value,
            activated: true,
            ..self.clone()
        }
    }

    /// Elements per picture.
    pub fn elements(&self) -> usize {
        self.batch * self.shape.iter().product::<usize>()
    }

    /// Channels, height and width of a map.
    pub fn map(&self) -> [usize; 3] {
        [self.shape[0], self.shape[1], self.shape[2]]
    }

    /// Channels of tokens.
    pub fn channels(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }
}

impl Window {
    /// Padding at top, left, bottom and right.
    fn pads(self, map: [usize; 2]) -> [i64; 4] {
        if !self.same {
            return [(self.kernel / 2) as i64; 4];
        }
        let [(top, bottom), (left, right)] = map.map(|size| {
            let covered = (size.div_ceil(self.stride) - 1) * self.stride + self.kernel;
            let total = covered.saturating_sub(size);
            ((total / 2) as i64, total.div_ceil(2) as i64)
        });
        [top, left, bottom, right]
    }
}

/// Shape of a port.
fn with_batch(shape: &[usize]) -> Vec<Dim<'static>> {
    let sizes = shape.iter().map(|&d| Dim::Size(d));
    std::iter::once(Dim::Symbol("batch")).chain(sizes).collect()
}
