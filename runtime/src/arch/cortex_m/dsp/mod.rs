//! Kernels with the DSP extension: two 16-bit products a step.

pub(crate) mod conv;
pub(crate) mod depthwise;
mod epilogue;
mod gather;
mod insn;
