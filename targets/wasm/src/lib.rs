//! The runtime as a WebAssembly module: no imports, no allocator. `selftest.mjs` is a user of it.
//!
//! A page reserves memory for the file, writes it there and opens it; then it writes inputs, runs and reads
//! outputs, at the addresses that the module gives. One artifact is open at a time.

#![no_std]

use core::arch::wasm32;

use ampoule_runtime::{Artifact, Session};

/// Bytes of a page of memory.
const PAGE: usize = 64 << 10;

static mut SESSION: Option<Session<'static, 'static>> = None;

/// The open session.
fn session() -> Option<&'static mut Session<'static, 'static>> {
    // SAFETY: the module has one thread, and no export calls another while it holds the session.
    let session = unsafe { &mut *(&raw mut SESSION) };
    session.as_mut()
}

/// New memory, zeroed and aligned to pages; traps when there is none.
fn pages(bytes: usize) -> *mut u8 {
    let page = wasm32::memory_grow::<0>(bytes.div_ceil(PAGE));
    if page == usize::MAX {
        wasm32::unreachable();
    }
    (page * PAGE) as *mut u8
}

/// Reserves so many bytes, for good.
#[unsafe(no_mangle)]
pub extern "C" fn reserve(bytes: usize) -> *mut u8 {
    pages(bytes)
}

/// Opens the artifact in `bytes` bytes of reserved memory, which stay as they are from now on. 0, or 1 where it
/// is refused.
///
/// # Safety
///
/// [`reserve`] gave the memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(file: *const u8, bytes: usize) -> i32 {
    // SAFETY: as the caller; memory is reserved for good.
    let file = unsafe { core::slice::from_raw_parts(file, bytes) };
    let Ok(artifact) = Artifact::verify(file) else {
        return 1;
    };
    let banks = (0..artifact.banks()).map(|bank| {
        let bytes = artifact.bank_bytes(bank);
        // SAFETY: the memory is new, and nobody else's.
        unsafe { core::slice::from_raw_parts_mut(pages(bytes), bytes) }
    });
    let opened = Session::new(artifact, banks).ok();
    let refused = opened.is_none();
    // SAFETY: the module has one thread, and nothing holds the session.
    unsafe { SESSION = opened };
    i32::from(refused)
}

/// Runs the golden vectors: how many agree, or −1 where one differs.
#[unsafe(no_mangle)]
pub extern "C" fn self_test() -> i32 {
    let tested = session().and_then(|s| s.self_test().ok());
    tested.map_or(-1, |vectors| vectors as i32)
}

/// Runs the network on the inputs written before: 0, or 1 where that fails.
#[unsafe(no_mangle)]
pub extern "C" fn run() -> i32 {
    let done = session().is_some_and(|s| s.run().is_ok());
    i32::from(!done)
}

/// The address of input `i`; null where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn input(i: usize) -> *mut u8 {
    let bytes = session().and_then(|s| s.input_bytes(i).ok());
    bytes.map_or(core::ptr::null_mut(), |bytes| bytes.as_mut_ptr())
}

/// Bytes of input `i`.
#[unsafe(no_mangle)]
pub extern "C" fn input_bytes(i: usize) -> usize {
    let bytes = session().and_then(|s| s.input_bytes(i).ok());
    bytes.map_or(0, |bytes| bytes.len())
}

/// The address of output `i`; null where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn output(i: usize) -> *const u8 {
    let bytes = session().and_then(|s| s.output_bytes(i).ok());
    bytes.map_or(core::ptr::null(), |bytes| bytes.as_ptr())
}

/// Bytes of output `i`.
#[unsafe(no_mangle)]
pub extern "C" fn output_bytes(i: usize) -> usize {
    let bytes = session().and_then(|s| s.output_bytes(i).ok());
    bytes.map_or(0, |bytes| bytes.len())
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
