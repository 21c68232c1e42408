//! From accumulators to codes.

use core::arch::asm;

use crate::arch::cortex_m::Mve;
use crate::numerics::MAGIC;
use crate::ops::conv::EpilogueI8;

/// Writes the codes of consecutive channels of one pixel, before the table; `index` is the first one's
/// position in the whole map.
///
/// Sums order as their bits do, negative ones below all others, so the bits are clamped as integers; their low
/// byte is the code. Vector arithmetic takes subnormal numbers for 0: a product so small is 0 after the
/// rounding in any case.
#[inline(always)]
pub(super) fn finish(
    _: Mve,
    e: &EpilogueI8<'_>,
    sums: &[i32],
    multipliers: &[f32],
    index: usize,
    y: &mut [i8],
) {
    // Loads and stores that widen and narrow take low registers only, which are named.
    let count = y.len();
    assert!(sums.len() >= count && multipliers.len() >= count);
    let base = MAGIC + e.zero as f32;
    let magic = MAGIC.to_bits() as i32;
    let (lo, hi) = (magic + i32::from(e.lo), magic + i32::from(e.hi));
    match e.residual {
        // SAFETY: the token proves Helium. The loop is predicated: of each slice `count` elements are read or
        // written, which the assertion has found to be there.
        None => unsafe {
            asm!(
                "vdup.32 q2, {lo}",
                "vdup.32 q3, {hi}",
                "wlstp.32 lr, {n}, 3f",
                "2:",
                "vldrw.u32 q0, [{sums}], #16",
                "vldrw.u32 q1, [{m}], #16",
                "vcvt.f32.s32 q0, q0",
                "vmul.f32 q0, q0, q1",
                "vadd.f32 q0, q0, {base}",
                "vmax.s32 q0, q0, q2",
                "vmin.s32 q0, q0, q3",
                "vstrb.32 q0, [r0], #4",
                "letp lr, 2b",
                "3:",
                n = in(reg) count, lo = in(reg) lo, hi = in(reg) hi, base = in(reg) base.to_bits(),
                sums = inout(reg) sums.as_ptr() => _, m = inout(reg) multipliers.as_ptr() => _,
                inout("r0") y.as_mut_ptr() => _, out("lr") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
                options(nostack),
            );
        },
        Some(r) => {
            let residual = &r.data[index..index + count];
            // SAFETY: as above, and the residual has as many elements.
            unsafe {
                asm!(
                    "vdup.32 q2, {lo}",
                    "vdup.32 q3, {hi}",
                    "wlstp.32 lr, {n}, 3f",
                    "2:",
                    "vldrw.u32 q0, [{sums}], #16",
                    "vldrw.u32 q1, [{m}], #16",
                    "vcvt.f32.s32 q0, q0",
                    "vmul.f32 q0, q0, q1",
                    "vldrb.s32 q1, [r1], #4",
                    "vsub.i32 q1, q1, {zero}",
                    "vcvt.f32.s32 q1, q1",
                    "vmul.f32 q1, q1, {scale}",
                    "vadd.f32 q0, q0, q1",
                    "vadd.f32 q0, q0, {base}",
                    "vmax.s32 q0, q0, q2",
                    "vmin.s32 q0, q0, q3",
                    "vstrb.32 q0, [r0], #4",
                    "letp lr, 2b",
                    "3:",
                    n = in(reg) count, lo = in(reg) lo, hi = in(reg) hi, base = in(reg) base.to_bits(),
                    zero = in(reg) r.zero, scale = in(reg) r.multiplier.to_bits(),
                    sums = inout(reg) sums.as_ptr() => _, m = inout(reg) multipliers.as_ptr() => _,
                    inout("r1") residual.as_ptr() => _, inout("r0") y.as_mut_ptr() => _, out("lr") _,
                    out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
                    options(nostack),
                );
            }
        }
    }
}
