//! Networks as graphs of layers that can be trained.
//!
//! Values are maps per sample, `[height, width, channels]`; tokens are the pixels of a map, so that no
//! layer has to reshape or transpose. Parameters have PyTorch's names and shapes.

mod append;
mod quantized;
mod shape;

use std::sync::Arc;

use crate::ops::Window;
pub use crate::ops::activation::Activation;
pub use crate::ops::attention::Lane;

/// Height, width and channels of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Map {
    /// Height.
    pub height: usize,
    /// Width.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

/// A value of a graph, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub usize);

/// A parameter of a graph, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub usize);

/// A parameter, or a statistic of a batch norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name, as in PyTorch's state.
    pub name: String,
    /// Shape, PyTorch's.
    pub shape: Vec<usize>,
    /// Whether gradients change it, and how.
    pub kind: Kind,
}

/// How training changes a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// By its gradient, with weight decay.
    Weight,
    /// By its gradient, without weight decay: biases, gains of norms, tables of attention biases.
    Undecayed,
    /// By the forward pass: running mean or variance of a batch norm, range of codes.
    Statistic,
}

/// A layer.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name, for messages.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// From what.
    pub inputs: Vec<Value>,
    /// The result.
    pub output: Value,
}

/// What a layer computes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// Dense convolution, or with [`Window::POINT`] a linear layer on each pixel.
    Conv {
        /// `[O, I, height, width]`, or `[O, I]`.
        weight: ParameterId,
        /// `[O]`
        bias: Option<ParameterId>,
        /// Kernel, stride, padding.
        window: Window,
    },
    /// Convolution of each channel with its own kernel.
    Depthwise {
        /// `[C, 1, height, width]`
        weight: ParameterId,
        /// `[C]`
        bias: Option<ParameterId>,
        /// Kernel, stride, padding.
        window: Window,
    },
    /// Batch norm.
    BatchNorm(BatchNorm),
    /// Norm over the channels of each pixel.
    LayerNorm {
        /// `[C]`
        weight: ParameterId,
        /// `[C]`
        bias: ParameterId,
        /// Added to the variance.
        epsilon: f32,
    },
    /// An activation.
    Activation(Activation),
    /// Attention among the pixels of each window.
    Attention(Attention),
    /// Sum of all inputs. With a rate, all but the first are dropped at random for whole samples, and
    /// scaled up where they stay ("stochastic depth").
    Add {
        /// Probability of dropping.
        drop_path: f32,
    },
    /// The first input times the second, which has one pixel or as many.
    Gate,
    /// Average over the pixels of each window that are on the map.
    AveragePool(Window),
    /// Largest value of the pixels of each window that are on the map.
    MaxPool(Window),
    /// Average over all pixels.
    Mean,
    /// Average over the pixels of the first input where the second, which has one channel, is not 0; each
    /// times its entry of the third, of one channel, if there is one. Without any such pixel it is 0.
    MaskedMean,
    /// The row of a table for each number of an input of the graph that has one channel: token ids, or
    /// anything else that is counted from 0.
    Embedding {
        /// `[rows, C]`
        table: ParameterId,
    },
    /// Adds a row of a table to each pixel, the same for all samples.
    Positions {
        /// `[pixels, C]`
        table: ParameterId,
    },
    /// Rows of a table in front of the pixels, which become one row: class and register tokens.
    Tokens {
        /// `[rows, C]`
        table: ParameterId,
    },
    /// The rows of a table as the pixels of a map, the same for all samples and whatever the input is: learnt
    /// queries. The input gets no gradient.
    Queries {
        /// `[height · width, C]`
        table: ParameterId,
        /// Height and width.
        size: [usize; 2],
    },
    /// The channels of each pixel as a vector of length 1.
    Normalize,
    /// Rounding to the runtime's int8 codes and back; gradients pass straight through where nothing is
    /// clipped.
    FakeQuantize {
        /// Smallest and largest value, `[2]`, a statistic. `[0, 0]` is none yet: the first batch gives it.
        range: ParameterId,
        /// Share of a batch's range in a new one when norms use batch statistics too; 0 keeps the range.
        momentum: f32,
    },
    /// Zeros at the bottom and the right.
    Pad([usize; 2]),
    /// Without rows at the bottom and columns at the right.
    Crop([usize; 2]),
}

