//! Builds the graph of a network layer by layer.

use std::sync::Arc;

use ampoule_distill_kernels::graph::{
    Activation, Attention, BatchNorm, Graph, GraphError, Kind, Lane, Map, Node, Op, ParameterId,
    PositionBias, Value,
};
use ampoule_distill_kernels::ops::Window;

use super::network::{Network, Part, Role, count, macs};

/// What adding a layer gives.
pub(crate) type Built = Result<Value, GraphError>;

/// A network under construction.
#[derive(Default)]
pub(crate) struct Builder {
    pub graph: Graph,
    pub roles: Vec<Role>,
    pub parts: Vec<Part>,
}

impl From<Network> for Builder {
    /// Goes on where a network ends.
    fn from(network: Network) -> Self {
        Builder {
            graph: network.graph,
            roles: network.roles,
            parts: network.parts,
        }
    }
}

impl Builder {
    /// The network, with a value as its output.
    pub fn finish(mut self, output: Value) -> Network {
        self.graph.output(output);
        self.into_network()
    }

    /// The network, whose outputs are set.
    pub fn into_network(self) -> Network {
        Network {
            graph: self.graph,
            roles: self.roles,
            parts: self.parts,
        }
    }

    /// Builds a part, and notes what it costs.
    pub fn part(
        &mut self,
        name: &str,
        operator: String,
        build: impl FnOnce(&mut Builder) -> Built,
    ) -> Built {
        let (parameter, node) = (self.roles.len(), self.graph.nodes().len());
        let x = build(self)?;
        let parameters = count(
            &self.graph.parameters()[parameter..],
            &self.roles[parameter..],
        );
        let part = self.part_of(&self.graph.nodes()[node..], name.to_owned(), parameters);
        self.parts.push(Part { operator, ..part });
        Ok(x)
    }

    /// The part that some layers are, described by their number.
    pub fn part_of(&self, nodes: &[Node], name: String, parameters: u64) -> Part {
        let map = nodes
            .last()
            .map_or(Map::new(0, 0, 0), |n| self.map(n.output));
        Part {
            name,
            operator: format!("{} layers", nodes.len()),
            output: match (map.height, map.width) {
                (1, 1) => vec![map.channels],
                (height, width) => vec![map.channels, height, width],
            },
            parameters,
            macs: nodes.iter().map(|n| macs(&self.graph, n)).sum(),
        }
    }

    /// Shape of a value.
    pub fn map(&self, x: Value) -> Map {
        self.graph.map(x)
    }

    /// Dense convolution, with a kernel `[O, I, k, k]`.
    pub fn conv(&mut self, x: Value, name: &str, out: usize, window: Window, bias: bool) -> Built {
        let [height, width] = window.kernel;
        let shape = [out, self.map(x).channels, height, width];
        let op = Op::Conv {
            weight: self.kernel(x, name, &shape),
            bias: bias.then(|| self.parameter(name, "bias", &[out], Role::Bias)),
            window,
        };
        self.graph.push(name, op, &[x])
    }

    /// Convolution of each channel with its own kernel.
    pub fn depthwise(&mut self, x: Value, name: &str, window: Window, bias: bool) -> Built {
        let ([height, width], c) = (window.kernel, self.map(x).channels);
        let op = Op::Depthwise {
            weight: self.kernel(x, name, &[c, 1, height, width]),
            bias: bias.then(|| self.parameter(name, "bias", &[c], Role::Bias)),
            window,
        };
        self.graph.push(name, op, &[x])
    }

    /// Linear layer on the channels of each pixel.
    pub fn linear(&mut self, x: Value, name: &str, out: usize) -> Built {
        let shape = [out, self.map(x).channels];
        let op = Op::Conv {
            weight: self.parameter(name, "weight", &shape, Role::Matrix),
            bias: Some(self.parameter(name, "bias", &[out], Role::Bias)),
            window: Window::POINT,
        };
        self.graph.push(name, op, &[x])
    }

    /// Linear layer without bias.
    pub fn projection(&mut self, x: Value, name: &str, out: usize) -> Built {
        let shape = [out, self.map(x).channels];
        let op = Op::Conv {
            weight: self.parameter(name, "weight", &shape, Role::Matrix),
            bias: None,
            window: Window::POINT,
        };
        self.graph.push(name, op, &[x])
    }

    /// A factor per channel.
    pub fn layer_scale(&mut self, x: Value, name: &str) -> Built {
        let shape = [self.map(x).channels, 1, 1, 1];
        let op = Op::Depthwise {
            weight: self.parameter(name, "gamma", &shape, Role::LayerScale),
            bias: None,
            window: Window::POINT,
        };
        self.graph.push(name, op, &[x])
    }

