//! Phase two: dot products of interleaved columns and weights, requantised to bytes.

use core::mem::MaybeUninit;

use super::column::{Column, RING, Ring};
use super::engine::Engine;

/// Widest kernel.
pub(super) const WIDTH: usize = 8;

/// A vector's bytes; an engine uses the first [`Engine::BYTES`].
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub [i8; 64]);

/// Output pixels `[row][column]` on their way to the output, or of the residual on its way here.
pub(super) type Staging<const W: usize> = [[Line; RING]; W];

/// What a block's channels are multiplied with and how the sums become codes.
pub(super) struct Pixels<E: Engine, const Q: usize, const W: usize> {
    /// Kernel width, horizontal stride and dilation.
    pub width: usize,
    pub stride: usize,
    pub dilation: usize,
    /// `[kernel column][group of rows][output row][vector]`.
    pub weights: [MaybeUninit<[[[E::Int; 4]; W]; Q]>; WIDTH],
    /// Start of the accumulators.
    pub bias: [E::Int; 4],
    pub multipliers: [E::Float; 4],
    /// [`crate::numerics::MAGIC`] plus the output's zero point.
    pub base: E::Float,
    /// Smallest and largest code.
    pub bounds: [E::Int; 2],
    /// Whether a residual is added.
    pub residual: bool,
    /// Zero point of the residual's unsigned codes.
    pub residual_zero: E::Int,
    pub residual_multiplier: E::Float,
}

impl<E: Engine, const Q: usize, const W: usize> Pixels<E, Q, W> {
    /// Computes `n` pixels of `shared` rows; the first one's window begins at column `start`. The
    /// residual, if any, is replaced by the output; it is added to one row only.
    ///
    /// # Safety
    ///
    /// The columns under these windows, and the weights of the kernel's columns, must have been
    /// written.
    #[inline(always)]
    pub unsafe fn run(
        &self,
        engine: E,
        ring: &Ring<E, Q>,
        start: usize,
        n: usize,
        shared: usize,
        staging: &mut Staging<W>,
    ) {
        // SAFETY: the caller vouches for it.
        unsafe {
            match shared {
                1 if self.residual => self.rows::<1, true>(engine, ring, start, n, staging),
                1 => self.rows::<1, false>(engine, ring, start, n, staging),
                3 if W > 2 => self.rows::<3, false>(engine, ring, start, n, staging),
                4 if W > 2 => self.rows::<4, false>(engine, ring, start, n, staging),
                _ => self.rows::<2, false>(engine, ring, start, n, staging),
            }
        }
    }

    /// `R` rows, `ADD`ing the residual or not.
    ///
    /// # Safety
    ///
    /// As for [`Pixels::run`].
    #[inline(always)]
    unsafe fn rows<const R: usize, const ADD: bool>(
        &self,
        engine: E,
        ring: &Ring<E, Q>,
        start: usize,
        n: usize,
        staging: &mut Staging<W>,
    ) {
        let mut i = 0;
        if E::PAIRS {
            while i + 2 <= n {
                // SAFETY: the caller vouches for it.
                unsafe { self.group::<R, 2, ADD>(engine, ring, start, i, staging) };
                i += 2;
            }
        }
        while i < n {
            // SAFETY: the caller vouches for it.
            unsafe { self.group::<R, 1, ADD>(engine, ring, start, i, staging) };
            i += 1;
        }
    }

    /// `X` neighbouring pixels in `R` rows, from pixel `i` on.
    ///
    /// # Safety
    ///
    /// As for [`Pixels::run`].
    #[inline(always)]
    unsafe fn group<const R: usize, const X: usize, const ADD: bool>(
        &self,
        engine: E,
        ring: &Ring<E, Q>,
        start: usize,
        i: usize,
        staging: &mut Staging<W>,
    ) {
        let mut codes = [[[engine.zero(); 4]; R]; X];
        let mut side = 0;
        while side < 4 {
            let end = side + side_by_side::<E>(R * X);
            let column = start + i * self.stride;
            // SAFETY: the caller vouches for it.
            let acc = unsafe { self.dots::<R, X>(engine, ring, column, [side, end]) };
            for r in 0..R {
                for x in 0..X {
                    let addends = if ADD {
                        let line = &staging[r][(i + x) % RING];
                        engine.widen(engine.to_unsigned(engine.load_line(line)))
                    } else {
                        acc[x][r]
                    };
                    for j in side..end {
                        let mut t = engine.scale(acc[x][r][j], self.multipliers[j]);
                        if ADD {
                            let addend = engine.sub(addends[j], self.residual_zero);
                            t = engine.add(t, engine.scale(addend, self.residual_multiplier));
                        }
                        codes[x][r][j] = engine.integers(engine.add(t, self.base));
                    }
                }
            }
            side = end;
        }
        for r in 0..R {
            for x in 0..X {
                let bytes = engine.pack(codes[x][r], self.bounds);
                engine.store_line(bytes, &mut staging[r][(i + x) % RING]);
            }
        }
    }

    /// The accumulators of vectors `side..end`.
    ///
    /// # Safety
    ///
    /// As for [`Pixels::run`].
    #[inline(always)]
    unsafe fn dots<const R: usize, const X: usize>(
        &self,
        engine: E,
        ring: &Ring<E, Q>,
        mut column: usize,
        [side, end]: [usize; 2],
    ) -> [[[E::Int; 4]; R]; X] {
        let mut acc = [[[engine.zero(); 4]; R]; X];
        for j in side..end {
            for r in 0..R {
                for x in 0..X {
                    acc[x][r][j] = self.bias[j];
                }
            }
        }
        for kx in 0..self.width {
            // SAFETY: the caller vouches for the weights of the kernel's columns.
            let weights = unsafe { self.weights[kx % WIDTH].assume_init_ref() };
            let columns: [&Column<E, Q>; X] = core::array::from_fn(|x| {
                // SAFETY: the caller vouches for the columns under the windows.
                unsafe { ring[(column + x * self.stride) % RING].assume_init_ref() }
            });
            for q in 0..Q {
                for j in side..end {
                    for r in 0..R {
                        let w = weights[q][r][j];
                        for x in 0..X {
                            acc[x][r][j] = engine.dot(acc[x][r][j], columns[x][q][j], w);
                        }
                    }
                }
            }
            column += self.dilation;
        }
        acc
    }
}

/// How many of the four vectors are accumulated side by side for `sums` outputs each.
const fn side_by_side<E: Engine>(sums: usize) -> usize {
    match E::SUMS / sums {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}
