//! Preprocessing executed by the runtime: the picture a camera or a decoder delivers becomes the
//! model's input, with the same bytes on a host and on a device.
//!
//! A [`Preprocess`] is stored in the artifact. It resizes, crops and reorders the pixels
//! ([`Preprocess::run_u8`]), and then maps them to the int8 codes of the model's input tensor
//! ([`Preprocess::quantize_table`], [`Preprocess::quantize_into`]) or to the floats that the
//! original model saw ([`Preprocess::normalize_into`]).
//!
//! Resizing with [`Preprocess::antialias`] reproduces Pillow's 8-bit arithmetic bit for bit, and the
//! sizes and offsets follow torchvision's `Resize` and `CenterCrop`. Only what the crop keeps is
//! computed. Nothing here allocates or panics.
//!
//! Rows come before columns, as in Pillow up to 12. Pillow 13 starts with the columns when the height
//! shrinks much more than the width, and every version does for a picture over a hundred times as
//! high as wide; rounding between the passes then differs, by one grey level for the bilinear and
//! the area filter, and by a few for the bicubic one at sharp edges. [`Resize::ShorterSide`] keeps
//! the aspect ratio and is equal in both.

mod error;
mod filter;
mod float;
mod image;
mod normalize;
mod resize;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use error::PreprocessError;
pub use image::{ImageView, PixelFormat};

use resize::{Axis, Plan};

/// The longest side, in pixels, that a source or a resized picture may have.
pub const MAX_SIDE: u32 = 1 << 24;

/// How a picture becomes the model's input.
///
/// The picture is converted to the model's channels, resized, and cropped around its centre to
/// `width` by `height` pixels. The model then sees `(u·scale − mean[c]) / std[c]` for pixel value
/// `u` of channel `c`.
///
/// ```
/// use ampoule_runtime::preprocess::{
///     Channels, Filter, ImageView, PixelFormat, Preprocess, PreprocessError, Resize,
/// };
///
/// // The usual evaluation of an ImageNet model, at a toy size.
/// let spec = Preprocess {
///     resize: Resize::ShorterSide(5),
///     filter: Filter::Bilinear,
///     antialias: true,
///     width: 4,
///     height: 4,
///     channels: Channels::Rgb,
///     scale: 1.0 / 255.0,
///     mean: [0.485, 0.456, 0.406],
///     std: [0.229, 0.224, 0.225],
/// };
/// spec.validate()?;
///
/// let pixels = [128; 20 * 10 * 3];
/// let image = ImageView::packed(&pixels, 20, 10, PixelFormat::Rgb8)?;
///
/// let mut scratch = vec![0; spec.scratch_bytes(20, 10)?];
/// let mut input = vec![0; spec.output_len()];
/// spec.run_u8(&image, &mut scratch, &mut input)?;
/// assert_eq!(input, [128; 4 * 4 * 3]);
///
/// // Scale and zero point of the model's input tensor.
/// let table = spec.quantize_table(0.02, -14);
/// let codes = spec.quantize_in_place(&mut input, &table)?;
/// assert_eq!(codes[..3], [-10, -4, 7]);
/// # Ok::<(), PreprocessError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// The size that the picture is brought to before the crop.
    pub resize: Resize,
    /// How pixels are interpolated.
    pub filter: Filter,
    /// Whether the filter widens with the shrinking factor, so that every source pixel counts.
    ///
    /// `true` is Pillow's `Image.resize` and torchvision's `antialias=True`, with a bicubic kernel of
    /// a = −0.5. `false` is PyTorch's `interpolate(align_corners=False)` and OpenCV's `resize`: the
    /// two or four pixels around the half-pixel centre, a bicubic kernel of a = −0.75, and border
    /// pixels repeated; both passes round to 8 bits, as PyTorch does for 8-bit tensors. Nearest and
    /// area filters ignore it.
    pub antialias: bool,
    /// Width of the model's input in pixels.
    pub width: u16,
    /// Height of the model's input in pixels.
    pub height: u16,
    /// Channels of the model's input, in order.
    pub channels: Channels,
    /// What a pixel value is multiplied by: `1/255` when the model was trained on `0..1`.
    pub scale: f32,
    /// Mean per channel in the model's order, after `scale`; a grey model uses the first.
    pub mean: [f32; 3],
    /// Standard deviation per channel in the model's order, after `scale`; a grey model uses the
    /// first.
    pub std: [f32; 3],
}

/// The size that a picture is brought to before the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resize {
    /// Its own size.
    None,
    /// The model's input size, whatever that does to the aspect ratio.
    Exact,
    /// The shorter side gets this many pixels, and the longer one `⌊pixels · longer / shorter⌋`.
    ShorterSide(u16),
}

/// How pixels are interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Filter {
    /// The source pixel that holds the output pixel's centre.
    Nearest,
    /// Linear in both directions.
    Bilinear,
    /// Cubic convolution in both directions.
    Bicubic,
    /// The mean of the source pixels whose centres the output pixel covers: Pillow's `BOX`.
    Area,
}

/// Channels of the model's input, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Channels {
    /// Red, green, blue. A grey picture is replicated.
    Rgb,
    /// Blue, green, red. A grey picture is replicated.
    Bgr,
    /// Luminance: `(19595·R + 38470·G + 7471·B + 2¹⁵) >> 16`, Pillow's mode `L`.
    Gray,
}

impl Preprocess {
    /// Checks everything that does not depend on the picture.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::BadSpec`] when a size or a deviation is zero, or a number is not finite.
    pub fn validate(&self) -> Result<(), PreprocessError> {
        self.check_sizes()?;
        let finite = |v: &f32| v.is_finite();
        let deviation = |v: &f32| v.is_finite() && *v != 0.0;
        if finite(&self.scale) && self.mean.iter().all(finite) && self.std.iter().all(deviation) {
            Ok(())
        } else {
            Err(PreprocessError::BadSpec)
        }
    }

