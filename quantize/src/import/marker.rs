//! Activations stay whole on their way through tract.
//!
//! tract spells some activations out as comparisons, exponentials and selections. The builders here
//! replace its own for those operators and wire one [`Marker`] each, which lowering turns into a node.

use ampoule_runtime::ops::unary::UnaryKind;
use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::math::{add, div, mul, sub};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

use super::quantised::CODES;
use crate::calibrate::{CodeWidth, QParams};

/// An element-wise function that tract carries and cannot look into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Marker(pub UnaryKind);

// A parameter that is NaN makes a marker unequal to itself, which costs a missed merge and no more.
impl Eq for Marker {}

impl Op for Marker {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Marker {
    not_out_of_plan!();
}

impl TypedOp for Marker {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}

/// Parameters that the file states for its operand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Codes(pub QParams);

// Scales are normal numbers.
impl Eq for Codes {}

impl Op for Codes {
    fn name(&self) -> StaticName {
        "Codes".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Codes {
    not_out_of_plan!();
}

impl TypedOp for Codes {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Replaces tract's builders.
pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("Relu", |_, _| unary(UnaryKind::Relu));
    operators.insert("Elu", |_, n| unary(UnaryKind::Elu(float(n, "alpha", 1.0)?)));
    operators.insert("Selu", selu);
    operators.insert("HardSigmoid", hard_sigmoid);
    operators.insert("HardSwish", |_, _| unary(UnaryKind::HardSwish));
    operators.insert("Softplus", |_, _| unary(UnaryKind::Softplus));
    operators.insert("Softsign", |_, _| unary(UnaryKind::Softsign));
    operators.insert("Mish", |_, _| unary(UnaryKind::Mish));
    operators.insert("QuickGelu", quick_gelu);
    operators.insert("Gelu", gelu);
    operators.insert("Celu", |_, n| {
        Ok((expand(Celu(float(n, "alpha", 1.0)?)), vec![]))
    });
    operators.insert("PRelu", |_, _| Ok((expand(PRelu), vec![])));
    operators.insert(CODES, codes);
}

fn unary(kind: UnaryKind) -> Built {
    Ok((expand(Whole(Marker(kind))), vec![]))
}

fn codes(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let params = QParams {
        scale: float(node, "scale", 1.0)?,
        zero_point: node.get_attr_opt("zero_point")?.unwrap_or(0),
        width: CodeWidth::I8,
    };
    Ok((expand(Whole(Codes(params))), vec![]))
}

/// An operator that becomes one marker.
#[derive(Debug, Clone)]
struct Whole<M>(M);

impl<M: TypedOp + Clone + Copy> Expansion for Whole<M> {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        i: &'p [TensorProxy],
        o: &'p [TensorProxy],
    ) -> InferenceResult {
        elementwise_rules(s, i, o)
    }

    fn wire(
        &self,
        name: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(name, self.0, &inputs[..1])
    }
}

fn float(node: &NodeProto, name: &str, default: f32) -> TractResult<f32> {
    Ok(node.get_attr_opt(name)?.unwrap_or(default))
}

const SELU_ALPHA: f32 = 1.673_263_2;
const SELU_GAMMA: f32 = 1.050_701;

fn selu(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (alpha, gamma) = (
        float(node, "alpha", SELU_ALPHA)?,
        float(node, "gamma", SELU_GAMMA)?,
    );
    if (alpha - SELU_ALPHA).abs() < 1e-5 && (gamma - SELU_GAMMA).abs() < 1e-5 {
        return unary(UnaryKind::Selu);
    }
    Ok((expand(ScaledElu { alpha, gamma }), vec![]))
}

fn hard_sigmoid(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (alpha, beta) = (float(node, "alpha", 0.2)?, float(node, "beta", 0.5)?);
    unary(UnaryKind::HardSigmoid(alpha, beta))
}

fn quick_gelu(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let alpha = float(node, "alpha", 1.702)?;
    ensure!(
        (alpha - 1.702).abs() < 1e-4,
        "QuickGelu with alpha {alpha}: only 1.702 is supported"
    );
    unary(UnaryKind::QuickGelu)
}

fn gelu(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let approximate = node
        .get_attr_opt::<String>("approximate")?
        .unwrap_or_default();
    unary(if approximate == "tanh" {
        UnaryKind::GeluTanh
    } else {
        UnaryKind::GeluErf
    })
}

fn elementwise_rules<'r, 'p: 'r>(
    s: &mut Solver<'r>,
    inputs: &'p [TensorProxy],
    outputs: &'p [TensorProxy],
) -> InferenceResult {
    ensure!(!inputs.is_empty(), "operand missing");
    check_output_arity(outputs, 1)?;
    s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
    s.equals(&inputs[0].shape, &outputs[0].shape)
}

/// Wires a binary operator of two wires, or of a wire and a number.
fn wire_with_number(
    model: &mut TypedModel,
    name: String,
    op: tract_onnx::tract_core::ops::binary::TypedBinOp,
    wire: OutletId,
    number: f32,
) -> TractResult<OutletId> {
    let constant = model.add_const(format!("{name}.number"), tensor0(number))?;
    Ok(wire_with_rank_broadcast(name, model, op, &[wire, constant])?[0])
}

/// `alpha · elu(x / alpha)`, which is what the specification's formula comes to.
#[derive(Debug, Clone)]
struct Celu(f32);

impl Expansion for Celu {
    fn name(&self) -> StaticName {
        "Celu".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        i: &'p [TensorProxy],
        o: &'p [TensorProxy],
    ) -> InferenceResult {
        elementwise_rules(s, i, o)
    }

