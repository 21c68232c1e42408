//! What the depthwise driver asks of an instruction set.

use super::pixels::Line;

/// Most parts that a vector is divided into.
pub(super) const LANES: usize = 4;

/// Vectors of one instruction set. A value of an implementing type proves that the processor has
/// its instructions, so all methods are safe.
///
/// A vector of bytes holds [`Engine::BYTES`] channels. Spread to 32-bit elements, these fill four
/// vectors: in every 16-byte part, vector `j` has the part's channels `4j..4j + 4`. That is the order
/// in which the unpack instructions deal bytes out and the pack instructions collect them again.
pub(super) trait Engine: Copy {
    /// Integer vector.
    type Int: Copy;
    /// Float vector.
    type Float: Copy;

    /// Bytes of a vector.
    const BYTES: usize;
    /// Rows whose values stand side by side in one 32-bit element.
    const TAPS: usize;
    /// Accumulators that fit the registers.
    const SUMS: usize;
    /// Whether two neighbouring pixels are computed at once, to use each weight twice. That pays
    /// where a dot product per load is more than the load ports can serve.
    const PAIRS: bool;

    /// All bits 0.
    fn zero(self) -> Self::Int;
    /// Every byte the same.
    fn splat_i8(self, value: i8) -> Self::Int;
    /// Every 32-bit element the same.
    fn splat_i32(self, value: i32) -> Self::Int;
    /// Every element the same.
    fn splat_f32(self, value: f32) -> Self::Float;
    /// The first elements of a slice; 0 when it is too short for a vector.
    fn load_i32(self, from: &[i32]) -> Self::Int;
    /// The first elements of a slice; 0 when it is too short for a vector.
    fn load_f32(self, from: &[f32]) -> Self::Float;
    /// Brings four vectors of channels in their natural order to the order of spread bytes.
    fn deal_int(self, v: [Self::Int; 4]) -> [Self::Int; 4];
    /// [`Engine::deal_int`] for floats.
    fn deal_float(self, v: [Self::Float; 4]) -> [Self::Float; 4];

    /// Joins `G` parts of `BYTES / G` bytes each; part `g` is read at `at(g)`.
    ///
    /// # Safety
    ///
    /// Each of these addresses must have that many readable bytes.
    unsafe fn load<const G: usize>(self, at: impl Fn(usize) -> *const i8) -> Self::Int;
    /// Has the cache line at an address fetched, if it can be.
    fn prefetch(self, at: *const i8) {
        let _ = at;
    }
    /// Reads a vector of bytes.
    fn load_line(self, line: &Line) -> Self::Int;
    /// Writes a vector of bytes.
    fn store_line(self, v: Self::Int, line: &mut Line);

    /// Signed bytes to unsigned ones, `x + 128`.
    fn to_unsigned(self, v: Self::Int) -> Self::Int;
    /// Deals the unsigned bytes of [`Engine::TAPS`] rows out to 32-bit elements.
    fn interleave(self, rows: &[Self::Int]) -> [Self::Int; 4];
    /// Deals the signed bytes of [`Engine::TAPS`] rows of weights out to 32-bit elements.
    fn interleave_weights(self, rows: &[Self::Int]) -> [Self::Int; 4];
    /// Adds the products of values and weights to each 32-bit element.
    fn dot(self, acc: Self::Int, values: Self::Int, weights: Self::Int) -> Self::Int;

    /// Zero-extends bytes to 32-bit elements.
    fn widen(self, bytes: Self::Int) -> [Self::Int; 4];
    /// `f32(acc) · multiplier`.
    fn scale(self, acc: Self::Int, multiplier: Self::Float) -> Self::Float;
    /// `a + b`.
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a − b` of 32-bit elements.
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `128 · v` of 32-bit elements.
    fn times_128(self, v: Self::Int) -> Self::Int;
    /// The integers in the low bits of sums with [`crate::numerics::MAGIC`].
    fn integers(self, sums: Self::Float) -> Self::Int;
    /// Saturates 32-bit elements to bytes and clamps these to `bounds`.
    fn pack(self, codes: [Self::Int; 4], bounds: [Self::Int; 2]) -> Self::Int;
}
