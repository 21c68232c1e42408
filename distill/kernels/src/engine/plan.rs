//! From layers to fused units.
//!
//! Norms and activations never become maps of their own: a unit reads its inputs through a [`View`],
//! which applies them to a cache-sized chunk on the way in, in the forward and again in the backward
//! pass. What is stored is what convolutions, attentions and sums leave.

use std::collections::HashMap;

use crate::graph::{Activation, BatchNorm, Graph, Map, Op, ParameterId, Value};
use crate::ops::Window;
use crate::ops::attention::Geometry;

/// Units in execution order, and the memory they work on.
#[derive(Debug)]
pub(super) struct Plan {
    pub units: Vec<Unit>,
    pub storages: Vec<Storage>,
    pub norms: Vec<Norm>,
    pub layers: Vec<Layer>,
    pub slots: Vec<Slot>,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
    /// Most channels of a view.
    pub channels: usize,
}

/// A map in memory.
#[derive(Debug)]
pub(super) struct Storage {
    pub map: Map,
    /// Batch norms whose statistics it has.
    pub norms: Vec<usize>,
    /// Where the unit that fills it finds its gradient.
    pub slot: Option<usize>,
}

/// A batch norm of a storage.
#[derive(Debug)]
pub(super) struct Norm {
    pub of: BatchNorm,
    pub storage: usize,
}

/// A layer norm.
#[derive(Debug)]
pub(super) struct Layer {
    pub weight: ParameterId,
    pub bias: ParameterId,
    pub epsilon: f32,
}

/// A gradient in memory: with respect to a storage, or to the result of its batch norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub storage: usize,
    pub norm: Option<usize>,
}

/// A storage as a unit reads it: `activation(normalize(x))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    pub storage: usize,
    pub normalize: Normalize,
    pub activation: Activation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Normalize {
    None,
    Batch(usize),
    Layer(usize),
}

/// An input of a unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub view: View,
    /// Where its gradient goes; nowhere for the pictures.
    pub slot: Option<usize>,
}

/// A fused unit.
#[derive(Debug)]
pub(super) struct Unit {
    pub kernel: Kernel,
    pub sources: Vec<Source>,
    pub output: usize,
    /// The layer it is for.
    pub node: usize,
}

#[derive(Debug)]
pub(super) enum Kernel {
    Conv {
        weight: ParameterId,
        bias: Option<ParameterId>,
        window: Window,
    },
    Depthwise {
        weight: ParameterId,
        bias: Option<ParameterId>,
        window: Window,
    },
    Attention {
        geometry: Geometry,
        bias: Option<crate::graph::PositionBias>,
    },
    /// Sum of the sources, all but the first scaled by drop path.
    Add {
        drop_path: f32,
    },
    Gate,
    AveragePool(Window),
    MaxPool(Window),
    Mean,
    MaskedMean,
    Embedding(ParameterId),
    Positions(ParameterId),
    Queries(ParameterId),
    Tokens(ParameterId),
    Normalize,
    FakeQuantize {
        range: ParameterId,
        momentum: f32,
    },
    /// To a larger map, or with a smaller result to a part of it.
    Resize,
    /// Gradient of a batch norm whose storage has other readers; nothing forward.
    NormGradient(usize),
}

impl Plan {
    /// How many units are attention.
    pub fn attentions(&self) -> usize {
        let is_attention = |u: &&Unit| matches!(u.kernel, Kernel::Attention { .. });
        self.units.iter().filter(is_attention).count()
    }

    pub fn new(graph: &Graph) -> Plan {
        let mut builder = Builder {
            graph,
            plan: Plan {
                units: Vec::new(),
                storages: Vec::new(),
                norms: Vec::new(),
                layers: Vec::new(),
                slots: Vec::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                channels: 0,
            },
            views: HashMap::new(),
            node: 0,
        };
        builder.build();
        builder.plan
    }
}

struct Builder<'a> {
    graph: &'a Graph,
    plan: Plan,
    views: HashMap<Value, View>,
    /// The layer being planned.
    node: usize,
}

