//! Reads NumPy's array files: little-endian f32, f64, u8, i32 or i64 in C order. Integers are token ids and
//! indices, so they must be exact as f32.

use std::path::Path;

use ampoule_quantize::pipeline::to_stored;

use super::error::Failure;

/// An array of real values.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Array, Failure> {
    let bytes = std::fs::read(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&bytes).map_err(|what| Failure::Npy {
        path: path.to_owned(),
        what,
    })
}

/// At most `limit` samples, cut along the first axis, as a model stores them.
///
/// Samples have the shape of the source's input or of the stored one, with or without its batch of 1.
/// Source dimension `i` is stored dimension `layout[i]`.
pub fn samples(
    array: &Array,
    stored: &[usize],
    layout: &[usize],
    limit: usize,
) -> Result<Vec<Vec<f32>>, String> {
    let source: Vec<usize> = layout.iter().map(|&d| stored[d]).collect();
    let bare = |dims: &[usize]| {
        dims.iter()
            .copied()
            .skip_while(|&d| d == 1)
            .collect::<Vec<_>>()
    };
    if array.values.is_empty() {
        return Err("has no samples".to_owned());
    }
    let sample = bare(array.shape.get(1..).unwrap_or_default());
    let rows = array
        .values
        .chunks_exact(stored.iter().product::<usize>().max(1))
        .take(limit);
    if sample == bare(&source) {
        Ok(rows.map(|row| to_stored(row, &source, layout)).collect())
    } else if sample == bare(stored) {
        Ok(rows.map(<[f32]>::to_vec).collect())
    } else {
        Err(format!(
            "expected samples of shape {source:?} along the first axis, got an array of {:?}",
            array.shape
        ))
    }
}

