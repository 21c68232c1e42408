//! From a file to RGB pixels.

use std::fs;
use std::io::{Cursor, ErrorKind};
use std::path::Path;

use ampoule_runtime::preprocess::{ImageView, PixelFormat, PreprocessError};
use image::error::{LimitErrorKind, UnsupportedErrorKind};
use image::{DynamicImage, ImageError, ImageReader, Limits};

use super::listing::unreadable;
use super::{DataError, jpeg};

/// Longest side that is decoded, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// Largest file, and most memory for a decoder, in bytes.
pub const MAX_BYTES: u64 = 512 << 20;

/// An image of 8-bit RGB pixels, top row first, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `width · height · 3` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The image as the runtime's preprocessing takes it.
    ///
    /// # Errors
    ///
    /// None for an image that [`decode`] returned.
    pub fn view(&self) -> Result<ImageView<'_>, PreprocessError> {
        ImageView::packed(&self.pixels, self.width, self.height, PixelFormat::Rgb8)
    }
}

/// Decodes a JPEG, PNG, BMP or WebP file, told apart by content, to 8-bit RGB.
///
/// As Pillow's `convert("RGB")` does it: grey is replicated, a palette looked up and alpha dropped, not
/// blended. Sixteen bits are rounded to eight; CMYK is converted without a colour profile. An animation
/// gives its first frame. The orientation tag of EXIF is ignored, as training pipelines commonly do.
///
/// # Errors
///
/// A file that cannot be read, is damaged (a JPEG that ends early included), not supported, without
/// pixels, or larger than [`MAX_SIDE`] or [`MAX_BYTES`]; the error names it.
pub fn decode(path: impl AsRef<Path>) -> Result<RgbImage, DataError> {
    let path = path.as_ref();
    let size = fs::metadata(path).map_err(unreadable(path))?.len();
    if size > MAX_BYTES {
        return Err(DataError::TooLarge {
            path: path.to_owned(),
            what: format!("the file has {size} bytes"),
        });
    }
    decode_bytes(&fs::read(path).map_err(unreadable(path))?, path)
}

/// [`decode`] for a file in memory; `path` is its name in errors.
///
/// # Errors
///
/// Those of [`decode`].
pub fn decode_bytes(bytes: &[u8], path: &Path) -> Result<RgbImage, DataError> {
    let damaged = |what: &str| DataError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    if bytes.is_empty() {
        return Err(damaged("the file is empty"));
    }
    if jpeg::ends_early(bytes) {
        return Err(damaged("the JPEG data ends early"));
    }
    if let Some((width, height)) = declared_size(bytes) {
        reject_empty(width, height, path)?; // the decoders call it damaged or unsupported
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(unreadable(path))?;
    reader.limits(limits());
    let image = reader.decode().map_err(|e| translate(e, path))?;
    let (width, height) = (image.width(), image.height());
    reject_empty(width, height, path)?;
    Ok(RgbImage {
        width,
        height,
        pixels: to_rgb(image),
    })
}

/// Width and height in the header of a PNG or BMP.
fn declared_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    if bytes.starts_with(b"\x89PNG") {
        Some((u32::from_be_bytes(word(16)?), u32::from_be_bytes(word(20)?)))
    } else if bytes.starts_with(b"BM") {
        Some((u32::from_le_bytes(word(18)?), u32::from_le_bytes(word(22)?)))
    } else {
        None
    }
}

fn reject_empty(width: u32, height: u32, path: &Path) -> Result<(), DataError> {
    if width > 0 && height > 0 {
        return Ok(());
    }
    Err(DataError::Empty {
        path: path.to_owned(),
        width,
        height,
    })
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    limits
}

fn to_rgb(image: DynamicImage) -> Vec<u8> {
    match image {
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        other => other.to_rgb8().into_raw(),
    }
}

fn translate(error: ImageError, path: &Path) -> DataError {
    let path = path.to_owned();
    match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::Unsupported { .. } => DataError::Unsupported {
                path,
                what: limit.to_string(),
            },
            _ => DataError::TooLarge {
                path,
                what: limit.to_string(),
            },
        },
        ImageError::Unsupported(what) => match what.kind() {
            UnsupportedErrorKind::Format(_) => DataError::Unsupported {
                path,
                what: "unknown content".to_owned(),
            },
            _ => DataError::Unsupported {
                path,
                what: what.to_string(),
            },
        },
        ImageError::IoError(source) if source.kind() != ErrorKind::UnexpectedEof => {
            DataError::Unreadable { path, source }
        }
        other => DataError::Damaged {
            path,
            what: other.to_string(),
        },
    }
}
