//! Entry points: one length check, then the kernel of the instruction set.

use super::patch::Patches;
use super::{ConvF32, ConvI8, PackedShape, WEIGHT_SLACK, WeightsF32, portable};
#[cfg(arm_dsp)]
use crate::arch::cortex_m;
#[cfg(simd128)]
use crate::arch::simd128;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86::conv as x86;
use crate::error::Error;
use crate::isa::Capability;
use crate::operators::{AllOperators, Operators, Variant};
use crate::ops::Window;
use crate::ops::length::at_least;

/// Computes output pixels `first..first + y.len() / channels` into `y`.
///
/// `scratch` holds gathered patches and may have any length, even 0: see [`scratch_bytes`]. Its
/// content before the call does not matter and after the call means nothing.
///
/// # Errors
///
/// [`Error::Length`] when a slice is too short for the geometry, or the geometry contradicts itself.
pub fn conv_i8(
    cap: Capability,
    conv: &ConvI8<'_>,
    x: &[i8],
    first: usize,
    y: &mut [i8],
    scratch: &mut [u8],
) -> Result<(), Error> {
    conv_i8_for::<AllOperators>(cap, conv, x, first, y, scratch)
}

/// [`conv_i8`] of a program that is linked with some operators only.
pub(crate) fn conv_i8_for<O: Operators>(
    cap: Capability,
    conv: &ConvI8<'_>,
    x: &[i8],
    first: usize,
    y: &mut [i8],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let call = CallI8::new(conv, x, first, y, scratch)?;
    if !O::SET.includes(Variant::Ungathered) {
        let needed = scratch_bytes_of_one(conv);
        at_least(needed, call.scratch.len())?;
    }
    match cap.built_in::<O>() {
        #[cfg(target_arch = "x86_64")]
        Capability::Avx2(token) => x86::avx2::conv_i8(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::AvxVnni(token) => x86::avxvnni::conv_i8(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::Avx512Vnni(token) => x86::avx512vnni::conv_i8(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::Amx(token) => x86::amx::conv_i8(token, call),
        #[cfg(target_arch = "aarch64")]
        Capability::Neon(token) => simd128::conv::conv_i8(token, call),
        #[cfg(target_arch = "aarch64")]
        Capability::Dotprod(token) => simd128::conv::conv_i8(token, call),
        #[cfg(target_arch = "aarch64")]
        Capability::I8mm(token) => simd128::conv::conv_i8(token, call),
        #[cfg(wasm_simd128)]
        Capability::Simd128(token) => simd128::conv::conv_i8(token, call),
        #[cfg(arm_dsp)]
        Capability::Dsp(token) => {
            return cortex_m::dsp::conv::conv_i8::<O>(token, call).ok_or(Error::Internal(0));
        }
        #[cfg(arm_mve)]
        Capability::Mve(token) => cortex_m::mve::conv::conv_i8(token, call),
        _ => portable::conv_i8(call),
    }
    Ok(())
}

/// Computes output pixels `first..first + y.len() / channels` into `y`; see [`conv_i8`].
///
/// # Errors
///
/// [`Error::Length`] when a slice is too short for the geometry, or the geometry contradicts itself.
pub fn conv_f32(
    cap: Capability,
    conv: &ConvF32<'_>,
    x: &[f32],
    first: usize,
    y: &mut [f32],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let call = CallF32::new(conv, x, first, y, scratch)?;
    match cap {
        #[cfg(target_arch = "x86_64")]
        Capability::Avx2(token) => x86::f32_avx2::conv_f32(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::AvxVnni(token) => x86::f32_avx2::conv_f32(token.avx2(), call),
        #[cfg(target_arch = "x86_64")]
        Capability::Avx512Vnni(token) => x86::f32_avx512::conv_f32(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::Amx(token) => x86::f32_avx512::conv_f32(token.avx512vnni(), call),
        #[cfg(target_arch = "aarch64")]
        Capability::Neon(token) => simd128::conv_f32::conv_f32(token, call),
        #[cfg(target_arch = "aarch64")]
        Capability::Dotprod(token) => simd128::conv_f32::conv_f32(token.neon(), call),
        #[cfg(target_arch = "aarch64")]
        Capability::I8mm(token) => simd128::conv_f32::conv_f32(token.dotprod().neon(), call),
        #[cfg(wasm_simd128)]
        Capability::Simd128(token) => simd128::conv_f32::conv_f32(token, call),
        _ => portable::conv_f32(call),
    }
    Ok(())
}

/// Least scratch for a patch.
fn scratch_bytes_of_one(conv: &ConvI8<'_>) -> usize {
    if conv.window.is_point() {
        0
    } else {
        conv.depth()
    }
}

/// Scratch bytes with which [`conv_i8`] gathers `rows` patches at a time. A float convolution wants
/// four times as many.
///
/// A point window needs none: its rows are read in place, or pass through the stack where the
/// instruction set wants them in another form. More rows than a kernel's tile holds (32) bring
/// nothing; on a device, 1 is enough to leave the slow path.
///
/// ```
/// use ampoule_runtime::ops::{Window, conv::scratch_bytes};
/// let window = Window { kernel: [3, 3], ..Window::POINT };
/// assert_eq!(scratch_bytes(&window, 3, 32), 32 * 64);
/// assert_eq!(scratch_bytes(&Window::POINT, 512, 32), 0);
/// ```
pub fn scratch_bytes(window: &Window, input_channels: usize, rows: usize) -> usize {
    if window.is_point() {
        0
    } else {
        rows * (window.taps() * input_channels).next_multiple_of(64)
    }
}

/// A call whose slices have been found long enough: what the `unsafe` kernels rest on.
///
/// * `y` holds `pixels` whole pixels, and `first + pixels` is at most the pixels of the output.
/// * `x` holds the input map, and the window fits in it wherever an output pixel puts it.
/// * The packed weights, where they are the layer's, are followed by [`WEIGHT_SLACK`] bytes; `bias`, `weight_sums` and
///   `multipliers` are padded to whole blocks; the residual covers the pixels of `y`.
/// * `pixels` and `channels` are not 0. A point window's output has the size of its input.
#[cfg_attr(
    not(any(target_arch = "x86_64", simd128)),
    expect(dead_code, reason = "portable kernels derive some of it again")
)]
pub(crate) struct CallI8<'a, 'c> {
    pub(crate) conv: &'a ConvI8<'c>,
    pub(crate) x: &'a [i8],
    pub(crate) first: usize,
    pub(crate) y: &'a mut [i8],
    pub(crate) scratch: &'a mut [u8],
    pub(crate) packed: PackedShape,
    pub(crate) pixels: usize,
}

impl<'a, 'c> CallI8<'a, 'c> {
    fn new(
        conv: &'a ConvI8<'c>,
        x: &'a [i8],
        first: usize,
        y: &'a mut [i8],
        scratch: &'a mut [u8],
    ) -> Result<Self, Error> {
        let call = Self::without_weights(conv, x, first, y, scratch)?;
        at_least(product(&[conv.depth(), conv.output[2]]), conv.weights.len())?;
        at_least(call.packed.bytes() + WEIGHT_SLACK, conv.weights.len())?;
        Ok(call)
    }

    /// A call of a layer that has its weights elsewhere.
    pub(crate) fn without_weights(
        conv: &'a ConvI8<'c>,
        x: &'a [i8],
        first: usize,
        y: &'a mut [i8],
        scratch: &'a mut [u8],
    ) -> Result<Self, Error> {
        let channels = conv.output[2];
        let pixels = check_geometry(
            &conv.window,
            conv.input,
            conv.output,
            x.len(),
            first,
            y.len(),
        )?;
        let packed = PackedShape::new(channels, conv.depth());
        let padded = packed.padded_channels();
        let residual = conv.epilogue.residual.map(|r| r.data.len());
        let lengths = [
            (padded, conv.bias.len()),
            (padded, conv.weight_sums.len()),
            (padded, conv.multipliers.len()),
            ((first + pixels) * channels, residual.unwrap_or(usize::MAX)),
        ];
        for (expected, got) in lengths {
            at_least(expected, got)?;
        }
        Ok(CallI8 {
            conv,
            x,
            first,
            y,
            scratch,
            packed,
            pixels,
        })
    }

    /// The patches of the call's input.
    pub(crate) fn patches(&self) -> Patches<'a, i8> {
        Patches::of_i8(self.conv, self.x)
    }
}

/// Like [`CallI8`], for floats: the weights' slack is counted in elements.
#[cfg_attr(
    not(any(target_arch = "x86_64", simd128)),
    expect(dead_code, reason = "portable kernels derive some of it again")
)]
pub(crate) struct CallF32<'a, 'c> {
    pub(crate) conv: &'a ConvF32<'c>,
    pub(crate) x: &'a [f32],
    pub(crate) first: usize,
    pub(crate) y: &'a mut [f32],
    pub(crate) scratch: &'a mut [u8],
    pub(crate) pixels: usize,
}

