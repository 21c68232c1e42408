//! Int8 convolution: two pixels by two channels at a time, or one pixel by four channels.
//!
//! SMLAD multiplies halfwords, so bytes have to be widened. Activations are widened once per pixel, into a
//! buffer on the stack, and serve all channels; weights are widened where they are used, for both pixels.
//! Bytes 0 and 2 of a quad become one word, bytes 1 and 3 another, on both sides.

use core::arch::asm;

use super::epilogue::{Finish, clamp};
use super::gather::gather;
use crate::arch::cortex_m::Dsp;
use crate::arch::cortex_m::repeat::twice;
#[cfg(target_abi = "eabihf")]
use crate::numerics::MAGIC;
use crate::operators::{Operators, Variant};
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, QUAD, WIDTH, conv_i8_reference};

/// Products of two quads with two pixels and two channels: sums `[pixel][channel]` in r0 to r3, quads from r4 on, weights from r5
/// on, what lies between them in the low half of r12.
macro_rules! products {
    () => {
        twice!(
            "ldm r4!, {{r8, r9, r10, r11}}",
            "ldrd r6, r7, [r5]",
            "uxtah r5, r5, r12",
            "sxtb16 lr, r6",
            "smlad r0, r8, lr, r0",
            "smlad r2, r10, lr, r2",
            "sxtb16 r6, r6, ror #8",
            "smlad r0, r9, r6, r0",
            "smlad r2, r11, r6, r2",
            "sxtb16 lr, r7",
            "smlad r1, r8, lr, r1",
            "smlad r3, r10, lr, r3",
            "sxtb16 r7, r7, ror #8",
            "smlad r1, r9, r7, r1",
            "smlad r3, r11, r7, r3"
        )
    };
}

/// Widened quads of two pixels that the buffer holds; of one pixel it holds twice as many.
const PAIR_QUADS: usize = 160;
/// Words of the buffer.
const WORDS: usize = 4 * PAIR_QUADS;

/// Int8 convolution; `None` where a slice is shorter than the call promises. Windows other than points need scratch
/// for one row, better two; without it the slow reference runs.
pub(crate) fn conv_i8<O: Operators>(token: Dsp, call: CallI8<'_, '_>) -> Option<()> {
    let CallI8 {
        conv,
        x,
        first,
        mut y,
        scratch,
        ..
    } = call;
    let (channels, depth) = (conv.output[2], conv.depth());
    let point = conv.window.is_point();
    let patches: &mut [i8] = bytemuck::cast_slice_mut(scratch);
    let most = match point {
        true => 2,
        false => patches.len().checked_div(depth)?.min(2),
    };
    if most == 0 {
        // Elsewhere the caller has checked that there is scratch.
        if O::SET.includes(Variant::Ungathered) {
            conv_i8_reference(conv, x, first, y);
        }
        return Some(());
    }
    let mut pixels = Pixels {
        token,
        conv,
        finish: Finish::new(token, &conv.epilogue),
        widened: [0; WORDS],
    };
    let mut at = first;
    while !y.is_empty() {
        let count = if y.len() > channels { most } else { 1 };
        let (mine, rest) = y.split_at_mut_checked(count * channels)?;
        let rows = if point {
            x.get(at * depth..)?.get(..count * depth)?
        } else {
            for i in 0..count {
                let patch = patches.get_mut(i * depth..)?.get_mut(..depth)?;
                gather(conv, x, at + i, patch)?;
            }
            patches.get(..count * depth)?
        };
        pixels.run(rows, at, mine)?;
        (y, at) = (rest, at + count);
    }
    Some(())
}

struct Pixels<'a, 'c> {
    token: Dsp,
    conv: &'a ConvI8<'c>,
    finish: Finish<'c>,
    widened: [u32; WORDS],
}

