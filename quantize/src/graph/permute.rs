//! Permutations of axes.

/// Data of `shape` with its dimensions in the order `perm`.
pub(crate) fn permute(data: &[f32], shape: &[usize], perm: &[usize]) -> Vec<f32> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    let mut at = vec![0; perm.len()];
    let mut source = 0;
    let mut out = Vec::with_capacity(data.len());
    while out.len() < data.len() {
        out.push(data[source]);
        for (index, &p) in at.iter_mut().zip(perm).rev() {
            *index += 1;
            source += strides[p];
            if *index < shape[p] {
                break;
            }
            source -= *index * strides[p];
            *index = 0;
        }
    }
    out
}

/// The permutation that undoes `perm`.
pub(crate) fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        inverse[p] = i;
    }
    inverse
}

/// The permutation that does `first` and then `second`.
pub(crate) fn compose(first: &[usize], second: &[usize]) -> Vec<usize> {
    second.iter().map(|&p| first[p]).collect()
}

/// Whether nothing moves.
pub(crate) fn is_identity(perm: &[usize]) -> bool {
    perm.iter().copied().eq(0..perm.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutes_as_indexing_does() {
        let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let out = permute(&data, &[2, 3, 4], &[2, 0, 1]);
        for (i, j, k) in [(0, 0, 0), (1, 1, 2), (3, 0, 1), (2, 1, 0)] {
            assert_eq!(out[(i * 2 + j) * 3 + k], data[(j * 3 + k) * 4 + i]);
        }
        assert_eq!(permute(&[5.0], &[], &[]), [5.0]);
    }

    #[test]
    fn inverse_undoes() {
        let p = [2, 0, 3, 1];
        assert!(is_identity(&compose(&p, &inverse(&p))));
        assert_eq!(compose(&[0, 2, 3, 1], &[0, 3, 1, 2]), [0, 1, 2, 3]);
    }
}
