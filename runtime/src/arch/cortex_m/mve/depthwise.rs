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
/// Two groups.
const PAIR: usize = 2 * GROUP;
/// Sums that are finished together.
const HELD: usize = 64;

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
    let w = &dw.window;
    let [step, pad, kernel] = [w.stride[1], w.pad[1], w.kernel[1]].map(usize::from);
    // Columns whose window lies between the left and the right border.
    let reach = (kernel - 1) * usize::from(w.dilation[1]) + 1;
    let end = (width + pad + step).saturating_sub(reach) / step;
    let inner = usize::div_ceil(pad, step)..end.min(out_w);
    let held = channels.min(HELD);
    let mut sums = [0; HELD];
    for (row, y) in y.chunks_exact_mut(out_w * channels).enumerate() {
        let oy = first_row + row;
        let rows = w.taps_inside(0, oy, height);
        let patch_at = |ox, columns| Patch::new(dw, x, [oy, ox], [rows.clone(), columns]);
        // Where the last of the inner columns is inside the map, those before it are.
        if let Some(last) = inner.clone().last() {
            patch_at(last, 0..kernel);
        }
        let mut patch = patch_at(0, w.taps_inside(1, 0, width));
        for (ox, y) in y.chunks_exact_mut(channels).enumerate() {
            match inner.contains(&ox) {
                true if ox > inner.start => patch.at[0] += step * channels,
                true => patch = patch_at(ox, 0..kernel),
                false => patch = patch_at(ox, w.taps_inside(1, ox, width)),
            }
            // The last piece may repeat channels of the one before.
            for n in (0..channels).step_by(HELD) {
                let n = n.min(channels - held);
                patch.sums(token, n, &mut sums[..held]);
                let index = (oy * out_w + ox) * channels + n;
                let y = &mut y[n..n + held];
                finish(token, &dw.epilogue, &sums, &dw.multipliers[n..], index, y);
            }
        }
    }
    true
}

/// The window of one output pixel. All channels of its last tap are in the map and in the weights: `new` asserts it, and who
/// moves it has asserted it of where it goes.
struct Patch<'a, 'b> {
    dw: &'a DepthwiseI8<'b>,
    x: &'a [i8],
    /// Rows and columns of taps inside the map.
    taps: [usize; 2],
    /// First value and first weight; the value moves with the column.
    at: [usize; 2],
    /// From tap to tap of a row, in the map.
    column: usize,
    /// From behind the last tap of a row to the first of the next, in the map and in the weights.
    next: [usize; 2],
}

impl<'a, 'b> Patch<'a, 'b> {
    fn new(dw: &'a DepthwiseI8<'b>, x: &'a [i8], o: [usize; 2], taps: [Range<usize>; 2]) -> Self {
        let [_, width, channels] = dw.input;
        let w = &dw.window;
        let counts = [taps[0].len(), taps[1].len()];
        let first = |axis: usize| {
            let tap = taps[axis].start * usize::from(w.dilation[axis]);
            o[axis] * usize::from(w.stride[axis]) + tap - usize::from(w.pad[axis])
        };
        let column = usize::from(w.dilation[1]) * channels;
        let row = usize::from(w.dilation[0]) * width * channels;
        let w_row = usize::from(w.kernel[1]) * channels;
        let mut patch = Patch {
            dw,
            x,
            taps: counts,
            at: [0; 2],
            column,
            next: [
                row.wrapping_sub(counts[1] * column),
                w_row - counts[1] * channels,
            ],
        };
        if !counts.contains(&0) {
            let weight = taps[0].start * w_row + taps[1].start * channels;
            patch.at = [(first(0) * width + first(1)) * channels, weight];
            let last = |at, row, column| at + (counts[0] - 1) * row + counts[1] * column;
            assert!(last(patch.at[0], row, column) <= x.len() + column - channels);
            assert!(last(weight, w_row, channels) <= dw.weights.len());
        }
        patch
    }

    /// Sums of the channels from `n` on, at least [`GROUP`]. The last group may repeat channels of the one before.
    #[inline(always)]
    fn sums(&self, token: Mve, n: usize, sums: &mut [i32]) {
        let (dw, held) = (self.dw, sums.len());
        let (bias, weight_sums) = (&dw.bias[n..n + held], &dw.weight_sums[n..n + held]);
        assert!(held >= GROUP && n + held <= dw.input[2]);
        if self.taps.contains(&0) {
            for (to, (b, s)) in sums.iter_mut().zip(bias.iter().zip(weight_sums)) {
                *to = b.wrapping_add(i32::from(dw.input_zero).wrapping_mul(*s));
            }
            return;
        }
        let group = if held < PAIR { GROUP } else { PAIR };
        let nine = self.taps == [3; 2] && dw.window.kernel == [3; 2];
        let mut c = 0;
        while c < held {
            c = c.min(held - group);
            let walk = Walk {
                bias: bias.as_ptr().wrapping_add(c),
                weight_sums: weight_sums.as_ptr().wrapping_add(c),
                x: self.x.as_ptr().wrapping_add(self.at[0] + n + c),
                w: dw.weights.as_ptr().wrapping_add(self.at[1] + n + c),
                patch: self,
            };
            let to = sums.as_mut_ptr().wrapping_add(c);
            // SAFETY: biases, weight sums and sums are `held` words each, of which `group` follow `c`; all channels of
            // the last tap are in the map and in the weights, and these are channels of it. All nine taps of a kernel of
            // nine are there where the patch has as many.
            unsafe {
                match group {
                    PAIR if nine => walk.sixteen_of_nine(token, to),
                    PAIR => walk.sixteen(token, to),
                    _ => walk.eight(token, to),
                }
            }
            c += group;
        }
    }
}

