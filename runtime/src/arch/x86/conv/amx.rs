//! AMX: `tdpbssd` on tiles of up to 16 pixels by 16 channels by 64 patch values.
//!
//! The compiler knows nothing of tile registers, so their contents survive from one `asm!` block to
//! the next. While the tile unit multiplies one group of tiles, the vector units finish the group
//! before.

use core::arch::asm;
use core::arch::x86_64::{_mm512_add_epi32, _mm512_load_si512, _mm512_loadu_si512};
use core::ops::Range;

use super::epilogue512::Epilogue;
use super::{avx512vnni, parts};
use crate::arch::x86::Amx;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD, WIDTH};

/// Rows of a tile, and the quads that one takes along the patch.
const TILE: usize = 16;
/// With fewer pixels a tile is mostly empty and AVX-512 is as fast.
const FEW_PIXELS: usize = 4;
/// Stack that stands in for scratch that is smaller.
const STACK: usize = 16 << 10;
/// Gathered rows stay below this many bytes, so that they remain in the first-level cache.
const PANEL: usize = 32 << 10;
/// Weights of at most this many bytes stay in the first-level cache while rows and output go by.
const SMALL_WEIGHTS: usize = 24 << 10;

/// Computes the call's pixels.
pub(crate) fn conv_i8<'a>(token: Amx, mut call: CallI8<'a, 'a>) {
    let depth = Depth::new(call.conv, call.packed);
    let row = depth.row_bytes();
    let scratch = core::mem::take(&mut call.scratch);
    if call.pixels < FEW_PIXELS || (!depth.direct && row > scratch.len().max(STACK)) {
        call.scratch = scratch;
        return avx512vnni::conv_i8(token.avx512vnni(), call);
    }
    if depth.direct {
        let length = call.conv.depth();
        let base = call.x[call.first * length..].as_ptr();
        let rows = Rows {
            base,
            stride: length,
            first: 0,
            count: call.pixels,
        };
        let mut kernel = Kernel::new(token, &mut call, depth, rows.count);
        // SAFETY: the rows of a point window are the input's pixels.
        unsafe { kernel.tiles(rows) };
        return kernel.finish_pending();
    }
    let patches = call.patches();
    let mut stack = [0u8; STACK];
    let memory = if scratch.len() > STACK {
        scratch
    } else {
        &mut stack
    };
    let most = (PANEL / row).max(2 * TILE).min(memory.len() / row);
    let panels = parts(call.pixels, most);
    let shortest = call.pixels / panels.clone().count();
    let mut kernel = Kernel::new(token, &mut call, depth, shortest);
    for (start, count) in panels {
        // The tiles of the last panel have been multiplied, so its memory is free.
        let panel: &mut [i8] = bytemuck::cast_slice_mut(&mut memory[..count * row]);
        patches.gather_rows(call.first + start, count, panel, row);
        panel
            .chunks_exact_mut(row)
            .for_each(|row| depth.spread(row));
        // SAFETY: a row was written for each of these pixels.
        unsafe {
            kernel.tiles(Rows {
                base: memory.as_ptr().cast(),
                stride: row,
                first: start,
                count,
            })
        };
    }
    kernel.finish_pending();
}

/// How the quads of a patch are dealt out to tiles.
///
/// All tiles are equally wide. Where that doesn't come out even, the last tile starts so early that
/// it ends with the patch, and the values that it shares with the tile before are 0 in its rows: so
/// no weight past the patch is ever read.
#[derive(Clone, Copy)]
struct Depth {
    quads: usize,
    /// Tiles along a patch.
    steps: usize,
    /// Quads of a tile.
    tile: usize,
    /// Whether rows are read straight from the input.
    direct: bool,
}

impl Depth {
    fn new(conv: &ConvI8<'_>, packed: PackedShape) -> Self {
        let quads = packed.quads();
        let least = quads.div_ceil(TILE);
        if conv.window.is_point() && conv.depth() % QUAD == 0 {
            let even = (least..=least + least / 4).find(|steps| quads % steps == 0);
            if let Some(steps) = even {
                return Depth {
                    quads,
                    steps,
                    tile: quads / steps,
                    direct: true,
                };
            }
        }
        Depth {
            quads,
            steps: least,
            tile: quads.div_ceil(least),
            direct: false,
        }
    }

