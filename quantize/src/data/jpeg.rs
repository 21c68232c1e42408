//! Noticing a JPEG that ends early: the decoder fills what is missing with grey and reports success.

/// Whether the bytes are a JPEG without an end-of-image marker after its first scan.
pub(super) fn ends_early(bytes: &[u8]) -> bool {
    const START: [u8; 2] = [0xff, 0xd8];
    const END: [u8; 2] = [0xff, 0xd9];
    if !bytes.starts_with(&START) {
        return false;
    }
    match scan_start(bytes) {
        // Scan data never holds the marker, because a 0 follows each of its 0xff bytes.
        Some(scan) => !bytes[scan..].windows(2).any(|pair| pair == END),
        None => true,
    }
}

/// Where the first scan's segment begins. Segments before it, which may hold a thumbnail with its own
/// end marker, are skipped by their length.
fn scan_start(bytes: &[u8]) -> Option<usize> {
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    loop {
        while *bytes.get(at)? != 0xff {
            at += 1; // stray bytes between segments
        }
        match *bytes.get(at + 1)? {
            START_OF_SCAN => return Some(at),
            0xff => at += 1,                      // fill byte
            0x00 | 0x01 | 0xd0..=0xd9 => at += 2, // no segment
            _ => {
                let length = [*bytes.get(at + 2)?, *bytes.get(at + 3)?];
                at += 2 + usize::from(u16::from_be_bytes(length)).max(2);
            }
        }
    }
}
