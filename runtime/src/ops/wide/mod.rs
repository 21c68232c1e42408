//! Convolutions with 16-bit activations and 8-bit weights: the accurate islands of an int8 model.
//!
//! Contract: as [`super::conv`] and [`super::depthwise`], with activations symmetric (zero point 0,
//! codes within ±32767) and a 64-bit accumulator, `y = clamp(rne(f32(acc) · multiplier))`. Plain
//! Rust on every target: these layers are few, exactness matters more than speed.

use crate::error::Error;
use crate::numerics::round_to_code;
use crate::ops::Window;
use crate::ops::conv::PackedShape;

/// Everything about a 16-bit (depthwise) convolution but the data that changes with each run.
#[derive(Debug, Clone, Copy)]
pub struct ConvI16<'a> {
    /// Window geometry.
    pub window: Window,
    /// Input height, width, channels.
    pub input: [usize; 3],
    /// Output height, width, channels.
    pub output: [usize; 3],
    /// Packed weights, or `[tap][channel]` when depthwise.
    pub weights: &'a [i8],
    /// Bias per output channel.
    pub bias: &'a [i32],
    /// Requantisation multiplier per output channel.
    pub multipliers: &'a [f32],
    /// Smallest output code.
    pub lo: i16,
    /// Largest output code.
    pub hi: i16,
    /// One filter per channel.
    pub depthwise: bool,
}

/// Computes output pixels from `first` on, as many as `y` holds.
///
/// # Errors
///
/// [`Error::Length`] when a slice does not fit the shapes.
pub fn conv_i16(conv: &ConvI16<'_>, x: &[i16], first: usize, y: &mut [i16]) -> Result<(), Error> {
    let ([h, w, c], [_, out_w, n]) = (conv.input, conv.output);
    let taps = conv.window.taps();
    let packed = PackedShape::new(n, taps * c);
    let weights = if conv.depthwise {
        taps * c
    } else {
        packed.bytes()
    };
    let fits = x.len() == h * w * c && conv.bias.len() >= n && conv.multipliers.len() >= n;
    if !fits || conv.weights.len() < weights || n == 0 || out_w == 0 || (conv.depthwise && n != c) {
        return Err(Error::Length {
            expected: h * w * c,
            got: x.len(),
        });
    }
    for (i, pixel) in y.chunks_exact_mut(n).enumerate() {
        let (oy, ox) = ((first + i) / out_w, (first + i) % out_w);
        for (channel, out) in pixel.iter_mut().enumerate() {
            let mut acc = i64::from(conv.bias[channel]);
            for tap in 0..taps {
                let Some(at) = input_pixel(conv, oy, ox, tap) else {
                    continue;
                };
                let values = &x[at * c..][..c];
                acc += match conv.depthwise {
                    true => i64::from(values[channel]) * i64::from(conv.weights[tap * c + channel]),
                    false => dot(values, |ci| {
                        conv.weights[packed.index(channel, tap * c + ci)]
                    }),
                };
            }
            let t = acc as f32 * conv.multipliers[channel];
            *out = round_to_code(t, 0, i32::from(conv.lo), i32::from(conv.hi)) as i16;
        }
    }
    Ok(())
}

fn dot(values: &[i16], weight: impl Fn(usize) -> i8) -> i64 {
    values
        .iter()
        .enumerate()
        .map(|(i, &v)| i64::from(v) * i64::from(weight(i)))
        .sum()
}

/// Index of the input pixel under a tap, `None` in the padding (which is code 0 and adds nothing).
fn input_pixel(conv: &ConvI16<'_>, oy: usize, ox: usize, tap: usize) -> Option<usize> {
    let w = &conv.window;
    let (ky, kx) = (tap / w.kernel[1] as usize, tap % w.kernel[1] as usize);
    let at = |o: usize, k: usize, axis: usize| {
        (o * w.stride[axis] as usize + k * w.dilation[axis] as usize)
            .checked_sub(w.pad[axis] as usize)
    };
    let (iy, ix) = (at(oy, ky, 0)?, at(ox, kx, 1)?);
    (iy < conv.input[0] && ix < conv.input[1]).then_some(iy * conv.input[1] + ix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_and_depthwise() {
        let mut conv = ConvI16 {
            window: Window::POINT,
            input: [1, 2, 2],
            output: [1, 2, 2],
            weights: &[1, 2, 0, 0, -1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            bias: &[10, 0],
            multipliers: &[1.0, 0.5],
            lo: -32767,
            hi: 32767,
            depthwise: false,
        };
        let mut y = [0i16; 4];
        conv_i16(&conv, &[100, 200, -300, 30000], 0, &mut y).unwrap();
        assert_eq!(y, [510, 50, 32767, 15150]);
        conv.depthwise = true;
        conv_i16(&conv, &[100, 200, -300, 30000], 1, &mut y[..2]).unwrap();
        assert_eq!(y[..2], [-290, 30000]);
        assert!(conv_i16(&conv, &[1], 0, &mut y).is_err());
    }
}
