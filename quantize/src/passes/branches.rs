//! Sums of parallel branches of one value become one layer.
//!
//! Networks with structural re-parameterisation (RepVGG, MobileOne, RepViT, FastViT) are trained with
//! convolutions of several sizes, batch norms and skips side by side. All are linear in the same value:
//! a smaller window is a larger one with zeros around it, a skip is a window of 1×1 with the identity.

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;

use super::edit::{Edit, Verdict, sweep};
use super::operands::{binary, per_channel, with_constant};
use crate::graph::{Graph, GraphError, Node, Op, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, rule)
}

/// Rewrites a sum or difference of two branches.
fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some((kind @ (BinaryKind::Add | BinaryKind::Sub), a, b)) = binary(node) else {
        return Ok(None);
    };
    let output = edit.shape(node.output).to_vec();
    if edit.shape(a) != output
        || edit.shape(b) != output
        || [a, b].iter().any(|&v| edit.constant(v).is_some())
    {
        return Ok(None);
    }
    let sign = if kind == BinaryKind::Sub { -1.0 } else { 1.0 };
    if let Some(sum) = linear(edit, node, [a, b], sign)? {
        return Ok(Some(sum));
    }
    for (x, a, b) in pairs(edit, a, b) {
        let sum = match (a, b) {
            (Branch::Line(a), Branch::Line(b)) => {
                return line(edit, node, x, &a.plus(&b.times(sign)));
            }
            (Branch::Window(a), Branch::Window(b)) => a.plus(&b.times(sign)),
            // A skip reads the place that it writes: the window must see the same map.
            (Branch::Window(w), _) | (_, Branch::Window(w)) if edit.shape(w.x) != output => None,
            (Branch::Window(w), Branch::Line(l)) => w.plus_line(&l.times(sign)),
            (Branch::Line(l), Branch::Window(w)) => w.times(sign).plus_line(&l),
        };
        if let Some(sum) = sum {
            return sum.emit(edit, node).map(Some);
        }
    }
    Ok(None)
}

/// A linear function of a value.
enum Branch {
    Window(Layer),
    Line(Line),
}

/// `scale · x + offset` for each channel.
struct Line {
    scale: Vec<f32>,
    offset: Vec<f32>,
}

/// A convolution.
struct Layer {
    /// The operand: the common value, or a reshape of it.
    x: ValueId,
    window: Window,
    groups: usize,
    /// `[O, kh, kw, C / groups]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// Channels of a group of the operand.
    depth: usize,
}

/// The ways to see two values as branches of the same value.
fn pairs(edit: &Edit<'_>, a: ValueId, b: ValueId) -> Vec<(ValueId, Branch, Branch)> {
    let (of_a, of_b) = (branches(edit, a), branches(edit, b));
    let mut found = Vec::new();
    for (x, a) in of_a {
        if let Some((_, b)) = of_b.iter().find(|(y, _)| *y == x)
            && let (Some(a), Some(b)) = (a.build(edit), b.build(edit))
        {
            found.push((x, a, b));
        }
    }
    found
}

/// A branch whose numbers have not been read yet.
enum Candidate {
    /// The value itself, or what additions and multiplications of it by constants give.
    Chain(ValueId, Vec<(BinaryKind, ValueId)>),
    /// A convolution that nothing else reads.
    Layer(Node),
}

/// The values that `v` is a linear function of, nearest first.
fn branches(edit: &Edit<'_>, v: ValueId) -> Vec<(ValueId, Candidate)> {
    let mut found = vec![(v, Candidate::Chain(v, Vec::new()))];
    let mut steps = Vec::new();
    let mut at = v;
    while let Some(node) = edit.producer(at) {
        match (&node.op, with_constant(edit, node)) {
            (_, Some((kind @ (BinaryKind::Add | BinaryKind::Mul), x, c))) => {
                steps.insert(0, (kind, c));
                at = x;
                found.push((x, Candidate::Chain(x, steps.clone())));
            }
            (
                Op::Conv {
                    residual: false,
                    activation: None,
                    ..
                },
                _,
            ) if at == v && edit.is_private(v) => {
                let mut x = node.inputs[0];
                found.push((x, Candidate::Layer(node.clone())));
                while let Some(Node {
                    op: Op::Reshape(to),
                    inputs,
                    ..
                }) = edit.producer(x)
                    && edit.shape(inputs[0]).last() == to.last()
                {
                    x = inputs[0];
                    found.push((x, Candidate::Layer(node.clone())));
                }
                break;
            }
            // Channels stay channels; the rest does not matter to a line.
            (Op::Reshape(to), _) if edit.shape(node.inputs[0]).last() == to.last() => {
                at = node.inputs[0];
                found.push((at, Candidate::Chain(at, steps.clone())));
            }
            _ => break,
        }
    }
    found
}