    /// Quads that the last tile shares with the one before.
    fn shared(&self) -> usize {
        self.steps * self.tile - self.quads
    }

    /// Bytes of a gathered row.
    fn row_bytes(&self) -> usize {
        (self.steps * self.tile * QUAD).next_multiple_of(64)
    }

    /// Moves the values of the last tile to their place and clears those it shares.
    fn spread(&self, row: &mut [i8]) {
        let (last, shared) = ((self.steps - 1) * self.tile * QUAD, self.shared() * QUAD);
        if shared > 0 {
            row.copy_within(last..self.quads * QUAD, last + shared);
            row[last..last + shared].fill(0);
        }
    }
}

/// Tiles that are multiplied together, each with sums of its own: as many products are under way at
/// once as the tile unit's latency asks for.
const GROUP: usize = 4;

/// How the tiles of a group lie in the output.
#[derive(Clone, Copy)]
enum Arrangement {
    /// 2 pixel tiles by 2 blocks of channels.
    Square,
    /// 4 pixel tiles by 1 block.
    Tall,
    /// 1 pixel tile by 4 blocks.
    Wide,
}

/// The sums of a group, tile by tile.
#[repr(align(64))]
struct Sums([[[i32; WIDTH]; TILE]; GROUP]);

/// A group of tiles: the first pixel of each pixel tile, counted from the call's first, and the first
/// block.
#[derive(Clone, Copy)]
struct Group {
    arrangement: Arrangement,
    pixels: [usize; GROUP],
    block: usize,
}

/// Rows of patches: row `r` starts at `base + r · stride` bytes and belongs to pixel `first + r`.
#[derive(Clone, Copy)]
struct Rows {
    base: *const i8,
    stride: usize,
    first: usize,
    count: usize,
}

struct Kernel<'a, 'c> {
    conv: &'a ConvI8<'c>,
    packed: PackedShape,
    depth: Depth,
    /// Pixels of a tile.
    height: usize,
    epilogue: Epilogue,
    /// Sums of the group that waits for its epilogue.
    sums: Sums,
    pending: Option<Group>,
}

impl<'a, 'c> Kernel<'a, 'c> {
    /// For panels of at least `pixels` rows.
    fn new(_: Amx, call: &mut CallI8<'a, 'c>, depth: Depth, pixels: usize) -> Self {
        let tiles = pixels.div_ceil(TILE);
        // Tiles go in pairs: 6 shorter ones take less time than 5.
        let tiles = if tiles > 1 {
            tiles.next_multiple_of(2)
        } else {
            1
        };
        let height = pixels.div_ceil(tiles);
        // SAFETY: the token proves AMX; a tile has 1 to 16 rows and up to 16 quads.
        unsafe { configure(height, depth.tile) };
        Kernel {
            conv: call.conv,
            packed: call.packed,
            depth,
            height,
            // SAFETY: the token proves the features.
            epilogue: unsafe { Epilogue::new(call) },
            sums: Sums([[[0; WIDTH]; TILE]; GROUP]),
            pending: None,
        }
    }

    /// Computes the pixels of some rows.
    ///
    /// # Safety
    ///
    /// The rows hold patches laid out as `depth` says; there are `height` or more of them, and their
    /// pixels lie in the call's output.
    unsafe fn tiles(&mut self, rows: Rows) {
        let blocks = self.packed.blocks();
        let tiles = rows.count.div_ceil(self.height);
        // Small weights stay in the first-level cache while the output is written front to back; of
        // others, a few blocks do while the rows go by.
        let small = self.packed.bytes() <= SMALL_WEIGHTS;
        let (tiles_at_once, blocks_at_once) = match tiles {
            1 => (1, blocks),
            _ if small => (GROUP, blocks),
            _ => (tiles, 2),
        };
        for tile in (0..tiles).step_by(tiles_at_once) {
            let tiles = tile..(tile + tiles_at_once).min(tiles);
            for block in (0..blocks).step_by(blocks_at_once) {
                // SAFETY: as the caller.
                unsafe {
                    self.region(
                        rows,
                        tiles.clone(),
                        block..(block + blocks_at_once).min(blocks),
                    )
                };
            }
        }
    }

