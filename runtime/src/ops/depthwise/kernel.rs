//! Int8 entry point.

use super::{DepthwiseI8, portable};
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::{at_least, expect};
use crate::ops::unary::table_i8_in_place;
use crate::ops::vectorize::run;

/// Channels to whose multiple the per-channel vectors are padded.
const PADDING: usize = 16;

/// Computes whole output rows `first_row..` (as many as `y` holds) into `y`.
///
/// `x` is the whole input map, `[height][width][channels]`.
pub fn depthwise_i8(
    cap: Capability,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> Result<(), Error> {
    check(dw, x, first_row, y)?;
    if y.is_empty() {
        return Ok(());
    }
    run(
        cap,
        portable::Rows {
            dw,
            x,
            first_row,
            y: &mut *y,
        },
    );
    dw.epilogue
        .table
        .map_or(Ok(()), |table| table_i8_in_place(cap, table, y))
}

/// Checks every slice against the geometry.
fn check(dw: &DepthwiseI8<'_>, x: &[i8], first_row: usize, y: &[i8]) -> Result<(), Error> {
    let [in_h, in_w, c] = dw.input;
    let [out_h, out_w] = dw.output;
    let row = out_w * c;
    expect(in_h * in_w * c, x.len())?;
    at_least(dw.window.taps() * c, dw.weights.len())?;
    let padded = c.next_multiple_of(PADDING);
    at_least(padded, dw.bias.len())?;
    at_least(padded, dw.weight_sums.len())?;
    at_least(padded, dw.multipliers.len())?;
    if let Some(residual) = dw.epilogue.residual {
        expect(out_h * row, residual.data.len())?;
    }
    let rows = y.len().checked_div(row).unwrap_or(0);
    expect(rows * row, y.len())?;
    at_least(first_row + rows, out_h)
}
