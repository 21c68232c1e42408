//! Int8 convolution: two pixels by two channels at a time, sixteen patch values a step.
//!
//! Patches are read where they are. A channel's weights are four bytes of every quad, which a gathering load
//! brings together: once for two pixels.

use core::arch::asm;

use super::epilogue::finish;
use crate::arch::cortex_m::Mve;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, QUAD, WIDTH, conv_i8_reference};

/// Int8 convolution. Windows other than points need scratch for one row, better two; without it the slow
/// reference runs.
pub(crate) fn conv_i8(token: Mve, call: CallI8<'_, '_>) {
    let patches = call.patches();
    let CallI8 {
        conv,
        x,
        first,
        y,
        scratch,
        ..
    } = call;
    let (channels, depth) = (conv.output[2], conv.depth());
    if conv.window.is_point() {
        let rows = x[first * depth..].chunks(2 * depth);
        for (i, (y, rows)) in y.chunks_mut(2 * channels).zip(rows).enumerate() {
            pixels(token, conv, rows, first + 2 * i, y);
        }
        return;
    }
    let rows: &mut [i8] = bytemuck::cast_slice_mut(scratch);
    let held = (rows.len() / depth).min(2);
    if held == 0 {
        return conv_i8_reference(conv, x, first, y);
    }
    for (i, y) in y.chunks_mut(held * channels).enumerate() {
        let (at, count) = (first + held * i, y.len() / channels);
        patches.gather_rows(at, count, rows, depth);
        pixels(token, conv, rows, at, y);
    }
}

/// One or two pixels, of which the first has number `at`, from their patches.
fn pixels(token: Mve, conv: &ConvI8<'_>, rows: &[i8], at: usize, y: &mut [i8]) {
    let (channels, depth) = (conv.output[2], conv.depth());
    let count = y.len() / channels;
    // One pixel is computed twice.
    let patches = [&rows[..depth], &rows[(count - 1) * depth..][..depth]];
    let quads = depth.div_ceil(QUAD);
    let mut weights = conv.weights;
    for n in (0..channels).step_by(WIDTH) {
        let width = (channels - n).min(WIDTH).next_multiple_of(QUAD);
        let mut sums = [[0; WIDTH]; 2];
        for c in (0..width).step_by(2) {
            let bias = [conv.bias[n + c], conv.bias[n + c + 1]];
            let tile = tile(token, patches, &weights[c * QUAD..], width, [bias, bias]);
            for (sums, tile) in sums.iter_mut().zip(tile) {
                sums[c..c + 2].copy_from_slice(&tile);
            }
        }
        weights = &weights[quads * width * QUAD..];
        let used = (channels - n).min(WIDTH);
        for (p, (y, sums)) in y.chunks_exact_mut(channels).zip(&sums).enumerate() {
            let index = (at + p) * channels + n;
            finish(
                token,
                &conv.epilogue,
                sums,
                &conv.multipliers[n..],
                index,
                &mut y[n..n + used],
            );
        }
    }
    if let Some(table) = conv.epilogue.table {
        y.iter_mut()
            .for_each(|code| *code = table[usize::from(*code as u8)]);
    }
}

/// Adds the products of two patches with two channels, of which `weights` begins with the first.
#[inline(always)]
fn tile(_: Mve, x: [&[i8]; 2], weights: &[i8], width: usize, sums: [[i32; 2]; 2]) -> [[i32; 2]; 2] {
    let depth = x[0].len();
    let step = width * QUAD;
    assert!(x[1].len() == depth && weights.len() >= depth.div_ceil(QUAD) * step - step + 2 * QUAD);
    let [[mut s00, mut s01], [mut s10, mut s11]] = sums;
    // SAFETY: the token proves Helium. The loop is predicated: `depth` bytes of each patch are read, and of the
    // weights the words whose first byte belongs to them, which the assertion has found to be there.
    unsafe {
        asm!(
            // Bytes from the first quad to each of four: 0, step, 2 step, 3 step; and the second channel's.
            "vidup.u32 q7, r10, #1",
            "vmul.i32 q7, q7, {step}",
            "vadd.i32 q6, q7, {quad}",
            "lsl {step}, {step}, #2",
            "wlstp.8 lr, {n}, 3f",
            "2:",
            "vldrw.u32 q0, [{w}, q7]",
            "vldrb.u8 q2, [{x0}], #16",
            "vldrw.u32 q1, [{w}, q6]",
            "vldrb.u8 q3, [{x1}], #16",
            "vmladava.s8 r0, q0, q2",
            "add {w}, {w}, {step}",
            "vmladava.s8 r2, q1, q2",
            "vmladava.s8 r4, q0, q3",
            "vmladava.s8 r8, q1, q3",
            "letp lr, 2b",
            "3:",
            n = in(reg) depth, quad = in(reg) QUAD,
            step = inout(reg) step => _, w = inout(reg) weights.as_ptr() => _,
            x0 = inout(reg) x[0].as_ptr() => _, x1 = inout(reg) x[1].as_ptr() => _,
            inout("r10") 0 => _, inout("r0") s00, inout("r2") s01, inout("r4") s10, inout("r8") s11, out("lr") _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _, out("d12") _, out("d13") _, out("d14") _, out("d15") _,
            options(readonly, nostack),
        );
    }
    [[s00, s01], [s10, s11]]
}