    /// Computes some pixel tiles in some blocks.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tiles`]; the tiles are among those of the rows, and the blocks exist.
    unsafe fn region(&mut self, rows: Rows, tiles: Range<usize>, blocks: Range<usize>) {
        let wide_fits = tiles.len() == 1 && blocks.len() >= GROUP;
        let mut block = blocks.start;
        while block < blocks.end {
            let (arrangement, tall, wide) = match blocks.end - block {
                _ if wide_fits => (Arrangement::Wide, 1, GROUP),
                1 => (Arrangement::Tall, GROUP, 1),
                _ => (Arrangement::Square, 2, 2),
            };
            for tile in tiles.clone().step_by(tall) {
                // The last tile ends with the last pixel and repeats some of the tile before; a group
                // that has no more tiles repeats the last.
                let last = rows.count - self.height;
                let start = |i: usize| rows.first + ((tile + i) * self.height).min(last);
                let pixels = core::array::from_fn(start);
                let group = Group {
                    arrangement,
                    pixels,
                    block: block.min(blocks.end - wide),
                };
                // SAFETY: each tile has `height` rows, and the blocks exist.
                unsafe { self.multiply(group, rows) };
                self.finish_pending();
                self.store(group);
            }
            block += wide;
        }
    }

    /// Leaves the sums of a group in the tile registers.
    ///
    /// # Safety
    ///
    /// The group's pixels are those of rows, and its blocks exist.
    unsafe fn multiply(&self, group: Group, rows: Rows) {
        let wide = group.blocks();
        let depth = self.depth;
        let weights = |i: usize| self.packed.block_offset(group.block + i.min(wide - 1));
        // SAFETY: rows and blocks exist.
        let mut operands = unsafe {
            Operands {
                rows: group
                    .pixels
                    .map(|p| rows.base.add((p - rows.first) * rows.stride)),
                row_stride: rows.stride,
                weights: core::array::from_fn(|i| self.conv.weights.as_ptr().add(weights(i))),
                last_stride: self.packed.block_width(group.block + wide - 1) * QUAD,
                tile: depth.tile,
            }
        };
        let shared = depth.shared();
        // SAFETY: the rows hold `steps` tiles and the blocks as many, where the last begins `shared`
        // quads before its place. The last row of a narrow block may extend into the slack.
        unsafe {
            clear();
            operands.advance(group.arrangement, depth.steps - usize::from(shared > 0));
            if shared > 0 {
                operands.rewind_weights(wide, shared);
                operands.advance(group.arrangement, 1);
            }
        }
    }

    /// Moves the sums of a group to memory.
    fn store(&mut self, group: Group) {
        // SAFETY: a tile is no larger than its place.
        unsafe {
            asm!(
                "tilestored [{sums} + {stride}], tmm0",
                "tilestored [{sums} + {stride} + 1024], tmm1",
                "tilestored [{sums} + {stride} + 2048], tmm2",
                "tilestored [{sums} + {stride} + 3072], tmm3",
                sums = in(reg) self.sums.0.as_mut_ptr(),
                stride = in(reg) WIDTH * size_of::<i32>(),
                options(nostack, preserves_flags),
            );
        }
        self.pending = Some(group);
    }

    /// Turns the sums that wait into codes.
    fn finish_pending(&mut self) {
        let Some(group) = self.pending.take() else {
            return;
        };
        // SAFETY: a kernel exists only where a token proved the features; the sums are this group's.
        unsafe {
            if self.epilogue.is_plain() {
                self.finish::<true>(group);
            } else {
                self.finish::<false>(group);
            }
        }
    }

