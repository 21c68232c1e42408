//! The verified file: tensors and operators of the main subgraph, with every index and length checked.

use ampoule_runtime::MAX_RANK;
use flatbuffers::VerifierOptions;
use tract_tflite::tflite::{self, BuiltinOperator, TensorType};

use super::is_tflite;
use crate::calibrate::{CodeWidth, QParams};
use crate::import::error::Problem;

/// Most elements of a tensor: 2 GiB of f32.
pub(super) const MAX_ELEMENTS: usize = 1 << 29;

/// The main subgraph.
pub(super) struct File<'b> {
    pub tensors: Vec<Tensor<'b>>,
    pub operators: Vec<Operator<'b>>,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
    pub version: u32,
    pub description: &'b str,
}

/// A tensor with its data, where it is constant.
pub(super) struct Tensor<'b> {
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: TensorType,
    pub steps: Option<Steps>,
    pub data: Option<&'b [u8]>,
}

/// Scales and zero points, one or one for each index along an axis.
pub(super) struct Steps {
    pub scales: Vec<f32>,
    /// As many, in the codes of the file.
    pub zeros: Vec<i32>,
    pub axis: usize,
}

/// An operator with checked operands.
pub(super) struct Operator<'b> {
    pub index: usize,
    pub code: BuiltinOperator,
    pub name: String,
    pub inputs: Vec<Option<usize>>,
    pub output: usize,
    pub options: tflite::Operator<'b>,
}

impl<'b> File<'b> {
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Problem> {
        if !is_tflite(bytes) {
            return Err(Problem::NotTflite(
                "it does not begin with the identifier TFL3".into(),
            ));
        }
        // A table that is reached more than once is checked each time: what is apparent is bounded by what
        // is there.
        let limits = VerifierOptions {
            max_depth: 16,
            max_tables: 1 << 20,
            max_apparent_size: bytes.len().saturating_mul(8),
            ignore_missing_null_terminator: true,
        };
        let model = tflite::root_as_model_with_opts(&limits, bytes)
            .map_err(|e| Problem::NotTflite(first_line(&e.to_string())))?;
        let subgraphs = model.subgraphs().unwrap_or_default();
        let Some(graph) = subgraphs.iter().next() else {
            return Err(Problem::NotTflite("it has no subgraph".into()));
        };
        let buffers = model.buffers().unwrap_or_default();
        let mut tensors = Vec::new();
        for (index, t) in graph.tensors().unwrap_or_default().iter().enumerate() {
            let buffer = t.buffer() as usize;
            let data = match buffer {
                0 => None,
                _ if buffer >= buffers.len() => {
                    return Err(invalid(format!(
                        "tensor {index} is in buffer {buffer} of {}",
                        buffers.len()
                    )));
                }
                _ => buffers.get(buffer).data().map(|d| d.bytes()),
            };
            tensors.push(tensor(index, &t, data.filter(|d| !d.is_empty()))?);
        }
        let codes = model.operator_codes().unwrap_or_default();
        let mut operators = Vec::new();
        for (index, op) in graph.operators().unwrap_or_default().iter().enumerate() {
            let code = op.opcode_index() as usize;
            if code >= codes.len() {
                return Err(invalid(format!(
                    "operator {index} has code {code} of {}",
                    codes.len()
                )));
            }
            operators.push(operator(index, op, &codes.get(code), tensors.len())?);
        }
        Ok(File {
            inputs: ports("input", graph.inputs(), tensors.len())?,
            outputs: ports("output", graph.outputs(), tensors.len())?,
            tensors,
            operators,
            version: model.version(),
            description: model.description().unwrap_or(""),
        })
    }
}

fn tensor<'b>(
    index: usize,
    t: &tflite::Tensor<'b>,
    data: Option<&'b [u8]>,
) -> Result<Tensor<'b>, Problem> {
    let name = match t.name() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => format!("tensor {index}"),
    };
    let dims: Vec<i32> = t.shape().map(|s| s.iter().collect()).unwrap_or_default();
    let fail = |what: String| Problem::Tensor {
        tensor: name.clone(),
        dims: dims.iter().map(|&d| i64::from(d)).collect(),
        what,
    };
    if dims.len() > MAX_RANK {
        return Err(fail(format!("more than {MAX_RANK} dimensions")));
    }
    let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| fail("a negative dimension".into()))?;
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let Some(elements) = elements.filter(|&n| n <= MAX_ELEMENTS) else {
        return Err(fail("more than 2^29 elements".into()));
    };
    if t.sparsity().is_some() {
        return Err(fail("sparse; convert the model without sparsity".into()));
    }
    if t.is_variable() {
        return Err(fail(
            "a variable that keeps its value between runs is not supported; export the model without state"
                .into(),
        ));
    }
    let kind = t.type_();
    if let (Some(data), Some(size)) = (data, size_of(kind))
        && elements * size != data.len()
    {
        return Err(fail(format!(
            "{} bytes of data where {} are expected",
            data.len(),
            elements * size
        )));
    }
    let steps = t.quantization().map(|q| steps(&q, &shape, kind));
    let steps = steps.transpose().map_err(fail)?.flatten();
    Ok(Tensor {
        steps,
        name,
        shape,
        kind,
        data,
    })
}