impl Pixels<'_, '_> {
    /// One or two pixels, of which the first has number `at`, from their patches.
    #[inline(never)]
    fn run(&mut self, rows: &[i8], at: usize, y: &mut [i8]) -> Option<()> {
        let (channels, depth) = (self.conv.output[2], self.conv.depth());
        let mut index = at * channels;
        if y.len() == 2 * channels && channels % 2 == 0 && depth.div_ceil(QUAD) <= PAIR_QUADS {
            let (y0, y1) = y.split_at_mut_checked(channels)?;
            let (row0, row1) = rows.split_at_checked(depth)?;
            self.pair([row0, row1], index, y0, y1)?;
        } else {
            let (mut rows, mut left) = (rows, &mut *y);
            while !left.is_empty() {
                let (row, other_rows) = rows.split_at_checked(depth)?;
                let (mine, others) = left.split_at_mut_checked(channels)?;
                self.single(row, index, mine)?;
                (rows, left) = (other_rows, others);
                index += channels;
            }
        }
        clamp(self.token, &self.conv.epilogue, y);
        if let Some(table) = self.conv.epilogue.table {
            y.iter_mut()
                .for_each(|code| *code = table[usize::from(*code as u8)]);
        }
        Some(())
    }

    /// Two pixels of an even number of channels, whose patches fit the buffer; the first value has number `index`.
    fn pair(
        &mut self,
        rows: [&[i8]; 2],
        index: usize,
        mut y0: &mut [i8],
        mut y1: &mut [i8],
    ) -> Option<()> {
        self.widen(rows);
        let conv = self.conv;
        let channels = y0.len();
        let quads = rows[0].len().div_ceil(QUAD);
        let mut weights = conv.weights;
        let mut n = 0;
        while !y0.is_empty() {
            let count = y0.len().min(WIDTH);
            let (mine0, rest0) = y0.split_at_mut_checked(count)?;
            let (mine1, rest1) = y1.split_at_mut_checked(count)?;
            let width = count.next_multiple_of(QUAD);
            let block = Block::new(weights, width, quads, WORDS / 4)?;
            let (bias, multipliers) = (conv.bias.get(n..)?, conv.multipliers.get(n..)?);
            let at = [index + n, index + n + channels];
            let (finish, x) = (&self.finish, &self.widened);
            block.pairs(finish, x, bias, multipliers, at, mine0, mine1)?;
            weights = weights.get(quads * width * QUAD..)?;
            (y0, y1) = (rest0, rest1);
            n += WIDTH;
        }
        Some(())
    }

    /// One pixel, of any depth: where its patch is longer than the buffer, in pieces.
    fn single(&mut self, row: &[i8], index: usize, mut y: &mut [i8]) -> Option<()> {
        let conv = self.conv;
        let quads = row.len().div_ceil(QUAD);
        if quads <= 2 * PAIR_QUADS {
            self.widen([row]);
        }
        let mut weights = conv.weights;
        let mut n = 0;
        while !y.is_empty() {
            let (mine, rest) = y.split_at_mut_checked(y.len().min(WIDTH))?;
            let width = mine.len().next_multiple_of(QUAD);
            let bias = conv.bias.get(n..)?.as_chunks().0;
            let mut sums: [[i32; 4]; WIDTH / 4] = *bias.first_chunk()?;
            let mut start = 0;
            while start < quads {
                let end = quads.min(start + 2 * PAIR_QUADS);
                if quads > 2 * PAIR_QUADS {
                    self.widen([row.get(start * QUAD..row.len().min(end * QUAD))?]);
                }
                let weights = weights.get(start * width * QUAD..)?;
                let block = Block::new(weights, width, end - start, WORDS / 2)?;
                for (tile, sums) in sums.iter_mut().enumerate().take(width / 4) {
                    *sums = block.single(self.token, &self.widened, 4 * tile, *sums);
                }
                start = end;
            }
            weights = weights.get(quads * width * QUAD..)?;
            let multipliers = conv.multipliers.get(n..)?.as_chunks::<4>().0;
            let quads = mine.chunks_mut(4).zip(sums).zip(multipliers);
            for (((y, sums), m), c) in quads.zip((n..).step_by(4)) {
                let codes = self.finish.row(sums, m, index + c);
                match y.first_chunk_mut() {
                    Some(y) => *y = codes,
                    None => y.iter_mut().zip(codes).for_each(|(y, code)| *y = code),
                }
            }
            y = rest;
            n += WIDTH;
        }
        Some(())
    }

