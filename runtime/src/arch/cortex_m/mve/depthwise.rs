//! Int8 depthwise convolution, eight channels at a time.
//!
//! Only taps inside the map are visited: what lies outside reads as the zero point, so the sum is what it would
//! be if all did, plus the products of the others' distances from it.

use core::arch::asm;
use core::ops::Range;

use super::epilogue::finish;
use crate::arch::cortex_m::Mve;
use crate::ops::depthwise::DepthwiseI8;

/// Channels side by side.
const GROUP: usize = 8;

/// Runs whole output rows `first_row..` of `y`, before the table; `false` when there are too few channels. The
/// lengths are checked.
pub(crate) fn depthwise_i8(
    token: Mve,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> bool {
    let ([height, width, channels], out_w) = (dw.input, dw.output[1]);
    if channels < GROUP {
        return false;
    }
    for (i, y) in y.chunks_exact_mut(channels).enumerate() {
        let (oy, ox) = (first_row + i / out_w, i % out_w);
        let rows = taps(dw, 0, oy, height);
        let columns = taps(dw, 1, ox, width);
        for c in (0..channels).step_by(GROUP) {
            // The last group may repeat channels of the one before it.
            let c = c.min(channels - GROUP);
            let sums = sums(token, dw, x, [oy, ox], rows.clone(), columns.clone(), c);
            let index = (oy * out_w + ox) * channels + c;
            finish(
                token,
                &dw.epilogue,
                &sums,
                &dw.multipliers[c..],
                index,
                &mut y[c..c + GROUP],
            );
        }
    }
    true
}

/// Taps along an axis that lie inside the map for output position `o`.
fn taps(dw: &DepthwiseI8<'_>, axis: usize, o: usize, size: usize) -> Range<usize> {
    let w = &dw.window;
    let [taps, step, dilation, pad] = [
        w.kernel[axis],
        w.stride[axis],
        w.dilation[axis],
        w.pad[axis],
    ]
    .map(usize::from);
    let at = o * step;
    let first = pad.saturating_sub(at).div_ceil(dilation).min(taps);
    let end = (size + pad)
        .saturating_sub(at)
        .div_ceil(dilation)
        .clamp(first, taps);
    first..end
}

/// Sums of [`GROUP`] channels from `c` on.
#[inline(always)]
fn sums(
    _: Mve,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    [oy, ox]: [usize; 2],
    rows: Range<usize>,
    columns: Range<usize>,
    c: usize,
) -> [i32; GROUP] {
    let [_, width, channels] = dw.input;
    let w = &dw.window;
    let place = |axis: usize, o: usize, tap: usize| {
        o * usize::from(w.stride[axis]) + tap * usize::from(w.dilation[axis])
            - usize::from(w.pad[axis])
    };
    let mut sums = [0; GROUP];
    let (bias, weight_sums) = (&dw.bias[c..c + GROUP], &dw.weight_sums[c..c + GROUP]);
    let zero = i32::from(dw.input_zero);
    for (to, (b, s)) in sums.iter_mut().zip(bias.iter().zip(weight_sums)) {
        *to = b.wrapping_add(zero.wrapping_mul(*s));
    }
    if rows.is_empty() || columns.is_empty() {
        return sums;
    }
    let [row_taps, column_taps] = [rows.len(), columns.len()];
    let at = (place(0, oy, rows.start) * width + place(1, ox, columns.start)) * channels + c;
    let kernel_width = usize::from(w.kernel[1]);
    let weight = (rows.start * kernel_width + columns.start) * channels + c;
    let x_column = usize::from(w.dilation[1]) * channels;
    let x_row = usize::from(w.dilation[0]) * width * channels;
    let w_row = kernel_width * channels;
    let last =
        |start, row, column| start + (row_taps - 1) * row + (column_taps - 1) * column + GROUP;
    assert!(last(at, x_row, x_column) <= x.len());
    assert!(last(weight, w_row, channels) <= dw.weights.len());
    // SAFETY: the token proves Helium. The assertions bound the last eight bytes that are read of either slice;
    // sums are eight words.
    unsafe {
        asm!(
            "vld20.32 {{q0, q1}}, [{sums}]",
            "vld21.32 {{q0, q1}}, [{sums}]",
            "2:",
            "dls lr, {columns}",
            "3:",
            "vldrb.s16 q2, [r0]",
            "add r0, r0, {x_column}",
            "vldrb.s16 q3, [r1]",
            "add r1, r1, {channels}",
            "vsub.i16 q2, q2, {zero}",
            "vmullb.s16 q4, q2, q3",
            "vmullt.s16 q5, q2, q3",
            "vadd.i32 q0, q0, q4",
            "vadd.i32 q1, q1, q5",
            "le lr, 3b",
            "add r0, r0, {x_next}",
            "add r1, r1, {w_next}",
            "subs {rows}, {rows}, #1",
            "bne 2b",
            "vst20.32 {{q0, q1}}, [{sums}]",
            "vst21.32 {{q0, q1}}, [{sums}]",
            sums = in(reg) sums.as_mut_ptr(),
            rows = inout(reg) row_taps => _, columns = in(reg) column_taps,
            x_column = in(reg) x_column, channels = in(reg) channels,
            x_next = in(reg) x_row.wrapping_sub(column_taps * x_column),
            w_next = in(reg) w_row - column_taps * channels,
            zero = in(reg) zero,
            // Loads that widen take low registers only.
            inout("r0") x.as_ptr().wrapping_add(at) => _,
            inout("r1") dw.weights.as_ptr().wrapping_add(weight) => _, out("lr") _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
            options(nostack),
        );
    }
    sums
}