/// Scales and zero points that mean something; `None` for tensors without.
fn steps(
    q: &tflite::QuantizationParameters<'_>,
    shape: &[usize],
    kind: TensorType,
) -> Result<Option<Steps>, String> {
    let scales: Vec<f32> = q.scale().map(|s| s.iter().collect()).unwrap_or_default();
    let (lo, hi) = match kind {
        TensorType::INT8 => (-128, 127),
        TensorType::UINT8 => (0, 255),
        // Biases have the steps of the sums that they are added to; others are not codes.
        _ => return Ok(None),
    };
    if scales.is_empty() {
        return Ok(None);
    }
    let bad = scales.iter().find(|s| !s.is_normal() || **s <= 0.0);
    if let Some(scale) = bad {
        return Err(format!("scale {scale}; expected a normal positive number"));
    }
    // Absent zero points are 0, one serves all.
    let given: Vec<i64> = q
        .zero_point()
        .map(|z| z.iter().collect())
        .unwrap_or_default();
    if given.len() > 1 && given.len() != scales.len() {
        return Err(format!(
            "{} zero points for {} scales",
            given.len(),
            scales.len()
        ));
    }
    let one = given.first().copied().unwrap_or(0);
    let zeros = (0..scales.len()).map(|i| given.get(i).copied().unwrap_or(one));
    let zeros: Option<Vec<i32>> = zeros
        .map(|z| i32::try_from(z).ok().filter(|z| (lo..=hi).contains(z)))
        .collect();
    let zeros = zeros.ok_or_else(|| format!("a zero point outside {lo}..={hi}"))?;
    // The axis of a single scale means nothing, and files in the wild have wrong ones.
    let axis = match scales.len() {
        1 => 0,
        n => {
            let axis = usize::try_from(q.quantized_dimension()).ok();
            let axis = axis.filter(|&a| shape.get(a) == Some(&n));
            axis.ok_or_else(|| format!("{n} scales along dimension {}", q.quantized_dimension()))?
        }
    };
    Ok(Some(Steps {
        scales,
        zeros,
        axis,
    }))
}

impl Tensor<'_> {
    /// Parameters of an activation in int8: one scale, codes of either sign.
    pub fn params(&self) -> Option<QParams> {
        let steps = self.steps.as_ref().filter(|s| s.scales.len() == 1)?;
        Some(QParams {
            scale: steps.scales[0],
            zero_point: steps.zeros[0] - shift(self.kind),
            width: CodeWidth::I8,
        })
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What unsigned codes are more than the signed ones.
pub(super) fn shift(kind: TensorType) -> i32 {
    match kind {
        TensorType::UINT8 => 128,
        _ => 0,
    }
}

fn operator<'b>(
    index: usize,
    op: tflite::Operator<'b>,
    code: &tflite::OperatorCode<'_>,
    tensors: usize,
) -> Result<Operator<'b>, Problem> {
    // Codes above 127 do not fit in the older field.
    let number = code
        .builtin_code()
        .0
        .max(i32::from(code.deprecated_builtin_code()));
    let builtin = BuiltinOperator(number);
    let name = match (builtin, code.custom_code(), builtin.variant_name()) {
        (BuiltinOperator::CUSTOM, Some(custom), _) => format!("custom {custom}"),
        (_, _, Some(name)) => name.to_owned(),
        _ => format!("builtin {number}"),
    };
    let tensor = |t: i32| usize::try_from(t).ok().filter(|&t| t < tensors);
    let fail = || {
        invalid(format!(
            "operator {index} ({name}) names a tensor that is not there"
        ))
    };
    let inputs = op.inputs().unwrap_or_default().iter();
    let inputs = inputs
        .map(|t| match t {
            -1 => Ok(None),
            t => tensor(t).map(Some).ok_or_else(fail),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let outputs = op.outputs().unwrap_or_default();
    if outputs.len() != 1 {
        return Err(Problem::Unsupported {
            node: format!("operator {index}"),
            operator: name,
            what: format!("{} results, only one is supported", outputs.len()),
            shapes: Vec::new(),
        });
    }
    Ok(Operator {
        index,
        code: builtin,
        output: tensor(outputs.get(0)).ok_or_else(fail)?,
        name,
        inputs,
        options: op,
    })
}

fn ports(
    what: &str,
    list: Option<flatbuffers::Vector<'_, i32>>,
    tensors: usize,
) -> Result<Vec<usize>, Problem> {
    let list = list.unwrap_or_default();
    if list.is_empty() {
        return Err(invalid(format!("the model has no {what}")));
    }
    let checked = list
        .iter()
        .map(|t| usize::try_from(t).ok().filter(|&t| t < tensors));
    let checked: Option<Vec<usize>> = checked.collect();
    checked.ok_or_else(|| invalid(format!("an {what} names a tensor that is not there")))
}

/// Bytes of an element, for types whose constants are read.
fn size_of(kind: TensorType) -> Option<usize> {
    match kind {
        TensorType::INT8 | TensorType::UINT8 | TensorType::BOOL => Some(1),
        TensorType::FLOAT16 | TensorType::INT16 => Some(2),
        TensorType::FLOAT32 | TensorType::INT32 => Some(4),
        TensorType::INT64 => Some(8),
        _ => None,
    }
}

pub(super) fn invalid(what: String) -> Problem {
    Problem::Invalid {
        stage: "reading the model",
        what,
    }
}

/// The verifier's message without the trace of fields.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}