    /// Batch norm; `gain` is one of the gains among roles, `momentum` the share of a batch in new
    /// running statistics.
    pub fn batch_norm(
        &mut self,
        x: Value,
        name: &str,
        gain: Role,
        epsilon: f32,
        momentum: f32,
    ) -> Built {
        let c = [self.map(x).channels];
        let op = Op::BatchNorm(BatchNorm {
            weight: self.parameter(name, "weight", &c, gain),
            bias: self.parameter(name, "bias", &c, Role::Offset),
            mean: self.parameter(name, "running_mean", &c, Role::Mean),
            variance: self.parameter(name, "running_var", &c, Role::Variance),
            epsilon,
            momentum,
        });
        self.graph.push(name, op, &[x])
    }

    /// Norm over the channels of each pixel.
    pub fn layer_norm(&mut self, x: Value, name: &str) -> Built {
        let c = [self.map(x).channels];
        let op = Op::LayerNorm {
            weight: self.parameter(name, "weight", &c, Role::Gain),
            bias: self.parameter(name, "bias", &c, Role::Offset),
            epsilon: 1e-5,
        };
        self.graph.push(name, op, &[x])
    }

    pub fn activation(&mut self, x: Value, name: &str, f: Activation) -> Built {
        self.graph.push(name, Op::Activation(f), &[x])
    }

    /// Sum of a shortcut and a branch, which is dropped at that rate.
    pub fn add(&mut self, skip: Value, branch: Value, name: &str, drop_path: f32) -> Built {
        self.graph
            .push(name, Op::Add { drop_path }, &[skip, branch])
    }

    /// Mean over all pixels.
    pub fn mean(&mut self, x: Value, name: &str) -> Built {
        self.graph.push(name, Op::Mean, &[x])
    }

    /// Pads the map with zeros at the bottom and the right so that windows divide it; tells by how much.
    pub fn pad(
        &mut self,
        x: Value,
        name: &str,
        window: [usize; 2],
    ) -> Result<(Value, [usize; 2]), GraphError> {
        let map = self.map(x);
        let by = [
            map.height.next_multiple_of(window[0]) - map.height,
            map.width.next_multiple_of(window[1]) - map.width,
        ];
        match by {
            [0, 0] => Ok((x, by)),
            _ => Ok((self.graph.push(name, Op::Pad(by), &[x])?, by)),
        }
    }

    /// Undoes [`Builder::pad`].
    pub fn crop(&mut self, x: Value, name: &str, by: [usize; 2]) -> Built {
        match by {
            [0, 0] => Ok(x),
            _ => self.graph.push(name, Op::Crop(by), &[x]),
        }
    }

    /// Rows of a table for token ids, `[rows, width]`.
    pub fn embedding(
        &mut self,
        ids: Value,
        name: &str,
        [rows, width]: [usize; 2],
        role: Role,
    ) -> Built {
        let table = self.parameter(name, "weight", &[rows, width], role);
        self.graph.push(name, Op::Embedding { table }, &[ids])
    }

    /// Adds a learnt vector to each pixel.
    pub fn positions(&mut self, x: Value, name: &str) -> Built {
        let map = self.map(x);
        let shape = [map.pixels(), map.channels];
        let table = self.parameter(name, "weight", &shape, Role::Embedding);
        self.graph.push(name, Op::Positions { table }, &[x])
    }

    /// Attention among all tokens but padding, which is where `ids` is 0. Queries, keys and values are
    /// packed one behind the other.
    pub fn token_attention(
        &mut self,
        packed: Value,
        ids: Value,
        name: &str,
        heads: usize,
    ) -> Built {
        let width = self.map(packed).channels / 3;
        let head_size = width / heads.max(1);
        let lane = |i: usize| Lane {
            input: 0,
            offset: i * width,
            stride: head_size,
        };
        let op = Op::Attention(Attention {
            heads,
            head_size,
            scale: (head_size as f32).powf(-0.5),
            lanes: [lane(0), lane(1), lane(2)],
            window: None,
            bias: None,
            causal: false,
            mask: Some(1),
        });
        self.graph.push(name, op, &[packed, ids])
    }

