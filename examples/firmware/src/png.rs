//! The display as a PNG file, uncompressed: small enough for a device.

use embedded_graphics::prelude::RgbColor;

use crate::display::{Display, SIZE};

/// Where bytes go; `false` stops.
pub type Write<'w> = &'w mut dyn FnMut(&[u8]) -> bool;

/// Bytes of a row: a filter byte, and three per pixel.
const ROW: usize = 1 + 3 * SIZE[0];

/// Writes the file; `false` when a write failed.
pub fn encode(display: &Display, write: Write<'_>) -> bool {
    let [width, height] = SIZE.map(|n| (n as u32).to_be_bytes());
    let mut header = [0; 13];
    header[..4].copy_from_slice(&width);
    header[4..8].copy_from_slice(&height);
    // Eight bits of red, green and blue.
    header[8..10].copy_from_slice(&[8, 2]);
    write(b"\x89PNG\r\n\x1a\n")
        && chunk(write, b"IHDR", &[&header])
        && data(display, write)
        && chunk(write, b"IEND", &[])
}

/// The pixels: one chunk a row, each a stored block of the zlib stream.
fn data(display: &Display, write: Write<'_>) -> bool {
    // Adler-32.
    let (mut a, mut b) = (1u32, 0u32);
    for y in 0..SIZE[1] {
        let mut row = [0; ROW];
        for (to, colour) in row[1..].chunks_exact_mut(3).zip(display.row(y)) {
            let (r, g, b) = (colour.r(), colour.g(), colour.b());
            to.copy_from_slice(&[r << 3 | r >> 2, g << 2 | g >> 4, b << 3 | b >> 2]);
        }
        for &byte in &row {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        let last = y + 1 == SIZE[1];
        let [low, high] = (ROW as u16).to_le_bytes();
        let block = [last as u8, low, high, !low, !high];
        let start: &[u8] = if y == 0 { &[0x78, 0x01] } else { &[] };
        let sum = (b << 16 | a).to_be_bytes();
        let end: &[u8] = if last { &sum } else { &[] };
        if !chunk(write, b"IDAT", &[start, &block, &row, end]) {
            return false;
        }
    }
    true
}

fn chunk(write: Write<'_>, kind: &[u8; 4], parts: &[&[u8]]) -> bool {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut crc = update(u32::MAX, kind);
    let mut good = write(&(len as u32).to_be_bytes()) && write(kind);
    for part in parts {
        crc = update(crc, part);
        good = good && write(part);
    }
    good && write(&(!crc).to_be_bytes())
}

/// CRC-32, bit by bit.
fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| {
            c >> 1 ^ (0xEDB8_8320 * (c & 1))
        })
    })
}
