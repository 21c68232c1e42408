//! Int8 convolution.
//!
//! Tiles of a few rows of patches by a block of 16 channels, or a narrow block of 8. The rows of a point
//! window are read in place where they are whole quads; other patches are gathered.

use core::mem::MaybeUninit;
use core::ops::Range;

use super::{Floats, Ints, Multiply, Simd};
use crate::arch::parts;
use crate::numerics::MAGIC;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, Residual, WIDTH, portable};

/// Rows that are multiplied with all weights, one block after the other, stay below this many bytes, so
/// that they share the first-level cache with a block.
const PANEL: usize = 24 << 10;
/// Rows for which [`PANEL`] may be exceeded, because fewer would read the weights too often.
const FEW_ROWS: usize = 24;
/// Stack that stands in for scratch that is smaller.
const STACK: usize = 8 << 10;
/// Gathered rows start at multiples of this many values.
const ALIGN: usize = 16;
/// Channels of a vector of sums.
const LANES: usize = 4;

/// Rows of patches: row `r` starts at `base + r · stride` and holds whole quads; the weights of values
/// behind a patch are 0.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) base: *const i8,
    pub(crate) stride: usize,
}

impl Rows {
    /// The start of row `r`.
    #[inline(always)]
    pub(crate) fn row(self, r: usize) -> *const i8 {
        self.base.wrapping_add(r * self.stride)
    }
}

/// Weights of a block: those of a quad every `step` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Weights {
    pub(crate) base: *const i8,
    pub(crate) step: usize,
    /// Whether they have what the instruction set makes use of: see its [`Multiply`].
    #[cfg_attr(wasm_simd128, expect(dead_code, reason = "only NEON and SMMLA do"))]
    pub(crate) prepared: bool,
}

/// Weights of a block in another form.
#[repr(align(64))]
pub(crate) struct Strip(
    #[expect(dead_code, reason = "written and read through pointers")] [i8; 24 << 10],
);

/// Computes the call's pixels.
pub(crate) fn conv_i8<'a, M: Multiply>(multiply: M, mut call: CallI8<'a, 'a>) {
    let depth = call.conv.depth();
    let stride = depth.next_multiple_of(ALIGN);
    let in_place = call.conv.window.is_point() && depth % QUAD == 0;
    let scratch = core::mem::take(&mut call.scratch);
    let mut stack = [0; STACK];
    let memory = if in_place {
        &mut []
    } else if scratch.len() > STACK {
        bytemuck::cast_slice_mut(scratch)
    } else {
        &mut stack[..]
    };
    if !in_place && memory.len() < stride {
        return portable::conv_i8(CallI8 { scratch, ..call });
    }
    let mut most = (PANEL / stride).max(FEW_ROWS);
    if !in_place {
        most = most.min(memory.len() / stride);
    }
    // Panels are whole tiles, and as equal as can be.
    let group = if most < M::ROWS[0] { 1 } else { M::ROWS[0] };
    let patches = call.patches();
    let kernel = Kernel::new(multiply, &mut call);
    for (first, groups) in parts(call.pixels.div_ceil(group), most / group) {
        let start = first * group;
        let count = (groups * group).min(call.pixels - start);
        let first = call.first + start;
        let rows = if in_place {
            let base = call.x[first * depth..].as_ptr();
            Rows {
                base,
                stride: depth,
            }
        } else {
            patches.gather_rows(first, count, memory, stride);
            let base = memory.as_ptr();
            Rows { base, stride }
        };
        // SAFETY: the rows hold the patches of these pixels, in whole quads.
        unsafe { kernel.tiles(rows, start..start + count) };
    }
}

/// One call: weights, and the way from sums to codes.
pub(crate) struct Kernel<'a, M: Multiply> {
    pub(super) multiply: M,
    pub(super) conv: &'a ConvI8<'a>,
    packed: PackedShape,
    /// As in [`Weights`].
    prepared: bool,
    base: Floats<M>,
    lo: Floats<M>,
    hi: Floats<M>,
    residual: Option<Residual<'a>>,
    /// Position of the call's first value in the whole output.
    first: usize,
    y: *mut i8,
    channels: usize,
}

impl<'a, M: Multiply> Kernel<'a, M> {
    /// For the pixels of `call`, whose output it takes over.
    pub(super) fn new(multiply: M, call: &mut CallI8<'a, 'a>) -> Self {
        let (e, simd) = (&call.conv.epilogue, multiply.simd());
        let channels = call.conv.output[2];
        // Few pixels are not worth a look at all weights.
        let weights = call.conv.weights.get(..call.packed.bytes());
        let weights = weights.unwrap_or_default();
        let prepared = M::PAIRS && call.pixels >= FEW_ROWS && !simd.contains(weights, i8::MIN);
        Kernel {
            multiply,
            conv: call.conv,
            packed: call.packed,
            prepared,
            base: simd.splat(MAGIC + e.zero as f32),
            lo: simd.splat(MAGIC + f32::from(e.lo)),
            hi: simd.splat(MAGIC + f32::from(e.hi)),
            residual: e.residual,
            first: call.first * channels,
            y: core::mem::take(&mut call.y).as_mut_ptr(),
            channels,
        }
    }