    /// Fills the buffer from rows of one length, and with zeros to an even number of quads: for each quad
    /// `[even, odd]` of every row.
    fn widen<const P: usize>(&mut self, rows: [&[i8]; P]) {
        for (p, row) in rows.iter().enumerate() {
            let (quads, rest) = row.as_chunks::<QUAD>();
            let mut last = [0; QUAD];
            for (to, &code) in last.iter_mut().zip(rest) {
                *to = code;
            }
            let mut to = &mut self.widened[2 * p..];
            for quad in quads.iter().chain([&last, &[0; QUAD]]) {
                let &[a, b, c, d] = quad;
                let word = u32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8]);
                let Some((first, _)) = to.split_first_chunk_mut() else {
                    break;
                };
                *first = [self.token.even(word), self.token.odd(word)];
                to = to.get_mut(2 * P..).unwrap_or_default();
            }
        }
    }
}

/// A block of weights.
#[derive(Clone, Copy)]
struct Block<'w> {
    weights: &'w [i8],
    width: usize,
    /// Rounds of two quads less one in the high halfword, bytes from quad to quad in the low one.
    count_and_step: u32,
}

impl<'w> Block<'w> {
    /// `quads` quads of `width` channels, to be multiplied with at most `most` widened ones; `None` where there are
    /// fewer.
    ///
    /// Of an odd number the last widened quad is zeros, and its weights may be any: bytes are read up to one
    /// quad past the end.
    fn new(weights: &'w [i8], width: usize, quads: usize, most: usize) -> Option<Self> {
        let (rounds, step) = (quads.div_ceil(2), width * QUAD);
        let held = quads > 0 && 2 * rounds <= most && 2 * rounds * step <= weights.len();
        (held && weights.as_ptr() as usize % QUAD == 0).then(|| Block {
            weights,
            width,
            count_and_step: ((rounds - 1) << 16 | step) as u32,
        })
    }

