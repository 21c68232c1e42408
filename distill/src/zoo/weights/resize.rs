//! Resizing of position tables.

/// Resizes squares of side `from` to side `to` with half-pixel centres, without anti-aliasing and with the
/// border repeated: PyTorch's `interpolate(mode="bicubic", align_corners=False)`.
pub(super) fn bicubic(squares: &[f32], from: usize, to: usize) -> Vec<f32> {
    let taps = taps(from, to);
    let along = |taps: &Taps, at: &dyn Fn(usize) -> f32| -> f32 {
        taps.iter().map(|&(i, weight)| weight * at(i)).sum()
    };
    let mut out = Vec::with_capacity(squares.len() / (from * from) * to * to);
    for square in squares.chunks(from * from) {
        for y in &taps {
            for x in &taps {
                out.push(along(y, &|row| {
                    along(x, &|column| square[row * from + column])
                }));
            }
        }
    }
    out
}

/// Four positions and their weights.
type Taps = [(usize, f32); 4];

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let step = from as f32 / to as f32;
    let tap = |i: usize| {
        let position = (i as f32 + 0.5) * step - 0.5;
        let first = position.floor();
        std::array::from_fn(|k| {
            let at = first + k as f32 - 1.0;
            (
                at.clamp(0.0, (from - 1) as f32) as usize,
                cubic(position - at),
            )
        })
    };
    (0..to).map(tap).collect()
}

/// Keys' kernel with a = −0.75, PyTorch's choice.
fn cubic(distance: f32) -> f32 {
    const A: f32 = -0.75;
    let d = distance.abs();
    match d {
        d if d <= 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
        d if d < 2.0 => ((d - 5.0) * d + 8.0) * d * A - 4.0 * A,
        _ => 0.0,
    }
}
