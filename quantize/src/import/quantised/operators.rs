//! Operators that make, take and compute with codes, each as float operators.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::constants::{float_tensor, inner};
use super::{Rewrite, input, output, unsupported};
use crate::import::error::Problem;

impl Rewrite<'_> {
    pub(super) fn quantize(&mut self, node: &NodeProto) -> Result<(), Problem> {
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

    pub(super) fn dequantize(&mut self, node: &NodeProto) -> Result<(), Problem> {
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
    pub(super) fn dynamic(&mut self, node: &NodeProto) -> Result<(), Problem> {
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
    pub(super) fn integer(&mut self, mut node: NodeProto, op: &str) -> Result<(), Problem> {
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
    pub(super) fn real(
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
    pub(super) fn operand(&mut self, node: &NodeProto, at: usize) -> Result<String, Problem> {
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
    pub(super) fn bias(
        &mut self,
        node: &NodeProto,
        [x, w, b]: [usize; 3],
    ) -> Result<String, Problem> {
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
}
