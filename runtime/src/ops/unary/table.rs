//! Code-to-code tables.

use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::expect;

/// `y[i] = table[x[i] as u8]`.
pub fn table_i8(cap: Capability, table: &[i8; 256], x: &[i8], y: &mut [i8]) -> Result<(), Error> {
    expect(x.len(), y.len())?;
    y.copy_from_slice(x);
    table_i8_in_place(cap, table, y)
}

/// `y[i] = table[y[i] as u8]`.
pub fn table_i8_in_place(_cap: Capability, table: &[i8; 256], y: &mut [i8]) -> Result<(), Error> {
    y.iter_mut().for_each(|y| *y = table[*y as u8 as usize]);
    Ok(())
}
