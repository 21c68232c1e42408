//! Checks on the parsed file, before tract allocates or opens anything.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::error::{OPSETS, Problem};
use super::{inputs, quantised};

/// Largest tensor that import handles.
const MAX_BYTES: u64 = 2 << 30;

/// Largest tensor that an operator may make of a size in the file: far above what models fill or pad.
const MAX_GROWN: u64 = 256 << 20;

/// Deepest nesting of subgraphs that is looked into.
const MAX_DEPTH: usize = 8;

/// Version of the operator set; refuses models that tract must not see.
pub(super) fn check(model: &ModelProto, folder: Option<&Path>) -> Result<i64, Problem> {
    let opset = model
        .opset_import
        .iter()
        .find(|o| is_onnx(&o.domain))
        .map_or(0, |o| o.version);
    let Some(graph) = &model.graph else {
        return Err(Problem::NotOnnx("it has no graph".into()));
    };
    if !OPSETS.contains(&opset) {
        return Err(Problem::Opset { found: opset });
    }
    check_graph(graph, folder, 0)?;
    Ok(opset)
}

/// Refuses operators that `known` does not have, or that belong to a quantised model.
pub(super) fn check_operators(
    graph: &GraphProto,
    known: impl Fn(&str) -> bool,
) -> Result<(), Problem> {
    for node in &graph.node {
        let what = if node.op_type == quantised::CODES && is_onnx(&node.domain) {
            continue;
        } else if !is_onnx(&node.domain) && node.domain != "com.microsoft" {
            "its domain is unknown; export with standard operators"
        } else if !known(&node.op_type) {
            "there is no counterpart; replace it or cut the model before it"
        } else {
            continue;
        };
        let operator = if is_onnx(&node.domain) {
            node.op_type.clone()
        } else {
            format!("{}.{}", node.domain, node.op_type)
        };
        let shapes = node
            .input
            .iter()
            .map(|name| declared_shape(graph, name))
            .collect();
        return Err(Problem::Unsupported {
            node: name_of(node),
            operator,
            what: what.into(),
            shapes,
        });
    }
    Ok(())
}

fn name_of(node: &NodeProto) -> String {
    let named = [&node.name]
        .into_iter()
        .chain(&node.output)
        .find(|n| !n.is_empty());
    named.unwrap_or(&node.op_type).clone()
}

/// Shape of a value as far as the file says it.
fn declared_shape(graph: &GraphProto, name: &str) -> String {
    if let Some(tensor) = graph.initializer.iter().find(|t| t.name == name) {
        return format!("{:?}", tensor.dims);
    }
    let declared = graph
        .input
        .iter()
        .chain(&graph.value_info)
        .chain(&graph.output)
        .find(|v| v.name == name);
    declared
        .and_then(|v| inputs::dimensions(&v.r#type))
        .map_or_else(|| "?".into(), inputs::show)
}

/// Whether a domain name means the standard operators.
pub(super) fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn check_graph(graph: &GraphProto, folder: Option<&Path>, depth: usize) -> Result<(), Problem> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!(
            "subgraphs are nested more than {MAX_DEPTH} deep"
        )));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err(invalid(
            "sparse initializers are not supported; export dense weights".into(),
        ));
    }
    for tensor in &graph.initializer {
        check_tensor(tensor, folder)?;
    }
    for node in &graph.node {
        for attribute in &node.attribute {
            check_attribute(node, attribute, folder, depth)?;
        }
    }
    check_names(graph, depth)?;
    check_growth(graph)
}

fn check_attribute(
    node: &NodeProto,
    attribute: &AttributeProto,
    folder: Option<&Path>,
    depth: usize,
) -> Result<(), Problem> {
    for tensor in attribute.t.iter().chain(&attribute.tensors) {
        check_tensor(tensor, folder)?;
    }
    for graph in attribute.g.iter().chain(&attribute.graphs) {
        check_graph(graph, folder, depth + 1)?;
    }
    if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
        return Err(invalid(format!(
            "node `{}` holds a sparse tensor; export it dense",
            node.name
        )));
    }
    Ok(())
}

