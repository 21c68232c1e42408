use super::*;

/// Values in [-1, 1) that repeat for no size used here.
fn values(len: usize, salt: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| ((i ^ salt).wrapping_mul(2654435761) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

#[test]
fn equals_sums_in_double_precision() {
    for (m, k, n) in [
        (1, 1, 1),
        (8, 4, 32),
        (13, 27, 33),
        (97, 64, 100),
        (200, 31, 7),
    ] {
        let (a, b, bias) = (values(m * k, 1), values(k * n, 2), values(n, 3));
        let mut packed = Packed::default();
        packed.pack(&b, [k, n], [n, 1]);
        let mut c = vec![f32::NAN; m * n];
        product(m, &a, k, &packed, Start::Bias(&bias), &mut c, n);
        product(m, &a, k, &packed, Start::Destination, &mut c, n);
        let exact = |i: usize, j: usize| -> f64 {
            (0..k)
                .map(|l| a[i * k + l] as f64 * b[l * n + j] as f64)
                .sum()
        };
        for (at, &got) in c.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let expected = 2.0 * exact(i, j) + bias[j] as f64;
            assert!(
                (got as f64 - expected).abs() < 2e-6 * k as f64,
                "{m}×{k}×{n} at {i},{j}: {got} {expected}"
            );
        }
    }
}

#[test]
fn transposed_equals_sums_in_double_precision() {
    for (rows, m, n) in [(1, 1, 1), (5, 8, 32), (33, 27, 70), (64, 13, 31)] {
        let (a, b) = (values(rows * m, 1), values(rows * n, 2));
        let mut c = vec![1.0; m * n];
        accumulate_transposed(rows, &a, [m, m], &b, [n, n], &mut c, &mut Panels::default());
        for (at, &got) in c.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let sum: f64 = (0..rows)
                .map(|r| a[r * m + i] as f64 * b[r * n + j] as f64)
                .sum();
            assert!(
                (got as f64 - sum - 1.0).abs() < 2e-6 * rows as f64,
                "{rows}: {i},{j}"
            );
        }
    }
}

/// The tiles of processors without AVX-512 are the same code with other sizes.
#[test]
fn small_tiles_equal_large_ones() {
    let (rows, m, n) = (37, 15, 27);
    let (a, b) = (values(rows * m, 1), values(rows * n, 2));
    let [mut large, mut small, mut middle] = [(); 3].map(|()| vec![0.5; m * n]);
    let panels = &mut Panels::default();
    accumulate_transposed(rows, &a, [m, m], &b, [n, n], &mut large, panels);
    let simd = isa::Portable;
    tile::accumulate_transposed::<_, 4, 8>(simd, rows, &a, [m, m], &b, [n, n], &mut small, panels);
    tile::accumulate_transposed::<_, 6, 8>(simd, rows, &a, [m, m], &b, [n, n], &mut middle, panels);
    for ((l, s), m) in large.iter().zip(small).zip(middle) {
        assert!((l - s).abs() < 1e-5 && s == m, "{l} {s} {m}");
    }
}

#[test]
fn packs_transposed() {
    for (k, n) in [(3, 4), (9, 70), (16, 33)] {
        let b = values(k * n, 5);
        let (mut straight, mut turned) = (Packed::default(), Packed::default());
        straight.pack(&b, [k, n], [n, 1]);
        let t: Vec<f32> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
        turned.pack(&t, [k, n], [1, k]);
        assert_eq!(straight.panels, turned.panels);
    }
}
