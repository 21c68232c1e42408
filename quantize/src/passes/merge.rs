//! Token merging: after every attention of a plain vision transformer the most alike tokens become one.
//!
//! After Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023: each block loses `r` tokens between
//! its attention and its perceptron, later attentions weigh a key by the number of tokens it stands for,
//! and a mean over tokens weighs them likewise. Tokens at the start that are constants (class token,
//! registers) or that the head picks stay as they are.
//!
//! Unlike the other passes this one changes what the graph computes, so it runs on request only, when the
//! others are done.

use std::collections::HashMap;

use ampoule_runtime::ops::attention::{Geometry, View};
use ampoule_runtime::ops::merge::Matching;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::dead;
use crate::graph::{Attention, Graph, GraphError, Node, Op, ReduceKind, ValueId};

/// What is left behind one attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedLayer {
    /// The attention.
    pub node: String,
    /// Tokens before and after.
    pub tokens: (usize, usize),
}

/// Why tokens can't be merged.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Nothing to merge.
    #[error(
        "no block has tokens to merge: that takes global attention without position biases, followed by an addition"
    )]
    NoTokens,
    /// A node that needs the tokens as they were.
    #[error("node `{node}` ({op}) can't work on merged tokens: {what}")]
    Unsupported {
        /// Node name.
        node: String,
        /// Operator name.
        op: &'static str,
        /// What it does.
        what: &'static str,
    },
    /// A shape that does not follow the number of tokens.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Merges `r` tokens in every block, or as many as there are pairs. Gives the tokens that are left.
///
/// # Errors
///
/// [`MergeError`]; the graph is then as it was.
pub fn run(graph: &mut Graph, r: usize) -> Result<Vec<MergedLayer>, MergeError> {
    if r == 0 {
        return Ok(Vec::new());
    }
    let ends: HashMap<usize, usize> = (0..graph.nodes.len())
        .filter(|&i| tokens(&graph.nodes[i]).is_some())
        .filter_map(|i| Some((block_end(graph, i)?, i)))
        .collect();
    let first = ends.values().min().ok_or(MergeError::NoTokens)?;
    let count = tokens(&graph.nodes[*first]).ok_or(MergeError::NoTokens)?;
    let mut merging = Merging {
        old: graph,
        new: Graph {
            nodes: Vec::new(),
            ..graph.clone()
        },
        values: HashMap::new(),
        skipped: HashMap::new(),
        count,
        left: count,
        protected: protected(graph, count),
        sizes: None,
    };
    let mut layers = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        merging.copy(node)?;
        if let Some(&attention) = ends.get(&i) {
            layers.extend(merging.merge(&graph.nodes[attention], node, r)?);
        }
    }
    let mut new = merging.finish()?;
    dead::run(&mut new)?;
    *graph = new;
    match layers.is_empty() {
        true => Err(MergeError::NoTokens),
        false => Ok(layers),
    }
}

/// The graph being written.
struct Merging<'g> {
    old: &'g Graph,
    new: Graph,
    /// New values of old ones, where they differ.
    values: HashMap<ValueId, ValueId>,
    /// Tokens missing at the start of new values.
    skipped: HashMap<ValueId, usize>,
    /// Tokens of the old graph.
    count: usize,
    /// Tokens that are left.
    left: usize,
    /// Tokens at the start that stay.
    protected: usize,
    /// Tokens that each stands for, once that is not 1.
    sizes: Option<ValueId>,
}