impl Candidate {
    fn build(&self, edit: &Edit<'_>) -> Option<Branch> {
        match self {
            Candidate::Chain(x, steps) => {
                let channels = *edit.shape(*x).last()?;
                let mut line = Line {
                    scale: vec![1.0; channels],
                    offset: vec![0.0; channels],
                };
                for &(kind, c) in steps {
                    let c = per_channel(edit, c, channels)?;
                    line = match kind {
                        BinaryKind::Add => Line {
                            offset: zip(&line.offset, &c, |o, c| o + c),
                            ..line
                        },
                        _ => Line {
                            scale: zip(&line.scale, &c, |s, c| s * c),
                            offset: zip(&line.offset, &c, |o, c| o * c),
                        },
                    };
                }
                Some(Branch::Line(line))
            }
            Candidate::Layer(node) => {
                let Op::Conv { window, groups, .. } = node.op else {
                    return None;
                };
                Some(Branch::Window(Layer {
                    x: node.inputs[0],
                    window,
                    groups,
                    weights: edit.constant(node.inputs[1])?.to_vec(),
                    bias: edit.constant(node.inputs[2])?.to_vec(),
                    depth: *edit.shape(node.inputs[1]).last()?,
                }))
            }
        }
    }
}

impl Line {
    fn times(&self, factor: f32) -> Line {
        let times = |v: &[f32]| v.iter().map(|v| v * factor).collect();
        Line {
            scale: times(&self.scale),
            offset: times(&self.offset),
        }
    }

    fn plus(&self, other: &Line) -> Line {
        Line {
            scale: zip(&self.scale, &other.scale, |a, b| a + b),
            offset: zip(&self.offset, &other.offset, |a, b| a + b),
        }
    }

    /// Whether it is the value itself.
    fn is_identity(&self) -> bool {
        self.scale.iter().all(|&s| s == 1.0) && self.offset.iter().all(|&o| o == 0.0)
    }
}

impl Layer {
    fn times(&self, factor: f32) -> Layer {
        let times = |v: &[f32]| v.iter().map(|v| v * factor).collect();
        Layer {
            weights: times(&self.weights),
            bias: times(&self.bias),
            ..*self
        }
    }

    /// The sum with another window over the same places.
    fn plus(&self, other: &Layer) -> Option<Layer> {
        // Other reshapes of the common value have other neighbours.
        let alike = self.x == other.x
            && self.groups == other.groups
            && self.depth == other.depth
            && self.bias.len() == other.bias.len();
        let (large, small) = if self.window.taps() >= other.window.taps() {
            (self, other)
        } else {
            (other, self)
        };
        let [top, left] = offset(&large.window, &small.window).filter(|_| alike)?;
        let mut weights = large.weights.clone();
        let [_, width] = large.window.kernel.map(usize::from);
        let [rows, columns] = small.window.kernel.map(usize::from);
        for o in 0..self.bias.len() {
            for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
                let from = ((o * rows + row) * columns + column) * self.depth;
                let at = o * large.window.taps() + (row + top) * width + column + left;
                let to = &mut weights[at * self.depth..][..self.depth];
                let from = &small.weights[from..][..self.depth];
                to.iter_mut().zip(from).for_each(|(w, s)| *w += s);
            }
        }
        Some(Layer {
            window: large.window,
            weights,
            bias: zip(&self.bias, &other.bias, |a, b| a + b),
            ..*self
        })
    }

    /// The sum with a scaled skip. A plain skip stays beside a dense convolution: ones among its weights
    /// would stretch their range and save nothing where the runtime adds while it writes the result.
    fn plus_line(&self, line: &Line) -> Option<Layer> {
        let channels = self.bias.len();
        let dense = self.depth > 1;
        if line.scale.len() != channels
            || self.depth * self.groups != channels
            || (dense && line.is_identity())
        {
            return None;
        }
        let mut weights = vec![0.0; channels * self.depth];
        for (o, s) in line.scale.iter().enumerate() {
            weights[o * self.depth + o % self.depth] = *s;
        }
        let skip = Layer {
            window: Window {
                kernel: [1; 2],
                pad: [0; 4],
                dilation: [1; 2],
                ..self.window
            },
            weights,
            bias: line.offset.clone(),
            ..*self
        };
        if self.window.stride != [1; 2] {
            return None;
        }
        self.plus(&skip)
    }

    fn emit(self, edit: &mut Edit<'_>, node: &Node) -> Result<ValueId, GraphError> {
        let channels = self.bias.len();
        let [height, width] = self.window.kernel.map(usize::from);
        let shape = [channels, height, width, self.depth];
        let w = edit.constant_value(&format!("{}.weight", node.name), &shape, self.weights);
        let b = edit.constant_value(&format!("{}.bias", node.name), &[channels], self.bias);
        let op = Op::Conv {
            window: self.window,
            groups: self.groups,
            residual: false,
            activation: None,
        };
        edit.push(&node.name, op, &[self.x, w, b])
    }
}

