//! Int8 entry point.

use super::{DepthwiseI8, portable};
use crate::error::Error;
use crate::isa::Capability;
use crate::operators::{AllOperators, Operators, Variant};
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
    depthwise_i8_for::<AllOperators>(cap, dw, x, first_row, y)
}

/// [`depthwise_i8`] of a program that is linked with some operators only.
pub(crate) fn depthwise_i8_for<O: Operators>(
    cap: Capability,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> Result<(), Error> {
    let cap = cap.built_in::<O>();
    check(dw, x, first_row, y)?;
    if y.is_empty() {
        return Ok(());
    }
    // Where there is a table, it is applied to what either leaves.
    if !vectors(cap, dw, x, first_row, y) {
        if cfg!(all(arm_dsp, not(arm_mve))) && !O::SET.includes(Variant::OddDepthwise) {
            return Err(Error::Internal(0));
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
    }
    dw.epilogue
        .table
        .map_or(Ok(()), |table| table_i8_in_place(cap, table, y))
}

/// Runs the instruction set's kernel; `false` when it has none for this operator.
#[cfg(target_arch = "x86_64")]
fn vectors(
    cap: Capability,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> bool {
    use crate::arch::x86::depthwise::{
        Job, depthwise_avx2, depthwise_avx512vnni, depthwise_avxvnni,
    };
    if !stays_small(dw) {
        return false;
    }
    let job = Job {
        dw,
        x,
        first_row,
        y,
    };
    match cap {
        Capability::Portable => false,
        Capability::Avx2(token) => depthwise_avx2(token, job),
        Capability::AvxVnni(token) => depthwise_avxvnni(token, job),
        Capability::Avx512Vnni(token) => depthwise_avx512vnni(token, job),
        Capability::Amx(token) => depthwise_avx512vnni(token.avx512vnni(), job),
    }
}

/// Runs the instruction set's kernel; `false` when it has none for this operator.
#[cfg(simd128)]
fn vectors(
    cap: Capability,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> bool {
    use crate::arch::simd128::depthwise::{Job, depthwise_i8};
    let job = Job {
        dw,
        x,
        first_row,
        y,
    };
    cap.simd128().is_some_and(|simd| depthwise_i8(simd, job))
}

/// Runs the instruction set's kernel; `false` when it has none for this operator.
#[cfg(arm_dsp)]
fn vectors(
    cap: Capability,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> bool {
    use crate::arch::cortex_m;
    match cap {
        Capability::Dsp(token) => {
            cortex_m::dsp::depthwise::depthwise_i8(token, dw, x, first_row, y).is_some()
        }
        #[cfg(arm_mve)]
        Capability::Mve(token) => {
            cortex_m::mve::depthwise::depthwise_i8(token, dw, x, first_row, y)
        }
        Capability::Portable => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", simd128, arm_dsp)))]
fn vectors(_: Capability, _: &DepthwiseI8<'_>, _: &[i8], _: usize, _: &mut [i8]) -> bool {
    false
}

/// Whether every value stays below 2²² in magnitude before the clamp, whatever the input: the
/// vector kernels round by adding [`crate::numerics::MAGIC`] and clamp only after the conversion to
/// an integer. Every sensible quantisation stays far below.
#[cfg(target_arch = "x86_64")]
fn stays_small(dw: &DepthwiseI8<'_>) -> bool {
    const LIMIT: f32 = 4.0e6;
    let products = dw.window.taps() as f32 * (128.0 * 128.0);
    let residual = dw.epilogue.residual.map_or(0.0, |r| {
        (r.zero.unsigned_abs() as f32 + 128.0) * r.multiplier.abs()
    });
    let offset = residual + dw.epilogue.zero.unsigned_abs() as f32;
    let channels = dw.bias.iter().zip(dw.multipliers).take(dw.input[2]);
    channels.fold(true, |small, (bias, multiplier)| {
        let largest = ((*bias as f32).abs() + products) * multiplier.abs() + offset;
        small & (largest < LIMIT)
    })
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
