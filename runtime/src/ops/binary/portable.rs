//! The loops over rows, generic in the element and the operator.

use super::Broadcast;
use crate::ops::vectorize::Loop;

/// `y = f(a, b)` over all rows of a broadcast whose lengths were checked.
pub(super) struct Zip<'a, T, F> {
    pub layout: &'a Broadcast,
    pub a: &'a [T],
    pub b: &'a [T],
    pub y: &'a mut [T],
    pub f: F,
}

impl<T: Copy, F: Fn(T, T) -> T> Loop for Zip<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Zip { layout, a, b, y, f } = self;
        let n = layout.row_len();
        let repeats = layout.repeats();
        layout.for_each_row(|row| {
            let y = &mut y[row.y..row.y + n];
            match repeats {
                (false, false) => {
                    let pairs = a[row.a..row.a + n].iter().zip(&b[row.b..row.b + n]);
                    y.iter_mut()
                        .zip(pairs)
                        .for_each(|(y, (&a, &b))| *y = f(a, b));
                }
                (false, true) => {
                    let b = b[row.b];
                    y.iter_mut()
                        .zip(&a[row.a..row.a + n])
                        .for_each(|(y, &a)| *y = f(a, b));
                }
                (true, false) => {
                    let a = a[row.a];
                    y.iter_mut()
                        .zip(&b[row.b..row.b + n])
                        .for_each(|(y, &b)| *y = f(a, b));
                }
                (true, true) => y.fill(f(a[row.a], b[row.b])),
            }
        });
    }
}

/// `y = f(y, b)` over all rows of a broadcast whose lengths were checked.
pub(super) struct ZipInPlace<'a, T, F> {
    pub layout: &'a Broadcast,
    pub y: &'a mut [T],
    pub b: &'a [T],
    pub f: F,
}

impl<T: Copy, F: Fn(T, T) -> T> Loop for ZipInPlace<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let ZipInPlace { layout, y, b, f } = self;
        let n = layout.row_len();
        let (_, b_repeats) = layout.repeats();
        layout.for_each_row(|row| {
            let y = &mut y[row.y..row.y + n];
            if b_repeats {
                let b = b[row.b];
                y.iter_mut().for_each(|y| *y = f(*y, b));
            } else {
                y.iter_mut()
                    .zip(&b[row.b..row.b + n])
                    .for_each(|(y, &b)| *y = f(*y, b));
            }
        });
    }
}