/// Each value has one producer, and what the top graph gives out exists.
fn check_names(graph: &GraphProto, depth: usize) -> Result<(), Problem> {
    let mut known: HashSet<&str> = graph.input.iter().map(|i| &*i.name).collect();
    let mut unique = HashSet::new();
    if let Some(twice) = graph.input.iter().find(|i| !unique.insert(&*i.name)) {
        return Err(invalid(format!("two inputs are named `{}`", twice.name)));
    }
    unique.clear();
    if let Some(twice) = graph.initializer.iter().find(|i| !unique.insert(&*i.name)) {
        return Err(invalid(format!(
            "two initializers are named `{}`",
            twice.name
        )));
    }
    known.extend(unique);
    for output in graph
        .node
        .iter()
        .flat_map(|n| &n.output)
        .filter(|o| !o.is_empty())
    {
        if !known.insert(output) {
            return Err(invalid(format!("value `{output}` is produced twice")));
        }
    }
    match graph.output.iter().find(|o| !known.contains(&*o.name)) {
        Some(output) if depth == 0 => Err(invalid(format!(
            "output `{}` is never produced",
            output.name
        ))),
        _ if depth == 0 && graph.output.is_empty() => Err(invalid("it has no output".into())),
        _ => Ok(()),
    }
}

/// Operators that make a large tensor of a small one are bounded where their size is in the file; tract
/// evaluates constants while it infers shapes.
fn check_growth(graph: &GraphProto) -> Result<(), Problem> {
    let constants = graph
        .node
        .iter()
        .filter(|n| n.op_type == "Constant")
        .filter_map(|n| {
            let value = n.attribute.iter().find_map(|a| a.t.as_ref())?;
            Some((n.output.first()?.as_str(), value))
        });
    let known: HashMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .map(|t| (t.name.as_str(), t))
        .chain(constants)
        .collect();
    for node in &graph.node {
        let operand = match &*node.op_type {
            "ConstantOfShape" => 0,
            "Expand" | "Tile" | "Pad" | "Range" | "Upsample" => 1,
            "Resize" => 3,
            _ => continue,
        };
        let Some(sizes) = node
            .input
            .get(operand)
            .and_then(|name| known.get(name.as_str()))
        else {
            continue;
        };
        let sizes = integers(sizes);
        let whole = sizes
            .iter()
            .try_fold(1u64, |p, &s| p.checked_mul(s.unsigned_abs().max(1)));
        if whole.is_none_or(|w| w > MAX_GROWN / 4) {
            return Err(Problem::Tensor {
                tensor: node.output.first().cloned().unwrap_or_default(),
                dims: sizes,
                what: "is made larger than 256 MiB".into(),
            });
        }
    }
    Ok(())
}

/// Values of a small integer tensor; empty for others.
fn integers(tensor: &TensorProto) -> Vec<i64> {
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if !tensor.int64_data.is_empty() => tensor.int64_data.clone(),
        Ok(DataType::Int64) => {
            let (words, _) = tensor.raw_data.as_chunks::<8>();
            words.iter().map(|w| i64::from_le_bytes(*w)).collect()
        }
        Ok(DataType::Int32) if !tensor.int32_data.is_empty() => {
            tensor.int32_data.iter().map(|&i| i.into()).collect()
        }
        Ok(DataType::Int32) => {
            let (words, _) = tensor.raw_data.as_chunks::<4>();
            words
                .iter()
                .map(|w| i32::from_le_bytes(*w).into())
                .collect()
        }
        _ => Vec::new(),
    }
}

