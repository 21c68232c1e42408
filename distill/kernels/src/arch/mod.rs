//! Instruction sets: the only unsafe code of this crate.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;
