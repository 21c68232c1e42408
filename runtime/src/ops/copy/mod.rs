//! Strided data movement: one operator for transpose, slice, concatenate, broadcast and reshape.
//!
//! Contract: for every index `i` of `dims`, `y[y_start + Σ iⱼ·y_stride[j]] = x[x_start + Σ iⱼ·x_stride[j]]`,
//! in elements. Bytes of `y` that no index reaches keep their content.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::tensor::MAX_RANK;

/// Which elements go where. Unused dimensions have size 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strided {
    /// Size per dimension.
    pub dims: [u32; MAX_RANK],
    /// First input element.
    pub x_start: u32,
    /// Input stride per dimension, in elements; 0 repeats.
    pub x_strides: [i32; MAX_RANK],
    /// First output element.
    pub y_start: u32,
    /// Output stride per dimension, in elements.
    pub y_strides: [i32; MAX_RANK],
}

impl Strided {
    /// Whether every element lies inside `x_len` and `y_len` elements.
    pub fn fits(&self, x_len: usize, y_len: usize) -> bool {
        within(&self.dims, self.x_start, &self.x_strides, x_len)
            && within(&self.dims, self.y_start, &self.y_strides, y_len)
    }

    /// Whether it moves adjacent elements from the start of `x` to the start of `y`.
    pub fn is_identity(&self) -> bool {
        let mut inside = 1i64;
        let dims = self.dims.iter().zip(&self.x_strides).zip(&self.y_strides);
        self.x_start == 0
            && self.y_start == 0
            && dims.rev().all(|((&n, &xs), &ys)| {
                let dense = n == 1 || (i64::from(xs) == inside && i64::from(ys) == inside);
                inside = inside.saturating_mul(n.into());
                dense
            })
    }

    /// Number of elements moved.
    pub fn elements(&self) -> u64 {
        self.dims
            .iter()
            .fold(1u64, |n, &d| n.saturating_mul(u64::from(d)))
    }
}

/// Moves elements of `size` bytes from `x` to `y`.
pub fn copy(map: &Strided, size: usize, x: &[u8], y: &mut [u8]) -> Result<(), Error> {
    if size == 0 || !map.fits(x.len() / size, y.len() / size) {
        return Err(Error::Length {
            expected: y.len(),
            got: x.len(),
        });
    }
    let map = merged(map);
    let [.., rows, inner] = map.dims;
    let [.., x_row, xs] = map.x_strides.map(|s| s as isize);
    let [.., y_row, ys] = map.y_strides.map(|s| s as isize);
    // Every element twice: channels in front of a depthwise convolution that makes two of each.
    let twice = size == 1 && inner == 2 && [x_row, xs, y_row, ys] == [1, 0, 2, 1];
    let outer = &map.dims[..MAX_RANK - 1 - usize::from(twice)];
    let mut index = [0u32; MAX_RANK - 1];
    let (mut xi, mut yi) = (map.x_start as isize, map.y_start as isize);
    loop {
        if twice {
            double(&x[xi as usize..], &mut y[yi as usize..], rows as usize);
        } else {
            run(size, x, xi, xs, y, yi, ys, inner as usize);
        }
        // Odometer over the outer dimensions, last fastest.
        let mut d = outer.len();
        loop {
            if d == 0 {
                return Ok(());
            }
            d -= 1;
            index[d] += 1;
            xi += map.x_strides[d] as isize;
            yi += map.y_strides[d] as isize;
            if index[d] < outer[d] {
                break;
            }
            xi -= map.x_strides[d] as isize * outer[d] as isize;
            yi -= map.y_strides[d] as isize * outer[d] as isize;
            index[d] = 0;
        }
    }
}

/// Writes each of `n` bytes twice.
fn double(x: &[u8], y: &mut [u8], n: usize) {
    let pairs = y[..2 * n].as_chunks_mut().0;
    for (pair, &x) in pairs.iter_mut().zip(&x[..n]) {
        *pair = [x; 2];
    }
}

/// One innermost run of `n` elements.
fn run(size: usize, x: &[u8], xi: isize, xs: isize, y: &mut [u8], yi: isize, ys: isize, n: usize) {
    let (xb, yb) = (xi as usize * size, yi as usize * size);
    if xs == 1 && ys == 1 {
        y[yb..yb + n * size].copy_from_slice(&x[xb..xb + n * size]);
        return;
    }
    match size {
        1 => run_elements::<1>(x, xi, xs, y, yi, ys, n),
        2 => run_elements::<2>(x, xi, xs, y, yi, ys, n),
        _ => run_elements::<4>(x, xi, xs, y, yi, ys, n),
    }
}

fn run_elements<const S: usize>(
    x: &[u8],
    xi: isize,
    xs: isize,
    y: &mut [u8],
    yi: isize,
    ys: isize,
    n: usize,
) {
    for i in 0..n as isize {
        let (a, b) = ((xi + i * xs) as usize * S, (yi + i * ys) as usize * S);
        y[b..b + S].copy_from_slice(&x[a..a + S]);
    }
}

