//! Activations as nodes.

use ampoule_distill_kernels::graph::Activation;
use ampoule_quantize::export::{Attribute, OnnxGraph};

use super::Opset;

/// Adds the nodes of an activation of the layer `name`; `None` for one without form.
pub(super) fn write(
    onnx: &mut OnnxGraph,
    opset: Opset,
    f: Activation,
    name: &str,
    x: String,
) -> Option<String> {
    let mut node = |op: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]| {
        onnx.node(op, &format!("{name}/{op}"), inputs, attributes)
    };
    Some(match f {
        Activation::Identity => x,
        Activation::Relu => node("Relu", &[&x], &[]),
        Activation::Relu6 => {
            let bounds = [0.0, 6.0].map(|b| onnx.scalar(b));
            clip(onnx, name, &x, &bounds)
        }
        Activation::Gelu if opset == Opset::V20 => node("Gelu", &[&x], &[]),
        Activation::Gelu => gelu(onnx, name, &x),
        Activation::QuickGelu => {
            let factor = onnx.scalar(1.702);
            let scaled = onnx.node("Mul", &format!("{name}/Mul"), &[&x, &factor], &[]);
            let gate = onnx.node("Sigmoid", &format!("{name}/Sigmoid"), &[&scaled], &[]);
            onnx.node("Mul", &format!("{name}/Mul"), &[&x, &gate], &[])
        }
        Activation::Silu => {
            let gate = node("Sigmoid", &[&x], &[]);
            node("Mul", &[&x, &gate], &[])
        }
        Activation::HardSwish => node("HardSwish", &[&x], &[]),
        Activation::Sigmoid => node("Sigmoid", &[&x], &[]),
        Activation::HardSigmoid => {
            let slope = [
                ("alpha", Attribute::Float(1.0 / 6.0)),
                ("beta", Attribute::Float(0.5)),
            ];
            node("HardSigmoid", &[&x], &slope)
        }
        Activation::Tanh => node("Tanh", &[&x], &[]),
        _ => return None,
    })
}

fn clip(onnx: &mut OnnxGraph, name: &str, x: &str, [least, most]: &[String; 2]) -> String {
    onnx.node("Clip", &format!("{name}/Clip"), &[x, least, most], &[])
}

/// `x · (erf(x / √2) + 1) / 2`, as PyTorch spells it.
fn gelu(onnx: &mut OnnxGraph, name: &str, x: &str) -> String {
    let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|c| onnx.scalar(c));
    let mut node = |op: &str, a: &str, b: &str| {
        let inputs = [a, b];
        let arity = if b.is_empty() { 1 } else { 2 };
        onnx.node(op, &format!("{name}/{op}"), &inputs[..arity], &[])
    };
    let scaled = node("Div", x, &root);
    let erf = node("Erf", &scaled, "");
    let gate = node("Add", &erf, &one);
    let gated = node("Mul", x, &gate);
    node("Mul", &gated, &half)
}
