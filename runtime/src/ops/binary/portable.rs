//! The loops over rows, generic in the element and the operator.

use super::Broadcast;
use crate::isa::Capability;
use crate::ops::vectorize::{Loop, run};

/// `y = f(a, b)` over all rows of a broadcast whose lengths were checked; `y` holds the first operand
/// where `a` is `None`.
pub(super) fn zip<T: Copy>(
    cap: Capability,
    layout: &Broadcast,
    (a, b): (Option<&[T]>, &[T]),
    y: &mut [T],
    f: impl Fn(T, T) -> T,
) {
    match a {
        Some(a) => run(cap, Zip { layout, a, b, y, f }),
        None => run(cap, ZipInPlace { layout, b, y, f }),
    }
}

struct Zip<'a, T, F> {
    layout: &'a Broadcast,
    a: &'a [T],
    b: &'a [T],
    y: &'a mut [T],
    f: F,
}

impl<T: Copy, F: Fn(T, T) -> T> Loop for Zip<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Zip { layout, a, b, y, f } = self;
        let n = layout.row_len();
        let repeats = layout.repeats();
        for row in layout.rows() {
            let y = &mut y[row.y..row.y + n];
            match repeats {
                (false, false) => {
                    let pairs = a[row.a..row.a + n].iter().zip(&b[row.b..row.b + n]);
                    for (y, (&a, &b)) in y.iter_mut().zip(pairs) {
                        *y = f(a, b);
                    }
                }
                (false, true) => {
                    let b = b[row.b];
                    for (y, &a) in y.iter_mut().zip(&a[row.a..row.a + n]) {
                        *y = f(a, b);
                    }
                }
                (true, false) => {
                    let a = a[row.a];
                    for (y, &b) in y.iter_mut().zip(&b[row.b..row.b + n]) {
                        *y = f(a, b);
                    }
                }
                (true, true) => y.fill(f(a[row.a], b[row.b])),
            }
        }
    }
}

struct ZipInPlace<'a, T, F> {
    layout: &'a Broadcast,
    b: &'a [T],
    y: &'a mut [T],
    f: F,
}

impl<T: Copy, F: Fn(T, T) -> T> Loop for ZipInPlace<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let ZipInPlace { layout, b, y, f } = self;
        let n = layout.row_len();
        let (_, b_repeats) = layout.repeats();
        for row in layout.rows() {
            let y = &mut y[row.y..row.y + n];
            if b_repeats {
                let b = b[row.b];
                for y in y {
                    *y = f(*y, b);
                }
            } else {
                for (y, &b) in y.iter_mut().zip(&b[row.b..row.b + n]) {
                    *y = f(*y, b);
                }
            }
        }
    }
}