/// Two linear layers of one value, the second one times `sign`.
fn linear(edit: &mut Edit<'_>, node: &Node, sides: [ValueId; 2], sign: f32) -> Verdict {
    let layers = sides.map(|v| match edit.producer(v) {
        Some(Node {
            op:
                Op::Linear {
                    residual: false,
                    activation: None,
                },
            inputs,
            ..
        }) if edit.is_private(v) => Some(inputs.clone()),
        _ => None,
    });
    let [Some(a), Some(b)] = layers else {
        return Ok(None);
    };
    if a[0] != b[0] {
        return Ok(None);
    }
    let mut inputs = vec![a[0]];
    for (i, what) in [(1, "weight"), (2, "bias")] {
        let (Some(x), Some(y)) = (edit.constant(a[i]), edit.constant(b[i])) else {
            return Ok(None);
        };
        let sum = zip(x, y, |x, y| x + sign * y);
        let shape = edit.shape(a[i]).to_vec();
        inputs.push(edit.constant_value(&format!("{}.{what}", node.name), &shape, sum));
    }
    let op = Op::Linear {
        residual: false,
        activation: None,
    };
    edit.push(&node.name, op, &inputs).map(Some)
}

/// Row and column of the larger window where the smaller one lies, if it lies inside for each place. Both
/// give the same number of places, and see zeros outside the map.
fn offset(large: &Window, small: &Window) -> Option<[usize; 2]> {
    let mut at = [0; 2];
    for axis in 0..2 {
        let [pad, other] = [large, small].map(|w| usize::from(w.pad[axis]));
        let [size, inner] = [large, small].map(|w| usize::from(w.kernel[axis]));
        let dense = [large, small]
            .iter()
            .all(|w| w.dilation[axis] == 1 || w.kernel[axis] == 1);
        at[axis] = pad.checked_sub(other)?;
        if !dense || large.stride[axis] != small.stride[axis] || at[axis] + inner > size {
            return None;
        }
    }
    Some(at)
}

/// Emits a line: a multiplication and an addition.
fn line(edit: &mut Edit<'_>, node: &Node, x: ValueId, line: &Line) -> Verdict {
    let shape = edit.shape(node.output).to_vec();
    let mut y = x;
    if edit.shape(x) != shape {
        y = edit.push(&format!("{}.shape", node.name), Op::Reshape(shape), &[x])?;
    }
    for (kind, numbers, what) in [
        (BinaryKind::Mul, &line.scale, "scale"),
        (BinaryKind::Add, &line.offset, "offset"),
    ] {
        let c = edit.constant_value(
            &format!("{}.{what}", node.name),
            &[numbers.len()],
            numbers.clone(),
        );
        let op = Op::Binary {
            kind,
            activation: None,
        };
        y = edit.push(&format!("{}.{what}", node.name), op, &[y, c])?;
    }
    Ok(Some(y))
}

fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}
