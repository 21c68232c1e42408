//! Kernels with Helium: sixteen 8-bit products a step.

pub(crate) mod conv;
pub(crate) mod copy;
pub(crate) mod depthwise;
mod epilogue;