    /// Codes of two pixels by all channels of the block, of which there is an even number, two at a time; `None`
    /// where a slice is too short. One piece of assembly, since between two the compiler would spill what does not fit the registers.
    #[cfg(target_abi = "eabihf")]
    #[inline(always)]
    fn pairs(
        &self,
        finish: &Finish<'_>,
        x: &[u32; WORDS],
        bias: &[i32],
        multipliers: &[f32],
        at: [usize; 2],
        y0: &mut [i8],
        y1: &mut [i8],
    ) -> Option<()> {
        let channels = y0.len();
        let pairs = channels >= 2 && channels % 2 == 0 && channels <= self.width;
        let held = bias.len() >= channels && multipliers.len() >= channels;
        (pairs && held && y1.len() == channels).then_some(())?;
        let residual = finish.residual.as_ref();
        let mut addends = [core::ptr::null(); 2];
        if let Some(r) = residual {
            for (addends, at) in addends.iter_mut().zip(at) {
                *addends = r.data.get(at..)?.get(..channels)?.as_ptr();
            }
        }
        let mut call = Pairs {
            x: x.as_ptr(),
            weights: self.weights.as_ptr(),
            bias: bias.as_ptr(),
            count_and_step: self.count_and_step,
            multipliers: multipliers.as_ptr(),
            y: [y0.as_mut_ptr(), y1.as_mut_ptr()],
            left: channels / 2,
            base: finish.base,
            residual: addends,
            residual_multiplier: residual.map_or(0.0, |r| r.multiplier),
            residual_zero: residual.map_or(0, |r| r.zero),
        };
        // SAFETY: SMLAD, SXTB16, UXTAH, QSUB and SSAT are of the DSP extension and of Armv7, which the token of
        // `finish` proves, the others of the floating-point unit that the target has. `new` has checked that as
        // many quads as are read, four words each, are in the buffer, that the weights hold as many for `width`
        // channels, and that they are aligned. The questions above bound the `2 * left` channels of bias,
        // multipliers, outputs and residual. Registers 6 and 7 are restored.
        unsafe {
            asm!(
                "push {{r0, r6, r7}}",
                "2:",
                "ldm r0, {{r4, r5, r6, r12}}",
                "ldrd r0, r1, [r6]",
                "mov r2, r0",
                "mov r3, r1",
                // The products: sums `[pixel][channel]` in r0 to r3.
                "3:",
                products!(),
                "subs r12, r12, #0x10000",
                "bpl 3b",
                // Requantised, as `Finish::code`.
                "ldr lr, [sp]",
                "ldrd r5, r6, [lr, #4]",
                "ldr r4, [lr, #16]",
                "ldrd r8, r9, [lr, #20]",
                "ldr r10, [lr, #28]",
                "ldr r7, [lr, #36]",
                "vldmia r4!, {{s4-s5}}",
                "vldr s6, [lr, #32]",
                "vmov s0, s1, r0, r1",
                "vmov s2, s3, r2, r3",
                "vcvt.f32.s32 s0, s0",
                "vcvt.f32.s32 s1, s1",
                "vcvt.f32.s32 s2, s2",
                "vcvt.f32.s32 s3, s3",
                "vmul.f32 s0, s0, s4",
                "vmul.f32 s1, s1, s5",
                "vmul.f32 s2, s2, s4",
                "vmul.f32 s3, s3, s5",
                "cmp r7, #0",
                "beq 4f",
                "ldrd r0, r1, [lr, #36]",
                "ldr r7, [lr, #48]",
                "vldr s7, [lr, #44]",
                "ldrsb r2, [r0], #1",
                "ldrsb r3, [r0], #1",
                "ldrsb r11, [r1], #1",
                "ldrsb r12, [r1], #1",
                "strd r0, r1, [lr, #36]",
                "sub r2, r2, r7",
                "sub r3, r3, r7",
                "sub r11, r11, r7",
                "sub r12, r12, r7",
                "vmov s8, s9, r2, r3",
                "vmov s10, s11, r11, r12",
                "vcvt.f32.s32 s8, s8",
                "vcvt.f32.s32 s9, s9",
                "vcvt.f32.s32 s10, s10",
                "vcvt.f32.s32 s11, s11",
                "vmul.f32 s8, s8, s7",
                "vmul.f32 s9, s9, s7",
                "vmul.f32 s10, s10, s7",
                "vmul.f32 s11, s11, s7",
                "vadd.f32 s0, s0, s8",
                "vadd.f32 s1, s1, s9",
                "vadd.f32 s2, s2, s10",
                "vadd.f32 s3, s3, s11",
                "4:",
                "vadd.f32 s0, s0, s6",
                "vadd.f32 s1, s1, s6",
                "vadd.f32 s2, s2, s6",
                "vadd.f32 s3, s3, s6",
                "vmov r0, r1, s0, s1",
                "vmov r2, r3, s2, s3",
                "movw r12, #0",
                "movt r12, #{magic}",
                "qsub r0, r0, r12",
                "qsub r1, r1, r12",
                "qsub r2, r2, r12",
                "qsub r3, r3, r12",
                "ssat r0, #8, r0",
                "ssat r1, #8, r1",
                "ssat r2, #8, r2",
                "ssat r3, #8, r3",
                "strb r0, [r8], #1",
                "strb r1, [r8], #1",
                "strb r2, [r9], #1",
                "strb r3, [r9], #1",
                // Two channels on.
                "add r5, r5, #8",
                "add r6, r6, #8",
                "strd r5, r6, [lr, #4]",
                "str r4, [lr, #16]",
                "strd r8, r9, [lr, #20]",
                "subs r10, r10, #1",
                "str r10, [lr, #28]",
                "mov r0, lr",
                "bne 2b",
                "pop {{r0, r6, r7}}",
                magic = const MAGIC.to_bits() >> 16,
                inout("r0") &raw mut call => _,
                out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("lr") _,
                out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _,
                out("s6") _, out("s7") _, out("s8") _, out("s9") _, out("s10") _, out("s11") _,
            );
        }
        Some(())
    }

    /// The same where floats are in software.
    #[cfg(not(target_abi = "eabihf"))]
    fn pairs(
        &self,
        finish: &Finish<'_>,
        x: &[u32; WORDS],
        bias: &[i32],
        multipliers: &[f32],
        at: [usize; 2],
        y0: &mut [i8],
        y1: &mut [i8],
    ) -> Option<()> {
        let channels = bias
            .as_chunks::<2>()
            .0
            .iter()
            .zip(multipliers.as_chunks::<2>().0);
        let pixels = y0
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(y1.as_chunks_mut::<2>().0);
        for (i, ((&[b0, b1], m), (y0, y1))) in channels.zip(pixels).enumerate() {
            let sums = self.pair(finish.token, x, 2 * i, [b0, b1, b0, b1]);
            let [a, b, c, d] = finish.square(sums, m, at.map(|at| at + 2 * i));
            (*y0, *y1) = ([a, b], [c, d]);
        }
        Some(())
    }

