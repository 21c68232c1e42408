//! Elementwise functions of one tensor.
//!
//! An int8 function is a table of 256 codes. A float function is a [`UnaryKind`]: its truth is
//! [`UnaryKind::eval`]; slices go through [`unary_f32`], which stays within 1e-6 of it, relative to
//! the larger of 1 and the value.

pub(crate) mod fast;
mod float;
mod kind;
mod table;
#[cfg(test)]
mod tests;

pub use float::{unary_f32, unary_f32_in_place};
pub use kind::UnaryKind;
pub use table::{table_i8, table_i8_in_place};
