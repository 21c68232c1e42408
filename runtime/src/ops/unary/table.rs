//! Code-to-code tables.

use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::expect;

/// `y[i] = table[x[i] as u8]`.
pub fn table_i8(cap: Capability, table: &[i8; 256], x: &[i8], y: &mut [i8]) -> Result<(), Error> {
    expect(x.len(), y.len())?;
    if !vectors(cap, table, Some(x), y) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = table[usize::from(x as u8)];
        }
    }
    Ok(())
}

/// `y[i] = table[y[i] as u8]`.
pub fn table_i8_in_place(cap: Capability, table: &[i8; 256], y: &mut [i8]) -> Result<(), Error> {
    if !vectors(cap, table, None, y) {
        for y in y {
            *y = table[usize::from(*y as u8)];
        }
    }
    Ok(())
}

/// Runs the instruction set's kernel; `false` when it has none.
fn vectors(cap: Capability, table: &[i8; 256], x: Option<&[i8]>, y: &mut [i8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::arch::x86::elementwise::{table_avx2, table_avx512};
        match cap {
            Capability::Portable => return false,
            Capability::Avx2(token) => table_avx2(token, table, x, y),
            Capability::AvxVnni(token) => table_avx2(token.avx2(), table, x, y),
            Capability::Avx512Vnni(token) => table_avx512(token, table, x, y),
            Capability::Amx(token) => table_avx512(token.avx512vnni(), table, x, y),
        }
        true
    }
    #[cfg(simd128)]
    {
        let Some(simd) = cap.simd128() else {
            return false;
        };
        crate::arch::simd128::table::table(simd, table, x, y);
        true
    }
    #[cfg(not(any(target_arch = "x86_64", simd128)))]
    {
        let _ = (cap, table, x, y);
        false
    }
}
