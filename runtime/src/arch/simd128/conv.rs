//! Int8 convolution.
//!
//! Tiles of a few rows of patches by a block of 16 channels, or a narrow block of 8. The rows of a point
//! window are read in place where they are whole quads; other patches are gathered.

use core::ops::Range;

use super::{Ints, Multiply, Simd};
use crate::arch::parts;
use crate::numerics::MAGIC;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, Residual, WIDTH, portable};

/// Rows that are multiplied with all weights, one block after the other, stay below this many bytes, so
/// that they share the first-level cache with a block.
const PANEL: usize = 16 << 10;
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
    // Panels are whole tiles.
    let height = M::ROWS[0];
    most = (most / height * height).max(most.min(height));
    let patches = call.patches();
    let kernel = Kernel::new(multiply, &mut call);
    for start in (0..call.pixels).step_by(most) {
        let count = most.min(call.pixels - start);
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
    multiply: M,
    conv: &'a ConvI8<'a>,
    packed: PackedShape,
    base: <M::Simd as Simd>::Floats,
    lo: <M::Simd as Simd>::Floats,
    hi: <M::Simd as Simd>::Floats,
    residual: Option<Residual<'a>>,
    /// Position of the call's first value in the whole output.
    first: usize,
    y: *mut i8,
    channels: usize,
}

