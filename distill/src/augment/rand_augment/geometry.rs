//! Operations that move pixels: Pillow's `Image.transform` with an affine matrix, bilinear.

use crate::augment::MEAN;

/// Pillow's `Image.rotate` by an angle in degrees, anticlockwise around the middle.
pub(super) fn rotation(degrees: f64, [width, height]: [u32; 2]) -> [f64; 6] {
    let angle = -degrees * (std::f64::consts::PI / 180.0);
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    let (x, y) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
    let right = cos * -x + sin * -y + x;
    let down = -sin * -x + cos * -y + y;
    [cos, sin, right, -sin, cos, down]
}

/// Each pixel of the result is read where the matrix says, between the four nearest pixels; outside
/// the picture is ImageNet's mean.
pub(super) fn affine(pixels: &[u8], [width, height]: [u32; 2], matrix: [f64; 6]) -> Vec<u8> {
    let [a, b, c, d, e, f] = matrix;
    let fill = MEAN.map(|v| v.round_ties_even() as u8);
    let mut out = vec![0; pixels.len()];
    let mut targets = out.chunks_exact_mut(3);
    for y in 0..height {
        let v = f64::from(y) + 0.5;
        for (x, target) in (0..width).zip(targets.by_ref()) {
            let u = f64::from(x) + 0.5;
            let (u, v) = (a * u + b * v + c, d * u + e * v + f);
            let pixel = sample(pixels, [width, height], u, v);
            target.copy_from_slice(&pixel.unwrap_or(fill));
        }
    }
    out
}

/// Pillow's `bilinear_filter32RGB`: between the centres of four pixels, truncated.
fn sample(pixels: &[u8], [width, height]: [u32; 2], x: f64, y: f64) -> Option<[u8; 3]> {
    let (wide, high) = (f64::from(width), f64::from(height));
    if !(0.0..wide).contains(&x) || !(0.0..high).contains(&y) {
        return None;
    }
    // Half a pixel from the border the one beyond it is the border's own.
    let along = |position: f64, last: u32| {
        let floor = position.floor();
        let clip = |i: i64| i.clamp(0, i64::from(last)) as usize;
        (clip(floor as i64), clip(floor as i64 + 1), position - floor)
    };
    let (left, right, dx) = along(x - 0.5, width - 1);
    let (top, bottom, dy) = along(y - 0.5, height - 1);
    let between = |a: f64, b: f64, share: f64| a + (b - a) * share;
    let row = |y: usize, c: usize| {
        let at = |x: usize| f64::from(pixels[3 * (y * width as usize + x) + c]);
        between(at(left), at(right), dx)
    };
    Some(std::array::from_fn(|c| {
        between(row(top, c), row(bottom, c), dy) as u8
    }))
}
