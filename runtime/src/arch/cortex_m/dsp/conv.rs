//! Int8 convolution: two pixels by two channels at a time, or one pixel by four channels.
//!
//! SMLAD multiplies halfwords, so bytes have to be widened. Activations are widened once per pixel, into a
//! buffer on the stack, and serve all channels; weights are widened where they are used, for both pixels.
//! Bytes 0 and 2 of a quad become one word, bytes 1 and 3 another, on both sides.

use core::arch::asm;

use super::epilogue::{Finish, clamp};
use crate::arch::cortex_m::Dsp;
use crate::operators::{Operators, Variant};
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, QUAD, WIDTH, conv_i8_reference};

/// Widened quads of two pixels that the buffer holds; of one pixel it holds twice as many.
const PAIR_QUADS: usize = 160;
/// Words of the buffer.
const WORDS: usize = 4 * PAIR_QUADS;

/// Patches that are gathered at a time, an even number.
const GATHERED: usize = 32;

/// Int8 convolution. Windows other than points need scratch for one row, better two; without it the slow
/// reference runs.
pub(crate) fn conv_i8<O: Operators>(token: Dsp, call: CallI8<'_, '_>) {
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
    let finish = Finish::new(token, &conv.epilogue);
    let mut pixels = Pixels {
        token,
        conv,
        finish,
        widened: [0; WORDS],
    };
    if conv.window.is_point() {
        let rows = x[first * depth..].chunks(2 * depth);
        for (i, (y, rows)) in y.chunks_mut(2 * channels).zip(rows).enumerate() {
            pixels.run(rows, first + 2 * i, y);
        }
        return;
    }
    let rows: &mut [i8] = bytemuck::cast_slice_mut(scratch);
    let held = (rows.len() / depth).min(GATHERED);
    if held == 0 {
        if !O::SET.includes(Variant::Ungathered) {
            // The caller has checked that there is scratch.
            return;
        }
        return conv_i8_reference(conv, x, first, y);
    }
    for (i, y) in y.chunks_mut(held * channels).enumerate() {
        let (at, count) = (first + held * i, y.len() / channels);
        patches.gather_rows(at, count, rows, depth);
        let pairs = rows.chunks(2 * depth).zip(y.chunks_mut(2 * channels));
        for (j, (rows, y)) in pairs.enumerate() {
            pixels.run(rows, at + 2 * j, y);
        }
    }
}

struct Pixels<'a, 'c> {
    token: Dsp,
    conv: &'a ConvI8<'c>,
    finish: Finish<'c>,
    widened: [u32; WORDS],
}

impl Pixels<'_, '_> {
    /// One or two pixels, of which the first has number `at`, from their patches.
    fn run(&mut self, rows: &[i8], at: usize, y: &mut [i8]) {
        let (channels, depth) = (self.conv.output[2], self.conv.depth());
        if y.len() == 2 * channels && channels % 2 == 0 && depth.div_ceil(QUAD) <= PAIR_QUADS {
            let (y0, y1) = y.split_at_mut(channels);
            let (row0, row1) = rows.split_at(depth);
            self.pair([row0, &row1[..depth]], at * channels, y0, y1);
        } else {
            for (i, (row, y)) in rows
                .chunks_exact(depth)
                .zip(y.chunks_exact_mut(channels))
                .enumerate()
            {
                self.single(row, (at + i) * channels, y);
            }
        }
        clamp(self.token, &self.conv.epilogue, y);
        if let Some(table) = self.conv.epilogue.table {
            y.iter_mut()
                .for_each(|code| *code = table[usize::from(*code as u8)]);
        }
    }

