//! What a 32-bit little-endian ELF file says about itself.

use std::path::Path;

use anyhow::{Context, Result};

/// A program.
#[derive(Debug, Default)]
pub struct Program {
    /// Bytes that occupy flash: sections that are loaded and have contents.
    pub flash: usize,
    /// Whether functions of `core::fmt` are linked.
    pub formats: bool,
}

/// Reads a program's section and symbol tables.
pub fn read(path: &Path) -> Result<Program> {
    let file = std::fs::read(path).with_context(|| path.display().to_string())?;
    parse(&file).with_context(|| format!("{} is no 32-bit ELF file", path.display()))
}

fn parse(file: &[u8]) -> Option<Program> {
    const ALLOCATED: usize = 2;
    const SYMBOLS: usize = 2;
    const NO_BITS: usize = 8;
    const SYMBOL: usize = 16;
    let number = |at: usize, len: usize| {
        let bytes = file.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)))
    };
    (file.get(..6)? == b"\x7fELF\x01\x01").then_some(())?;
    let (table, size, count) = (number(32, 4)?, number(46, 2)?, number(48, 2)?);
    let field = |section: usize, at: usize| number(table + section * size + at, 4);
    let mut program = Program::default();
    for i in 0..count {
        let (kind, flags, start, len) = (field(i, 4)?, field(i, 8)?, field(i, 16)?, field(i, 20)?);
        if flags & ALLOCATED != 0 && kind != NO_BITS {
            program.flash += len;
        }
        if kind == SYMBOLS {
            let names = field(field(i, 24)?, 16)?;
            for at in (start..start + len).step_by(SYMBOL) {
                let name = file.get(names + number(at, 4)?..)?;
                let name = name.split(|&b| b == 0).next()?;
                program.formats |= name.windows(8).any(|part| part == b"core3fmt");
            }
        }
    }
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two sections: symbols and their names.
    fn file(name: &str) -> Vec<u8> {
        let mut file = b"\x7fELF\x01\x01".to_vec();
        file.resize(52 + 2 * 40 + 16, 0);
        file[32] = 52;
        file[46] = 40;
        file[48] = 2;
        // Type, address in the file, length and names of the symbols; address of the names.
        let (symbols, names) = (52 + 80, 52 + 96);
        for (at, value) in [
            (56, 2),
            (68, symbols),
            (72, 16),
            (76, 1),
            (96, 3),
            (108, names),
        ] {
            file[at] = value;
        }
        file.extend(name.bytes());
        file.push(0);
        file
    }

    #[test]
    fn formatting_is_found_by_its_symbols() {
        assert!(parse(&file("_ZN4core3fmt5write17h0E")).unwrap().formats);
        assert!(
            !parse(&file("_ZN4core9panicking5panic17h0E"))
                .unwrap()
                .formats
        );
        assert!(parse(b"#!/bin/sh").is_none());
    }
}