impl Builder<'_> {
    fn build(&mut self) {
        let graph = self.graph;
        for &input in &graph.inputs {
            let storage = self.storage(graph.map(input));
            self.plan.inputs.push(storage);
            self.views.insert(input, View::plain(storage));
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            self.node = index;
            let view = self.node(&node.op, &node.inputs, graph.map(node.output));
            self.views.insert(node.output, view);
        }
        for &output in &graph.outputs {
            let view = self.plain(self.views[&output]);
            self.plan.outputs.push(view.storage);
        }
        self.slots();
        let maps = self.plan.storages.iter().map(|s| s.map.channels);
        self.plan.channels = maps.max().unwrap_or(0);
    }

    /// The view that a layer gives; those that cannot be one become a unit.
    fn node(&mut self, op: &Op, inputs: &[Value], map: Map) -> View {
        let x = self.views[&inputs[0]];
        match *op {
            Op::BatchNorm(of) => {
                let x = self.plain(x);
                let norm = self.plan.norms.len();
                self.plan.norms.push(Norm {
                    of,
                    storage: x.storage,
                });
                self.plan.storages[x.storage].norms.push(norm);
                self.plan.units.push(Unit {
                    kernel: Kernel::NormGradient(norm),
                    sources: Vec::new(),
                    output: x.storage,
                    node: self.node,
                });
                View {
                    normalize: Normalize::Batch(norm),
                    ..x
                }
            }
            Op::LayerNorm {
                weight,
                bias,
                epsilon,
            } => {
                let x = self.plain(x);
                self.plan.layers.push(Layer {
                    weight,
                    bias,
                    epsilon,
                });
                View {
                    normalize: Normalize::Layer(self.plan.layers.len() - 1),
                    ..x
                }
            }
            Op::Activation(activation) => {
                let layer = matches!(x.normalize, Normalize::Layer(_));
                let x = if layer || x.activation != Activation::Identity {
                    self.materialize(x)
                } else {
                    x
                };
                View { activation, ..x }
            }
            _ => {
                let views = inputs.iter().map(|v| self.views[v]).collect();
                self.unit(kernel(op, self.graph.map(inputs[0])), views, map)
            }
        }
    }

    /// A view without norm and activation.
    fn plain(&mut self, x: View) -> View {
        if x == View::plain(x.storage) {
            x
        } else {
            self.materialize(x)
        }
    }

    fn materialize(&mut self, x: View) -> View {
        let map = self.plan.storages[x.storage].map;
        self.unit(Kernel::Add { drop_path: 0.0 }, vec![x], map)
    }

    fn unit(&mut self, kernel: Kernel, views: Vec<View>, map: Map) -> View {
        let output = self.storage(map);
        let sources = views
            .into_iter()
            .map(|view| Source { view, slot: None })
            .collect();
        self.plan.units.push(Unit {
            kernel,
            sources,
            output,
            node: self.node,
        });
        View::plain(output)
    }

    fn storage(&mut self, map: Map) -> usize {
        self.plan.storages.push(Storage {
            map,
            norms: Vec::new(),
            slot: None,
        });
        self.plan.storages.len() - 1
    }

    /// Gives each read its gradient, and drops the norm gradients that producers compute themselves.
    fn slots(&mut self) {
        let Plan {
            units,
            storages,
            slots,
            inputs,
            outputs,
            ..
        } = &mut self.plan;
        let mut known: HashMap<Slot, usize> = HashMap::new();
        let mut slot = |slot: Slot| {
            *known.entry(slot).or_insert_with(|| {
                slots.push(slot);
                slots.len() - 1
            })
        };
        let read = |unit: &&mut Unit| !matches!(unit.kernel, Kernel::Queries(_));
        for source in units.iter_mut().filter(read).flat_map(|u| &mut u.sources) {
            let View {
                storage, normalize, ..
            } = source.view;
            source.slot = match normalize {
                Normalize::Batch(norm) => Some(slot(Slot {
                    storage,
                    norm: Some(norm),
                })),
                // Layer norms of pictures still need their own gradients.
                Normalize::Layer(_) => Some(slot(Slot {
                    storage,
                    norm: None,
                })),
                Normalize::None if inputs.contains(&storage) => None,
                Normalize::None => Some(slot(Slot {
                    storage,
                    norm: None,
                })),
            };
        }
        for &storage in outputs.iter() {
            slot(Slot {
                storage,
                norm: None,
            });
        }
        for (index, storage) in storages.iter().enumerate() {
            if storage.norms.len() > 1 && !inputs.contains(&index) {
                slot(Slot {
                    storage: index,
                    norm: None,
                });
            }
        }
        for (index, storage) in storages.iter_mut().enumerate() {
            let plain = Slot {
                storage: index,
                norm: None,
            };
            let normalized = |norm: &usize| {
                known.get(&Slot {
                    storage: index,
                    norm: Some(*norm),
                })
            };
            storage.slot = match (known.get(&plain), storage.norms.as_slice()) {
                (None, [norm]) if !inputs.contains(&index) => normalized(norm).copied(),
                (found, _) => found.copied(),
            };
        }
        units.retain(|unit| match unit.kernel {
            Kernel::NormGradient(norm) => {
                let slot = known.get(&Slot {
                    storage: unit.output,
                    norm: Some(norm),
                });
                slot.is_some() && slot.copied() != storages[unit.output].slot
            }
            _ => true,
        });
    }
}

impl View {
    fn plain(storage: usize) -> View {
        View {
            storage,
            normalize: Normalize::None,
            activation: Activation::Identity,
        }
    }

    /// Whether it is the storage as it is.
    pub fn is_plain(&self) -> bool {
        *self == View::plain(self.storage)
    }
}

/// The kernel of a layer that is neither norm nor activation, with its first input.
fn kernel(op: &Op, x: Map) -> Kernel {
    match op.clone() {
        Op::Conv {
            weight,
            bias,
            window,
        } => Kernel::Conv {
            weight,
            bias,
            window,
        },
        Op::Depthwise {
            weight,
            bias,
            window,
        } => Kernel::Depthwise {
            weight,
            bias,
            window,
        },
        Op::Attention(a) => Kernel::Attention {
            geometry: Geometry {
                map: [x.height, x.width],
                window: a.window.unwrap_or([x.height, x.width]),
                heads: a.heads,
                head_size: a.head_size,
                scale: a.scale,
                causal: a.causal,
                lanes: a.lanes,
                mask: a.mask,
            },
            bias: a.bias,
        },
        Op::Add { drop_path } => Kernel::Add { drop_path },
        Op::Gate => Kernel::Gate,
        Op::AveragePool(window) => Kernel::AveragePool(window),
        Op::MaxPool(window) => Kernel::MaxPool(window),
        Op::Mean => Kernel::Mean,
        Op::MaskedMean => Kernel::MaskedMean,
        Op::Embedding { table } => Kernel::Embedding(table),
        Op::Positions { table } => Kernel::Positions(table),
        Op::Queries { table, .. } => Kernel::Queries(table),
        Op::Tokens { table } => Kernel::Tokens(table),
        Op::Normalize => Kernel::Normalize,
        Op::FakeQuantize { range, momentum } => Kernel::FakeQuantize { range, momentum },
        Op::Pad(_) | Op::Crop(_) => Kernel::Resize,
        Op::BatchNorm(_) | Op::LayerNorm { .. } | Op::Activation(_) => {
            unreachable!("norms and activations are views")
        }
    }
}
