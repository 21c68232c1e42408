//! x86-64: AVX2, AVX-VNNI, AVX-512 VNNI and AMX.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod peak;
mod token;

#[cfg(test)]
pub(crate) use conv::amx::emulator::is_on as amx_is_emulated;

pub use token::{Amx, Avx2, Avx512Vnni, AvxVnni};
