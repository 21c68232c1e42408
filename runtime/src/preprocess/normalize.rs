//! From 8-bit pixels to the model's numbers: float normalisation and its quantised tables.

use super::float::round_half_even;
use super::{Preprocess, PreprocessError};

impl Preprocess {
    /// The int8 code of each pixel value, per channel in the model's order, for an input tensor with
    /// real value `(code − zero_point) · scale`:
    ///
    /// `table[c][u] = clamp(rne(((u·self.scale − mean[c]) / std[c]) / scale) + zero_point, −128, 127)`
    ///
    /// with `rne` rounding to nearest, ties to even. Evaluated in `f64`, so that every machine has
    /// the same table. A [`Gray`](super::Channels::Gray) model uses `table[0]` alone. Values that a
    /// degenerate specification makes infinite saturate, and NaN counts as zero; see
    /// [`Preprocess::validate`].
    pub fn quantize_table(&self, scale: f32, zero_point: i32) -> [[i8; 256]; 3] {
        let scale = f64::from(scale);
        let mut table = [[0; 256]; 3];
        for (channel, codes) in table.iter_mut().enumerate() {
            for (value, code) in (0..=255).zip(codes) {
                let rounded = round_half_even(self.real(channel, value) / scale);
                let shifted = rounded.saturating_add(i64::from(zero_point));
                *code = shifted.clamp(-128, 127) as i8;
            }
        }
        table
    }

    /// Maps interleaved pixels, as [`run_u8`](Preprocess::run_u8) writes them, to int8 codes.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::Length`] when `pixels` is not a whole number of pixels or `out` does not
    /// have its length; nothing is written then.
    pub fn quantize_into(
        &self,
        pixels: &[u8],
        table: &[[i8; 256]; 3],
        out: &mut [i8],
    ) -> Result<(), PreprocessError> {
        self.check_lengths(pixels.len(), out.len())?;
        let look_up = |codes: &[i8; 256], value: &u8| codes[usize::from(*value)];
        if self.channels.count() == 1 {
            for (out, value) in out.iter_mut().zip(pixels) {
                *out = look_up(&table[0], value);
            }
        } else {
            let (out, _) = out.as_chunks_mut::<3>();
            let (pixels, _) = pixels.as_chunks::<3>();
            for (out, pixel) in out.iter_mut().zip(pixels) {
                for channel in 0..3 {
                    out[channel] = look_up(&table[channel], &pixel[channel]);
                }
            }
        }
        Ok(())
    }