    /// Bytes that [`run_u8`](Preprocess::run_u8) writes: `height · width · channels`.
    ///
    /// On a machine of 16-bit addresses, a size beyond them saturates.
    pub fn output_len(&self) -> usize {
        usize::from(self.width)
            .saturating_mul(usize::from(self.height))
            .saturating_mul(self.channels.count())
    }

    /// Width and height of the whole resized picture, before the crop, in pixels.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::EmptyImage`] and [`PreprocessError::ImageTooLarge`] for a side of zero or
    /// beyond [`MAX_SIDE`], before or after resizing; [`PreprocessError::BadSpec`] for a zero size in
    /// the specification.
    pub fn resized_size(&self, src_w: u32, src_h: u32) -> Result<(u32, u32), PreprocessError> {
        self.check_sizes()?;
        if src_w == 0 || src_h == 0 {
            return Err(PreprocessError::EmptyImage);
        }
        if src_w > MAX_SIDE || src_h > MAX_SIDE {
            return Err(PreprocessError::ImageTooLarge);
        }
        Ok(match self.resize {
            Resize::None => (src_w, src_h),
            Resize::Exact => (u32::from(self.width), u32::from(self.height)),
            Resize::ShorterSide(short) => {
                let short = u32::from(short);
                if src_w <= src_h {
                    (short, longer_side(short, src_h, src_w)?)
                } else {
                    (longer_side(short, src_w, src_h)?, short)
                }
            }
        })
    }

    /// Bytes of scratch that [`run_u8`](Preprocess::run_u8) needs for a source of this size; its
    /// alignment does not matter.
    ///
    /// With a model input of `width` columns and `channels` channels, it is the sum of
    ///
    /// * when the width changes, the columns' weights: `width · (8 + 4·taps_x)` bytes
    ///   (`4·width` for the nearest filter);
    /// * when the height changes, one row's weights and the ring of rows that one window reads:
    ///   `taps_y · (4 + width·channels)` bytes (none for the nearest filter).
    ///
    /// `taps` is `⌈2·support · max(1, source/resized)⌉ + 1` with antialiasing and `2·support`
    /// without, at most the source's pixels; `support` is 1 for the bilinear, 2 for the bicubic and ½
    /// for the area filter.
    ///
    /// # Errors
    ///
    /// Those of [`resized_size`](Preprocess::resized_size); [`PreprocessError::CropTooLarge`] when
    /// the resized picture is smaller than the model's input in either direction;
    /// [`PreprocessError::ImageTooLarge`] when the bytes exceed the address space.
    pub fn scratch_bytes(&self, src_w: u32, src_h: u32) -> Result<usize, PreprocessError> {
        self.plan(src_w, src_h)?
            .scratch_bytes()
            .ok_or(PreprocessError::ImageTooLarge)
    }

    /// Resizes and crops `image` into `out`: interleaved rows without padding (HWC), in the model's
    /// channel order, [`output_len`](Preprocess::output_len) bytes.
    ///
    /// The crop starts at half the surplus of pixels, a half rounded to even. `scratch` holds at least
    /// [`scratch_bytes`](Preprocess::scratch_bytes); its content does not matter.
    ///
    /// # Errors
    ///
    /// Those of [`scratch_bytes`](Preprocess::scratch_bytes),
    /// [`PreprocessError::ScratchTooShort`], and [`PreprocessError::Length`] when `out` has another
    /// length. Nothing is written to `out` then.
    pub fn run_u8(
        &self,
        image: &ImageView<'_>,
        scratch: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), PreprocessError> {
        let plan = self.plan(image.width(), image.height())?;
        let expected = self.output_len();
        if out.len() != expected {
            return Err(PreprocessError::Length { expected });
        }
        plan.run(image, scratch, out)
    }

    fn plan(&self, src_w: u32, src_h: u32) -> Result<Plan, PreprocessError> {
        let (width, height) = self.resized_size(src_w, src_h)?;
        Ok(Plan {
            horizontal: axis(src_w, width, self.width)?,
            vertical: axis(src_h, height, self.height)?,
            filter: self.filter,
            antialias: self.antialias,
            channels: self.channels,
        })
    }

    fn check_sizes(&self) -> Result<(), PreprocessError> {
        let empty = self.width == 0 || self.height == 0 || self.resize == Resize::ShorterSide(0);
        if empty {
            Err(PreprocessError::BadSpec)
        } else {
            Ok(())
        }
    }
}

impl Channels {
    /// How many channels a pixel has.
    pub const fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// The longer side when the shorter one becomes `target`: torchvision truncates the quotient.
fn longer_side(target: u32, long: u32, short: u32) -> Result<u32, PreprocessError> {
    let side = u64::from(target) * u64::from(long) / u64::from(short);
    match u32::try_from(side) {
        Ok(side) if side <= MAX_SIDE => Ok(side),
        _ => Err(PreprocessError::ImageTooLarge),
    }
}

/// Centres `len` pixels on a resized axis.
fn axis(source: u32, resized: u32, len: u16) -> Result<Axis, PreprocessError> {
    let surplus = resized
        .checked_sub(u32::from(len))
        .ok_or(PreprocessError::CropTooLarge)?;
    // torchvision rounds `surplus / 2` as Python does: a half goes to the even neighbour.
    let start = surplus / 2 + u32::from(surplus % 4 == 3);
    Ok(Axis {
        source,
        resized,
        start,
        len,
    })
}