impl Merging<'_> {
    fn current(&self, v: ValueId) -> ValueId {
        self.values.get(&v).copied().unwrap_or(v)
    }

    /// Copies a node with its sizes brought up to date.
    fn copy(&mut self, node: &Node) -> Result<(), MergeError> {
        let mut inputs: Vec<ValueId> = node.inputs.iter().map(|&v| self.current(v)).collect();
        let changed = inputs
            .iter()
            .zip(&node.inputs)
            .find_map(|(&new, &old)| Some((new, self.axis(old, new)?)));
        let output = match changed {
            None if inputs == node.inputs => {
                self.new.nodes.push(node.clone());
                return Ok(());
            }
            None => self.new.push(&node.name, node.op.clone(), &inputs)?,
            Some((x, axis)) => match self.adapted(node, x, axis)? {
                Op::Reduce { .. } => self.mean(node, x)?,
                op => {
                    if matches!(&op, Op::Attention(a) if a.sizes) {
                        inputs.extend(self.sizes);
                    }
                    let output = self.new.push(&node.name, op, &inputs)?;
                    let skipped = self.skipped.get(&x).copied().unwrap_or(0);
                    let more = match node.op {
                        Op::Slice { axis: a, start, .. } if a == axis => start,
                        _ => 0,
                    };
                    self.skipped.insert(output, skipped + more);
                    output
                }
            },
        };
        self.new.value_mut(output).name = self.old.value(node.output).name.clone();
        self.values.insert(node.output, output);
        Ok(())
    }

    /// The axis along which a new value has fewer tokens than the old one.
    fn axis(&self, old: ValueId, new: ValueId) -> Option<usize> {
        let (old, new) = (self.old.shape(old), self.new.shape(new));
        old.iter().zip(new).position(|(a, b)| a != b)
    }

    /// The operator on an operand that has fewer tokens along an axis.
    fn adapted(&self, node: &Node, x: ValueId, axis: usize) -> Result<Op, MergeError> {
        let unsupported = |what| MergeError::Unsupported {
            node: node.name.clone(),
            op: node.op.name(),
            what,
        };
        let gone = self.count - self.left;
        Ok(match &node.op {
            Op::Linear { .. }
            | Op::LayerNorm { .. }
            | Op::Unary(_)
            | Op::Binary { .. }
            | Op::Softmax { .. }
            | Op::Transpose(_) => node.op.clone(),
            Op::Reshape(to) => {
                // The token axis has the same elements in front of it.
                let before: usize = self.new.shape(x)[..axis].iter().product();
                let size = self.new.shape(x)[axis];
                let place = (0..to.len())
                    .find(|&d| to[..d].iter().product::<usize>() == before && to[d] == size + gone);
                let place = place.ok_or_else(|| unsupported("it mixes tokens with other axes"))?;
                let mut to = to.clone();
                to[place] = size;
                Op::Reshape(to)
            }
            Op::Slice { axis: a, .. } if *a != axis => node.op.clone(),
            &Op::Slice {
                start,
                len,
                step: 1,
                ..
            } => {
                let skipped = self.skipped.get(&x).copied().unwrap_or(0);
                let size = self.new.shape(x)[axis] + gone;
                if skipped + start + len <= self.protected {
                    node.op.clone()
                } else if skipped + start <= self.protected && start + len == size {
                    Op::Slice {
                        axis,
                        start,
                        len: len - gone,
                        step: 1,
                    }
                } else {
                    return Err(unsupported("it picks tokens that may have merged"));
                }
            }
            Op::Reduce {
                kind: ReduceKind::Mean,
                axes,
            } if axes[..] == [axis] => node.op.clone(),
            Op::Attention(a) => {
                let adapted = self.attention(a);
                Op::Attention(Box::new(adapted.ok_or_else(|| {
                    unsupported("its tokens are not rows, or it has position biases")
                })?))
            }
            _ => return Err(unsupported("it needs all of them")),
        })
    }

    /// An attention over the tokens that are left.
    fn attention(&self, a: &Attention) -> Option<Attention> {
        let g = &a.geometry;
        let whole = |tokens: [u32; 2]| tokens.iter().product::<u32>() as usize == self.count;
        let (queries, keys) = (whole(g.queries), whole(g.keys));
        // A view of tokens in a row; heads lie within one token.
        let row = |v: &View, tokens: [u32; 2]| -> Option<View> {
            let step = step(v, tokens)?;
            let within = g
                .outer
                .iter()
                .zip(v.outer)
                .all(|(&n, s)| n == 1 || s < step);
            within.then_some(View {
                token: [0, step],
                ..*v
            })
        };
        let mut new = a.clone();
        if queries {
            new.geometry.queries = [1, self.left as u32];
            new.geometry.q = row(&g.q, g.queries)?;
            new.geometry.y = row(&g.y, g.queries)?;
            let axis = a.shape.iter().position(|&n| n == self.count)?;
            new.shape[axis] = self.left;
        }
        if keys {
            new.geometry.keys = [1, self.left as u32];
            new.geometry.k = row(&g.k, g.keys)?;
            new.geometry.v = row(&g.v, g.keys)?;
            new.sizes = true;
        }
        (keys && !a.bias).then_some(new)
    }

    /// A mean over the tokens, weighted by size: all of them merge.
    fn mean(&mut self, node: &Node, x: ValueId) -> Result<ValueId, MergeError> {
        let start = self.skipped.get(&x).copied().unwrap_or(0);
        let len = self.left - start;
        let name = &node.name;
        let places = self.indices(&format!("{name}.places"), vec![0.0; len]);
        let mut sizes = self.sizes.ok_or(MergeError::NoTokens)?;
        if start > 0 {
            let slice = Op::Slice {
                axis: 0,
                start,
                len,
                step: 1,
            };
            sizes = self.new.push(&format!("{name}.sizes"), slice, &[sizes])?;
        }
        let inputs = [x, places, sizes];
        Ok(self.new.push(name, Op::Merge { left: 1 }, &inputs)?)
    }

    /// Merges tokens of the result of `end` by the keys of an attention.
    fn merge(
        &mut self,
        attention: &Node,
        end: &Node,
        r: usize,
    ) -> Result<Option<MergedLayer>, MergeError> {
        let Op::Attention(op) = &attention.op else {
            return Ok(None);
        };
        let (before, g) = (self.left, op.geometry);
        let r = r.min((before - self.protected) / 2);
        if tokens(attention) != Some(self.count) || r == 0 {
            return Ok(None);
        }
        let x = self.current(end.output);
        let rows = self.new.shape(x).split_last().map_or(&[][..], |s| s.1);
        if !rows.contains(&before) || rows.iter().product::<usize>() != before {
            return Err(MergeError::Unsupported {
                node: end.name.clone(),
                op: end.op.name(),
                what: "its tokens are not rows",
            });
        }
        let heads = (0..4).find(|&d| g.outer[d] > 1).unwrap_or(3);
        let matching = Matching {
            tokens: before as u32,
            heads: g.outer[heads],
            depth: g.depth,
            start: g.k.start,
            head: g.k.outer[heads],
            token: step(&g.k, g.keys).unwrap_or(0),
            protected: self.protected as u32,
            merged: r as u32,
        };
        let name = &attention.name;
        let keys = self.current(attention.inputs[1]);
        let op = Op::Match(matching);
        let places = self.new.push(&format!("{name}.match"), op, &[keys])?;
        let sizes = match self.sizes {
            Some(sizes) => sizes,
            None => self.indices(&format!("{name}.ones"), vec![1.0; before]),
        };
        let op = Op::Merge { left: before - r };
        let inputs = [x, places, sizes];
        let merged = self
            .new
            .push(&format!("{name}.merge"), op.clone(), &inputs)?;
        let inputs = [sizes, places];
        self.sizes = Some(self.new.push(&format!("{name}.sizes"), op, &inputs)?);
        self.values.insert(end.output, merged);
        self.left = before - r;
        Ok(Some(MergedLayer {
            node: name.clone(),
            tokens: (before, self.left),
        }))
    }

    fn indices(&mut self, name: &str, data: Vec<f32>) -> ValueId {
        let value = self.new.constant_value(name, &[data.len()], data);
        self.new.value_mut(value).is_index = true;
        value
    }

    /// The new graph, where its outputs still have the shapes of the old one's.
    fn finish(mut self) -> Result<Graph, MergeError> {
        let mut outputs = std::mem::take(&mut self.new.outputs);
        for port in &mut outputs {
            let value = self.current(port.value);
            if self.axis(port.value, value).is_some() {
                return Err(MergeError::Unsupported {
                    node: port.name.clone(),
                    op: "output",
                    what: "it has a row per token",
                });
            }
            port.value = value;
        }
        self.new.outputs = outputs;
        Ok(self.new)
    }
}

