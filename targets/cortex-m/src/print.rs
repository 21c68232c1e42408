//! Lines `key value` through semihosting, without `core::fmt`.

use semihosting::io::{Write, stdout};

/// Prints `key value`.
pub fn line(key: &str, value: &str) {
    let Ok(mut out) = stdout() else { return };
    for part in [key, " ", value, "\n"] {
        let _ = out.write_all(part.as_bytes());
    }
}

/// Prints `key number`.
pub fn number(key: &str, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line(key, core::str::from_utf8(&digits[at..]).unwrap_or("?"));
}

/// Prints `key` and up to 32 bytes in hexadecimal.
pub fn hex(key: &str, bytes: &[u8]) {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[byte >> 4, byte & 15].map(|n| b"0123456789abcdef"[usize::from(n)]));
    }
    let used = 2 * bytes.len().min(32);
    line(key, core::str::from_utf8(&text[..used]).unwrap_or("?"));
}
