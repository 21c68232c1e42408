//! Operators on plain slices: maps `[rows, channels]` or, per sample, `[height, width, channels]`.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod depthwise;
pub mod fake_quantize;
pub mod layer_norm;
pub mod pool;
pub mod token;
mod window;

pub use window::Window;
