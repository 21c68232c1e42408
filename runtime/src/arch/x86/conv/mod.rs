//! Convolution and linear layers.
//!
//! The integer kernels differ in how they multiply and agree on the rest: a *panel* holds the
//! patches of some output pixels as rows, and *tiles* of a few rows by a few blocks of 16 channels
//! are computed from it with the weights read in place, or by AVX2 from a widened copy of a block at a
//! time. AMX also reads the rows of a point window straight from the input.

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512vnni;
pub(crate) mod avxvnni;
mod epilogue256;
mod epilogue512;
pub(crate) mod f32_avx2;
pub(crate) mod f32_avx512;
mod panel;
mod panel256;
pub(crate) mod sparse256;
pub(crate) mod sparse512;

use crate::arch::{f32_panel, parts};
