//! Quantised ONNX models, spelled out in float with their parameters beside, before tract sees them.
//!
//! A tensor of codes becomes the real tensor that it stands for, and what made it is followed by a
//! [`CODES`] node that states scale and zero point; lowering turns that into
//! [`Op::Quantize`](crate::graph::Op). Constants of codes become real constants, whose steps go beside the
//! graph. So pairs of QuantizeLinear and DequantizeLinear, and operators on codes (QLinear…), all come out
//! as float operators between stated parameters.
//!
//! DynamicQuantizeLinear has no parameters in the file: with what reads it (ConvInteger, MatMulInteger) it
//! becomes the float operator, and calibration finds ranges.

use std::collections::{HashMap, HashSet};

use tract_onnx::data_resolver::MmapDataResolver;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, type_proto};
use tract_onnx::tensor::load_tensor;

use super::error::Problem;
use super::guard::guarded;
use super::load::invalid;
use super::symmetric;
use crate::calibrate::{CodeWidth, QParams};
use crate::scheme::WeightSteps;

/// Operator of nodes that state parameters: attributes `scale` and `zero_point`, of signed codes.
pub(super) const CODES: &str = "AmpouleCodes";

/// What a rewritten model has beside its graph.
#[derive(Debug, Default)]
pub(super) struct Stated {
    pub steps: WeightSteps,
    pub warnings: Vec<String>,
}

/// Whether an operator makes or takes codes.
pub(super) fn is_quantised(op: &str) -> bool {
    op.contains("QuantizeLinear")
        || op.starts_with("QLinear")
        || op == "QGemm"
        || op.ends_with("Integer")
}

/// Rewrites a graph whose nodes have unique names. `folder` is where its external weights are.
pub(super) fn rewrite(graph: &mut GraphProto, folder: Option<&str>) -> Result<Stated, Problem> {
    if !graph.node.iter().any(|n| is_quantised(&n.op_type)) {
        return Ok(Stated::default());
    }
    let mut rewrite = Rewrite {
        folder,
        constants: HashMap::new(),
        params: HashMap::new(),
        layers: layers(graph),
        weights: HashMap::new(),
        real: HashSet::new(),
        nodes: Vec::with_capacity(graph.node.len()),
        made: Vec::new(),
        widened: [0; 2],
        dynamic: HashSet::new(),
        dynamic_readers: 0,
    };
    for tensor in &graph.initializer {
        rewrite
            .constants
            .insert(tensor.name.clone(), tensor.clone());
    }
    for node in std::mem::take(&mut graph.node) {
        rewrite.node(node)?;
    }
    let steps = rewrite.layer_steps();
    let mut warnings: Vec<String> = symmetric::warning(rewrite.widened).into_iter().collect();
    if rewrite.dynamic_readers > 0 {
        warnings.push(format!(
            "{} layers quantise their operand while they run; the file has no ranges for them, so they are calibrated like a float model's, and their weights rounded again",
            rewrite.dynamic_readers
        ));
    }
    graph.node = rewrite.nodes;
    graph.initializer.append(&mut rewrite.made);
    real_ports(graph);
    drop_unread(graph);
    Ok(Stated { steps, warnings })
}

/// Constants that are weights of layers, seen through dequantisation and transposition.
fn layers(graph: &GraphProto) -> HashMap<String, Channels> {
    let mut found = HashMap::new();
    for node in graph.node.iter().rev() {
        match &*node.op_type {
            "Conv" => found.insert(input(node, 1).to_owned(), Channels::First),
            "Gemm" | "QGemm" => {
                let at = if node.op_type == "Gemm" { 1 } else { 3 };
                let channels = match number(node, "transB").unwrap_or(0) {
                    0 => Channels::Last,
                    _ => Channels::First,
                };
                found.insert(input(node, at).to_owned(), channels)
            }
            "MatMul" => found.insert(input(node, 1).to_owned(), Channels::Last),
            "QLinearMatMul" => found.insert(input(node, 3).to_owned(), Channels::Last),
            "QLinearConv" => found.insert(input(node, 3).to_owned(), Channels::First),
            "QuantizeLinear" | "DequantizeLinear" => match found.get(&output(node)).copied() {
                Some(channels) => found.insert(input(node, 0).to_owned(), channels),
                None => None,
            },
            "Transpose" => match found.get(&output(node)).copied() {
                Some(channels) => found.insert(input(node, 0).to_owned(), channels.flipped()),
                None => None,
            },
            _ => None,
        };
    }
    found
}

