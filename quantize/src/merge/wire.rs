//! The wire format of protobuf, as far as replacing fields of a message takes it.

use std::ops::Range;

/// A field of a message: its number, the bytes of all of it, and the content of one with a length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub number: u64,
    pub whole: Range<usize>,
    pub content: Option<Range<usize>>,
}

/// The fields of the message in `bytes[of]`; `None` when it is none.
pub(super) fn fields(bytes: &[u8], of: Range<usize>) -> Option<Vec<Field>> {
    let message = bytes.get(..of.end)?;
    let (mut at, mut out) = (of.start, Vec::new());
    while at < of.end {
        let start = at;
        let key = varint(message, &mut at)?;
        let content = match key & 7 {
            0 => varint(message, &mut at).map(|_| None)?,
            1 => skip(message, &mut at, 8).map(|_| None)?,
            2 => {
                let length = usize::try_from(varint(message, &mut at)?).ok()?;
                Some(skip(message, &mut at, length)?)
            }
            5 => skip(message, &mut at, 4).map(|_| None)?,
            _ => return None,
        };
        out.push(Field {
            number: key >> 3,
            whole: start..at,
            content,
        });
    }
    Some(out)
}

/// Appends a field with a length.
pub(super) fn push(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    for mut value in [number << 3 | 2, content.len() as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend(content);
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn skip(bytes: &[u8], at: &mut usize, length: usize) -> Option<Range<usize>> {
    let end = at.checked_add(length).filter(|&e| e <= bytes.len())?;
    Some(std::mem::replace(at, end)..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_damage_is_refused() {
        let mut bytes = vec![0x08, 0x96, 0x01];
        push(&mut bytes, 300, b"ab");
        bytes.extend([0x1d, 1, 2, 3, 4]);
        let found = fields(&bytes, 0..bytes.len()).unwrap();
        let numbers: Vec<_> = found.iter().map(|f| f.number).collect();
        assert_eq!(numbers, [1, 300, 3]);
        assert_eq!(&bytes[found[1].content.clone().unwrap()], b"ab");
        assert_eq!(found[2].whole.end, bytes.len());
        for end in [1, 2, 4, 7, bytes.len() - 1] {
            assert_eq!(fields(&bytes, 0..end), None, "{end}");
        }
        assert_eq!(fields(&[0xff; 11], 0..11), None);
        assert_eq!(fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], 0..6), None);
    }
}