    /// Turns the sums of `group` into codes.
    ///
    /// # Safety
    ///
    /// The group lies in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn finish<const PLAIN: bool>(&self, group: Group) {
        // SAFETY: as the caller.
        unsafe {
            match group.arrangement {
                Arrangement::Square => {
                    self.finish_tiles::<2, PLAIN>(0, group.pixels[0], group.block);
                    self.finish_tiles::<2, PLAIN>(2, group.pixels[1], group.block);
                }
                Arrangement::Tall => {
                    for (i, pixel) in group.pixels.into_iter().enumerate() {
                        self.finish_tiles::<1, PLAIN>(i, pixel, group.block);
                    }
                }
                Arrangement::Wide => {
                    self.finish_tiles::<GROUP, PLAIN>(0, group.pixels[0], group.block)
                }
            }
        }
    }

    /// Turns the sums of `B` tiles from `tile` on, of one pixel tile and neighbouring blocks, into
    /// codes.
    ///
    /// # Safety
    ///
    /// The pixels from `pixel` on and the blocks lie in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn finish_tiles<const B: usize, const PLAIN: bool>(
        &self,
        tile: usize,
        pixel: usize,
        block: usize,
    ) {
        let n = block * WIDTH;
        // SAFETY: as the caller; a row of sums is 64 bytes, and the bias is padded to whole blocks.
        unsafe {
            let multipliers = self.epilogue.multipliers::<B>(n);
            let bias = self.conv.bias.as_ptr().add(n);
            let bias: [_; B] =
                core::array::from_fn(|b| _mm512_loadu_si512(bias.add(b * WIDTH).cast()));
            for r in 0..self.height {
                let sums = core::array::from_fn(|b| {
                    let sums = _mm512_load_si512(self.sums.0[tile + b][r].as_ptr().cast());
                    _mm512_add_epi32(sums, bias[b])
                });
                self.epilogue
                    .finish::<B, PLAIN>(sums, multipliers, pixel + r, n);
            }
        }
    }
}

impl Drop for Kernel<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: releasing the tile registers touches nothing else.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

impl Group {
    /// Blocks that the group covers.
    fn blocks(&self) -> usize {
        match self.arrangement {
            Arrangement::Square => 2,
            Arrangement::Tall => 1,
            Arrangement::Wide => GROUP,
        }
    }
}

/// Where the next tiles of a group are read.
struct Operands {
    rows: [*const i8; GROUP],
    row_stride: usize,
    weights: [*const i8; GROUP],
    /// Bytes of a quad of weights in the last block of the group; a full block's elsewhere.
    last_stride: usize,
    /// Quads of a tile.
    tile: usize,
}

