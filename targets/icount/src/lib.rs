//! A QEMU plugin that counts executed guest instructions: exact, and the same in every run.
//!
//! `-plugin libicount.so[,symbols=on] -d plugin` prints `insns N` at exit, a line `roi K N` for each region
//! that the guest marked, and with `symbols=on` the instructions of the hottest symbols within the regions.
//! Marks are hints that execute as NOP: Thumb `.inst.n 0xbfe0` and `0xbff0` (HINT 14 and 15), A64 `hint #126`
//! and `#127`. Regions do not nest.
//!
//! The few calls of the plugin interface are declared here, so no header of QEMU is needed.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A translated block.
#[repr(C)]
pub struct Block(u8);
/// An instruction of it.
#[repr(C)]
pub struct Insn(u8);

type OnExec = extern "C" fn(u32, *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, f: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        b: *mut Block,
        f: OnExec,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        i: *mut Insn,
        f: OnExec,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_atexit_cb(
        id: u64,
        f: extern "C" fn(u64, *mut c_void),
        data: *mut c_void,
    );
    fn qemu_plugin_tb_n_insns(b: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(b: *const Block, index: usize) -> *mut Insn;
    fn qemu_plugin_insn_size(i: *const Insn) -> usize;
    #[cfg(feature = "v1")]
    fn qemu_plugin_insn_data(i: *const Insn) -> *const c_void;
    #[cfg(not(feature = "v1"))]
    fn qemu_plugin_insn_data(i: *const Insn, to: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_insn_symbol(i: *const Insn) -> *const c_char;
    fn qemu_plugin_outs(text: *const c_char);
}

/// Version of the plugin interface.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = if cfg!(feature = "v1") { 1 } else { 4 };

/// Consecutive instructions that execute together.
struct Run {
    length: u64,
    symbol: String,
    /// Executions inside a region.
    hits: AtomicU64,
}

static RUNS: Mutex<Vec<&'static Run>> = Mutex::new(Vec::new());
static REGIONS: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static SYMBOLS: AtomicBool = AtomicBool::new(false);
static TOTAL: AtomicU64 = AtomicU64::new(0);
static BEGIN: AtomicU64 = AtomicU64::new(0);
static INSIDE: AtomicBool = AtomicBool::new(false);

/// Called by QEMU when it loads the plugin.
///
/// # Safety
///
/// `argv` holds `argc` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    for i in 0..argc as usize {
        // SAFETY: the caller's promise.
        let argument = unsafe { CStr::from_ptr(*argv.add(i)) };
        match argument.to_bytes() {
            b"symbols=on" => SYMBOLS.store(true, Relaxed),
            _ => return -1,
        }
    }
    // SAFETY: both functions have the types that the interface asks for, and live as long as the process.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, finished, null_mut());
    }
    0
}

extern "C" fn translated(_: u64, block: *mut Block) {
    // SAFETY: QEMU keeps the block and its instructions alive during this call; runs are leaked, so the data
    // that callbacks get lives as long as the process.
    unsafe {
        let count = qemu_plugin_tb_n_insns(block);
        let insn = |k| qemu_plugin_tb_get_insn(block, k);
        if (0..count).all(|k| mark(insn(k)).is_none()) {
            qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, run(count as u64, insn(0)));
            return;
        }
        // A block with a mark is counted one instruction at a time; marks themselves are not counted.
        for k in 0..count {
            match mark(insn(k)) {
                Some(on_mark) => {
                    qemu_plugin_register_vcpu_insn_exec_cb(insn(k), on_mark, 0, null_mut())
                }
                None => {
                    qemu_plugin_register_vcpu_insn_exec_cb(insn(k), executed, 0, run(1, insn(k)))
                }
            }
        }
    }
}

/// What to do at an instruction that is a mark.
unsafe fn mark(insn: *const Insn) -> Option<OnExec> {
    // SAFETY: the instruction is alive during translation, and its data are `size` bytes.
    let word = unsafe {
        let size = qemu_plugin_insn_size(insn).min(4);
        let mut bytes = [0u8; 4];
        #[cfg(feature = "v1")]
        std::ptr::copy_nonoverlapping(qemu_plugin_insn_data(insn).cast(), bytes.as_mut_ptr(), size);
        #[cfg(not(feature = "v1"))]
        qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), size);
        u32::from_le_bytes(bytes)
    };
    match word {
        0xbfe0 | 0xd503_2fdf => Some(begin),
        0xbff0 | 0xd503_2fff => Some(end),
        _ => None,
    }
}

unsafe fn run(length: u64, first: *const Insn) -> *mut c_void {
    let mut symbol = String::new();
    if SYMBOLS.load(Relaxed) {
        // SAFETY: the instruction is alive during translation; a name is a C string.
        let name = unsafe { qemu_plugin_insn_symbol(first) };
        if !name.is_null() {
            // SAFETY: as above.
            symbol = unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned();
        }
    }
    let hits = AtomicU64::new(0);
    let run: &'static Run = Box::leak(Box::new(Run {
        length,
        symbol,
        hits,
    }));
    RUNS.lock().expect("no thread panics").push(run);
    std::ptr::from_ref(run).cast_mut().cast()
}

extern "C" fn executed(_: u32, run: *mut c_void) {
    // SAFETY: the data are a leaked `Run`.
    let run = unsafe { &*run.cast::<Run>() };
    TOTAL.fetch_add(run.length, Relaxed);
    if INSIDE.load(Relaxed) {
        run.hits.fetch_add(1, Relaxed);
    }
}

extern "C" fn begin(_: u32, _: *mut c_void) {
    BEGIN.store(TOTAL.load(Relaxed), Relaxed);
    INSIDE.store(true, Relaxed);
}

extern "C" fn end(_: u32, _: *mut c_void) {
    INSIDE.store(false, Relaxed);
    let count = TOTAL.load(Relaxed) - BEGIN.load(Relaxed);
    REGIONS.lock().expect("no thread panics").push(count);
}

extern "C" fn finished(_: u64, _: *mut c_void) {
    let mut text = format!("insns {}\n", TOTAL.load(Relaxed));
    for (k, n) in REGIONS.lock().expect("no thread panics").iter().enumerate() {
        text += &format!("roi {k} {n}\n");
    }
    if SYMBOLS.load(Relaxed) {
        let mut by_symbol: HashMap<&str, u64> = HashMap::new();
        for run in RUNS.lock().expect("no thread panics").iter() {
            *by_symbol.entry(&run.symbol).or_default() += run.length * run.hits.load(Relaxed);
        }
        let mut hottest: Vec<_> = by_symbol.into_iter().collect();
        hottest.sort_by_key(|&(symbol, n)| (std::cmp::Reverse(n), symbol));
        for (symbol, n) in hottest.into_iter().take(16) {
            text += &format!("symbol {n} {symbol}\n");
        }
    }
    let text = CString::new(text).expect("symbols are C strings");
    // SAFETY: a C string that lives during the call.
    unsafe { qemu_plugin_outs(text.as_ptr()) };
}