/// Where the taps of some channels are.
struct Walk<'p, 'a, 'b> {
    bias: *const i32,
    weight_sums: *const i32,
    x: *const i8,
    w: *const i8,
    patch: &'p Patch<'a, 'b>,
}

impl Walk<'_, '_, '_> {
    /// Eight channels.
    ///
    /// # Safety
    ///
    /// All pointers are to that many channels, `x` and `w` to those of the first of the patch's taps.
    #[inline(always)]
    unsafe fn eight(&self, _: Mve, sums: *mut i32) {
        let (dw, patch) = (self.patch.dw, self.patch);
        // SAFETY: the token proves Helium; the caller promises the rest.
        unsafe {
            asm!(
                "vld20.32 {{q0, q1}}, [{bias}]",
                "vld21.32 {{q0, q1}}, [{bias}]",
                "vld20.32 {{q2, q3}}, [{weight_sums}]",
                "vld21.32 {{q2, q3}}, [{weight_sums}]",
                "vmla.s32 q0, q2, {zero}",
                "vmla.s32 q1, q3, {zero}",
                "2:",
                "dls lr, {columns}",
                "3:",
                "vldrb.s16 q2, [r0]",
                "add r0, r0, {column}",
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
                sums = in(reg) sums,
                bias = in(reg) self.bias,
                weight_sums = in(reg) self.weight_sums,
                rows = inout(reg) patch.taps[0] => _,
                columns = in(reg) patch.taps[1],
                column = in(reg) patch.column,
                channels = in(reg) dw.input[2],
                x_next = in(reg) patch.next[0],
                w_next = in(reg) patch.next[1],
                zero = in(reg) i32::from(dw.input_zero),
                // Loads that widen take low registers only.
                inout("r0") self.x => _, inout("r1") self.w => _, out("lr") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
                out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
                options(nostack),
            );
        }
    }

    /// Sixteen channels of a whole patch of three by three taps. What the zero point adds is in the bias.
    ///
    /// Weights are no less than -127, so that two products fit into 16 bits: those of two taps are added before they
    /// are widened. A register holds every fourth channel, as loads and stores of four deal them out.
    ///
    /// # Safety
    ///
    /// As [`Walk::eight`], and the patch has three by three taps.
    #[inline(always)]
    unsafe fn sixteen_of_nine(&self, _: Mve, sums: *mut i32) {
        /// Products of a tap, then on by `$first`, and of the next, then on by `$second`.
        macro_rules! taps {
            ($first:literal, $second:literal) => {
                concat!(
                    "vldrb.u8 q4, [r0]\nvldrb.u8 q5, [r1]\n",
                    "add r0, r0, {",
                    $first,
                    "}\nadd r1, r1, {channels}\n",
                    "vmullb.s8 q6, q4, q5\nvmullt.s8 q7, q4, q5\n",
                    "vldrb.u8 q4, [r0]\nvldrb.u8 q5, [r1]\n",
                    "add r0, r0, {",
                    $second,
                    "}\nvmullb.s8 q5, q4, q5\nvadd.i16 q6, q6, q5\n",
                    "vldrb.u8 q5, [r1]\n",
                    "add r1, r1, {channels}\n",
                    "vmullt.s8 q5, q4, q5\nvadd.i16 q7, q7, q5\n",
                )
            };
        }
        /// Adds the products to the sums.
        macro_rules! add {
            () => {
                concat!(
                    "vmovlb.s16 q4, q6\nvmovlt.s16 q6, q6\nvmovlb.s16 q5, q7\nvmovlt.s16 q7, q7\n",
                    "vadd.i32 q0, q0, q4\nvadd.i32 q2, q2, q6\nvadd.i32 q1, q1, q5\nvadd.i32 q3, q3, q7\n",
                )
            };
        }
        let (dw, patch) = (self.patch.dw, self.patch);
        // SAFETY: the token proves Helium; the caller promises the rest.
        unsafe {
            asm!(
                "vld40.32 {{q0, q1, q2, q3}}, [{bias}]",
                "vld41.32 {{q0, q1, q2, q3}}, [{bias}]",
                "vld42.32 {{q0, q1, q2, q3}}, [{bias}]",
                "vld43.32 {{q0, q1, q2, q3}}, [{bias}]",
                taps!("column", "column"),
                add!(),
                taps!("row", "column"),
                add!(),
                taps!("column", "row"),
                add!(),
                taps!("column", "column"),
                add!(),
                "vldrb.u8 q4, [r0]",
                "vldrb.u8 q5, [r1]",
                "vmullb.s8 q6, q4, q5",
                "vmullt.s8 q7, q4, q5",
                add!(),
                "vst40.32 {{q0, q1, q2, q3}}, [{sums}]",
                "vst41.32 {{q0, q1, q2, q3}}, [{sums}]",
                "vst42.32 {{q0, q1, q2, q3}}, [{sums}]",
                "vst43.32 {{q0, q1, q2, q3}}, [{sums}]",
                sums = in(reg) sums,
                bias = in(reg) self.bias,
                column = in(reg) patch.column,
                row = in(reg) patch.next[0].wrapping_add(patch.column),
                channels = in(reg) dw.input[2],
                inout("r0") self.x => _, inout("r1") self.w => _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
                out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
                out("d12") _, out("d13") _, out("d14") _, out("d15") _,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Sixteen channels, in two halves.
    ///
    /// # Safety
    ///
    /// As [`Walk::eight`].
    #[inline(always)]
    unsafe fn sixteen(&self, _: Mve, sums: *mut i32) {
        let (dw, patch) = (self.patch.dw, self.patch);
        // SAFETY: as above.
        unsafe {
            asm!(
                "vld20.32 {{q0, q1}}, [{bias}]",
                "vld21.32 {{q0, q1}}, [{bias}]!",
                "vld20.32 {{q2, q3}}, [{bias}]",
                "vld21.32 {{q2, q3}}, [{bias}]",
                "vld20.32 {{q4, q5}}, [{weight_sums}]",
                "vld21.32 {{q4, q5}}, [{weight_sums}]!",
                "vld20.32 {{q6, q7}}, [{weight_sums}]",
                "vld21.32 {{q6, q7}}, [{weight_sums}]",
                "vmla.s32 q0, q4, {zero}",
                "vmla.s32 q1, q5, {zero}",
                "vmla.s32 q2, q6, {zero}",
                "vmla.s32 q3, q7, {zero}",
                // Three columns, the usual number, without a loop.
                "cmp {columns}, #3",
                "bne 2f",
                "4:",
                ".rept 3",
                "vldrb.s16 q4, [r0]",
                "vldrb.s16 q5, [r1]",
                "vsub.i16 q4, q4, {zero}",
                "vmullb.s16 q6, q4, q5",
                "vmullt.s16 q7, q4, q5",
                "vldrb.s16 q4, [r0, #8]",
                "vadd.i32 q0, q0, q6",
                "vldrb.s16 q5, [r1, #8]",
                "vadd.i32 q1, q1, q7",
                "add r0, r0, {column}",
                "vsub.i16 q4, q4, {zero}",
                "add r1, r1, {channels}",
                "vmullb.s16 q6, q4, q5",
                "vmullt.s16 q7, q4, q5",
                "vadd.i32 q2, q2, q6",
                "vadd.i32 q3, q3, q7",
                ".endr",
                "add r0, r0, {x_next}",
                "add r1, r1, {w_next}",
                "subs {rows}, {rows}, #1",
                "bne 4b",
                "b 5f",
                "2:",
                "dls lr, {columns}",
                "3:",
                "vldrb.s16 q4, [r0]",
                "vldrb.s16 q5, [r1]",
                "vsub.i16 q4, q4, {zero}",
                "vmullb.s16 q6, q4, q5",
                "vmullt.s16 q7, q4, q5",
                "vldrb.s16 q4, [r0, #8]",
                "vadd.i32 q0, q0, q6",
                "vldrb.s16 q5, [r1, #8]",
                "vadd.i32 q1, q1, q7",
                "add r0, r0, {column}",
                "vsub.i16 q4, q4, {zero}",
                "add r1, r1, {channels}",
                "vmullb.s16 q6, q4, q5",
                "vmullt.s16 q7, q4, q5",
                "vadd.i32 q2, q2, q6",
                "vadd.i32 q3, q3, q7",
                "le lr, 3b",
                "add r0, r0, {x_next}",
                "add r1, r1, {w_next}",
                "subs {rows}, {rows}, #1",
                "bne 2b",
                "5:",
                "vst20.32 {{q0, q1}}, [{sums}]",
                "vst21.32 {{q0, q1}}, [{sums}]!",
                "vst20.32 {{q2, q3}}, [{sums}]",
                "vst21.32 {{q2, q3}}, [{sums}]",
                sums = inout(reg) sums => _,
                bias = inout(reg) self.bias => _,
                weight_sums = inout(reg) self.weight_sums => _,
                rows = inout(reg) patch.taps[0] => _,
                columns = in(reg) patch.taps[1],
                column = in(reg) patch.column,
                channels = in(reg) dw.input[2],
                x_next = in(reg) patch.next[0],
                w_next = in(reg) patch.next[1],
                zero = in(reg) i32::from(dw.input_zero),
                inout("r0") self.x => _, inout("r1") self.w => _, out("lr") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
                out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
                out("d12") _, out("d13") _, out("d14") _, out("d15") _,
                options(nostack),
            );
        }
    }
}
