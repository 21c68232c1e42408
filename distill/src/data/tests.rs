use std::fs;
use std::path::Path;
use std::sync::Arc;

use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};

use super::*;
use crate::augment::{Augmentation, Mix};
use crate::store::MISSING;

const PHOTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/demo/photos");

fn preprocess(side: u16) -> Preprocess {
    Preprocess {
        resize: Resize::Exact,
        filter: Filter::Bicubic,
        antialias: true,
        width: side,
        height: side,
        channels: Channels::Rgb,
        scale: 1.0 / 255.0,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

fn options(batch: usize, threads: usize) -> LoaderOptions {
    LoaderOptions {
        batch,
        threads,
        ahead: 2,
        preprocess: preprocess(16),
        max_unreadable: 0,
        keep_pixels: false,
    }
}

fn seeds() -> Seeds {
    Arc::new(|sample| record_seed(1, 0, sample))
}

fn pictures(path: impl AsRef<Path>, mix: bool) -> Pictures {
    Pictures {
        data: Arc::new(Dataset::open(path).unwrap()),
        augmentation: Augmentation {
            mix: mix.then(Mix::default),
            ..Augmentation::light([16, 16])
        },
    }
}

#[test]
fn folders_have_classes_and_a_digest() {
    let data = Dataset::open(PHOTOS).unwrap();
    assert_eq!(data.len(), 50);
    assert_eq!(data.samples()[0].name, "no_person/000000000285.jpg");
    assert_eq!(data.samples()[49].class, Some(1));
    assert_eq!(data.class_names()[&1], "person");
    data.check_classes(2).unwrap();
    let wrong = data.check_classes(1).unwrap_err().to_string();
    assert!(
        wrong.contains("person/") && wrong.contains("class 1"),
        "{wrong}"
    );
    let part = Dataset::open(format!("{PHOTOS}/person")).unwrap();
    assert_ne!(part.digest(), data.digest());
    assert_eq!(data.digest(), Dataset::open(PHOTOS).unwrap().digest());
}

#[test]
fn lists_name_pictures_labels_and_captions() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Dataset::open(path)
    };
    let csv = open(
        "a.csv",
        "path,label,caption\nx/b.png,dog,\"a dog, asleep\"\na.png,cat,\n",
    )
    .unwrap();
    assert_eq!(csv.samples()[0].name, "x/b.png");
    assert_eq!(csv.samples()[0].path, folder.path().join("x/b.png"));
    assert_eq!(csv.samples()[0].captions, ["a dog, asleep"]);
    assert_eq!(
        [csv.samples()[0].class, csv.samples()[1].class],
        [Some(1), Some(0)]
    );
    assert_eq!(csv.class_names()[&1], "dog");
    let numbers = open("n.csv", "Path,Label\na.png,7\nb.png,\n").unwrap();
    assert_eq!(numbers.samples()[0].class, Some(7));
    assert_eq!(numbers.samples()[1].class, None);
    let table = open("t.csv", "file,class,label\na.png,7,dog\n").unwrap();
    assert_eq!(table.samples()[0].class, Some(7));
    let lines = "{\"path\":\"a.png\",\"label\":3,\"captions\":[\"x\",\"y\"]}\n\n{\"path\":\"b.png\",\"caption\":\"z\"}\n";
    let json = open("c.jsonl", lines).unwrap();
    assert_eq!(json.samples()[0].captions, ["x", "y"]);
    assert_eq!(json.samples()[0].class, Some(3));
    assert_eq!(json.samples()[1].captions, ["z"]);

    for (name, text, words) in [
        (
            "a.csv",
            "name\nx.png\n",
            "line 1: expected a header with a column `path`",
        ),
        ("a.csv", "path,label\n,cat\n", "line 2: expected a path"),
        ("a.csv", "path\n", "lists no pictures"),
        ("a.jsonl", "{\"label\":1}", "line 1"),
        ("a.jsonl", "", "lists no pictures"),
    ] {
        let error = open(name, text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let other = open("o.csv", "path,label\na,cat\nb,horse\n").unwrap();
    let error = csv.check_names(&other).unwrap_err().to_string();
    assert!(
        error.contains("`dog`") && error.contains("`horse`"),
        "{error}"
    );
    csv.check_names(&csv).unwrap();
    assert!(Dataset::open(folder.path().join("none")).is_err());
}

#[test]
fn seeds_and_orders_are_those_of_the_run() {
    let all: Vec<i32> = (0..1000).map(|s| record_seed(7, 2, s)).collect();
    assert!(all.iter().all(|&s| s >= 0));
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert!(distinct.len() > 990);
    assert_ne!(record_seed(7, 3, 0), all[0]);
    let order = epoch_order(7, 2, 9);
    let partners = partners(&order);
    assert_eq!(partners[order[8] as usize], None);
    for pair in order.chunks_exact(2) {
        assert_eq!(partners[pair[0] as usize], Some(pair[1]));
        assert_eq!(partners[pair[1] as usize], Some(pair[0]));
    }
    assert_ne!(order, epoch_order(7, 1, 9));
}

#[test]
fn batches_are_the_same_for_any_number_of_threads() {
    for mix in [false, true] {
        let pictures = pictures(PHOTOS, mix);
        let order = epoch_order(3, 0, 50);
        let all = |batch, threads| {
            let loader = Loader::new(pictures.clone(), &order, seeds(), options(batch, threads));
            loader.map(|b| b.unwrap()).collect::<Vec<Batch>>()
        };
        let one = all(8, 1);
        assert_eq!(one.len(), 7);
        assert!(one == all(8, 3) && one == all(8, 8));
        for batch in &one {
            assert_eq!(batch.images.len(), batch.samples.len() * 16 * 16 * 3);
        }
        let samples: Vec<u32> = one
            .iter()
            .flat_map(|b| &b.samples)
            .map(|&s| s as u32)
            .collect();
        assert_eq!(samples, order);
        // The size of batches changes nothing but where they end.
        let values: Vec<f32> = one.into_iter().flat_map(|b| b.images).collect();
        assert!(
            values
                == all(14, 2)
                    .into_iter()
                    .flat_map(|b| b.images)
                    .collect::<Vec<_>>()
        );
    }
}

#[test]
fn teachers_and_students_see_the_same_pixels() {
    let pictures = pictures(PHOTOS, true);
    let order = epoch_order(3, 0, 50);
    let partners = partners(&order);
    let loader = Loader::new(pictures.clone(), &order, seeds(), options(10, 2));
    let mut mixed = 0;
    for batch in loader {
        let batch = batch.unwrap();
        let each = batch.images.chunks_exact(16 * 16 * 3);
        for ((sample, values), (share, other)) in batch.samples.iter().zip(each).zip(&batch.shares)
        {
            let partner = partners[*sample].map(|p| p as usize);
            let picture = pictures.one(*sample, partner, &seeds()).unwrap();
            assert_eq!(picture.share, *share);
            assert_eq!(
                input(&picture.pixels, [16, 16], &preprocess(16)).unwrap(),
                values
            );
            assert_eq!(*other, partner.filter(|_| *share < 1.0));
            mixed += usize::from(*share < 1.0);
        }
    }
    assert!(mixed > 40, "{mixed}");
}

#[test]
fn unreadable_pictures_are_named_counted_and_limited() {
    let folder = tempfile::tempdir().unwrap();
    let photo = |name: &str| format!("{PHOTOS}/person/{name}.jpg");
    for name in ["000000000785", "000000000790", "000000000872"] {
        fs::copy(photo(name), folder.path().join(format!("{name}.jpg"))).unwrap();
    }
    fs::write(folder.path().join("0-broken.jpg"), b"\xff\xd8 not much").unwrap();
    let pictures = pictures(folder.path(), true);
    let order = [3, 0, 1, 2];
    let load = |max_unreadable| {
        let options = LoaderOptions {
            max_unreadable,
            ..options(2, 2)
        };
        Loader::new(pictures.clone(), &order, seeds(), options)
    };
    let error = load(0).find_map(Result::err).unwrap().to_string();
    assert!(
        error.contains("0-broken.jpg") && error.contains("more than 0"),
        "{error}"
    );
    let mut loader = load(1);
    let batches: Vec<Batch> = loader.by_ref().map(|b| b.unwrap()).collect();
    assert_eq!(loader.unreadable().len(), 1);
    let samples: Vec<usize> = batches.iter().flat_map(|b| b.samples.clone()).collect();
    assert_eq!(samples, [3, 1, 2]);
    // An epoch can be entered where a batch begins, also between the samples of a pair.
    for size in [1, 2, 3] {
        let options = LoaderOptions {
            max_unreadable: 1,
            ..options(size, 2)
        };
        let start = |position| {
            let pictures = pictures.clone();
            Loader::starting_at(position, pictures, &order, seeds(), options.clone())
        };
        let mut whole = start(0);
        while let Some(batch) = whole.next() {
            batch.unwrap();
            let rest = start(whole.position()).map(|b| b.unwrap());
            let mut again = start(0);
            while again.position() < whole.position() {
                again.next();
            }
            assert!(
                rest.eq(again.map(|b| b.unwrap())),
                "{size}: {}",
                whole.position()
            );
        }
    }
    assert_eq!(batches[0].shares[0], (1.0, None), "mixed with nobody");

    let without: Seeds = Arc::new(|s| if s == 0 { MISSING } else { 5 });
    let loader = Loader::new(pictures.clone(), &order, without, options(8, 1));
    let samples: Vec<usize> = loader.flat_map(|b| b.unwrap().samples).collect();
    assert_eq!(samples, [3, 1, 2], "a record without an answer is left out");
}