/// A batch norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNorm {
    /// γ
    pub weight: ParameterId,
    /// β
    pub bias: ParameterId,
    /// Running mean.
    pub mean: ParameterId,
    /// Running variance; that of a batch enters it with Bessel's correction, as in PyTorch.
    pub variance: ParameterId,
    /// Added to the variance.
    pub epsilon: f32,
    /// Share of the batch in a new running statistic.
    pub momentum: f32,
}

/// An attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Where queries, keys and values are among the inputs.
    pub lanes: [Lane; 3],
    /// Height and width of windows, which divide the map; the whole map without.
    pub window: Option<[usize; 2]>,
    /// Added to the scaled products.
    pub bias: Option<PositionBias>,
    /// Whether a token sees only those before it and itself.
    pub causal: bool,
    /// The input of one channel that is 0 for tokens that no other sees: padding.
    pub mask: Option<usize>,
}

/// Position bias: for each pair of tokens of a window an entry of a table per head.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionBias {
    /// `[heads, ..]`
    pub table: ParameterId,
    /// `[tokens, tokens]` entries of a head's table.
    pub index: Arc<[u32]>,
}

/// A network.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub(crate) values: Vec<Map>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) inputs: Vec<Value>,
    pub(crate) outputs: Vec<Value>,
}

/// Why a layer does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer `{layer}`: {what}")]
pub struct GraphError {
    /// Its name.
    pub layer: String,
    /// What is wrong, with what was expected.
    pub what: String,
}

impl Graph {
    /// Nothing yet.
    pub fn new() -> Self {
        Graph::default()
    }

    /// Adds an input.
    pub fn input(&mut self, map: Map) -> Value {
        let value = self.value(map);
        self.inputs.push(value);
        value
    }

    /// Makes a value an output.
    pub fn output(&mut self, value: Value) {
        self.outputs.push(value);
    }

    /// Adds a parameter.
    pub fn parameter(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        kind: Kind,
    ) -> ParameterId {
        self.parameters.push(Parameter {
            name: name.into(),
            shape: shape.to_vec(),
            kind,
        });
        ParameterId(self.parameters.len() - 1)
    }

    /// Adds a layer.
    ///
    /// # Errors
    ///
    /// When inputs and parameters do not have the shapes that the layer needs.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[Value],
    ) -> Result<Value, GraphError> {
        let name = name.into();
        let map = match self.shape(&op, inputs) {
            Ok(map) => map,
            Err(what) => return Err(GraphError { layer: name, what }),
        };
        let output = self.value(map);
        self.nodes.push(Node {
            name,
            op,
            inputs: inputs.to_vec(),
            output,
        });
        Ok(output)
    }

    /// Shape of a value.
    pub fn map(&self, value: Value) -> Map {
        self.values[value.0]
    }

    /// Parameters and statistics.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Inputs.
    pub fn inputs(&self) -> &[Value] {
        &self.inputs
    }

    /// Outputs.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// Layers, in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Number of parameters that gradients change.
    pub fn parameter_count(&self) -> usize {
        let trained = self.parameters.iter().filter(|p| p.kind != Kind::Statistic);
        trained.map(Parameter::len).sum()
    }

    fn value(&mut self, map: Map) -> Value {
        self.values.push(map);
        Value(self.values.len() - 1)
    }
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Map {
    /// Of these sizes.
    pub const fn new(height: usize, width: usize, channels: usize) -> Self {
        Map {
            height,
            width,
            channels,
        }
    }

    /// Number of pixels.
    pub const fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.pixels() * self.channels
    }

    /// Whether it has no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) const fn dims(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }
}
