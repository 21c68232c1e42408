//! Integer rows.

use super::check_rows;
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::round_to_code;
use crate::ops::length::expect;
use crate::ops::vectorize::{Loop, run};

/// Softmax of each row of `row` codes.
pub fn softmax_i8(
    cap: Capability,
    table: &[u32; 256],
    row: usize,
    x: &[i8],
    y: &mut [i8],
) -> Result<(), Error> {
    expect(x.len(), y.len())?;
    y.copy_from_slice(x);
    softmax_i8_in_place(cap, table, row, y)
}

/// Softmax of each row of `row` codes of `y`.
pub fn softmax_i8_in_place(
    cap: Capability,
    table: &[u32; 256],
    row: usize,
    y: &mut [i8],
) -> Result<(), Error> {
    check_rows(y.len(), row)?;
    run(cap, Rows { table, row, y });
    Ok(())
}

struct Rows<'a> {
    table: &'a [u32; 256],
    row: usize,
    y: &'a mut [i8],
}

impl Loop for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if self.row == 0 {
            return;
        }
        for y in self.y.chunks_exact_mut(self.row) {
            let max = y.iter().fold(i8::MIN, |m, &code| m.max(code));
            let exponential = |code: i8| self.table[usize::from(max.wrapping_sub(code) as u8)];
            let sum = y
                .iter()
                .fold(0u64, |sum, &code| sum + u64::from(exponential(code)));
            let r = 256.0 / sum as f32;
            for y in y {
                *y = round_to_code(exponential(*y) as f32 * r, -128, -128, 127) as i8;
            }
        }
    }
}