/// Checks that samples are token ids which a model with `limit` of them knows.
pub fn check_ids(samples: &[Vec<f32>], limit: usize) -> Result<(), String> {
    let known = |id: f32| id.fract() == 0.0 && (0.0..limit as f32).contains(&id);
    for (number, sample) in samples.iter().enumerate() {
        if let Some(at) = sample.iter().position(|&id| !known(id)) {
            return Err(format!(
                "sample {number} has token id {} at position {at}; the model knows whole numbers from 0 to {}",
                sample[at],
                limit.saturating_sub(1)
            ));
        }
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<Array, String> {
    let (header, data) = split(bytes).ok_or("not a NumPy array file, or a truncated one")?;
    if field(header, "'fortran_order':").is_none_or(|v| !v.starts_with("False")) {
        return Err("expected C order".to_owned());
    }
    let shape = shape(header).ok_or("the header has no shape that makes sense")?;
    let kind = field(header, "'descr':")
        .and_then(|v| v.split('\'').nth(1))
        .unwrap_or("?");
    let size = match kind {
        "<f4" => 4,
        "<f8" | "<i8" => 8,
        "<i4" => 4,
        "|u1" => 1,
        other => {
            return Err(format!(
                "expected elements of type <f4, <f8, |u1, <i4 or <i8, got {other}"
            ));
        }
    };
    let count = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or("the shape overflows")?;
    if count.checked_mul(size) != Some(data.len()) {
        return Err(format!(
            "shape {shape:?} needs {count} elements of {size} bytes, got {} bytes",
            data.len()
        ));
    }
    let (words, pairs) = (data.as_chunks().0.iter(), data.as_chunks().0.iter());
    let values: Vec<f32> = match kind {
        "<f4" => words.map(|b| f32::from_le_bytes(*b)).collect(),
        "<f8" => pairs.map(|b| f64::from_le_bytes(*b) as f32).collect(),
        "<i4" => words
            .map(|b| exact(i32::from_le_bytes(*b).into()))
            .collect::<Result<_, _>>()?,
        "<i8" => pairs
            .map(|b| exact(i64::from_le_bytes(*b)))
            .collect::<Result<_, _>>()?,
        _ => data.iter().map(|&b| f32::from(b)).collect(),
    };
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return Err(format!(
            "element {at} is {}, expected finite numbers",
            values[at]
        ));
    }
    Ok(Array { shape, values })
}

/// An integer that f32 holds.
fn exact(n: i64) -> Result<f32, String> {
    if n.unsigned_abs() <= 1 << 24 {
        Ok(n as f32)
    } else {
        Err(format!("expected integers of at most 2²⁴, got {n}"))
    }
}

/// Header text and data.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (&[major, _], rest) = rest.split_first_chunk()?;
    let (len, rest) = match major {
        1 => rest
            .split_first_chunk()
            .map(|(n, rest)| (u32::from(u16::from_le_bytes(*n)), rest))?,
        _ => rest
            .split_first_chunk()
            .map(|(n, rest)| (u32::from_le_bytes(*n), rest))?,
    };
    let (header, data) = rest.split_at_checked(len as usize)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// What follows a key of the header.
fn field<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    header.split_once(key).map(|(_, value)| value.trim_start())
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let (dims, _) = field(header, "'shape':")?
        .strip_prefix('(')?
        .split_once(')')?;
    dims.split(',')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .map(|d| d.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let len = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn arrays_of_every_type() {
        let floats: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let array = parse(&file("<f4", "False", "(1, 2)", &floats)).unwrap();
        assert_eq!((array.shape, array.values), (vec![1, 2], vec![1.5, -2.0]));
        let doubles: Vec<u8> = 0.25f64.to_le_bytes().to_vec();
        assert_eq!(
            parse(&file("<f8", "False", "(1,)", &doubles))
                .unwrap()
                .values,
            [0.25]
        );
        assert_eq!(
            parse(&file("|u1", "False", "(2,)", &[7, 255]))
                .unwrap()
                .values,
            [7.0, 255.0]
        );
        assert_eq!(
            parse(&file("|u1", "False", "()", &[7])).unwrap().shape,
            [0usize; 0]
        );
    }

    #[test]
    fn integers_are_exact() {
        let ids: Vec<u8> = [49407i64, -1]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let array = parse(&file("<i8", "False", "(1, 2)", &ids)).unwrap();
        assert_eq!(array.values, [49407.0, -1.0]);
        let large = (1i32 << 24).to_le_bytes();
        let array = parse(&file("<i4", "False", "(1,)", &large)).unwrap();
        assert_eq!(array.values, [16_777_216.0]);
        for bad in [(1i64 << 24) + 1, i64::MIN, i64::MAX] {
            let refused = parse(&file("<i8", "False", "(1,)", &bad.to_le_bytes()));
            assert!(refused.unwrap_err().contains(&bad.to_string()));
        }
    }

    #[test]
    fn ids_that_the_model_does_not_have() {
        assert_eq!(check_ids(&[vec![0.0, 48.0]], 49), Ok(()));
        for id in [49.0, -1.0, 3.7] {
            let error = check_ids(&[vec![0.0], vec![1.0, id]], 49).unwrap_err();
            assert!(error.contains(&format!("sample 1 has token id {id} at position 1")));
            assert!(error.contains("0 to 48"));
        }
    }

    #[test]
    fn samples_in_either_layout() {
        let array = |shape: &[usize]| Array {
            shape: shape.to_vec(),
            values: (0..12u8).map(f32::from).collect(),
        };
        let layout = [0, 3, 1, 2];
        let first = |shape: &[usize]| {
            samples(&array(shape), &[1, 2, 1, 3], &layout, 9).map(|s| (s.len(), s[0].clone()))
        };
        let moved = Ok((2, vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0]));
        assert_eq!(first(&[2, 3, 2, 1]), moved);
        assert_eq!(first(&[2, 1, 3, 2, 1]), moved);
        assert_eq!(
            first(&[2, 2, 1, 3]),
            Ok((2, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
        );
        assert!(first(&[2, 6]).is_err() && first(&[12]).is_err());
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = file("<f4", "False", "(2,)", &[0; 8]);
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(parse(&file("|u1", "False", "(0, 2)", &[])).is_ok_and(|a| a.values.is_empty()));
        for value in [f32::NAN, f32::INFINITY] {
            let data = [[0; 4], value.to_le_bytes()].concat();
            let error = parse(&file("<f4", "False", "(2,)", &data)).unwrap_err();
            assert!(error.starts_with("element 1 is"), "{error}");
        }
        assert!(parse(&file("<f4", "True", "(2,)", &[0; 8])).is_err());
        assert!(parse(&file(">f4", "False", "(2,)", &[0; 8])).is_err());
        assert!(parse(&file("<f4", "False", "(x,)", &[0; 8])).is_err());
        assert!(parse(&file("<f4", "False", "(9223372036854775807, 8)", &[0; 8])).is_err());
    }
}
