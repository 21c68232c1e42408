//! Just enough of the protobuf wire format to write small ONNX models.

/// A length-delimited field: message, string or packed list.
pub fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number << 3 | 2));
    out.extend(varint(content.len() as u64));
    out.extend(content);
    out
}

/// An integer field.
pub fn integer(number: u32, value: i64) -> Vec<u8> {
    let mut out = varint(u64::from(number << 3));
    out.extend(varint(value as u64));
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A node with inputs, outputs and encoded attributes.
pub fn node(
    name: &str,
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[Vec<u8>],
) -> Vec<u8> {
    let mut out: Vec<u8> = inputs.iter().flat_map(|i| field(1, i.as_bytes())).collect();
    out.extend(outputs.iter().flat_map(|o| field(2, o.as_bytes())));
    out.extend([field(3, name.as_bytes()), field(4, op.as_bytes())].concat());
    out.extend(attributes.iter().flat_map(|a| field(5, a)));
    out
}

/// A list-of-integers attribute.
pub fn integers(name: &str, values: &[i64]) -> Vec<u8> {
    let mut out = field(1, name.as_bytes());
    out.extend(values.iter().flat_map(|&v| integer(8, v)));
    out.extend(integer(20, 7));
    out
}

/// A dimension of an input: a size or a name.
pub enum Dim {
    Size(i64),
    Name(&'static str),
}

/// Input or output of element type `kind` (1 = f32, 7 = i64).
pub fn port(name: &str, kind: i64, dims: &[Dim]) -> Vec<u8> {
    let dim = |d: &Dim| match d {
        Dim::Size(n) => integer(1, *n),
        Dim::Name(n) => field(2, n.as_bytes()),
    };
    let shape: Vec<u8> = dims.iter().flat_map(|d| field(1, &dim(d))).collect();
    let tensor = [integer(1, kind), field(2, &shape)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// An f32 tensor with raw data.
pub fn tensor(name: &str, dims: &[i64], data: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out: Vec<u8> = dims.iter().flat_map(|&d| integer(1, d)).collect();
    out.extend([integer(2, 1), field(8, name.as_bytes()), field(9, &raw)].concat());
    out
}

/// An i64 tensor with raw data.
pub fn tensor_i64(name: &str, dims: &[i64], data: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out: Vec<u8> = dims.iter().flat_map(|&d| integer(1, d)).collect();
    out.extend([integer(2, 7), field(8, name.as_bytes()), field(9, &raw)].concat());
    out
}

/// A model of nodes, initializers, inputs and outputs, all encoded.
pub fn model(
    opset: i64,
    nodes: &[Vec<u8>],
    initializers: &[Vec<u8>],
    inputs: &[Vec<u8>],
    outputs: &[Vec<u8>],
) -> Vec<u8> {
    let mut graph: Vec<u8> = nodes.iter().flat_map(|n| field(1, n)).collect();
    graph.extend(field(2, b"graph"));
    graph.extend(initializers.iter().flat_map(|t| field(5, t)));
    graph.extend(inputs.iter().flat_map(|i| field(11, i)));
    graph.extend(outputs.iter().flat_map(|o| field(12, o)));
    [
        integer(1, 8),
        field(7, &graph),
        field(8, &integer(2, opset)),
    ]
    .concat()
}