    fn wire(
        &self,
        name: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let x = wire_with_number(model, format!("{name}.shrink"), div(), inputs[0], self.0)?;
        let x = model.wire_node(name, Marker(UnaryKind::Elu(1.0)), &[x])?[0];
        Ok(tvec!(wire_with_number(
            model,
            format!("{name}.stretch"),
            mul(),
            x,
            self.0
        )?))
    }
}

/// Selu with other constants than the standard ones: a scaled Elu.
#[derive(Debug, Clone)]
struct ScaledElu {
    alpha: f32,
    gamma: f32,
}

impl Expansion for ScaledElu {
    fn name(&self) -> StaticName {
        "Selu".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        i: &'p [TensorProxy],
        o: &'p [TensorProxy],
    ) -> InferenceResult {
        elementwise_rules(s, i, o)
    }

    fn wire(
        &self,
        name: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let x = model.wire_node(name, Marker(UnaryKind::Elu(self.alpha)), inputs)?[0];
        Ok(tvec!(wire_with_number(
            model,
            format!("{name}.gamma"),
            mul(),
            x,
            self.gamma
        )?))
    }
}

/// `relu(x) + slope · (x − relu(x))`, which needs no selection.
#[derive(Debug, Clone)]
struct PRelu;

impl Expansion for PRelu {
    fn name(&self) -> StaticName {
        "PRelu".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        i: &'p [TensorProxy],
        o: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(i, 2)?;
        elementwise_rules(s, i, o)
    }

    fn wire(
        &self,
        name: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let (x, slope) = (inputs[0], inputs[1]);
        if let Some(alpha) = model
            .outlet_fact(slope)?
            .konst
            .as_ref()
            .filter(|k| k.len() == 1)
        {
            let alpha = alpha
                .cast_to::<f32>()?
                .try_as_plain_ram()?
                .as_slice::<f32>()?[0];
            return model.wire_node(name, Marker(UnaryKind::LeakyRelu(alpha)), &[x]);
        }
        let positive =
            model.wire_node(format!("{name}.positive"), Marker(UnaryKind::Relu), &[x])?[0];
        let negative = model.wire_node(format!("{name}.negative"), sub(), &[x, positive])?[0];
        let sloped =
            wire_with_rank_broadcast(format!("{name}.slope"), model, mul(), &[negative, slope])?[0];
        model.wire_node(name, add(), &[positive, sloped])
    }
}
