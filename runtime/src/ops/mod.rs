//! Operators: a folder each, with contract, scalar reference, portable kernel and tests.

pub mod arg_max;
pub mod attention;
pub mod binary;
pub mod conv;
pub mod convert;
pub mod copy;
pub mod depthwise;
pub mod gather;
mod length;
pub mod matmul;
pub mod merge;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod resize;
pub mod softmax;
pub mod sparse;
#[cfg(test)]
pub(crate) mod testing;
pub mod unary;
pub(crate) mod vectorize;
pub mod wide;
mod window;

pub use window::Window;