/// Inputs and outputs of codes are real ones now.
fn real_ports(graph: &mut GraphProto) {
    for port in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(type_proto::Value::TensorType(t)) =
            port.r#type.as_mut().and_then(|t| t.value.as_mut())
            && [DataType::Int8 as i32, DataType::Uint8 as i32].contains(&t.elem_type)
        {
            t.elem_type = DataType::Float as i32;
        }
    }
}

/// Constants that nothing reads any more.
fn drop_unread(graph: &mut GraphProto) {
    let read: HashSet<&str> = graph
        .node
        .iter()
        .flat_map(|n| &n.input)
        .chain(graph.output.iter().map(|o| &o.name))
        .map(String::as_str)
        .collect();
    let unread: HashSet<String> = graph
        .initializer
        .iter()
        .filter(|t| !read.contains(t.name.as_str()))
        .map(|t| t.name.clone())
        .collect();
    graph.initializer.retain(|t| !unread.contains(&t.name));
    graph.input.retain(|i| !unread.contains(&i.name));
}

/// Dimension of a constant that counts the output channels of the layer that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channels {
    /// Convolutions, and products with a transposed matrix.
    First,
    /// Products with a matrix.
    Last,
}

impl Channels {
    fn flipped(self) -> Channels {
        match self {
            Channels::First => Channels::Last,
            Channels::Last => Channels::First,
        }
    }

    /// The dimension, of a matrix or of a convolution's weights.
    fn axis(self, dims: &[i64]) -> Option<usize> {
        match self {
            Channels::First => (dims.len() >= 2).then_some(0),
            Channels::Last => (dims.len() == 2).then_some(1),
        }
    }
}

struct Rewrite<'p> {
    folder: Option<&'p str>,
    /// Constants of the file by name.
    constants: HashMap<String, TensorProto>,
    /// Parameters of tensors of codes, which are real now.
    params: HashMap<String, QParams>,
    /// Constants that are weights of a layer, by name.
    layers: HashMap<String, Channels>,
    /// Steps of weights, one for each output channel.
    weights: HashMap<String, Vec<f32>>,
    /// Constants that were made real.
    real: HashSet<String>,
    nodes: Vec<NodeProto>,
    made: Vec<TensorProto>,
    widened: [usize; 2],
    /// Results of DynamicQuantizeLinear.
    dynamic: HashSet<String>,
    dynamic_readers: usize,
}

