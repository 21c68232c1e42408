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

/// Runs the instruction set's kernel; `false` when it has none. Only AVX-512 can look bytes up in a
/// table of 256 faster than loads do.
fn vectors(cap: Capability, table: &[i8; 256], x: Option<&[i8]>, y: &mut [i8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::arch::x86::elementwise::table_avx512;
        let token = match cap {
            Capability::Avx512Vnni(token) => token,
            Capability::Amx(token) => token.avx512vnni(),
            _ => return false,
        };
        table_avx512(token, table, x, y);
        true
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (cap, table, x, y);
        false
    }
}