/// Number of tokens of an attention that all tokens of a map take part in.
fn tokens(node: &Node) -> Option<usize> {
    let Op::Attention(a) = &node.op else {
        return None;
    };
    let g: &Geometry = &a.geometry;
    // What is repeated are heads, which lie within a token, and not windows.
    let mut repeated = g.outer.iter().zip(g.k.outer).filter(|&(&n, _)| n > 1);
    let (heads, more) = (repeated.next(), repeated.next());
    let step = step(&g.k, g.keys)?;
    let plain = heads.is_none_or(|(_, distance)| distance < step) && more.is_none() && !a.bias;
    (plain && g.queries == g.keys && g.key_count() > 3).then(|| g.key_count())
}

/// Distance between tokens that lie in a row.
fn step(v: &View, [rows, columns]: [u32; 2]) -> Option<u32> {
    match (rows, columns) {
        (1, _) => Some(v.token[1]),
        (_, 1) => Some(v.token[0]),
        _ => (v.token[0] == columns * v.token[1]).then_some(v.token[1]),
    }
}

/// The node that adds what an attention has found to the tokens.
fn block_end(graph: &Graph, attention: usize) -> Option<usize> {
    let mut value = graph.nodes[attention].output;
    loop {
        let mut readers =
            (0..graph.nodes.len()).filter(|&i| graph.nodes[i].inputs.contains(&value));
        let (reader, other) = (readers.next()?, readers.next());
        let node = &graph.nodes[reader];
        let activation = |n: &Node| n.inputs.iter().all(|&v| graph.constant(v).is_none());
        match &node.op {
            _ if other.is_some() => return None,
            Op::Linear { residual: true, .. } if node.inputs[0] == value => return Some(reader),
            Op::Binary { .. } if activation(node) => return Some(reader),
            Op::Linear {
                activation: None, ..
            }
            | Op::Binary { .. }
            | Op::Reshape(_) => value = node.output,
            _ => return None,
        }
    }
}

/// Tokens at the start that are constants, or that are picked one by one.
fn protected(graph: &Graph, count: usize) -> usize {
    let mut most = 0;
    for node in &graph.nodes {
        let size = |v: ValueId, axis: usize| graph.shape(v).get(axis).copied().unwrap_or(0);
        match node.op {
            Op::Concat { axis } if size(node.output, axis) == count => {
                let constants = node
                    .inputs
                    .iter()
                    .take_while(|&&v| graph.constant(v).is_some());
                most = most.max(constants.map(|&v| size(v, axis)).sum());
            }
            Op::Slice {
                axis, start, len, ..
            } if size(node.inputs[0], axis) == count && start + len < count / 2 => {
                most = most.max(start + len);
            }
            _ => {}
        }
    }
    most
}
