//! An ONNX graph under construction.

use std::collections::HashSet;

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// Version of the ONNX operator set that is written unless another is asked for.
pub const OPSET: i64 = 17;

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim<'a> {
    /// A size.
    Size(usize),
    /// Whatever the user gives, under a name.
    Symbol(&'a str),
}

/// An attribute of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attribute<'a> {
    /// One integer.
    Int(i64),
    /// A list of integers.
    Ints(&'a [i64]),
    /// One number.
    Float(f32),
    /// Text.
    Text(&'a str),
}

/// An ONNX graph, built node by node. Values are known by their names.
///
/// ```
/// use ampoule_quantize::export::{Dim, OnnxGraph};
/// use ampoule_quantize::import;
/// let mut g = OnnxGraph::new("sum");
/// let x = g.input("x", &[Dim::Symbol("batch"), Dim::Size(2)]);
/// g.floats("offset", &[2], &[1.0, 2.0]);
/// let y = g.node("Add", "shift", &[&x, "offset"], &[]);
/// g.output("y", &y, &[Dim::Symbol("batch"), Dim::Size(2)]);
/// let bytes = g.into_model(&[("what", "an example")]);
/// let imported = import::onnx_bytes(&bytes, &Default::default()).unwrap();
/// assert_eq!(imported.graph.outputs[0].name, "y");
/// ```
#[derive(Debug, Clone)]
pub struct OnnxGraph {
    proto: GraphProto,
    opset: i64,
    /// Names of all values and constants.
    names: HashSet<String>,
}

impl OnnxGraph {
    /// An empty graph of nodes of operator set [`OPSET`].
    pub fn new(name: &str) -> Self {
        OnnxGraph::with_opset(name, OPSET)
    }

    /// An empty graph of nodes of that version of the operator set.
    pub fn with_opset(name: &str, opset: i64) -> Self {
        let proto = GraphProto {
            name: name.to_owned(),
            ..GraphProto::default()
        };
        OnnxGraph {
            proto,
            opset,
            names: HashSet::new(),
        }
    }

    /// Declares an f32 input and gives its name.
    pub fn input(&mut self, name: &str, shape: &[Dim<'_>]) -> String {
        self.proto.input.push(port(name, shape, DataType::Float));
        self.names.insert(name.to_owned());
        name.to_owned()
    }

    /// Declares an i64 input, such as token ids, and gives its name.
    pub fn integer_input(&mut self, name: &str, shape: &[Dim<'_>]) -> String {
        self.proto.input.push(port(name, shape, DataType::Int64));
        self.names.insert(name.to_owned());
        name.to_owned()
    }

    /// Declares a value as an f32 output, and renames it so.
    pub fn output(&mut self, name: &str, value: &str, shape: &[Dim<'_>]) {
        self.output_of(name, value, DataType::Float, shape);
    }

    /// Declares a value of indices (i64) as an output, and renames it so.
    pub fn integer_output(&mut self, name: &str, value: &str, shape: &[Dim<'_>]) {
        self.output_of(name, value, DataType::Int64, shape);
    }

    /// The name, or the name with a number when it is taken; it is taken from then on.
    pub fn free_name(&mut self, name: &str) -> String {
        self.unique(name)
    }

    fn output_of(&mut self, name: &str, value: &str, kind: DataType, shape: &[Dim<'_>]) {
        let nodes = self.proto.node.iter_mut();
        for used in nodes.flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
            if used == value {
                *used = name.to_owned();
            }
        }
        self.proto.output.push(port(name, shape, kind));
    }

    /// Adds an f32 constant, row-major.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, DataType::Float, raw);
    }

    /// Adds an i64 constant, row-major.
    pub fn integers(&mut self, name: &str, shape: &[usize], values: &[i64]) {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, DataType::Int64, raw);
    }

    /// Whether there is a value or constant of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Name of a constant list of integers (a shape, say), which nodes share.
    pub fn list(&mut self, values: &[i64]) -> String {
        let name = format!("{values:?}");
        if !self.contains(&name) {
            self.integers(&name, &[values.len()], values);
        }
        name
    }

    /// Name of a constant f32 scalar, which nodes share.
    pub fn scalar(&mut self, value: f32) -> String {
        let name = format!("{value:?}");
        if !self.contains(&name) {
            self.floats(&name, &[], &[value]);
        }
        name
    }

    /// Adds a node with one output, and gives that value's name. `name` becomes the node's and is made
    /// unique by a number. An optional input that is absent has the empty name.
    pub fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        let [output] = self.node_with_outputs(op, name, inputs, attributes);
        output
    }

    /// [`OnnxGraph::node`] with several outputs.
    pub fn node_with_outputs<const N: usize>(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> [String; N] {
        let name = self.unique(name);
        let outputs: [String; N] = std::array::from_fn(|i| match i {
            0 => name.clone(),
            i => self.unique(&format!("{name}:{i}")),
        });
        self.proto.node.push(NodeProto {
            name,
            op_type: op.to_owned(),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: outputs.to_vec(),
            attribute: attributes.iter().map(|&(n, a)| attribute(n, a)).collect(),
            ..NodeProto::default()
        });
        outputs
    }

    /// The bytes of a model file, with pairs of `metadata` for its reader.
    pub fn into_model(self, metadata: &[(&str, &str)]) -> Vec<u8> {
        let metadata = metadata.iter().map(|&(key, value)| StringStringEntryProto {
            key: key.to_owned(),
            value: value.to_owned(),
        });
        let model = ModelProto {
            ir_version: ir_version(self.opset),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: self.opset,
            }],
            producer_name: "ampoule".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            metadata_props: metadata.collect(),
            graph: Some(self.proto),
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }

    fn constant(&mut self, name: &str, shape: &[usize], kind: DataType, raw_data: Vec<u8>) {
        self.names.insert(name.to_owned());
        self.proto.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: kind as i32,
            raw_data,
            ..TensorProto::default()
        });
    }

    /// The name, or the name with a number when it is taken.
    fn unique(&mut self, name: &str) -> String {
        let numbered = (1..).map(|i| format!("{name}_{i}"));
        let free = std::iter::once(name.to_owned())
            .chain(numbered)
            .find(|n| self.names.insert(n.clone()));
        free.unwrap_or_default()
    }
}

/// Version of the file format that came with an operator set.
fn ir_version(opset: i64) -> i64 {
    if opset < 19 { 8 } else { 9 }
}

fn port(name: &str, shape: &[Dim<'_>], kind: DataType) -> ValueInfoProto {
    let dim = |d: &Dim<'_>| Dimension {
        value: Some(match *d {
            Dim::Size(size) => dimension::Value::DimValue(size as i64),
            Dim::Symbol(name) => dimension::Value::DimParam(name.to_owned()),
        }),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: kind as i32,
        shape: Some(TensorShapeProto {
            dim: shape.iter().map(dim).collect(),
        }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn attribute(name: &str, value: Attribute<'_>) -> AttributeProto {
    let mut proto = AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    };
    let kind = match value {
        Attribute::Int(i) => {
            proto.i = i;
            AttributeType::Int
        }
        Attribute::Ints(ints) => {
            proto.ints = ints.to_vec();
            AttributeType::Ints
        }
        Attribute::Float(f) => {
            proto.f = f;
            AttributeType::Float
        }
        Attribute::Text(text) => {
            proto.s = text.as_bytes().to_vec();
            AttributeType::String
        }
    };
    proto.r#type = kind as i32;
    proto
}