impl<'a, 'c> CallF32<'a, 'c> {
    fn new(
        conv: &'a ConvF32<'c>,
        x: &'a [f32],
        first: usize,
        y: &'a mut [f32],
        scratch: &'a mut [u8],
    ) -> Result<Self, Error> {
        let channels = conv.output[2];
        let pixels = check_geometry(
            &conv.window,
            conv.input,
            conv.output,
            x.len(),
            first,
            y.len(),
        )?;
        let (len, size) = match conv.weights {
            WeightsF32::F32(w) => (w.len(), size_of::<f32>()),
            WeightsF32::F16(w) => (w.len(), size_of::<u16>()),
        };
        let values = product(&[conv.depth(), channels.next_multiple_of(4)]);
        at_least(values.saturating_add(WEIGHT_SLACK / size), len)?;
        at_least(channels.next_multiple_of(super::WIDTH), conv.bias.len())?;
        if let Some(residual) = conv.residual {
            at_least((first + pixels) * channels, residual.len())?;
        }
        Ok(CallF32 {
            conv,
            x,
            first,
            y,
            scratch,
            pixels,
        })
    }

    /// The patches of the call's input.
    pub(crate) fn patches(&self) -> Patches<'a, f32> {
        Patches::of_f32(self.conv, self.x)
    }
}

/// Checks input, output and window against each other and returns the pixels that `y` holds.
fn check_geometry(
    window: &Window,
    input: [usize; 3],
    output: [usize; 3],
    x: usize,
    first: usize,
    y: usize,
) -> Result<usize, Error> {
    at_least(product(&input), x)?;
    let refused = Err(Error::Length {
        expected: product(&output),
        got: y,
    });
    if input.contains(&0) || output.contains(&0) || y == 0 || y % output[2] != 0 {
        return refused;
    }
    let inside = (0..2).all(|axis| {
        window
            .output(axis, input[axis])
            .is_some_and(|n| output[axis] <= n)
    });
    if !inside || (window.is_point() && input[..2] != output[..2]) {
        return refused;
    }
    let pixels = y / output[2];
    at_least(first.saturating_add(pixels), product(&output[..2]))?;
    Ok(pixels)
}

/// Product that saturates, so that absurd sizes fail their check and do not wrap past it.
fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |a, &b| a.saturating_mul(b))
}