    /// Attention in windows, or on the whole map where a window is as large.
    pub fn attention(
        &mut self,
        inputs: &[Value],
        name: &str,
        [heads, head_size]: [usize; 2],
        lanes: [Lane; 3],
        window: [usize; 2],
        bias: Option<PositionBias>,
    ) -> Built {
        let map = self.map(inputs[0]);
        let op = Op::Attention(Attention {
            heads,
            head_size,
            scale: (head_size as f32).powf(-0.5),
            lanes,
            window: (window != [map.height, map.width]).then_some(window),
            bias,
            causal: false,
            mask: None,
        });
        self.graph.push(name, op, inputs)
    }

    /// TinyViT's bias: a table over the absolute offsets in a window, `[heads, side²]`.
    pub fn absolute_bias(&mut self, name: &str, heads: usize, side: usize) -> PositionBias {
        let shape = [heads, side * side];
        PositionBias {
            table: self.parameter(name, "attention_biases", &shape, Role::Table),
            index: absolute_offsets([side; 2]),
        }
    }

    /// MOAT's bias: a table over the signed offsets (key minus query) in a window,
    /// `[heads, 2 · height − 1, 2 · width − 1]`. The published one is for a square of side `trained`.
    pub fn signed_bias(
        &mut self,
        name: &str,
        heads: usize,
        trained: usize,
        window: [usize; 2],
    ) -> PositionBias {
        let [rows, columns] = window.map(|side| 2 * side - 1);
        let role = Role::SignedTable {
            published: 2 * trained - 1,
        };
        let shape = [heads, rows, columns];
        PositionBias {
            table: self.parameter(name, "relative_position_embedding", &shape, role),
            index: signed_offsets(window),
        }
    }

    fn kernel(&mut self, x: Value, name: &str, shape: &[usize]) -> ParameterId {
        let activated = self.is_activated(x);
        self.parameter(name, "weight", shape, Role::Kernel { activated })
    }

    /// Whether a value comes from an activation.
    pub fn is_activated(&self, x: Value) -> bool {
        let producer = self.graph.nodes().iter().rev().find(|n| n.output == x);
        producer.is_some_and(|n| match n.op {
            Op::Activation(_) => true,
            Op::Gate => self.is_activated(n.inputs[0]),
            _ => false,
        })
    }

    /// Adds a parameter of a layer.
    pub fn parameter(
        &mut self,
        layer: &str,
        name: &str,
        shape: &[usize],
        role: Role,
    ) -> ParameterId {
        self.parameter_named(format!("{layer}.{name}"), shape, role)
    }

    /// Adds a parameter.
    pub fn parameter_named(&mut self, name: String, shape: &[usize], role: Role) -> ParameterId {
        let kind = match role {
            Role::Kernel { .. } | Role::Matrix => Kind::Weight,
            Role::Mean | Role::Variance => Kind::Statistic,
            _ => Kind::Undecayed,
        };
        self.roles.push(role);
        self.graph.parameter(name, shape, kind)
    }
}

/// For all pairs of positions in a window the entry of TinyViT's table of that size.
pub(crate) fn absolute_offsets([rows, columns]: [usize; 2]) -> Arc<[u32]> {
    pairs([rows, columns], |[y, x], [to_y, to_x]| {
        y.abs_diff(to_y) * columns + x.abs_diff(to_x)
    })
}

/// For all pairs of positions in a window the entry of MOAT's table of that size.
pub(crate) fn signed_offsets([rows, columns]: [usize; 2]) -> Arc<[u32]> {
    pairs([rows, columns], |[y, x], [to_y, to_x]| {
        (to_y + rows - 1 - y) * (2 * columns - 1) + to_x + columns - 1 - x
    })
}

/// `entry(query, key)` for all pairs of positions in a window, row by row.
fn pairs(
    [rows, columns]: [usize; 2],
    entry: impl Fn([usize; 2], [usize; 2]) -> usize,
) -> Arc<[u32]> {
    let positions = || (0..rows).flat_map(|y| (0..columns).map(move |x| [y, x]));
    positions()
        .flat_map(|query| positions().map(move |key| (query, key)))
        .map(|(query, key)| entry(query, key) as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The papers' code for windows of 2×2, and of MOAT's the corners for 2×3.
    #[test]
    fn offsets() {
        let rows = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]];
        assert_eq!(*absolute_offsets([2, 2]), rows.concat());
        let rows = [[4, 5, 7, 8], [3, 4, 6, 7], [1, 2, 4, 5], [0, 1, 3, 4]];
        assert_eq!(*signed_offsets([2, 2]), rows.concat());
        let wide = signed_offsets([2, 3]);
        assert_eq!([wide[0], wide[5], wide[30], wide[35]], [7, 14, 0, 7]);
    }
}
