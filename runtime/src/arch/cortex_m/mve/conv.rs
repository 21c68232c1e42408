//! Int8 convolution: two pixels by two channels at a time, sixteen patch values a step.
//!
//! Patches are read where they are. A channel's weights are four bytes of every quad, which a gathering load
//! brings together: once for two pixels.

use core::arch::asm;

use super::epilogue::finish;
use crate::arch::cortex_m::Mve;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, QUAD, WIDTH, conv_i8_reference};

/// Channels whose sums are finished together.
const HELD: usize = 64;
/// Sums of two pixels.
type Sums = [[i32; HELD]; 2];
/// Patches that are gathered at a time, an even number.
const GATHERED: usize = 32;

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
        return pixels(token, conv, &x[first * depth..], first, y);
    }
    let rows: &mut [i8] = bytemuck::cast_slice_mut(scratch);
    let held = (rows.len() / depth).min(GATHERED);
    if held == 0 {
        return conv_i8_reference(conv, x, first, y);
    }
    for (i, y) in y.chunks_mut(held * channels).enumerate() {
        let (at, count) = (first + held * i, y.len() / channels);
        patches.gather_rows(at, count, rows, depth);
        pixels(token, conv, rows, at, y);
    }
}

/// Consecutive pixels, of which the first has number `at`, from their patches.
fn pixels(token: Mve, conv: &ConvI8<'_>, rows: &[i8], at: usize, y: &mut [i8]) {
    let (channels, depth) = (conv.output[2], conv.depth());
    let quads = depth.div_ceil(QUAD);
    let mut sums = [[0; HELD]; 2];
    let mut weights = conv.weights;
    for n in (0..channels).step_by(HELD) {
        let used = (channels - n).min(HELD);
        let whole = used - used % WIDTH;
        let (blocks, rest) = weights.split_at(quads * whole * QUAD);
        let pairs = y.chunks_mut(2 * channels).zip(rows.chunks(2 * depth));
        for (i, (y, rows)) in pairs.enumerate() {
            let count = y.len() / channels;
            // One pixel is computed twice.
            let patches = [&rows[..depth], &rows[(count - 1) * depth..][..depth]];
            let bias = &conv.bias[n..];
            if whole > 0 {
                let shape = [whole / WIDTH, WIDTH];
                block(token, patches, blocks, shape, bias, 0, &mut sums);
            }
            if whole < used {
                let shape = [1, (used - whole).next_multiple_of(QUAD)];
                block(
                    token,
                    patches,
                    rest,
                    shape,
                    &bias[whole..],
                    whole,
                    &mut sums,
                );
            }
            for (p, (y, sums)) in y.chunks_exact_mut(channels).zip(&sums).enumerate() {
                let (index, y) = ((at + 2 * i + p) * channels + n, &mut y[n..n + used]);
                let multipliers = &conv.multipliers[n..];
                finish(token, &conv.epilogue, sums, multipliers, index, y);
            }
        }
        weights = rest;
    }
    if let Some(table) = conv.epilogue.table {
        y.iter_mut()
            .for_each(|code| *code = table[usize::from(*code as u8)]);
    }
}

/// Writes biases plus products of two patches with the channels of some blocks of one width, from place `c` of
/// the sums on.
#[inline(always)]
fn block(
    _: Mve,
    x: [&[i8]; 2],
    weights: &[i8],
    [blocks, width]: [usize; 2],
    bias: &[i32],
    c: usize,
    sums: &mut Sums,
) {
    let (depth, channels) = (x[0].len(), blocks * width);
    let step = width * QUAD;
    assert!(depth > 0 && channels > 0 && width % 2 == 0);
    assert!(c + channels <= HELD && channels <= bias.len());
    assert!(x[1].len() == depth && weights.len() >= depth.div_ceil(QUAD) * QUAD * channels);
    // From behind the last sixteen values of a channel pair to the first of the next pair, and from behind the
    // first values of a block to the next block.
    let next = (2 * QUAD).wrapping_sub(depth.div_ceil(16) * 4 * step);
    let jump = (depth.div_ceil(QUAD) - 1) * step;
    // SAFETY: the token proves Helium. The inner loop is predicated: `depth` bytes of each patch are read, and of
    // the weights the words whose first byte belongs to them; assertions have found both to be there. Biases are
    // read and sums of both pixels, 256 bytes apart, written for `channels` channels, which are there too.
    // Registers 6 and 7 and the stack are restored.
    unsafe {
        asm!(
            "push {{r0, r2, r6, r7, lr}}",
            "push {{r1, r3}}",
            "mov r6, lr",
            "mov r7, r8",
            // Bytes from the first quad to each of four, and to the second channel's.
            "movs r0, #0",
            "movs r2, #4",
            "vidup.u32 q7, r0, #1",
            "vmul.i32 q7, q7, r9",
            "vadd.i32 q6, q7, r2",
            "lsl r9, r9, #2",
            "4:",
            "ldrd r0, r2, [r7], #8",
            "ldrd r1, r3, [sp]",
            "mov r4, r0",
            "mov r8, r2",
            "wlstp.8 lr, r11, 3f",
            "2:",
            "vldrw.u32 q0, [r5, q7]",
            "vldrb.u8 q2, [r1], #16",
            "vldrw.u32 q1, [r5, q6]",
            "vldrb.u8 q3, [r3], #16",
            "vmladava.s8 r0, q0, q2",
            "add r5, r5, r9",
            "vmladava.s8 r2, q1, q2",
            "vmladava.s8 r4, q0, q3",
            "vmladava.s8 r8, q1, q3",
            "letp lr, 2b",
            "3:",
            "strd r4, r8, [r12, #256]",
            "strd r0, r2, [r12], #8",
            "add r5, r5, r10",
            "subs r6, r6, #1",
            "bne 4b",
            // The next block.
            "ldrd r0, r2, [sp, #8]",
            "ldr r6, [sp, #24]",
            "add r5, r5, r0",
            "subs r2, r2, #1",
            "str r2, [sp, #12]",
            "bne 4b",
            "add sp, sp, #16",
            "pop {{r6, r7, lr}}",
            inout("r0") jump => _, inout("r2") blocks => _, out("r4") _,
            inout("r8") bias.as_ptr() => _,
            inout("r1") x[0].as_ptr() => _, inout("r3") x[1].as_ptr() => _,
            inout("r5") weights.as_ptr() => _, inout("r9") step => _, in("r10") next,
            in("r11") depth, inout("r12") sums.as_mut_ptr().cast::<i32>().wrapping_add(c) => _, inout("lr") width / 2 => _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _,
            out("d7") _, out("d12") _, out("d13") _, out("d14") _, out("d15") _,
        );
    }
}
