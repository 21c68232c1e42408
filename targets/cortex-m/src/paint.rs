//! Stack that is painted, so that what was used shows.

use core::ptr::addr_of_mut;

const PAINT: u32 = 0xC5C5_C5C5;
/// Bytes below the caller's frame that stay unpainted.
const MARGIN: usize = 256;

unsafe extern "C" {
    /// End of the static variables, from the linker script of `cortex-m-rt`.
    static mut __sheap: u32;
}

/// Bytes of stack that `f` takes.
#[inline(never)]
pub fn stack_of<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let here = 0u32;
    let top = (&raw const here as usize - MARGIN) & !3;
    let bottom = addr_of_mut!(__sheap);
    let words = (top - bottom as usize) / 4;
    for i in 0..words {
        // SAFETY: `bottom..top` lies between the static variables and the frame of this function, and there
        // is no heap, so nothing else lives there.
        unsafe { bottom.add(i).write_volatile(PAINT) };
    }
    let result = call(f);
    // SAFETY: the same memory, which is initialised now.
    let untouched = (0..words).find(|&i| unsafe { bottom.add(i).read_volatile() } != PAINT);
    let used = (words - untouched.unwrap_or(words)) * 4;
    (result, used + MARGIN)
}

/// A frame of its own: one that were part of [`stack_of`]'s could reach below what stays unpainted.
#[inline(never)]
fn call<T>(f: impl FnOnce() -> T) -> T {
    f()
}
