//! Operators: a folder each, with contract, scalar reference, portable kernel and tests.

pub mod binary;
pub mod conv;
pub mod convert;
pub mod depthwise;
pub mod wide;
pub mod resize;
pub mod norm;
pub mod matmul;
pub mod copy;
pub mod pool;
pub mod reduce;
pub mod softmax;
pub mod unary;
mod length;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod vectorize;
mod window;

pub use window::Window;
