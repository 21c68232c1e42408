//! Operators that treat each value, channel or row on its own.

mod vectorize;

pub(crate) use vectorize::{run_avx2, run_avx512};
