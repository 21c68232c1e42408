//! Arm's microcontrollers: the DSP extension (Armv7E-M, Armv8-M), which Armv7-A has too, and Helium.
//!
//! Stable Rust has intrinsics for neither; each instruction is a small inline-assembly function, so that
//! the compiler allocates registers and schedules, and the kernels stay plain code.

pub(crate) mod dsp;
#[cfg(arm_mve)]
pub(crate) mod mve;
mod repeat;
mod token;

pub use token::Dsp;
#[cfg(arm_mve)]
pub use token::Mve;