    /// Adds the products of two pixels with channels `channel` and the next: sums `[pixel][channel]`.
    #[cfg(not(target_abi = "eabihf"))]
    #[inline(always)]
    fn pair(&self, _: Dsp, x: &[u32; WORDS], channel: usize, mut sums: [i32; 4]) -> [i32; 4] {
        debug_assert!(channel + 2 <= self.width);
        let [s0, s1, s2, s3] = &mut sums;
        // SAFETY: SMLAD, SXTB16 and UXTAH are of the DSP extension, which the token proves. `new` has checked
        // that as many quads as are read, four words each, are in the buffer, that the weights hold as many,
        // and that they are aligned. Registers 6 and 7 are restored.
        unsafe {
            asm!(
                "push {{r6, r7}}",
                "2:",
                products!(),
                "subs r12, r12, #0x10000",
                "bpl 2b",
                "pop {{r6, r7}}",
                inout("r0") *s0, inout("r1") *s1, inout("r2") *s2, inout("r3") *s3,
                inout("r4") x.as_ptr() => _,
                inout("r5") self.weights.as_ptr().wrapping_add(channel * QUAD) => _,
                inout("r12") self.count_and_step => _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("lr") _,
                options(readonly),
            );
        }
        sums
    }

    /// Adds the products of one pixel with four channels from `channel` on.
    #[inline(always)]
    fn single(&self, _: Dsp, x: &[u32; WORDS], channel: usize, mut sums: [i32; 4]) -> [i32; 4] {
        debug_assert!(channel + 4 <= self.width);
        let [s0, s1, s2, s3] = &mut sums;
        // SAFETY: as `pair`, with two words of the buffer for each quad.
        unsafe {
            asm!(
                "push {{r6, r7}}",
                "2:",
                twice!(
                    "ldrd r8, r9, [r4], #8",
                    "ldm r5, {{r6, r7, r10, r11}}",
                    "uxtah r5, r5, r12",
                    "sxtb16 lr, r6",
                    "smlad r0, r8, lr, r0",
                    "sxtb16 r6, r6, ror #8",
                    "smlad r0, r9, r6, r0",
                    "sxtb16 lr, r7",
                    "smlad r1, r8, lr, r1",
                    "sxtb16 r7, r7, ror #8",
                    "smlad r1, r9, r7, r1",
                    "sxtb16 lr, r10",
                    "smlad r2, r8, lr, r2",
                    "sxtb16 r10, r10, ror #8",
                    "smlad r2, r9, r10, r2",
                    "sxtb16 lr, r11",
                    "smlad r3, r8, lr, r3",
                    "sxtb16 r11, r11, ror #8",
                    "smlad r3, r9, r11, r3"
                ),
                "subs r12, r12, #0x10000",
                "bpl 2b",
                "pop {{r6, r7}}",
                inout("r0") *s0, inout("r1") *s1, inout("r2") *s2, inout("r3") *s3,
                inout("r4") x.as_ptr() => _,
                inout("r5") self.weights.as_ptr().wrapping_add(channel * QUAD) => _,
                inout("r12") self.count_and_step => _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("lr") _,
                options(readonly),
            );
        }
        sums
    }
}

/// What the loop over pairs of channels reads, and moves on; the assembly names the fields by their places.
#[cfg(target_abi = "eabihf")]
#[repr(C)]
struct Pairs {
    x: *const u32,
    weights: *const i8,
    bias: *const i32,
    count_and_step: u32,
    multipliers: *const f32,
    y: [*mut i8; 2],
    left: usize,
    base: f32,
    /// Null where there is none.
    residual: [*const i8; 2],
    residual_multiplier: f32,
    residual_zero: i32,
}

#[cfg(target_abi = "eabihf")]
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Pairs, weights) == 4 && offset_of!(Pairs, bias) == 8);
    assert!(offset_of!(Pairs, multipliers) == 16 && offset_of!(Pairs, y) == 20);
    assert!(offset_of!(Pairs, left) == 28 && offset_of!(Pairs, base) == 32);
    assert!(offset_of!(Pairs, residual) == 36 && offset_of!(Pairs, residual_multiplier) == 44);
    assert!(offset_of!(Pairs, residual_zero) == 48 && MAGIC.to_bits() & 0xffff == 0);
};
