//! Code-to-code tables.

use super::Simd;

/// `y[i] = table[x[i] as u8]`, where `x` is `None` for `y` itself.
#[inline(always)]
pub(crate) fn table<S: Simd>(simd: S, table: &[i8; 256], x: Option<&[i8]>, y: &mut [i8]) {
    if let Some(x) = x {
        y.copy_from_slice(x);
    }
    let (whole, rest) = y.as_chunks_mut::<16>();
    for codes in whole {
        simd.store(simd.look_up(table, simd.bytes(codes)), codes);
    }
    for code in rest {
        *code = table[usize::from(*code as u8)];
    }
}