/// Whether the smallest and largest offsets reached lie in `0..len`.
fn within(dims: &[u32; MAX_RANK], start: u32, strides: &[i32; MAX_RANK], len: usize) -> bool {
    let (mut low, mut high) = (i64::from(start), i64::from(start));
    for (&d, &s) in dims.iter().zip(strides) {
        if d == 0 {
            return false;
        }
        // Both factors are below 2³², so the product fits; the sum of six of them may not.
        let Some(reach) = (i64::from(d) - 1).checked_mul(i64::from(s)) else {
            return false;
        };
        let (l, h) = (
            low.checked_add(reach.min(0)),
            high.checked_add(reach.max(0)),
        );
        let (Some(l), Some(h)) = (l, h) else {
            return false;
        };
        (low, high) = (l, h);
    }
    low >= 0 && high < len as i64
}

/// The same movement with adjacent dimensions merged where both sides are contiguous, right-aligned,
/// so that the innermost run is as long as it can be.
fn merged(map: &Strided) -> Strided {
    let mut out = Strided {
        dims: [1; MAX_RANK],
        x_strides: [0; MAX_RANK],
        y_strides: [0; MAX_RANK],
        ..*map
    };
    let mut slot = MAX_RANK;
    for d in (0..MAX_RANK).rev() {
        let (n, xs, ys) = (map.dims[d], map.x_strides[d], map.y_strides[d]);
        if n == 1 {
            continue;
        }
        if slot < MAX_RANK {
            let inner = i64::from(out.dims[slot]);
            let contiguous = i64::from(xs) == i64::from(out.x_strides[slot]) * inner
                && i64::from(ys) == i64::from(out.y_strides[slot]) * inner;
            if let (true, Some(dims)) = (contiguous, out.dims[slot].checked_mul(n)) {
                out.dims[slot] = dims;
                continue;
            }
        }
        slot -= 1;
        (out.dims[slot], out.x_strides[slot], out.y_strides[slot]) = (n, xs, ys);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(dims: &[u32], xs: &[i32], ys: &[i32]) -> Strided {
        let mut s = Strided {
            dims: [1; MAX_RANK],
            x_start: 0,
            x_strides: [0; MAX_RANK],
            y_start: 0,
            y_strides: [0; MAX_RANK],
        };
        let at = MAX_RANK - dims.len();
        s.dims[at..].copy_from_slice(dims);
        s.x_strides[at..].copy_from_slice(xs);
        s.y_strides[at..].copy_from_slice(ys);
        s
    }

    #[test]
    fn transposes() {
        let x: [u8; 6] = [0, 1, 2, 3, 4, 5];
        let mut y = [0u8; 6];
        copy(&strided(&[3, 2], &[1, 3], &[2, 1]), 1, &x, &mut y).unwrap();
        assert_eq!(y, [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn repeats_each_element() {
        let x: [u8; 12] = core::array::from_fn(|i| i as u8);
        for (times, rows) in [(2, 3), (2, 4), (3, 4), (1, 4)] {
            // Rows of four in the input, of which `rows` elements are repeated.
            let mut y = [99u8; 36];
            let (n, k) = (rows as i32, times as i32);
            let map = strided(&[3, rows, times], &[4, 1, 0], &[n * k, k, 1]);
            copy(&map, 1, &x, &mut y).unwrap();
            for (i, &y) in y.iter().enumerate() {
                let (row, at) = (
                    i / (rows * times) as usize,
                    i / times as usize % rows as usize,
                );
                assert_eq!(y, if row < 3 { x[row * 4 + at] } else { 99 });
            }
        }
    }

    #[test]
    fn reverses_broadcasts_and_merges() {
        let x: [u8; 4] = [1, 2, 3, 4];
        let mut y = [0u8; 4];
        copy(
            &Strided {
                x_start: 3,
                ..strided(&[4], &[-1], &[1])
            },
            1,
            &x,
            &mut y,
        )
        .unwrap();
        assert_eq!(y, [4, 3, 2, 1]);
        let mut y = [0u8; 8];
        copy(&strided(&[2, 4], &[0, 1], &[4, 1]), 1, &x, &mut y).unwrap();
        assert_eq!(y, [1, 2, 3, 4, 1, 2, 3, 4]);
        assert_eq!(
            merged(&strided(&[2, 3, 4], &[12, 4, 1], &[12, 4, 1])).dims,
            [1, 1, 1, 1, 1, 24]
        );
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(!strided(&[5], &[1], &[1]).fits(4, 5));
        assert!(!strided(&[5], &[-1], &[1]).fits(5, 5));
        assert!(!strided(&[0], &[1], &[1]).fits(5, 5));
        assert!(
            !strided(&[u32::MAX, u32::MAX], &[i32::MAX, i32::MAX], &[1, 1])
                .fits(usize::MAX >> 1, 5)
        );
    }
}
