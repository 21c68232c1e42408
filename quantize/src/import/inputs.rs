//! Fixes the shapes of model inputs in the parsed file, and makes names unique.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::{AttributeProto, GraphProto, TensorProto, TypeProto, type_proto};

use super::error::Problem;

/// Gives every input a fixed shape: the one in `given`, or the declared one with batch 1.
///
/// A dimension with a name has one size everywhere in the inputs. Shapes that the file declares for other
/// values are dropped: they may be stale, and inference finds them again.
pub(super) fn fix_shapes(
    graph: &mut GraphProto,
    given: &HashMap<String, Vec<usize>>,
) -> Result<(), Problem> {
    let constants: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    if let Some((input, shape)) = given
        .iter()
        .find(|(name, _)| !graph.input.iter().any(|i| i.name == **name))
    {
        let known: Vec<&str> = graph
            .input
            .iter()
            .map(|i| &*i.name)
            .filter(|n| !constants.contains(*n))
            .collect();
        return Err(wrong(
            input,
            shape,
            format!("the model has no such input, only {known:?}"),
        ));
    }
    let mut sizes: HashMap<String, i64> = HashMap::new();
    for input in graph.input.iter().filter(|i| !constants.contains(&i.name)) {
        let dims = dimensions(&input.r#type).unwrap_or_default();
        if let Some(shape) = given.get(&input.name) {
            bind_given(&input.name, dims, shape, &mut sizes)?;
        } else if let Some(Dimension {
            value: Some(Value::DimParam(batch)),
            ..
        }) = dims.first()
        {
            sizes.entry(batch.clone()).or_insert(1);
        }
    }
    for input in graph
        .input
        .iter_mut()
        .filter(|i| !constants.contains(&i.name))
    {
        let name = input.name.clone();
        let Some(type_proto::Value::TensorType(tensor)) =
            input.r#type.as_mut().and_then(|t| t.value.as_mut())
        else {
            return Err(invalid(format!("input `{name}` is not a tensor")));
        };
        let kind = DataType::try_from(tensor.elem_type);
        if !matches!(
            kind,
            Ok(DataType::Float | DataType::Int32 | DataType::Int64)
        ) {
            let kind = kind.map_or("of unknown type".into(), |k| format!("{k:?}"));
            return Err(invalid(format!(
                "input `{name}` is {kind}; only f32 and token ids (i32, i64) are supported"
            )));
        }
        let Some(shape) = &mut tensor.shape else {
            return Err(Problem::DynamicShape {
                input: name,
                shape: "of unknown rank".into(),
            });
        };
        let fixed: Option<Vec<i64>> = match given.get(&name) {
            Some(shape) => Some(shape.iter().map(|&d| d as i64).collect()),
            None => shape
                .dim
                .iter()
                .enumerate()
                .map(|(axis, d)| size(axis, d, &sizes))
                .collect(),
        };
        let Some(fixed) = fixed else {
            return Err(Problem::DynamicShape {
                input: name,
                shape: show(&shape.dim),
            });
        };
        if fixed
            .iter()
            .try_fold(1i64, |p, &d| p.checked_mul(d))
            .is_none_or(|n| n > 1 << 29)
        {
            return Err(Problem::Tensor {
                tensor: name,
                dims: fixed,
                what: "is larger than 2 GiB".into(),
            });
        }
        for (d, size) in shape.dim.iter_mut().zip(fixed) {
            d.value = Some(Value::DimValue(size));
        }
    }
    graph.value_info.clear();
    Ok(())
}

/// Binds dimension names to the sizes of a given shape.
fn bind_given(
    input: &str,
    dims: &[Dimension],
    shape: &[usize],
    sizes: &mut HashMap<String, i64>,
) -> Result<(), Problem> {
    if dims.len() != shape.len() || shape.contains(&0) {
        return Err(wrong(
            input,
            shape,
            format!("the model declares {}", show(dims)),
        ));
    }
    for (axis, (d, &size)) in dims.iter().zip(shape).enumerate() {
        let size = size as i64;
        match &d.value {
            Some(Value::DimParam(name)) if *sizes.entry(name.clone()).or_insert(size) != size => {
                return Err(wrong(
                    input,
                    shape,
                    format!("dimension `{name}` has another size elsewhere"),
                ));
            }
            Some(Value::DimValue(v)) if *v > 0 && *v != size && axis > 0 => {
                return Err(wrong(
                    input,
                    shape,
                    format!("the model declares {}", show(dims)),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Size of one dimension; the batch (axis 0) is 1 where the file leaves it open.
fn size(axis: usize, d: &Dimension, sizes: &HashMap<String, i64>) -> Option<i64> {
    match &d.value {
        Some(Value::DimValue(v)) if *v > 0 => Some(*v),
        Some(Value::DimParam(name)) => sizes.get(name).copied(),
        _ if axis == 0 => Some(1),
        _ => None,
    }
}

/// Dimensions that a type declares.
pub(super) fn dimensions(kind: &Option<TypeProto>) -> Option<&[Dimension]> {
    match kind.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(t) => t.shape.as_ref().map(|s| &s.dim[..]),
    }
}

/// Dimensions for messages.
pub(super) fn show(dims: &[Dimension]) -> String {
    let one = |d: &Dimension| match &d.value {
        Some(Value::DimValue(v)) => v.to_string(),
        Some(Value::DimParam(name)) => name.clone(),
        None => "?".into(),
    };
    format!("[{}]", dims.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Writes down a default that tract takes for f64: the zero of ConstantOfShape.
pub(super) fn explicit_zeros(graph: &mut GraphProto) {
    for node in graph
        .node
        .iter_mut()
        .filter(|n| n.op_type == "ConstantOfShape" && n.attribute.is_empty())
    {
        let zero = TensorProto {
            dims: vec![1],
            data_type: DataType::Float as i32,
            float_data: vec![0.0],
            ..TensorProto::default()
        };
        node.attribute.push(AttributeProto {
            name: "value".into(),
            r#type: AttributeType::Tensor as i32,
            t: Some(zero),
            ..AttributeProto::default()
        });
    }
}

/// Gives each node a name of its own; tract refuses models with duplicates.
pub(super) fn unique_names(graph: &mut GraphProto) {
    let mut taken: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    taken.extend(graph.input.iter().map(|i| i.name.clone()));
    for node in &mut graph.node {
        if node.name.is_empty() {
            node.name = node
                .output
                .iter()
                .find(|o| !o.is_empty())
                .unwrap_or(&node.op_type)
                .clone();
        }
        let base = node.name.clone();
        for n in 1.. {
            if taken.insert(node.name.clone()) {
                break;
            }
            node.name = format!("{base}~{n}");
        }
    }
}

fn wrong(input: &str, given: &[usize], what: String) -> Problem {
    Problem::InputShape {
        input: input.to_owned(),
        given: given.to_vec(),
        what,
    }
}

fn invalid(what: String) -> Problem {
    Problem::Invalid {
        stage: "reading inputs",
        what,
    }
}
