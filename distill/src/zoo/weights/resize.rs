//! Resizing of position tables.

/// Resizes squares of side `from` to side `to`, bicubically and anti-aliased, as timm does: PyTorch's
/// `interpolate(mode="bicubic", antialias=True)`, which is Pillow's filter.
pub(super) fn bicubic(squares: &[f32], from: usize, to: usize) -> Vec<f32> {
    let width = (from as f32 / to as f32).max(1.0);
    resize(squares, from, to, |distance| cubic(distance / width))
}

/// Resizes squares of side `from` to side `to` bilinearly, without anti-aliasing, as MOAT's authors do:
/// PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
pub(super) fn bilinear(squares: &[f32], from: usize, to: usize) -> Vec<f32> {
    resize(squares, from, to, |distance| {
        (1.0 - distance.abs()).max(0.0)
    })
}

fn resize(squares: &[f32], from: usize, to: usize, filter: impl Fn(f32) -> f32) -> Vec<f32> {
    let taps = taps(from, to, filter);
    let mut out = Vec::with_capacity(squares.len() / (from * from) * to * to);
    for square in squares.chunks(from * from) {
        for rows in &taps {
            for columns in &taps {
                let along = |row: usize| weighted(columns, |column| square[row * from + column]);
                out.push(weighted(rows, along));
            }
        }
    }
    out
}

/// Positions that make up one of the result, and their weights.
type Taps = Vec<(usize, f32)>;

fn weighted(taps: &Taps, at: impl Fn(usize) -> f32) -> f32 {
    taps.iter().map(|&(i, weight)| weight * at(i)).sum()
}

/// The taps of every position, with pixels at half-integers and the filter cut at the border.
fn taps(from: usize, to: usize, filter: impl Fn(f32) -> f32) -> Vec<Taps> {
    let step = from as f32 / to as f32;
    let tap = |i: usize| {
        let centre = (i as f32 + 0.5) * step - 0.5;
        let weights = (0..from).map(|j| (j, filter(j as f32 - centre)));
        let weights: Taps = weights.filter(|&(_, w)| w != 0.0).collect();
        let sum: f32 = weights.iter().map(|&(_, w)| w).sum();
        weights.into_iter().map(|(j, w)| (j, w / sum)).collect()
    };
    (0..to).map(tap).collect()
}

/// Keys' kernel with a = −0.5.
fn cubic(distance: f32) -> f32 {
    const A: f32 = -0.5;
    let d = distance.abs();
    match d {
        d if d <= 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
        d if d < 2.0 => ((d - 5.0) * d + 8.0) * d * A - 4.0 * A,
        _ => 0.0,
    }
}
