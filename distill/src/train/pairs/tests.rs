use super::*;

#[test]
fn recall_counts_ranks() {
    // Texts at the axes; the second picture is closest to the third text.
    let texts = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let images = [0.8, 0.6, 0.0, 0.0, 0.6, 0.8, 0.0, 0.0, 1.0, 0.6, 0.8, 0.0];
    let found = Retrieval::of(3, &images, &[0, 1, 2, 0], &texts);
    assert_eq!((found.images, found.texts), (4, 3));
    // By the second text come the last picture (0.8), then the first and its own (0.6 both).
    assert_eq!(found.text_to_image.at_1, 2.0 / 3.0);
    assert_eq!(found.text_to_image.at_5, 1.0);
    assert_eq!(found.image_to_text.at_1, 0.5);
}

/// Equal embeddings of everything find nothing by chance.
#[test]
fn a_constant_finds_nothing() {
    let same: Vec<f32> = [0.6, 0.8].repeat(30);
    let group: Vec<usize> = (0..30).collect();
    let found = Retrieval::of(2, &same, &group, &same);
    assert_eq!(found.text_to_image, Recall::default());
    assert_eq!(found.image_to_text, Recall::default());
}

#[test]
fn a_space_keeps_what_differs() {
    // Points on a plane in four dimensions, far from the origin.
    let point = |a: f32, b: f32| [10.0 + a, 10.0 + b, 10.0 - a, 10.0 - b];
    let points: Vec<f32> = (0..40)
        .flat_map(|i| point((i as f32 * 0.7).sin(), (i as f32 * 1.1).cos()))
        .collect();
    let (narrow, whole) = (Space::of(&points, 4, 2), Space::of(&points, 4, 4));
    assert_eq!([narrow.width(), whole.width()], [2, 4]);
    let rows: Vec<&[f32]> = points.chunks(4).collect();
    let cosine = |space: &Space, a: &[f32], b: &[f32]| -> f32 {
        let (a, b) = (space.project(a), space.project(b));
        a.iter().zip(&b).map(|(a, b)| a * b).sum()
    };
    for (i, j) in [(0, 1), (3, 17), (20, 39)] {
        let (got, all) = (
            cosine(&narrow, rows[i], rows[j]),
            cosine(&whole, rows[i], rows[j]),
        );
        assert!((got - all).abs() < 1e-2, "{got} {all}");
    }
}