impl Rewrite<'_> {
    fn node(&mut self, mut node: NodeProto) -> Result<(), Problem> {
        let standard = node.domain.is_empty() || node.domain == "ai.onnx";
        if !standard && node.domain != "com.microsoft" {
            self.nodes.push(node);
            return Ok(());
        }
        match &*node.op_type {
            "QuantizeLinear" => self.quantize(&node),
            "DequantizeLinear" => self.dequantize(&node),
            "DynamicQuantizeLinear" => self.dynamic(&node),
            "ConvInteger" => self.integer(node, "Conv"),
            "MatMulInteger" => self.integer(node, "MatMul"),
            "QLinearConv" => {
                let x = self.operand(&node, 0)?;
                let w = self.operand(&node, 3)?;
                let mut inputs = vec![x, w];
                if !input(&node, 8).is_empty() {
                    inputs.push(self.bias(&node, [0, 3, 8])?);
                }
                self.real(node, "Conv", inputs, 6)
            }
            "QGemm" if !input(&node, 8).is_empty() => {
                let mut inputs = vec![self.operand(&node, 0)?, self.operand(&node, 3)?];
                if !input(&node, 6).is_empty() {
                    inputs.push(self.bias(&node, [0, 3, 6])?);
                }
                // Where alpha is not 1 the bias has it in its scale.
                let scaled = |a: &AttributeProto| a.name == "alpha" && a.f != 1.0;
                if node.attribute.iter().any(scaled) {
                    return Err(unsupported(&node, "with another alpha than 1"));
                }
                self.real(node, "Gemm", inputs, 7)
            }
            "QLinearMatMul" => {
                let inputs = vec![self.operand(&node, 0)?, self.operand(&node, 3)?];
                self.real(node, "MatMul", inputs, 6)
            }
            kind @ ("QLinearAdd" | "QLinearMul") => {
                let op = &kind["QLinear".len()..].to_owned();
                let inputs = vec![self.operand(&node, 0)?, self.operand(&node, 3)?];
                self.real(node, op, inputs, 6)
            }
            kind @ ("QLinearSigmoid"
            | "QLinearLeakyRelu"
            | "QLinearGlobalAveragePool"
            | "QLinearAveragePool"
            | "QLinearSoftmax") => {
                let op = &kind["QLinear".len()..].to_owned();
                if number(&node, "channels_last").unwrap_or(0) != 0 {
                    return Err(unsupported(&node, "channels last"));
                }
                node.attribute
                    .retain(|a| a.name != "channels_last" && a.name != "opset");
                let inputs = vec![self.operand(&node, 0)?];
                self.real(node, op, inputs, 3)
            }
            "QLinearConcat" => {
                let parts = (2..node.input.len()).step_by(3);
                let inputs = parts.map(|at| self.operand(&node, at));
                let inputs = inputs.collect::<Result<_, _>>()?;
                self.real(node, "Concat", inputs, 0)
            }
            other if is_quantised(other) => Err(unsupported(
                &node,
                "there is no counterpart; import the float original, or quantise with QuantizeLinear and DequantizeLinear",
            )),
            _ => {
                self.plain(node);
                Ok(())
            }
        }
    }

    /// An operator that does not know of codes. What moves codes keeps their parameters.
    fn plain(&mut self, node: NodeProto) {
        const MOVES: [&str; 12] = [
            "Flatten",
            "Gather",
            "Identity",
            "MaxPool",
            "Pad",
            "Reshape",
            "Resize",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ];
        if node.op_type == "Constant"
            && let (Some(tensor), Some(name)) = (
                node.attribute.iter().find_map(|a| a.t.clone()),
                node.output.first(),
            )
        {
            self.constants.insert(name.clone(), tensor);
        }
        if let ("Transpose", Some(steps)) =
            (&*node.op_type, self.weights.get(input(&node, 0)).cloned())
        {
            self.weights.insert(output(&node), steps);
        }
        let params = node.input.first().and_then(|x| self.params.get(x)).copied();
        if let (true, Some(params)) = (MOVES.contains(&&*node.op_type), params) {
            for output in &node.output {
                self.params.insert(output.clone(), params);
            }
        }
        self.nodes.push(node);
    }

    fn quantize(&mut self, node: &NodeProto) -> Result<(), Problem> {
        let (x, y) = (input(node, 0).to_owned(), output(node));
        if let Some(tensor) = self.constants.get(&x).cloned() {
            let values = self.floats(node, &tensor)?;
            let (scales, zeros, kind) = self.steps(node, 1)?;
            let axis = self.axis(node, &tensor.dims, scales.len())?;
            let (lo, hi) = match kind {
                DataType::Uint8 => (0, 255),
                _ => (-128, 127),
            };
            let inner: usize = inner(&tensor.dims, axis);
            let code = |(i, &v): (usize, &f32)| {
                let at = i / inner % scales.len();
                let code = (v / scales[at]).round_ties_even() as i32;
                code.saturating_add(zeros[at]).clamp(lo, hi)
            };
            let codes: Vec<i32> = values.iter().enumerate().map(code).collect();
            let steps = (&scales[..], &zeros[..], axis);
            return self.constant([&y, &y], &tensor.dims, &codes, steps);
        }
        let params = self.stated(node, 1)?;
        self.codes(&node.name, &x, &y, params);
        Ok(())
    }

    fn dequantize(&mut self, node: &NodeProto) -> Result<(), Problem> {
        let (x, y) = (input(node, 0).to_owned(), output(node));
        // A constant that QuantizeLinear made is real already.
        if self.real.contains(&x) {
            if let Some(steps) = self.weights.get(&x).cloned() {
                self.weights.insert(y.clone(), steps);
            }
            self.push("Identity", &format!("{}~real", node.name), vec![x], y);
            return Ok(());
        }
        if self.constants.contains_key(&x) {
            return self.real_constant(node, 0, &y);
        }
        let real = self.operand(node, 0)?;
        self.push("Identity", &format!("{}~real", node.name), vec![real], y);
        Ok(())
    }

    /// `x`, 1 and 0 in the place of codes, their scale and their zero point.
    fn dynamic(&mut self, node: &NodeProto) -> Result<(), Problem> {
        let x = input(node, 0).to_owned();
        for (slot, value) in [(1, 1.0), (2, 0.0)] {
            if let Some(name) = node.output.get(slot).filter(|n| !n.is_empty()) {
                let tensor = float_tensor(name, &[], &[value]);
                self.constants.insert(name.clone(), tensor.clone());
                self.made.push(tensor);
            }
        }
        let y = output(node);
        self.dynamic.insert(y.clone());
        self.push("Identity", &node.name, vec![x], y);
        Ok(())
    }

    /// An integer product whose sums the file scales afterwards: real codes in the place of the weights.
    fn integer(&mut self, mut node: NodeProto, op: &str) -> Result<(), Problem> {
        let (x, w) = (input(&node, 0).to_owned(), input(&node, 1).to_owned());
        let per = match self.params.get(&x) {
            _ if self.dynamic.contains(&x) => 1.0,
            Some(params) => params.scale,
            None => return Err(unsupported(&node, "its operand's parameters are not known")),
        };
        let Some(tensor) = self.constants.get(&w).cloned() else {
            return Err(unsupported(&node, "its second operand is not constant"));
        };
        let codes = self.integers(&node, &tensor)?;
        let zeros = match input(&node, 3) {
            "" => vec![0],
            name => match self.constants.get(name).cloned() {
                Some(zeros) => self.integers(&node, &zeros)?,
                None => return Err(unsupported(&node, "its zero point is not constant")),
            },
        };
        // One for each output channel: the first dimension of convolutions, the last of products.
        let axis = if op == "Conv" {
            0
        } else {
            tensor.dims.len().max(1) - 1
        };
        let channels = tensor.dims.get(axis).map_or(1, |&d| d as usize);
        if zeros.len() != 1 && zeros.len() != channels {
            return Err(unsupported(
                &node,
                "zero points that are not one for each channel",
            ));
        }
        let inner = inner(&tensor.dims, axis);
        let real = |(i, &code): (usize, &i32)| {
            let zero = zeros[(i / inner % channels.max(1)) % zeros.len()];
            (code - zero) as f32 / per
        };
        let values: Vec<f32> = codes.iter().enumerate().map(real).collect();
        let name = format!("{}~weights", node.name);
        self.made.push(float_tensor(&name, &tensor.dims, &values));
        self.dynamic_readers += 1;
        node.op_type = op.to_owned();
        node.domain.clear();
        node.input = vec![x, name];
        self.nodes.push(node);
        Ok(())
    }

    /// A float operator in the place of one on codes, and the parameters of its result behind it.
    fn real(
        &mut self,
        mut node: NodeProto,
        op: &str,
        inputs: Vec<String>,
        scale_at: usize,
    ) -> Result<(), Problem> {
        let params = self.stated(&node, scale_at)?;
        let y = output(&node);
        let between = format!("{y}~real");
        node.op_type = op.to_owned();
        node.domain.clear();
        node.input = inputs;
        node.output = vec![between.clone()];
        let name = format!("{}~codes", node.name);
        self.nodes.push(node);
        self.codes(&name, &between, &y, params);
        Ok(())
    }

    /// The real tensor for an operand of codes, whose scale and zero point come behind it.
    fn operand(&mut self, node: &NodeProto, at: usize) -> Result<String, Problem> {
        let name = input(node, at).to_owned();
        if self.constants.contains_key(&name) {
            let real = format!("{}~operand{at}", node.name);
            self.real_constant(node, at, &real)?;
            return Ok(real);
        }
        let params = self.stated(node, at + 1)?;
        match self.params.get(&name) {
            Some(known) if *known == params => Ok(name),
            Some(_) => Err(unsupported(
                node,
                "it reads codes with other parameters than they were made with",
            )),
            // An input of the model, or codes that came through an operator that keeps them.
            None => {
                let real = format!("{}~operand{at}", node.name);
                self.codes(&format!("{real}.codes"), &name, &real, params);
                Ok(real)
            }
        }
    }

    /// A bias in the steps of the sums that it is added to: operands `x`, `w` and the bias.
    fn bias(&mut self, node: &NodeProto, [x, w, b]: [usize; 3]) -> Result<String, Problem> {
        let Some(tensor) = self.constants.get(input(node, b)).cloned() else {
            return Err(unsupported(node, "its bias is not constant"));
        };
        let codes = self.integers(node, &tensor)?;
        let (x, ..) = self.steps(node, x + 1)?;
        let (w, ..) = self.steps(node, w + 1)?;
        if x.len() != 1 || (w.len() != 1 && w.len() != codes.len()) {
            return Err(unsupported(
                node,
                "scales that are not one for each channel",
            ));
        }
        let real = |(n, &code): (usize, &i32)| {
            (f64::from(code) * f64::from(x[0]) * f64::from(w[n % w.len()])) as f32
        };
        let values: Vec<f32> = codes.iter().enumerate().map(real).collect();
        let name = format!("{}~bias", node.name);
        self.made.push(float_tensor(&name, &tensor.dims, &values));
        Ok(name)
    }

    /// A constant operand of codes as the real constant `name`.
    fn real_constant(&mut self, node: &NodeProto, at: usize, name: &str) -> Result<(), Problem> {
        let Some(tensor) = self.constants.get(input(node, at)).cloned() else {
            return Err(unsupported(node, "an operand is not constant"));
        };
        let codes = self.integers(node, &tensor)?;
        let (scales, zeros, _) = self.steps(node, at + 1)?;
        let axis = self.axis(node, &tensor.dims, scales.len())?;
        if tensor.data_type == DataType::Int32 as i32 {
            let inner = inner(&tensor.dims, axis);
            let real = |(i, &code): (usize, &i32)| {
                (f64::from(code) * f64::from(scales[i / inner % scales.len()])) as f32
            };
            let values: Vec<f32> = codes.iter().enumerate().map(real).collect();
            self.made.push(float_tensor(name, &tensor.dims, &values));
            return Ok(());
        }
        let steps = (&scales[..], &zeros[..], axis);
        let of = input(node, at).to_owned();
        self.constant([&of, name], &tensor.dims, &codes, steps)
    }

    /// Adds the real constant `name` that the codes of `of` stand for. Weights of a layer get one step for
    /// each output channel.
    fn constant(
        &mut self,
        [of, name]: [&str; 2],
        dims: &[i64],
        codes: &[i32],
        (scales, zeros, axis): (&[f32], &[i32], usize),
    ) -> Result<(), Problem> {
        self.real.insert(name.to_owned());
        let place = inner(dims, axis);
        let at = |i: usize| i / place % scales.len();
        let channels = self.layers.get(of).and_then(|c| c.axis(dims));
        let channels = channels.filter(|&c| scales.len() == 1 || c == axis);
        let Some(channel_axis) = channels else {
            let real = |(i, &code): (usize, &i32)| scales[at(i)] * (code - zeros[at(i)]) as f32;
            let values: Vec<f32> = codes.iter().enumerate().map(real).collect();
            self.made.push(float_tensor(name, dims, &values));
            return Ok(());
        };
        let count = dims.get(channel_axis).map_or(1, |&d| d as usize);
        let behind = inner(dims, channel_axis);
        let channel = |i: usize| i / behind % count.max(1);
        let mut largest = vec![0; count];
        for (i, &code) in codes.iter().enumerate() {
            let most = &mut largest[channel(i)];
            *most = (code - zeros[at(i)]).abs().max(*most);
        }
        let of_channel = |n: usize| scales[n % scales.len()];
        let steps = largest.iter().enumerate();
        let steps: Vec<f32> = steps
            .map(|(n, &l)| symmetric::step(of_channel(n), l))
            .collect();
        self.widened[0] += largest.iter().filter(|&&l| l > 127).count();
        self.widened[1] += count;
        let real = |(i, &code): (usize, &i32)| {
            symmetric::real(code - zeros[at(i)], scales[at(i)], steps[channel(i)])
        };
        let values: Vec<f32> = codes.iter().enumerate().map(real).collect();
        self.made.push(float_tensor(name, dims, &values));
        self.weights.insert(name.to_owned(), steps);
        Ok(())
    }

    /// Steps of each layer's weights by its name.
    fn layer_steps(&self) -> WeightSteps {
        let layers = self
            .nodes
            .iter()
            .filter(|n| matches!(&*n.op_type, "Conv" | "Gemm" | "MatMul"));
        let steps =
            layers.filter_map(|n| Some((n.name.clone(), self.weights.get(input(n, 1))?.clone())));
        steps.collect()
    }

    /// States parameters of `y`, which is `x`.
    fn codes(&mut self, name: &str, x: &str, y: &str, params: QParams) {
        let attribute = |name: &str| AttributeProto {
            name: name.to_owned(),
            ..AttributeProto::default()
        };
        let scale = AttributeProto {
            r#type: AttributeType::Float as i32,
            f: params.scale,
            ..attribute("scale")
        };
        let zero = AttributeProto {
            r#type: AttributeType::Int as i32,
            i: params.zero_point.into(),
            ..attribute("zero_point")
        };
        self.push(CODES, name, vec![x.to_owned()], y.to_owned());
        if let Some(node) = self.nodes.last_mut() {
            node.attribute = vec![scale, zero];
        }
        self.params.insert(y.to_owned(), params);
    }

    fn push(&mut self, op: &str, name: &str, inputs: Vec<String>, output: String) {
        self.nodes.push(NodeProto {
            op_type: op.to_owned(),
            name: name.to_owned(),
            input: inputs,
            output: vec![output],
            ..NodeProto::default()
        });
    }

    /// Parameters of an activation from the scale at operand `at` and the zero point behind it.
    fn stated(&self, node: &NodeProto, at: usize) -> Result<QParams, Problem> {
        let (scales, zeros, kind) = self.steps(node, at)?;
        let (&[scale], &[zero]) = (&scales[..], &zeros[..]) else {
            return Err(unsupported(node, "an activation with more than one scale"));
        };
        Ok(QParams {
            scale,
            zero_point: zero - shift(kind),
            width: CodeWidth::I8,
        })
    }

    /// Scales, zero points and type of codes, from the scale at operand `at` and the zero point behind it.
    fn steps(
        &self,
        node: &NodeProto,
        at: usize,
    ) -> Result<(Vec<f32>, Vec<i32>, DataType), Problem> {
        let Some(scales) = self.constants.get(input(node, at)) else {
            return Err(unsupported(node, "a scale that is not constant"));
        };
        let scales = self.floats(node, scales)?;
        if scales.is_empty() || scales.iter().any(|s| !s.is_normal() || *s <= 0.0) {
            return Err(unsupported(
                node,
                "a scale that is not a normal positive number",
            ));
        }
        let (zeros, kind) = match input(node, at + 1) {
            "" => {
                let given = number(node, "output_dtype").unwrap_or(0);
                let kind = match DataType::try_from(given as i32) {
                    Ok(DataType::Undefined) | Err(_) => DataType::Uint8,
                    Ok(kind) => kind,
                };
                (vec![0; scales.len()], kind)
            }
            name => {
                let Some(zeros) = self.constants.get(name) else {
                    return Err(unsupported(node, "a zero point that is not constant"));
                };
                let kind = DataType::try_from(zeros.data_type).unwrap_or_default();
                (self.integers(node, zeros)?, kind)
            }
        };
        let range = match kind {
            DataType::Int8 => -128..=127,
            DataType::Uint8 => 0..=255,
            DataType::Int32 => 0..=0,
            _ => {
                return Err(unsupported(
                    node,
                    "codes of another type than int8 and uint8",
                ));
            }
        };
        if zeros.len() != scales.len() || zeros.iter().any(|z| !range.contains(z)) {
            return Err(unsupported(
                node,
                "zero points that are not one for each scale, or outside their codes",
            ));
        }
        Ok((scales, zeros, kind))
    }

    /// The dimension that `n` scales count along.
    fn axis(&self, node: &NodeProto, dims: &[i64], n: usize) -> Result<usize, Problem> {
        if number(node, "block_size").unwrap_or(0) != 0 {
            return Err(unsupported(node, "scales for blocks of weights"));
        }
        if n == 1 {
            return Ok(0);
        }
        // Operators on codes count along the output channels, the others say.
        let default = if node.op_type == "QLinearConv" { 0 } else { 1 };
        let axis = match &*node.op_type {
            "QLinearMatMul" => dims.len() as i64 - 1,
            "QGemm" if number(node, "transB").unwrap_or(0) == 0 => 1,
            "QGemm" => 0,
            _ => number(node, "axis").unwrap_or(default),
        };
        let axis = if axis < 0 {
            axis + dims.len() as i64
        } else {
            axis
        };
        // A bias has one dimension, whatever its axis says.
        let axis = usize::try_from(axis)
            .ok()
            .filter(|&a| dims.get(a) == Some(&(n as i64)));
        match (axis, dims) {
            (Some(axis), _) => Ok(axis),
            (None, &[size]) if size == n as i64 => Ok(0),
            _ => Err(unsupported(node, "scales that no dimension has as many of")),
        }
    }

    fn floats(&self, node: &NodeProto, tensor: &TensorProto) -> Result<Vec<f32>, Problem> {
        let float = [DataType::Float, DataType::Float16].map(|t| t as i32);
        if !float.contains(&tensor.data_type) {
            return Err(unsupported(
                node,
                "a constant that should hold floats does not",
            ));
        }
        guarded("reading weights", || {
            let read = load_tensor(&MmapDataResolver, tensor, self.folder);
            let values = read.and_then(|t| super::oracle::tensor(&t));
            Ok(values.map_err(invalid("reading weights"))?.1)
        })
    }

    fn integers(&self, node: &NodeProto, tensor: &TensorProto) -> Result<Vec<i32>, Problem> {
        let integer = [DataType::Int8, DataType::Uint8, DataType::Int32].map(|t| t as i32);
        if !integer.contains(&tensor.data_type) {
            return Err(unsupported(
                node,
                "a constant that should hold 8-bit codes does not",
            ));
        }
        guarded("reading weights", || {
            let read = load_tensor(&MmapDataResolver, tensor, self.folder).and_then(|t| {
                let words = t.cast_to::<i32>()?;
                Ok(words.try_as_plain_ram()?.as_slice::<i32>()?.to_vec())
            });
            read.map_err(invalid("reading weights"))
        })
    }
}

/// What codes of that type are more than signed ones.
fn shift(kind: DataType) -> i32 {
    match kind {
        DataType::Uint8 => 128,
        _ => 0,
    }
}

/// Elements of a tensor behind a dimension; at least 1.
fn inner(dims: &[i64], axis: usize) -> usize {
    let behind = dims.iter().skip(axis + 1);
    behind.map(|&d| d as usize).product::<usize>().max(1)
}

fn input(node: &NodeProto, at: usize) -> &str {
    node.input.get(at).map_or("", String::as_str)
}

fn output(node: &NodeProto) -> String {
    node.output.first().cloned().unwrap_or_default()
}

/// An attribute that is an integer.
fn number(node: &NodeProto, name: &str) -> Option<i64> {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map(|a| a.i)
}

fn float_tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

fn unsupported(node: &NodeProto, what: &str) -> Problem {
    Problem::Unsupported {
        node: node.name.clone(),
        operator: node.op_type.clone(),
        what: what.to_owned(),
        shapes: Vec::new(),
    }
}
