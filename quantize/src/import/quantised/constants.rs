//! Constants of codes as real ones, and the steps of weights.

use tract_onnx::data_resolver::MmapDataResolver;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tensor::load_tensor;

use super::{Rewrite, input, unsupported};
use crate::import::error::Problem;
use crate::import::guard::guarded;
use crate::import::load::invalid;
use crate::import::{oracle, symmetric};
use crate::scheme::WeightSteps;

impl Rewrite<'_> {
    /// A constant operand of codes as the real constant `name`.
    pub(super) fn real_constant(
        &mut self,
        node: &NodeProto,
        at: usize,
        name: &str,
    ) -> Result<(), Problem> {
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
    pub(super) fn constant(
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
    pub(super) fn layer_steps(&self) -> WeightSteps {
        let layers = self
            .nodes
            .iter()
            .filter(|n| matches!(&*n.op_type, "Conv" | "Gemm" | "MatMul"));
        let steps =
            layers.filter_map(|n| Some((n.name.clone(), self.weights.get(input(n, 1))?.clone())));
        steps.collect()
    }

    pub(super) fn floats(
        &self,
        node: &NodeProto,
        tensor: &TensorProto,
    ) -> Result<Vec<f32>, Problem> {
        let float = [DataType::Float, DataType::Float16].map(|t| t as i32);
        if !float.contains(&tensor.data_type) {
            return Err(unsupported(
                node,
                "a constant that should hold floats does not",
            ));
        }
        guarded("reading weights", || {
            let read = load_tensor(&MmapDataResolver, tensor, self.folder);
            let values = read.and_then(|t| oracle::tensor(&t));
            Ok(values.map_err(invalid("reading weights"))?.1)
        })
    }

    pub(super) fn integers(
        &self,
        node: &NodeProto,
        tensor: &TensorProto,
    ) -> Result<Vec<i32>, Problem> {
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

pub(super) fn float_tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

/// Elements of a tensor behind a dimension; at least 1.
pub(super) fn inner(dims: &[i64], axis: usize) -> usize {
    let behind = dims.iter().skip(axis + 1);
    behind.map(|&d| d as usize).product::<usize>().max(1)
}
