//! Products of a value and a gate that is a function of it: SiLU, GELU, hard-swish, Mish.
//!
//! A product is taken apart into a number and its factors, so that operand order and the place of the
//! number do not matter.

use std::f32::consts::FRAC_1_SQRT_2;

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use crate::graph::{Node, Op, ValueId};
use crate::passes::edit::{Edit, Verdict};
use crate::passes::operands::{Affine, affine, binary, near, scalar, square_of, unary};

pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some((BinaryKind::Mul, a, b)) = binary(node) else {
        return Ok(None);
    };
    let Some((number, p, q)) = value_and_gate(edit, a, b) else {
        return Ok(None);
    };
    for (x, gate) in [(p, q), (q, p)] {
        if edit.shape(x) != edit.shape(node.output) {
            continue;
        }
        if let Some((kind, scale)) = gated(edit, x, gate) {
            let scale = scale * number;
            let y = edit.push(&node.name, Op::Unary(kind), &[x])?;
            if near(scale, 1.0) {
                return Ok(Some(y));
            }
            let scale = edit.constant_value(&format!("{}.scale", node.name), &[], vec![scale]);
            let op = Op::Binary {
                kind: BinaryKind::Mul,
                activation: None,
            };
            return edit
                .push(&format!("{}.scaled", node.name), op, &[y, scale])
                .map(Some);
        }
    }
    Ok(None)
}

/// A product as a number and two factors. A factor may be a product itself: the output of another gate.
fn value_and_gate(edit: &Edit<'_>, a: ValueId, b: ValueId) -> Option<(f32, ValueId, ValueId)> {
    let mut number = 1.0;
    let mut open = vec![a, b];
    let mut found = Vec::new();
    while let Some(v) = open.pop() {
        if let Some(n) = scalar(edit, v) {
            number *= n;
            continue;
        }
        let product = match edit.producer(v).and_then(binary) {
            Some((BinaryKind::Mul, a, b)) => Some([a, b]),
            _ => None,
        };
        let scaled = product.filter(|p| p.iter().any(|&v| scalar(edit, v).is_some()));
        let only =
            product.filter(|_| found.is_empty() && open.iter().all(|&v| scalar(edit, v).is_some()));
        match scaled.or(only) {
            Some(pair) => open.extend(pair),
            None => found.push(v),
        }
    }
    match found[..] {
        [p, q] => Some((number, p, q)),
        _ => None,
    }
}

/// The function that `x · gate` is, and a number it is multiplied by.
fn gated(edit: &Edit<'_>, x: ValueId, gate: ValueId) -> Option<(UnaryKind, f32)> {
    let g = affine(edit, gate);
    let (function, argument) = unary(edit, g.base)?;
    let a = affine(edit, argument);
    let of_x = a.base == x;
    let plain = of_x && a.offset == 0.0;
    match function {
        UnaryKind::Sigmoid if plain && g.offset == 0.0 && near(a.scale, 1.0) => {
            Some((UnaryKind::Silu, g.scale))
        }
        UnaryKind::Sigmoid if plain && g.offset == 0.0 && near(a.scale, 1.702) => {
            Some((UnaryKind::QuickGelu, g.scale))
        }
        UnaryKind::Erf if plain && near(a.scale, FRAC_1_SQRT_2) && near(g.offset, g.scale) => {
            Some((UnaryKind::GeluErf, 2.0 * g.scale))
        }
        UnaryKind::Tanh if near(g.offset, g.scale) && is_gelu_polynomial(edit, a, x) => {
            Some((UnaryKind::GeluTanh, 2.0 * g.scale))
        }
        UnaryKind::Tanh
            if g.offset == 0.0 && unary(edit, argument) == Some((UnaryKind::Softplus, x)) =>
        {
            Some((UnaryKind::Mish, g.scale))
        }
        UnaryKind::HardSigmoid(slope, offset)
            if plain
                && g.offset == 0.0
                && near(slope * a.scale, 1.0 / 6.0)
                && near(offset, 0.5) =>
        {
            Some((UnaryKind::HardSwish, g.scale))
        }
        UnaryKind::Clamp(0.0, hi)
            if of_x && g.offset == 0.0 && near(6.0 * a.scale, hi) && near(2.0 * a.offset, hi) =>
        {
            Some((UnaryKind::HardSwish, g.scale * hi))
        }
        _ => None,
    }
}

/// Whether a value is `√(2/π) · (x + 0.044715·x³)`.
fn is_gelu_polynomial(edit: &Edit<'_>, a: Affine, x: ValueId) -> bool {
    const SLOPE: f32 = 0.797_884_6;
    const CUBE: f32 = 0.044_715;
    if a.offset != 0.0 {
        return false;
    }
    match edit.producer(a.base).and_then(binary) {
        Some((BinaryKind::Add, p, q)) if near(a.scale, SLOPE) => {
            [(p, q), (q, p)].iter().any(|&(linear, cubic)| {
                let cubic = factors(edit, &[cubic]);
                linear == x && near(cubic.number, CUBE) && is_power(edit, &cubic.factors, x, 3)
            })
        }
        // `x · (1 + 0.044715·x²)`, with the slope anywhere.
        Some((BinaryKind::Mul, p, q)) => [(p, q), (q, p)].iter().any(|&(linear, square)| {
            let (l, s) = (affine(edit, linear), affine(edit, square));
            let slope = a.scale * l.scale * s.offset;
            l.base == x
                && l.offset == 0.0
                && near(slope, SLOPE)
                && near(s.scale / s.offset, CUBE)
                && is_power(edit, &[s.base], x, 2)
        }),
        _ => false,
    }
}

/// Whether a product of factors is a power of `x`.
fn is_power(edit: &Edit<'_>, factors: &[ValueId], x: ValueId, exponent: u32) -> bool {
    let one = |&v: &ValueId| {
        if v == x {
            return Some(1);
        }
        if square_of(edit, v) == Some(x) {
            return Some(2);
        }
        match binary(edit.producer(v)?)? {
            (BinaryKind::Pow, base, three) if base == x && scalar(edit, three) == Some(3.0) => {
                Some(3)
            }
            _ => None,
        }
    };
    factors.iter().map(one).sum::<Option<u32>>() == Some(exponent)
}

/// A product: a number and what else is multiplied.
struct Product {
    number: f32,
    factors: Vec<ValueId>,
}

/// Takes products apart, as far as they have few factors.
fn factors(edit: &Edit<'_>, start: &[ValueId]) -> Product {
    let mut product = Product {
        number: 1.0,
        factors: Vec::new(),
    };
    let mut open = start.to_vec();
    while let Some(v) = open.pop() {
        if let Some(number) = scalar(edit, v) {
            product.number *= number;
            continue;
        }
        match edit.producer(v).and_then(binary) {
            Some((BinaryKind::Mul, a, b)) if product.factors.len() + open.len() < 4 => {
                open.extend([a, b])
            }
            _ => product.factors.push(v),
        }
    }
    product
}
