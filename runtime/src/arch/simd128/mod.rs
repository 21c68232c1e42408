//! Kernels for vectors of 128 bits, written once for NEON and WebAssembly.
//!
//! An instruction set brings the operations of [`Simd`], and says with [`Multiply`] how it forms sums of
//! products of bytes.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod conv_f32;
pub(crate) mod depthwise;
pub(crate) mod sparse;
pub(crate) mod table;

use core::mem::MaybeUninit;

use conv::{Kernel, Rows, Strip, Weights};
use sparse::Part;

/// Those of the target.
#[cfg(target_arch = "aarch64")]
pub(crate) type Vectors = super::aarch64::Neon;
/// Those of the target.
#[cfg(wasm_simd128)]
pub(crate) type Vectors = super::wasm32::Simd128;

/// Vectors of one instruction set. A value of an implementing type proves that the processor has its
/// instructions, so all methods are safe.
pub(crate) trait Simd: Copy {
    /// 16 bytes.
    type Bytes: Copy;
    /// Eight 16-bit integers.
    type Shorts: Copy;
    /// Four 32-bit integers.
    type Ints: Copy;
    /// Four floats.
    type Floats: Copy;

    /// Reads bytes.
    fn bytes(self, from: &[i8; 16]) -> Self::Bytes;
    /// Reads bytes; the upper half is 0.
    fn half(self, from: &[i8; 8]) -> Self::Bytes;
    /// Reads integers.
    fn ints(self, from: &[i32; 4]) -> Self::Ints;
    /// Reads floats.
    fn floats(self, from: &[f32; 4]) -> Self::Floats;
    /// Reads floats of half precision.
    fn half_floats(self, from: &[u16; 4]) -> Self::Floats;
    /// Writes bytes.
    fn store(self, v: Self::Bytes, to: &mut [i8; 16]);
    /// Writes the lower half.
    fn store_half(self, v: Self::Bytes, to: &mut [i8; 8]);
    /// Writes integers.
    fn store_ints(self, v: Self::Ints, to: &mut [i32; 4]);
    /// Writes floats.
    fn store_floats(self, v: Self::Floats, to: &mut [f32; 4]);
    /// The same integer everywhere.
    fn splat_i32(self, v: i32) -> Self::Ints;
    /// The same float everywhere.
    fn splat(self, v: f32) -> Self::Floats;
    /// Each element everywhere.
    fn spread(self, v: Self::Floats) -> [Self::Floats; 4];
    /// The bytes of integers.
    fn as_bytes(self, v: Self::Ints) -> Self::Bytes;
    /// The integers that bytes are.
    fn as_ints(self, v: Self::Bytes) -> Self::Ints;
    /// The bits of floats.
    fn bits(self, v: Self::Floats) -> Self::Ints;
    /// The floats of bits.
    fn floats_of(self, v: Self::Ints) -> Self::Floats;

    /// Integers to floats, to nearest even.
    fn convert(self, v: Self::Ints) -> Self::Floats;
    /// `a + b`.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a − b`.
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `sum + a · b`, fused where the instruction set can; for float operators only.
    fn fma(self, sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The larger ones.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The smaller ones.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `a − b`, wrapping.
    fn sub_i32(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Moves bits up by `N`.
    fn shift<const N: i32>(self, v: Self::Ints) -> Self::Ints;

    /// Sign-extends bytes.
    fn widen(self, v: Self::Bytes) -> [Self::Ints; 4];
    /// The low bytes.
    fn narrow(self, v: [Self::Ints; 4]) -> Self::Bytes;
    /// Products of bytes.
    fn products(self, a: Self::Bytes, b: Self::Bytes) -> [Self::Shorts; 2];
    /// `sum + a · b`, wrapping.
    fn add_products(
        self,
        sum: [Self::Shorts; 2],
        a: Self::Bytes,
        b: Self::Bytes,
    ) -> [Self::Shorts; 2];
    /// Adds 16-bit integers.
    fn accumulate(self, sum: [Self::Ints; 4], v: [Self::Shorts; 2]) -> [Self::Ints; 4];
    /// Whether the byte is among them; quick for many.
    fn contains(self, bytes: &[i8], byte: i8) -> bool;
    /// `table[code as u8]` of each code.
    fn look_up(self, table: &[i8; 256], codes: Self::Bytes) -> Self::Bytes;
    /// Byte `4·i + r` is byte `i` of vector `r`.
    fn interleave(self, v: [Self::Bytes; 4]) -> [Self::Bytes; 4];
    /// Quad `r` of vector `i` becomes quad `i` of vector `r`.
    fn transpose(self, v: [Self::Bytes; 4]) -> [Self::Bytes; 4];
    /// The largest of four times four floats.
    fn largest(self, v: [Self::Floats; 4]) -> f32;
    /// The sum of four times four integers, wrapping.
    fn sum(self, v: [Self::Ints; 4]) -> i32;
}

/// How an instruction set multiplies bytes.
pub(crate) trait Multiply: Copy {
    /// The vectors.
    type Simd: Simd;
    /// Most rows of a tile of four vectors of channels, and of two.
    const ROWS: [usize; 2];
    /// Whether weights are prepared that none of is −128: the sum of two products has 16 bits then.
    const PAIRS: bool = false;
    /// Rows for which it pays to [`prepare`](Multiply::prepare) the weights of a block.
    const MANY: usize = usize::MAX;

    /// The vectors.
    fn simd(self) -> Self::Simd;

    /// Adds the products of each quad of bytes.
    fn dot(
        self,
        sums: Ints<Self>,
        x: <Self::Simd as Simd>::Bytes,
        w: <Self::Simd as Simd>::Bytes,
    ) -> Ints<Self>;

    /// Brings the weights of a block of 16 channels into another form, where there is a better one.
    ///
    /// # Safety
    ///
    /// 64 bytes of weights can be read for each of the quads.
    unsafe fn prepare(
        self,
        weights: Weights,
        quads: usize,
        to: &mut MaybeUninit<Strip>,
    ) -> Weights {
        let _ = (quads, to);
        weights
    }

    /// `start[v] + Σ x[r] · w[v]` over `quads` quads, for `R` rows and `V` vectors of four channels.
    ///
    /// # Safety
    ///
    /// The rows hold as many quads, and `16 · V` bytes of weights can be read for each.
    unsafe fn products<const R: usize, const V: usize>(
        self,
        rows: Rows,
        weights: Weights,
        quads: usize,
        start: [Ints<Self>; V],
    ) -> [[Ints<Self>; V]; R];

    /// Calls [`Kernel::tile`] compiled for the instruction set.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tile`].
    unsafe fn tile<const R: usize, const V: usize>(
        self,
        kernel: &Kernel<'_, Self>,
        rows: Rows,
        weights: Weights,
        pixel: usize,
        n: usize,
    );

    /// Calls [`Part::compute`] compiled for the instruction set.
    ///
    /// # Safety
    ///
    /// As for [`Part::compute`].
    unsafe fn sparse<const T: usize>(self, part: &Part<'_, '_, Self>);
}

pub(crate) type Ints<M> = <<M as Multiply>::Simd as Simd>::Ints;
pub(crate) type Floats<M> = <<M as Multiply>::Simd as Simd>::Floats;
