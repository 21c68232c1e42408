//! Elementwise operators of two tensors, with broadcasting.
//!
//! Contract, for codes `a` and `b` and real factors that fold the three scales:
//!
//! * `Add`: `t = f32(a − a_zero)·a_multiplier + f32(b − b_zero)·b_multiplier`, each operation
//!   rounded on its own; `Sub` subtracts instead.
//! * `Mul`: `t = f32((a − a_zero)·(b − b_zero)) · multiplier`.
//!
//! The code is `table[round_to_code(t, zero, lo, hi)]`. Shapes broadcast as in NumPy: aligned at the
//! last dimension, where each size equals the other or is 1.

mod broadcast;
mod float;
mod kernel;
mod portable;
mod reference;
#[cfg(test)]
mod tests;

pub use broadcast::Broadcast;
pub use float::{binary_f32, binary_f32_in_place};
pub use kernel::{binary_i8, binary_i8_in_place, binary_i16, binary_i16_in_place};
pub use reference::{
    binary_f32 as binary_f32_reference, binary_i8 as binary_i8_reference,
    binary_i16 as binary_i16_reference,
};

use serde::{Deserialize, Serialize};

/// Operators that integer tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BinaryKindInt {
    /// `a + b`.
    Add,
    /// `a − b`.
    Sub,
    /// `a · b`.
    Mul,
}

/// Operators that float tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BinaryKind {
    /// `a + b`.
    Add,
    /// `a − b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`.
    Div,
    /// The larger one; `b` when the two are unordered.
    Max,
    /// The smaller one; `b` when the two are unordered.
    Min,
    /// `a` to the power `b`.
    Pow,
}

impl BinaryKind {
    /// Name for tables and messages.
    pub const fn name(self) -> &'static str {
        match self {
            BinaryKind::Add => "Add",
            BinaryKind::Sub => "Sub",
            BinaryKind::Mul => "Mul",
            BinaryKind::Div => "Div",
            BinaryKind::Max => "Max",
            BinaryKind::Min => "Min",
            BinaryKind::Pow => "Pow",
        }
    }

    /// The operator on integer tensors, where there is one.
    pub const fn integer(self) -> Option<BinaryKindInt> {
        match self {
            BinaryKind::Add => Some(BinaryKindInt::Add),
            BinaryKind::Sub => Some(BinaryKindInt::Sub),
            BinaryKind::Mul => Some(BinaryKindInt::Mul),
            _ => None,
        }
    }
}

/// An operator of two int8 tensors.
#[derive(Debug, Clone, Copy)]
pub struct BinaryI8<'a> {
    /// Which operator.
    pub kind: BinaryKindInt,
    /// Zero point of `a`.
    pub a_zero: i32,
    /// Scale of `a` over the scale of the output (`Add`, `Sub`).
    pub a_multiplier: f32,
    /// Zero point of `b`.
    pub b_zero: i32,
    /// Scale of `b` over the scale of the output (`Add`, `Sub`).
    pub b_multiplier: f32,
    /// Product of the scales of `a` and `b` over the scale of the output (`Mul`).
    pub multiplier: f32,
    /// Zero point of the output.
    pub zero: i32,
    /// Smallest code (fused activation).
    pub lo: i8,
    /// Largest code.
    pub hi: i8,
    /// Code-to-code table applied last, indexed by `code as u8`.
    pub table: Option<&'a [i8; 256]>,
}

/// An operator of two int16 tensors: zero points are 0, codes stay within ±32767.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BinaryI16 {
    /// Which operator.
    pub kind: BinaryKindInt,
    /// Scale of `a` over the scale of the output (`Add`, `Sub`).
    pub a_multiplier: f32,
    /// Scale of `b` over the scale of the output (`Add`, `Sub`).
    pub b_multiplier: f32,
    /// Product of the scales of `a` and `b` over the scale of the output (`Mul`).
    pub multiplier: f32,
}

/// An operator of two float tensors with a fused clamp, which lets NaN pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BinaryF32 {
    /// Which operator.
    pub kind: BinaryKind,
    /// Lower clamp; `-inf` for none.
    pub lo: f32,
    /// Upper clamp; `+inf` for none.
    pub hi: f32,
}