fn check_tensor(tensor: &TensorProto, folder: Option<&Path>) -> Result<(), Problem> {
    let fail = |what: String| {
        Err(Problem::Tensor {
            tensor: tensor.name.clone(),
            dims: tensor.dims.clone(),
            what,
        })
    };
    let Ok(kind) = DataType::try_from(tensor.data_type) else {
        return fail(format!("has unknown element type {}", tensor.data_type));
    };
    let size = match kind {
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
        DataType::Float16 | DataType::Int16 | DataType::Uint16 => 2,
        DataType::Uint8 | DataType::Int8 | DataType::Bool => 1,
        _ => {
            return fail(format!(
                "has element type {kind:?}, which is not supported; export floats as f32"
            ));
        }
    };
    let mut elements = 1u64;
    for &d in &tensor.dims {
        match u64::try_from(d).ok().and_then(|d| elements.checked_mul(d)) {
            Some(product) => elements = product,
            None => return fail("has a negative or overflowing size".into()),
        }
    }
    let bytes = match elements.checked_mul(size) {
        Some(bytes) if bytes <= MAX_BYTES => bytes,
        _ => return fail("is larger than 2 GiB".into()),
    };
    if !tensor.external_data.is_empty() || tensor.data_location == Some(1) {
        return check_external(tensor, bytes, folder);
    }
    let typed = match kind {
        DataType::Float => tensor.float_data.len(),
        DataType::Double => tensor.double_data.len(),
        DataType::Int64 | DataType::Uint64 => tensor.int64_data.len() + tensor.uint64_data.len(),
        _ => tensor.int32_data.len() + tensor.uint64_data.len(),
    };
    if !tensor.raw_data.is_empty() && typed > 0 {
        return fail("has its data twice".into());
    }
    let complete = if tensor.raw_data.is_empty() {
        typed as u64 == elements
    } else {
        tensor.raw_data.len() as u64 == bytes
    };
    if complete {
        Ok(())
    } else {
        fail(format!(
            "needs {bytes} bytes of data and has {}",
            tensor.raw_data.len().max(typed * size as usize)
        ))
    }
}

/// External data must be a plain file below the model's folder, reached without `..`, absolute paths or
/// links, and hold the bytes. Nothing of it is read here.
fn check_external(tensor: &TensorProto, bytes: u64, folder: Option<&Path>) -> Result<(), Problem> {
    let entry = |key: &str| {
        tensor
            .external_data
            .iter()
            .find(|e| e.key == key)
            .map(|e| e.value.as_str())
    };
    let location = entry("location").unwrap_or_default();
    let fail = |what: &str| {
        Err(Problem::ExternalData {
            tensor: tensor.name.clone(),
            location: location.to_owned(),
            what: what.to_owned(),
        })
    };
    let Some(folder) = folder else {
        return fail("a model in memory has no folder; load it from its path");
    };
    let path = Path::new(location);
    if location.is_empty() || !path.components().all(|c| matches!(c, Component::Normal(_))) {
        return fail("must be a relative path inside the model's folder");
    }
    let mut full = folder.to_path_buf();
    let mut length = 0;
    for part in path.components() {
        full.push(part);
        match std::fs::symlink_metadata(&full) {
            Ok(meta) if meta.is_symlink() => {
                return fail("is a link, which is refused; put the file itself there");
            }
            Ok(meta) => length = if meta.is_file() { meta.len() } else { 0 },
            Err(error) => return fail(&error.to_string()),
        }
    }
    let number = |key: &str, default: u64| entry(key).map_or(Some(default), |v| v.parse().ok());
    let (Some(offset), Some(size)) = (number("offset", 0), number("length", bytes)) else {
        return fail("offset or length is not a number");
    };
    if size != bytes {
        return fail(&format!(
            "the tensor needs {bytes} bytes and {size} are given"
        ));
    }
    if offset.checked_add(size).is_none_or(|end| end > length) {
        return fail(&format!(
            "bytes {offset} to {offset}+{size} are outside the file, which has {length}"
        ));
    }
    Ok(())
}

fn invalid(what: String) -> Problem {
    Problem::Invalid {
        stage: "checking",
        what,
    }
}