    /// Two pixels of an even number of channels, whose patches fit the buffer; the first value has number `index`.
    fn pair(&mut self, rows: [&[i8]; 2], index: usize, mut y0: &mut [i8], mut y1: &mut [i8]) {
        self.widen(rows);
        let conv = self.conv;
        let channels = y0.len();
        let quads = rows[0].len().div_ceil(QUAD);
        let (mut bias, mut multipliers) = (conv.bias, conv.multipliers);
        let mut weights = conv.weights;
        let mut index = index;
        // Channels of the block that are left, and where they are in it.
        let (mut left, mut at, mut block) = (0, 0, None);
        // Chunks are split off by hand: iterators are slow where the program is compiled for size.
        while let (Some((p, p_rest)), Some((q, q_rest))) =
            (y0.split_first_chunk_mut(), y1.split_first_chunk_mut())
            && let (Some((&[b0, b1], b_rest)), Some((m, m_rest))) =
                (bias.split_first_chunk(), multipliers.split_first_chunk())
        {
            if left == 0 {
                left = p_rest.len() + 2;
                left = left.min(WIDTH);
                let width = left.next_multiple_of(QUAD);
                block = Some(Block::new(weights, width, quads, WORDS / 4));
                weights = &weights[quads * width * QUAD..];
                at = 0;
            }
            let Some(block) = &block else { return };
            let sums = block.pair(self.token, &self.widened, at, [b0, b1, b0, b1]);
            let [a, b, c, d] = self.finish.square(sums, m, [index, index + channels]);
            (*p, *q) = ([a, b], [c, d]);
            (y0, y1, bias, multipliers) = (p_rest, q_rest, b_rest, m_rest);
            index += 2;
            at += 2;
            left -= 2;
        }
    }

    /// One pixel, of any depth: where its patch is longer than the buffer, in pieces.
    fn single(&mut self, row: &[i8], index: usize, y: &mut [i8]) {
        let conv = self.conv;
        let quads = row.len().div_ceil(QUAD);
        if quads <= 2 * PAIR_QUADS {
            self.widen([row]);
        }
        let mut weights = conv.weights;
        for (n, y) in (0..).step_by(WIDTH).zip(y.chunks_mut(WIDTH)) {
            let width = y.len().next_multiple_of(QUAD);
            let mut sums = [[0; 4]; WIDTH / 4];
            for (sums, bias) in sums.iter_mut().zip(conv.bias[n..].as_chunks::<4>().0) {
                *sums = *bias;
            }
            for start in (0..quads).step_by(2 * PAIR_QUADS) {
                let end = quads.min(start + 2 * PAIR_QUADS);
                if quads > 2 * PAIR_QUADS {
                    self.widen([&row[start * QUAD..row.len().min(end * QUAD)]]);
                }
                let block = Block::new(
                    &weights[start * width * QUAD..],
                    width,
                    end - start,
                    WORDS / 2,
                );
                for (tile, sums) in sums.iter_mut().enumerate().take(width / 4) {
                    *sums = block.single(self.token, &self.widened, 4 * tile, *sums);
                }
            }
            weights = &weights[quads * width * QUAD..];
            let multipliers = conv.multipliers[n..].as_chunks::<4>().0;
            for (((y, sums), m), c) in y
                .chunks_mut(4)
                .zip(sums)
                .zip(multipliers)
                .zip((n..).step_by(4))
            {
                let codes = self.finish.row(sums, m, index + c);
                match y.first_chunk_mut() {
                    Some(y) => *y = codes,
                    None => y.copy_from_slice(&codes[..y.len()]),
                }
            }
        }
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
    /// `quads` quads of `width` channels, to be multiplied with at most `most` widened ones.
    ///
    /// Of an odd number the last widened quad is zeros, and its weights may be any: bytes are read up to one
    /// quad past the end.
    fn new(weights: &'w [i8], width: usize, quads: usize, most: usize) -> Self {
        let (rounds, step) = (quads.div_ceil(2), width * QUAD);
        assert!(quads > 0 && 2 * rounds <= most && 2 * rounds * step <= weights.len());
        assert!(weights.as_ptr() as usize % QUAD == 0);
        Block {
            weights,
            width,
            count_and_step: ((rounds - 1) << 16 | step) as u32,
        }
    }

    /// Adds the products of two pixels with channels `channel` and the next: sums `[pixel][channel]`.
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
                ".rept 2",
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
                "smlad r3, r11, r7, r3",
                ".endr",
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
                ".rept 2",
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
                "smlad r3, r9, r11, r3",
                ".endr",
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
