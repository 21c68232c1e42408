//! Size of a program in flash.

use std::path::Path;

use anyhow::{Context, Result};

/// Bytes of a 32-bit little-endian ELF file that occupy flash: sections that are loaded and have contents.
pub fn flash(path: &Path) -> Result<usize> {
    let file = std::fs::read(path).with_context(|| path.display().to_string())?;
    sections(&file).with_context(|| format!("{} is no 32-bit ELF file", path.display()))
}

fn sections(file: &[u8]) -> Option<usize> {
    const ALLOCATED: usize = 2;
    const NO_BITS: usize = 8;
    let number = |at: usize, len: usize| {
        let bytes = file.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)))
    };
    (file.get(..6)? == b"\x7fELF\x01\x01").then_some(())?;
    let (table, size, count) = (number(32, 4)?, number(46, 2)?, number(48, 2)?);
    let mut sum = 0;
    for i in 0..count {
        let at = table + i * size;
        let (kind, flags) = (number(at + 4, 4)?, number(at + 8, 4)?);
        if flags & ALLOCATED != 0 && kind != NO_BITS {
            sum += number(at + 20, 4)?;
        }
    }
    Some(sum)
}
