//! PNG files of a few pixels, and of none.

/// Colour types of the format.
#[derive(Clone, Copy)]
pub enum Color {
    Gray = 0,
    Rgb = 2,
}

/// A picture whose rows are `row`, encoded without compression.
pub fn png(width: u32, height: u32, depth: u8, color: Color, row: &[u8]) -> Vec<u8> {
    let rows: Vec<u8> = (0..height)
        .flat_map(|_| std::iter::once(0).chain(row.iter().copied()))
        .collect();
    file(width, height, depth, color, &rows)
}

/// A picture of one colour; deeper samples repeat its bytes.
pub fn plain(width: u32, height: u32, depth: u8, color: Color, value: u8) -> Vec<u8> {
    let channels = if matches!(color, Color::Rgb) { 3 } else { 1 };
    let row = vec![value; width as usize * channels * usize::from(depth / 8)];
    png(width, height, depth, color, &row)
}

/// A header with next to nothing behind it.
pub fn bomb(width: u32, height: u32) -> Vec<u8> {
    file(width, height, 8, Color::Rgb, &[0; 64])
}

fn file(width: u32, height: u32, depth: u8, color: Color, data: &[u8]) -> Vec<u8> {
    let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [&sizes[..], &[depth, color as u8, 0, 0, 0]].concat();
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [
        (b"IHDR", header),
        (b"IDAT", stored(data)),
        (b"IEND", Vec::new()),
    ] {
        let named = [&kind[..], &content].concat();
        out.extend((content.len() as u32).to_be_bytes());
        out.extend(&named);
        out.extend(crc32(&named).to_be_bytes());
    }
    out
}

/// A zlib stream of stored blocks.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = data.chunks(u16::MAX.into()).collect::<Vec<_>>();
    for (i, block) in blocks.iter().enumerate() {
        let len = block.len() as u16;
        out.push(u8::from(i + 1 == blocks.len()));
        out.extend([len.to_le_bytes(), (!len).to_le_bytes()].concat());
        out.extend(*block);
    }
    out.extend(adler32(data).to_be_bytes());
    out
}

fn adler32(data: &[u8]) -> u32 {
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), &x| {
        let a = (a + u32::from(x)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| {
            c >> 1 ^ (0xedb8_8320 & (c & 1).wrapping_neg())
        })
    })
}
