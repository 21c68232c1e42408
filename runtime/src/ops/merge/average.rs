//! Averages of tokens that share a place.

use super::MAX_TOKENS;
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::round_to_code;
use crate::ops::length::expect;
use crate::ops::vectorize::{Loop, run};

/// Channels whose sums are held at once.
const CHUNK: usize = 64;

/// Type of a token's values.
pub trait Token: Copy {
    /// Type of weighted sums.
    type Sum: Copy + Default;
    /// Adds `size` times the value less the zero point.
    fn add(sum: Self::Sum, value: Self, zero: i32, size: i32) -> Self::Sum;
    /// The sum over the total size, as a value.
    fn mean(sum: Self::Sum, total: f32, zero: i32) -> Self;
}

impl Token for i8 {
    type Sum = i32;

    #[inline(always)]
    fn add(sum: i32, value: i8, zero: i32, size: i32) -> i32 {
        sum.wrapping_add((i32::from(value) - zero).wrapping_mul(size))
    }

    #[inline(always)]
    fn mean(sum: i32, total: f32, zero: i32) -> i8 {
        round_to_code(sum as f32 / total, zero, -128, 127) as i8
    }
}

impl Token for i16 {
    type Sum = i32;

    #[inline(always)]
    fn add(sum: i32, value: i16, _zero: i32, size: i32) -> i32 {
        sum.wrapping_add(i32::from(value).wrapping_mul(size))
    }

    #[inline(always)]
    fn mean(sum: i32, total: f32, _zero: i32) -> i16 {
        round_to_code(sum as f32 / total, 0, -32767, 32767) as i16
    }
}

impl Token for f32 {
    type Sum = f32;

    #[inline(always)]
    fn add(sum: f32, value: f32, _zero: i32, size: i32) -> f32 {
        sum + value * size as f32
    }

    #[inline(always)]
    fn mean(sum: f32, total: f32, _zero: i32) -> f32 {
        sum / total
    }
}

/// Averages the rows of `channels` values that share a place, weighted by size:
/// `y[p] = rne(f32(Σ size · (x − z)) / f32(Σ size)) + z`, and a token alone stays as it is.
///
/// # Errors
///
/// [`Error::Length`] when lengths disagree, [`Error::IndexOutOfRange`] for a place that `y` does not
/// have, one that no token has, and a size that is not in `1..=MAX_TOKENS` on its own or in sum.
pub fn merge<T: Token>(
    cap: Capability,
    channels: usize,
    zero: i32,
    x: &[T],
    places: &[i32],
    sizes: &[i32],
    y: &mut [T],
) -> Result<(), Error> {
    expect(places.len(), sizes.len())?;
    expect(places.len() * channels, x.len())?;
    let rows = y.len() / channels.max(1);
    expect(rows * channels, y.len())?;
    check(places, rows)?;
    if let Some(&size) = sizes.iter().find(|&&s| !is_size(s)) {
        return Err(Error::IndexOutOfRange(size));
    }
    let call = Merge {
        channels,
        zero,
        x,
        places,
        sizes,
        y,
    };
    run(cap, call)
}

struct Merge<'a, T> {
    channels: usize,
    zero: i32,
    x: &'a [T],
    places: &'a [i32],
    sizes: &'a [i32],
    y: &'a mut [T],
}

impl<T: Token> Loop for Merge<'_, T> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Merge {
            channels,
            zero,
            x,
            places,
            sizes,
            y,
        } = self;
        for (place, y) in (0..).zip(y.chunks_exact_mut(channels)) {
            let first = first(places, place)?;
            let members = || (first..places.len()).filter(|&i| places[i] == place);
            if members().nth(1).is_none() {
                y.copy_from_slice(&x[first * channels..][..channels]);
                continue;
            }
            let total = members().try_fold(0, |total, i| add_size(total, sizes[i]))? as f32;
            for (start, y) in (0..).step_by(CHUNK).zip(y.chunks_mut(CHUNK)) {
                let mut sums = [T::Sum::default(); CHUNK];
                for i in members() {
                    let row = &x[i * channels + start..][..y.len()];
                    for (sum, &x) in sums.iter_mut().zip(row) {
                        *sum = T::add(*sum, x, zero, sizes[i]);
                    }
                }
                for (y, &sum) in y.iter_mut().zip(&sums) {
                    *y = T::mean(sum, total, zero);
                }
            }
        }
        Ok(())
    }
}

/// Sums the sizes of tokens that share a place.
///
/// # Errors
///
/// As [`merge`].
pub fn merge_sizes(sizes: &[i32], places: &[i32], y: &mut [i32]) -> Result<(), Error> {
    expect(places.len(), sizes.len())?;
    check(places, y.len())?;
    y.fill(0);
    for (&place, &size) in places.iter().zip(sizes) {
        let sum = &mut y[place as usize];
        *sum = add_size(*sum, size)?;
    }
    match y.iter().position(|&sum| sum == 0) {
        Some(empty) => Err(Error::IndexOutOfRange(empty as i32)),
        None => Ok(()),
    }
}

fn is_size(size: i32) -> bool {
    (1..=MAX_TOKENS as i32).contains(&size)
}

fn check(places: &[i32], rows: usize) -> Result<(), Error> {
    let inside = |&p: &i32| usize::try_from(p).is_ok_and(|p| p < rows);
    match places.iter().find(|p| !inside(p)) {
        Some(&place) => Err(Error::IndexOutOfRange(place)),
        None => Ok(()),
    }
}

#[inline(always)]
fn first(places: &[i32], place: i32) -> Result<usize, Error> {
    let found = places.iter().position(|&p| p == place);
    found.ok_or(Error::IndexOutOfRange(place))
}

#[inline(always)]
fn add_size(total: i32, size: i32) -> Result<i32, Error> {
    let sum = if is_size(size) { total + size } else { size };
    is_size(sum)
        .then_some(sum)
        .ok_or(Error::IndexOutOfRange(sum))
}