    /// As [`quantize_into`](Preprocess::quantize_into), over the pixels themselves: a device needs no
    /// second buffer. Returns the same memory as codes.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::Length`] when `pixels` is not a whole number of pixels.
    pub fn quantize_in_place<'a>(
        &self,
        pixels: &'a mut [u8],
        table: &[[i8; 256]; 3],
    ) -> Result<&'a mut [i8], PreprocessError> {
        self.check_lengths(pixels.len(), pixels.len())?;
        for pixel in pixels.chunks_exact_mut(self.channels.count()) {
            for (value, codes) in pixel.iter_mut().zip(table) {
                *value = codes[usize::from(*value)] as u8;
            }
        }
        Ok(bytemuck::cast_slice_mut(pixels))
    }

    /// Maps interleaved pixels to the float model's input, `(u·scale − mean[c]) / std[c]`, evaluated
    /// in `f64` and rounded once.
    ///
    /// The layout stays interleaved (HWC). Uses 1 KiB of stack.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::Length`] when `pixels` is not a whole number of pixels or `out` does not
    /// have its length; nothing is written then.
    pub fn normalize_into(&self, pixels: &[u8], out: &mut [f32]) -> Result<(), PreprocessError> {
        self.check_lengths(pixels.len(), out.len())?;
        let channels = self.channels.count();
        for channel in 0..channels {
            // A table costs 256 divisions in place of one a pixel.
            let mut table = [0.0; 256];
            for (value, real) in (0..=255).zip(&mut table) {
                *real = self.real(channel, value) as f32;
            }
            let pixels = pixels.chunks_exact(channels);
            for (out, pixel) in out.chunks_exact_mut(channels).zip(pixels) {
                out[channel] = table[usize::from(pixel[channel])];
            }
        }
        Ok(())
    }

    /// What the float model sees for pixel value `value` of a channel below three.
    fn real(&self, channel: usize, value: u8) -> f64 {
        let shifted = f64::from(value) * f64::from(self.scale) - f64::from(self.mean[channel]);
        shifted / f64::from(self.std[channel])
    }

    fn check_lengths(&self, pixels: usize, out: usize) -> Result<(), PreprocessError> {
        let whole = pixels - pixels % self.channels.count();
        if pixels != whole || out != pixels {
            return Err(PreprocessError::Length { expected: whole });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Channels, Filter, Resize};
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn spec(channels: Channels) -> Preprocess {
        Preprocess {
            resize: Resize::None,
            filter: Filter::Bilinear,
            antialias: true,
            width: 1,
            height: 1,
            channels,
            scale: 1.0 / 255.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }

    #[test]
    fn table_follows_its_definition() {
        let spec = spec(Channels::Rgb);
        let table = spec.quantize_table(0.0187, -14);
        for c in 0..3 {
            for u in 0..=255u8 {
                let real = (f64::from(u) * f64::from(spec.scale) - f64::from(spec.mean[c]))
                    / f64::from(spec.std[c]);
                let code =
                    ((real / f64::from(0.0187f32)).round_ties_even() - 14.0).clamp(-128.0, 127.0);
                assert_eq!(
                    f64::from(table[c][usize::from(u)]),
                    code,
                    "channel {c} value {u}"
                );
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        let spec = Preprocess {
            scale: 0.5,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..spec(Channels::Gray)
        };
        let codes = spec.quantize_table(1.0, 0)[0];
        assert_eq!(codes[..6], [0, 0, 1, 2, 2, 2]);
        assert_eq!(codes[255], 127); // 127.5 rounds to 128
    }

    #[test]
    fn degenerate_specifications_saturate() {
        let spec = Preprocess {
            scale: 1.0,
            mean: [1.0; 3],
            std: [0.0; 3],
            ..spec(Channels::Rgb)
        };
        let codes = spec.quantize_table(1.0, 5)[0];
        assert_eq!(codes[..3], [-128, 5, 127]);
        assert_eq!(spec.quantize_table(f32::NAN, i32::MAX)[2][9], 127);
        assert_eq!(spec.quantize_table(0.0, i32::MAX)[1][0], -128);
    }

    #[test]
    fn codes_are_those_of_the_table() {
        let pixels: Vec<u8> = (0..=255).chain(0..=253).collect();
        for channels in [Channels::Rgb, Channels::Bgr, Channels::Gray] {
            let spec = spec(channels);
            let table = spec.quantize_table(0.02, 3);
            let mut codes = vec![0; pixels.len()];
            spec.quantize_into(&pixels, &table, &mut codes).unwrap();
            for (i, code) in codes.iter().enumerate() {
                assert_eq!(*code, table[i % channels.count()][usize::from(pixels[i])]);
            }
            let mut in_place = pixels.clone();
            assert_eq!(
                spec.quantize_in_place(&mut in_place, &table).unwrap(),
                codes
            );

            let mut floats = vec![0.0; pixels.len()];
            spec.normalize_into(&pixels, &mut floats).unwrap();
            for (i, real) in floats.iter().enumerate() {
                let c = i % channels.count();
                let single = (f32::from(pixels[i]) * spec.scale - spec.mean[c]) / spec.std[c];
                assert!((real - single).abs() <= 4.0 * f32::EPSILON * (1.0 + single.abs()));
            }
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let rgb = spec(Channels::Rgb);
        let table = rgb.quantize_table(1.0, 0);
        let refused = Err(PreprocessError::Length { expected: 3 });
        assert_eq!(rgb.quantize_into(&[0; 4], &table, &mut [0; 4]), refused);
        assert_eq!(rgb.quantize_into(&[0; 3], &table, &mut [0; 2]), refused);
        assert_eq!(
            rgb.quantize_in_place(&mut [0; 5], &table).err(),
            refused.err()
        );
        assert_eq!(rgb.normalize_into(&[0; 4], &mut [0.0; 4]), refused);
        assert_eq!(rgb.normalize_into(&[0; 3], &mut [0.0; 6]), refused);
        assert_eq!(
            spec(Channels::Gray).quantize_into(&[7; 4], &table, &mut [0; 4]),
            Ok(())
        );
    }
}
