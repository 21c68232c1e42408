//! Int8 depthwise convolution with AVX2, AVX-VNNI and AVX-512 VNNI.

mod avx2;
mod avx512;
mod avxvnni;
mod block;
mod column;
mod driver;
mod engine;
mod pixels;
mod ymm;

pub(crate) use avx2::depthwise_avx2;
pub(crate) use avx512::depthwise_avx512vnni;
pub(crate) use avxvnni::depthwise_avxvnni;

use crate::ops::depthwise::DepthwiseI8;

/// Whole output rows `first_row..` of `y`, before the table. All slices have been checked against
/// the geometry, and no requantised value before the clamp reaches 2²² in magnitude.
pub(crate) struct Job<'a, 'b> {
    /// The operator.
    pub dw: &'a DepthwiseI8<'b>,
    /// The whole input map.
    pub x: &'a [i8],
    /// First output row.
    pub first_row: usize,
    /// Output rows.
    pub y: &'a mut [i8],
}
