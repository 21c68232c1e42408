//! Operations that leave pixels where they are: Pillow's `ImageOps` and `ImageEnhance`.

/// Maps every value.
pub(super) fn map(pixels: &mut [u8], f: impl Fn(u8) -> u8) {
    let mut value = 0..=255;
    let table: [u8; 256] = std::array::from_fn(|_| value.next().map_or(0, &f));
    look_up(pixels, &[table; 3]);
}

/// Spreads each channel over 0 to 255.
pub(super) fn auto_contrast(pixels: &mut [u8]) {
    let tables = histograms(pixels).map(|counts| {
        let low = counts.iter().position(|&n| n > 0).unwrap_or(0);
        let high = counts.iter().rposition(|&n| n > 0).unwrap_or(0);
        std::array::from_fn(|value| {
            if high <= low {
                return value as u8;
            }
            let scale = 255.0 / (high - low) as f64;
            (value as f64 * scale + -(low as f64) * scale) as u8 // saturates
        })
    });
    look_up(pixels, &tables);
}

/// Makes each channel's histogram as flat as it gets.
pub(super) fn equalize(pixels: &mut [u8]) {
    let tables = histograms(pixels).map(|counts| {
        let last = counts.iter().rfind(|&&n| n > 0).copied().unwrap_or(0);
        let step = (counts.iter().sum::<u32>() - last) / 255;
        let mut sum = step / 2;
        std::array::from_fn(|value| {
            if step == 0 {
                return value as u8;
            }
            let level = sum / step;
            sum += counts[value];
            level.min(255) as u8
        })
    });
    look_up(pixels, &tables);
}

/// Away from grey (above 1) or towards it.
pub(super) fn saturate(pixels: &mut [u8], factor: f32) {
    for pixel in pixels.chunks_exact_mut(3) {
        let grey = luminance(pixel);
        for value in pixel {
            *value = blend(grey, *value, factor);
        }
    }
}

/// Away from the mean luminance (above 1) or towards it.
pub(super) fn contrast(pixels: &mut [u8], factor: f32) {
    let count = (pixels.len() / 3).max(1);
    let sum: u64 = pixels
        .chunks_exact(3)
        .map(|p| u64::from(luminance(p)))
        .sum();
    let mean = (sum as f64 / count as f64 + 0.5) as u8;
    map(pixels, |v| blend(mean, v, factor));
}

/// Away from black (above 1) or towards it.
pub(super) fn brighten(pixels: &mut [u8], factor: f32) {
    map(pixels, |v| blend(0, v, factor));
}

/// Away from a smoothed picture (above 1) or towards it; the border stays.
pub(super) fn sharpen(pixels: &mut [u8], [width, height]: [u32; 2], factor: f32) {
    let (width, height) = (width as usize, height as usize);
    let pitch = 3 * width;
    let source = pixels.to_vec();
    for y in 1..height.saturating_sub(1) {
        for i in y * pitch + 3..(y + 1) * pitch - 3 {
            let row = |at: usize| -> u32 {
                [at - 3, at, at + 3]
                    .iter()
                    .map(|&i| u32::from(source[i]))
                    .sum()
            };
            let sum = row(i - pitch) + row(i) + row(i + pitch) + 4 * u32::from(source[i]);
            let smooth = (2 * sum + 13) / 26; // weights of 1/13, and 5/13 in the middle
            pixels[i] = blend(smooth as u8, source[i], factor);
        }
    }
}

/// Pillow's `blend` in `f32`: `a` at 0, `b` at 1, clipped and truncated.
fn blend(a: u8, b: u8, factor: f32) -> u8 {
    (f32::from(a) + factor * (f32::from(b) - f32::from(a))) as u8
}

/// Pillow's conversion to mode `L`.
fn luminance(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
}

fn histograms(pixels: &[u8]) -> [[u32; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    for pixel in pixels.chunks_exact(3) {
        for (counts, &value) in counts.iter_mut().zip(pixel) {
            counts[usize::from(value)] += 1;
        }
    }
    counts
}

fn look_up(pixels: &mut [u8], tables: &[[u8; 256]; 3]) {
    for pixel in pixels.chunks_exact_mut(3) {
        for (value, table) in pixel.iter_mut().zip(tables) {
            *value = table[usize::from(*value)];
        }
    }
}