    /// Computes output pixels `pixels`, counted from the call's first.
    ///
    /// # Safety
    ///
    /// `rows` holds one row per pixel, and `pixels` lie in the call's range.
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        let mut strip = MaybeUninit::uninit();
        for n in (0..self.channels).step_by(WIDTH) {
            let narrow = self.channels - n <= WIDTH / 2;
            let mut weights = self.weights(n);
            if !narrow && pixels.len() >= M::MANY {
                // SAFETY: a block has so many quads, where the last may extend into the slack.
                unsafe {
                    weights = self
                        .multiply
                        .prepare(weights, self.packed.quads(), &mut strip);
                }
            }
            for (row, count) in parts(pixels.len(), M::ROWS[usize::from(narrow)]) {
                let rows = Rows {
                    base: rows.row(row),
                    ..rows
                };
                // SAFETY: these rows are among those of the caller, and the block exists.
                unsafe { self.tile_of(rows, weights, count, pixels.start + row, n, narrow) };
            }
        }
    }

    /// A tile of `count` pixels.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`]; `count` is 1 to what [`Multiply::ROWS`] says.
    unsafe fn tile_of(
        &self,
        rows: Rows,
        weights: Weights,
        count: usize,
        pixel: usize,
        n: usize,
        narrow: bool,
    ) {
        let m = self.multiply;
        // SAFETY: as the caller.
        unsafe {
            match (count, narrow) {
                (1, false) => m.tile::<1, 4>(self, rows, weights, pixel, n),
                (2, false) => m.tile::<2, 4>(self, rows, weights, pixel, n),
                (3, false) => m.tile::<3, 4>(self, rows, weights, pixel, n),
                (4, false) => m.tile::<4, 4>(self, rows, weights, pixel, n),
                (5, false) => m.tile::<5, 4>(self, rows, weights, pixel, n),
                (_, false) => m.tile::<6, 4>(self, rows, weights, pixel, n),
                (1, _) => m.tile::<1, 2>(self, rows, weights, pixel, n),
                (2, _) => m.tile::<2, 2>(self, rows, weights, pixel, n),
                (3, _) => m.tile::<3, 2>(self, rows, weights, pixel, n),
                (4, _) => m.tile::<4, 2>(self, rows, weights, pixel, n),
                (5, _) => m.tile::<5, 2>(self, rows, weights, pixel, n),
                (6, _) => m.tile::<6, 2>(self, rows, weights, pixel, n),
                (7, _) => m.tile::<7, 2>(self, rows, weights, pixel, n),
                _ => m.tile::<8, 2>(self, rows, weights, pixel, n),
            }
        }
    }

    /// `R` pixels from `pixel` on by `V` vectors of channels from `n` on.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; they and channel `n`, the first of a block, lie in the call's
    /// output; the weights are those of the block.
    #[inline(always)]
    pub(crate) unsafe fn tile<const R: usize, const V: usize>(
        &self,
        rows: Rows,
        weights: Weights,
        pixel: usize,
        n: usize,
    ) {
        let simd = self.multiply.simd();
        let mut start = [simd.splat_i32(0); V];
        for v in 0..V {
            // SAFETY: the bias is padded to whole blocks.
            let bias = unsafe { &*self.conv.bias.as_ptr().add(n + v * LANES).cast() };
            start[v] = simd.ints(bias);
        }
        let quads = self.packed.quads();
        // SAFETY: the rows hold whole patches. The weights of the block hold as many quads, the last of
        // which may extend into the slack.
        let sums = unsafe { self.multiply.products::<R, V>(rows, weights, quads, start) };
        // SAFETY: as the caller.
        unsafe { self.finish_rows::<R, V>(&sums, pixel, n) };
    }

    /// Requantises and stores the sums of a tile.
    ///
    /// # Safety
    ///
    /// The pixels and the channel, the first of a block, lie in the call's output.
    #[inline(always)]
    pub(super) unsafe fn finish_rows<const R: usize, const V: usize>(
        &self,
        sums: &[[Ints<M>; V]; R],
        pixel: usize,
        n: usize,
    ) {
        // SAFETY: as the caller; all channels of a whole tile lie in the output, too.
        unsafe {
            let whole = n + V * LANES <= self.channels;
            if !whole || self.conv.epilogue.table.is_some() {
                // A copy, so that the sums stay in registers otherwise.
                let copy = *sums;
                self.finish_any(&copy, pixel, n);
            } else if self.residual.is_some() {
                self.finish::<R, V, true>(sums, pixel, n);
            } else {
                self.finish::<R, V, false>(sums, pixel, n);
            }
        }
    }

    /// Those of the block from channel `n` on.
    fn weights(&self, n: usize) -> Weights {
        let (block, base) = (n / WIDTH, self.conv.weights.as_ptr());
        Weights {
            base: base.wrapping_add(self.packed.block_offset(block)),
            step: self.packed.block_width(block) * QUAD,
            prepared: self.prepared,
        }
    }

    /// Requantises and stores the sums of a tile all of whose channels exist, `ADD`ing the residual or not.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`]; without a table.
    #[inline(always)]
    unsafe fn finish<const R: usize, const V: usize, const ADD: bool>(
        &self,
        sums: &[[Ints<M>; V]; R],
        pixel: usize,
        n: usize,
    ) {
        let simd = self.multiply.simd();
        // SAFETY: as the caller.
        let multipliers = unsafe { self.multipliers::<V>(n) };
        let (residual_zero, residual_multiplier) = match &self.residual {
            Some(r) => (simd.splat_i32(r.zero), simd.splat(r.multiplier)),
            None => (simd.splat_i32(0), self.base),
        };
        for r in 0..R {
            let at = (pixel + r) * self.channels + n;
            let mut codes = [simd.splat_i32(0); LANES];
            if ADD && let Some(residual) = &self.residual {
                // SAFETY: the residual covers the pixels of the call.
                codes = simd.widen(unsafe {
                    load::<M::Simd, V>(simd, residual.data.as_ptr().add(self.first + at))
                });
            }
            for v in 0..V {
                let mut t = simd.mul(simd.convert(sums[r][v]), multipliers[v]);
                if ADD {
                    let addend = simd.convert(simd.sub_i32(codes[v], residual_zero));
                    t = simd.add(t, simd.mul(addend, residual_multiplier));
                }
                codes[v] = self.round(t);
            }
            // SAFETY: these codes belong to this pixel of the output.
            unsafe { store::<M::Simd, V>(simd, simd.narrow(codes), self.y.add(at)) };
        }
    }

    /// [`Kernel::finish`] with a table, or where some of the channels do not exist.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`].
    #[inline(never)]
    unsafe fn finish_any<const R: usize, const V: usize>(
        &self,
        sums: &[[Ints<M>; V]; R],
        pixel: usize,
        n: usize,
    ) {
        let simd = self.multiply.simd();
        let count = (self.channels - n).min(V * LANES);
        // SAFETY: as the caller.
        let multipliers = unsafe { self.multipliers::<V>(n) };
        for r in 0..R {
            let at = (pixel + r) * self.channels + n;
            let mut codes = [simd.splat_i32(0); LANES];
            for v in 0..V {
                let mut t = simd.mul(simd.convert(sums[r][v]), multipliers[v]);
                if let Some(residual) = &self.residual {
                    let mut addends = [0; LANES];
                    let from = self.first + at + v * LANES;
                    let codes = residual.data.get(from..).unwrap_or_default();
                    for (addend, &code) in addends.iter_mut().zip(codes) {
                        *addend = i32::from(code).wrapping_sub(residual.zero);
                    }
                    let addend = simd.convert(simd.ints(&addends));
                    t = simd.add(t, simd.mul(addend, simd.splat(residual.multiplier)));
                }
                codes[v] = self.round(t);
            }
            let mut codes = simd.narrow(codes);
            if let Some(table) = self.conv.epilogue.table {
                codes = simd.look_up(table, codes);
            }
            // SAFETY: `count` codes from `at` on belong to this pixel of the output.
            unsafe {
                let y = self.y.add(at);
                if count == V * LANES {
                    store::<M::Simd, V>(simd, codes, y);
                } else {
                    let mut whole = [0; WIDTH];
                    simd.store(codes, &mut whole);
                    y.copy_from_nonoverlapping(whole.as_ptr(), count);
                }
            }
        }
    }

    /// Multipliers of `V` vectors of channels from `n` on.
    ///
    /// # Safety
    ///
    /// Channel `n` is the first of a block.
    #[inline(always)]
    unsafe fn multipliers<const V: usize>(&self, n: usize) -> [Floats<M>; V] {
        let simd = self.multiply.simd();
        let mut multipliers = [self.base; V];
        for v in 0..V {
            // SAFETY: multipliers are padded to whole blocks.
            let four = unsafe { &*self.conv.multipliers.as_ptr().add(n + v * LANES).cast() };
            multipliers[v] = simd.floats(four);
        }
        multipliers
    }

    /// [`crate::numerics::round_to_code`], with the bits of [`MAGIC`].
    #[inline(always)]
    fn round(&self, t: Floats<M>) -> Ints<M> {
        let simd = self.multiply.simd();
        let sum = simd.max(simd.add(t, self.base), self.lo);
        simd.bits(simd.min(sum, self.hi))
    }
}

/// The codes of `V` vectors of channels.
///
/// # Safety
///
/// As many are readable.
#[inline(always)]
unsafe fn load<S: Simd, const V: usize>(simd: S, at: *const i8) -> S::Bytes {
    // SAFETY: as the caller.
    unsafe {
        if V == 4 {
            simd.bytes(&*at.cast())
        } else {
            simd.half(&*at.cast())
        }
    }
}

/// Writes the codes of `V` vectors of channels.
///
/// # Safety
///
/// As many are writable.
#[inline(always)]
unsafe fn store<S: Simd, const V: usize>(simd: S, codes: S::Bytes, at: *mut i8) {
    // SAFETY: as the caller.
    unsafe {
        if V == 4 {
            simd.store(codes, &mut *at.cast());
        } else {
            simd.store_half(codes, &mut *at.cast());
        }
    }
}
