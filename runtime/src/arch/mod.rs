//! Instruction-set specific kernels: the only place of the crate, beside the thread pool, where
//! `unsafe` is allowed.
//!
//! Each kernel takes a *capability token*: a value that exists only where the processor has the
//! feature, so that safe code can't reach an instruction that would fault.

#![allow(unsafe_code)]

#[cfg(arm_dsp)]
pub mod cortex_m;
#[cfg(target_arch = "x86_64")]
pub mod x86;
