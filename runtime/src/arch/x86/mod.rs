//! x86-64: AVX2, AVX-VNNI, AVX-512 VNNI and AMX.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
mod token;

pub use token::{Amx, Avx2, Avx512Vnni, AvxVnni};