impl Operands {
    /// Multiplies `steps` tiles along the patch, at least one, and moves the pointers behind them.
    ///
    /// # Safety
    ///
    /// As many tiles are readable.
    unsafe fn advance(&mut self, arrangement: Arrangement, steps: usize) {
        let row_step = self.tile * QUAD;
        let full_stride = WIDTH * QUAD;
        let [a0, a1, a2, a3] = &mut self.rows;
        let [b0, b1, b2, b3] = &mut self.weights;
        // SAFETY: as the caller.
        unsafe {
            match arrangement {
                Arrangement::Square => asm!(
                    "2:",
                    "tileloadd tmm4, [{a0} + {row_stride}]",
                    "tileloadd tmm6, [{b0} + {full_stride}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b1} + {last_stride}]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a1} + {row_stride}]",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "add {a0}, {row_step}",
                    "add {a1}, {row_step}",
                    "add {b0}, {full_step}",
                    "add {b1}, {last_step}",
                    "dec {steps}",
                    "jnz 2b",
                    a0 = inout(reg) *a0,
                    a1 = inout(reg) *a1,
                    b0 = inout(reg) *b0,
                    b1 = inout(reg) *b1,
                    row_stride = in(reg) self.row_stride,
                    full_stride = in(reg) full_stride,
                    last_stride = in(reg) self.last_stride,
                    row_step = in(reg) row_step,
                    full_step = in(reg) self.tile * full_stride,
                    last_step = in(reg) self.tile * self.last_stride,
                    steps = inout(reg) steps => _,
                    options(nostack, readonly),
                ),
                Arrangement::Tall => asm!(
                    "2:",
                    "tileloadd tmm7, [{b} + {last_stride}]",
                    "tileloadd tmm4, [{a0} + {row_stride}]",
                    "tdpbssd tmm0, tmm4, tmm7",
                    "tileloadd tmm5, [{a1} + {row_stride}]",
                    "tdpbssd tmm1, tmm5, tmm7",
                    "tileloadd tmm4, [{a2} + {row_stride}]",
                    "tdpbssd tmm2, tmm4, tmm7",
                    "tileloadd tmm5, [{a3} + {row_stride}]",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "add {a0}, {row_step}",
                    "add {a1}, {row_step}",
                    "add {a2}, {row_step}",
                    "add {a3}, {row_step}",
                    "add {b}, {last_step}",
                    "dec {steps}",
                    "jnz 2b",
                    a0 = inout(reg) *a0,
                    a1 = inout(reg) *a1,
                    a2 = inout(reg) *a2,
                    a3 = inout(reg) *a3,
                    b = inout(reg) *b0,
                    row_stride = in(reg) self.row_stride,
                    last_stride = in(reg) self.last_stride,
                    row_step = in(reg) row_step,
                    last_step = in(reg) self.tile * self.last_stride,
                    steps = inout(reg) steps => _,
                    options(nostack, readonly),
                ),
                Arrangement::Wide => asm!(
                    "2:",
                    "tileloadd tmm4, [{a} + {row_stride}]",
                    "tileloadd tmm6, [{b0} + {full_stride}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b1} + {full_stride}]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tileloadd tmm6, [{b2} + {full_stride}]",
                    "tdpbssd tmm2, tmm4, tmm6",
                    "tileloadd tmm7, [{b3} + {last_stride}]",
                    "tdpbssd tmm3, tmm4, tmm7",
                    "add {a}, {row_step}",
                    "add {b0}, {full_step}",
                    "add {b1}, {full_step}",
                    "add {b2}, {full_step}",
                    "add {b3}, {last_step}",
                    "dec {steps}",
                    "jnz 2b",
                    a = inout(reg) *a0,
                    b0 = inout(reg) *b0,
                    b1 = inout(reg) *b1,
                    b2 = inout(reg) *b2,
                    b3 = inout(reg) *b3,
                    row_stride = in(reg) self.row_stride,
                    full_stride = in(reg) full_stride,
                    last_stride = in(reg) self.last_stride,
                    row_step = in(reg) row_step,
                    full_step = in(reg) self.tile * full_stride,
                    last_step = in(reg) self.tile * self.last_stride,
                    steps = inout(reg) steps => _,
                    options(nostack, readonly),
                ),
            }
        }
    }

    /// Moves the pointers to the weights of the group's `blocks` back by `quads`.
    fn rewind_weights(&mut self, blocks: usize, quads: usize) {
        for (i, weights) in self.weights.iter_mut().enumerate() {
            let stride = if i + 1 == blocks {
                self.last_stride
            } else {
                WIDTH * QUAD
            };
            *weights = weights.wrapping_sub(quads * stride);
        }
    }
}

/// Clears the sums. (Loading the bias instead costs more than adding it later: the loads wait for
/// stores of sums that lie at the same offset of another page.)
///
/// # Safety
///
/// The tile registers are configured.
unsafe fn clear() {
    // SAFETY: as the caller.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem, preserves_flags),
        );
    }
}

/// Operand of `ldtilecfg`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Shapes the tile registers: 0 to 3 for sums, 4 and 5 for rows, 6 and 7 for weights.
///
/// # Safety
///
/// The processor has AMX; `height` and `quads` are 1 to 16.
unsafe fn configure(height: usize, quads: usize) {
    let mut config = TileConfig {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    for i in 0..6 {
        config.rows[i] = height as u8;
    }
    for i in [0, 1, 2, 3, 6, 7] {
        config.row_bytes[i] = (WIDTH * QUAD) as u16;
    }
    for i in [4, 5] {
        config.row_bytes[i] = (quads * QUAD) as u16;
    }
    for i in [6, 7] {
        config.rows[i] = quads as u8;
    }
    // SAFETY: the processor has the instruction, and the shapes are in its bounds.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly, preserves_flags)) };
}
