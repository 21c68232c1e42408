//! Operators that treat each value, channel or row on its own.

mod binary;
mod lanes;
mod table;
mod vectorize;

pub(crate) use binary::{Operands, binary_avx2, binary_avx512};
pub(crate) use table::{look_up_avx2, table_avx2, table_avx512, table_steps};
pub(crate) use vectorize::{root, run_avx2, run_avx512};