impl<'a, M: Multiply> Kernel<'a, M> {
    /// For the pixels of `call`, whose output it takes over.
    fn new(multiply: M, call: &mut CallI8<'a, 'a>) -> Self {
        let (e, simd) = (&call.conv.epilogue, multiply.simd());
        let channels = call.conv.output[2];
        Kernel {
            multiply,
            conv: call.conv,
            packed: call.packed,
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
        for n in (0..self.channels).step_by(WIDTH) {
            let narrow = self.channels - n <= WIDTH / 2;
            for (row, count) in parts(pixels.len(), M::ROWS[usize::from(narrow)]) {
                let rows = Rows {
                    base: rows.row(row),
                    ..rows
                };
                // SAFETY: these rows are among those of the caller, and the block exists.
                unsafe { self.tile_of(rows, count, pixels.start + row, n, narrow) };
            }
        }
    }

    /// A tile of `count` pixels.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`]; `count` is 1 to what [`Multiply::ROWS`] says.
    unsafe fn tile_of(&self, rows: Rows, count: usize, pixel: usize, n: usize, narrow: bool) {
        let m = self.multiply;
        // SAFETY: as the caller.
        unsafe {
            match (count, narrow) {
                (1, false) => m.tile::<1, 4>(self, rows, pixel, n),
                (2, false) => m.tile::<2, 4>(self, rows, pixel, n),
                (3, false) => m.tile::<3, 4>(self, rows, pixel, n),
                (4, false) => m.tile::<4, 4>(self, rows, pixel, n),
                (5, false) => m.tile::<5, 4>(self, rows, pixel, n),
                (_, false) => m.tile::<6, 4>(self, rows, pixel, n),
                (1, _) => m.tile::<1, 2>(self, rows, pixel, n),
                (2, _) => m.tile::<2, 2>(self, rows, pixel, n),
                (3, _) => m.tile::<3, 2>(self, rows, pixel, n),
                (4, _) => m.tile::<4, 2>(self, rows, pixel, n),
                (5, _) => m.tile::<5, 2>(self, rows, pixel, n),
                (6, _) => m.tile::<6, 2>(self, rows, pixel, n),
                (7, _) => m.tile::<7, 2>(self, rows, pixel, n),
                _ => m.tile::<8, 2>(self, rows, pixel, n),
            }
        }
    }

    /// `R` pixels from `pixel` on by `V` vectors of channels from `n` on.
    ///
    /// # Safety
    ///
    /// `rows` are the rows of these pixels; they and channel `n`, the first of a block, lie in the call's
    /// output.
    #[inline(always)]
    pub(crate) unsafe fn tile<const R: usize, const V: usize>(
        &self,
        rows: Rows,
        pixel: usize,
        n: usize,
    ) {
        let simd = self.multiply.simd();
        let block = n / WIDTH;
        let step = self.packed.block_width(block) * QUAD;
        let mut start = [simd.splat_i32(0); V];
        for v in 0..V {
            // SAFETY: the bias is padded to whole blocks.
            let bias = unsafe { &*self.conv.bias.as_ptr().add(n + v * LANES).cast() };
            start[v] = simd.ints(bias);
        }
        let weights = self
            .conv
            .weights
            .as_ptr()
            .wrapping_add(self.packed.block_offset(block));
        let quads = self.packed.quads();
        // SAFETY: the rows hold whole patches. The weights of the block hold as many quads, the last of
        // which may extend into the slack.
        let sums = unsafe {
            self.multiply
                .products::<R, V>(rows, weights, step, quads, start)
        };
        for (r, sums) in sums.into_iter().enumerate() {
            // SAFETY: the pixel and the channel lie in the call's output.
            unsafe { self.finish(sums, pixel + r, n) };
        }
    }

    /// Requantises and stores the sums of `V` vectors of channels of one pixel.
    ///
    /// # Safety
    ///
    /// `pixel` and channel `n`, the first of a block, lie in the call's output.
    #[inline(always)]
    unsafe fn finish<const V: usize>(&self, sums: [Ints<M>; V], pixel: usize, n: usize) {
        let simd = self.multiply.simd();
        let count = (self.channels - n).min(V * LANES);
        let at = pixel * self.channels + n;
        let mut addends = [simd.splat_i32(0); LANES];
        if let Some(r) = &self.residual {
            // SAFETY: the residual covers the pixels of the call.
            addends =
                simd.widen(unsafe { self.load::<V>(r.data.as_ptr().add(self.first + at), count) });
        }
        let mut codes = [simd.splat_i32(0); LANES];
        for v in 0..V {
            // SAFETY: multipliers are padded to whole blocks.
            let multiplier = unsafe { &*self.conv.multipliers.as_ptr().add(n + v * LANES).cast() };
            let mut t = simd.mul(simd.convert(sums[v]), simd.floats(multiplier));
            if let Some(r) = &self.residual {
                let addend = simd.sub_i32(addends[v], simd.splat_i32(r.zero));
                t = simd.add(t, simd.mul(simd.convert(addend), simd.splat(r.multiplier)));
            }
            let sum = simd.min(simd.max(simd.add(t, self.base), self.lo), self.hi);
            codes[v] = simd.bits(sum);
        }
        let mut codes = simd.narrow(codes);
        if let Some(table) = self.conv.epilogue.table {
            codes = simd.look_up(table, codes);
        }
        // SAFETY: `count` codes from `at` on belong to this pixel of the output.
        unsafe {
            let y = self.y.add(at);
            if count < V * LANES {
                let mut whole = [0; WIDTH];
                simd.store(codes, &mut whole);
                y.copy_from_nonoverlapping(whole.as_ptr(), count);
            } else if V == 4 {
                simd.store(codes, &mut *y.cast());
            } else {
                simd.store_half(codes, &mut *y.cast());
            }
        }
    }

    /// `count` codes, at most `V` vectors' channels, and zeros.
    ///
    /// # Safety
    ///
    /// As many are readable.
    #[inline(always)]
    unsafe fn load<const V: usize>(
        &self,
        codes: *const i8,
        count: usize,
    ) -> <M::Simd as Simd>::Bytes {
        let simd = self.multiply.simd();
        // SAFETY: as the caller.
        unsafe {
            if count < V * LANES {
                let mut whole = [0; WIDTH];
                whole.as_mut_ptr().copy_from_nonoverlapping(codes, count);
                simd.bytes(&whole)
            } else if V == 4 {
                simd.bytes(&*codes.cast())
            } else {
                simd.half(&*codes.cast())
            }
        }
    }
}
