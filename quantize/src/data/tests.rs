//! Folders made on the spot, and images made by Pillow (`tests/fixtures/calibrate/make_images.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const FIXTURES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/calibrate/images"
);

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ampoule-data-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn with(files: &[&str]) -> Folder {
        let folder = Folder::new();
        files.iter().for_each(|f| folder.image(f, 4));
        folder
    }

    /// An image of one grey level.
    fn image(&self, name: &str, level: u8) {
        let mut png = Vec::new();
        let pixels = image::GrayImage::from_pixel(2, 3, image::Luma([level]));
        pixels
            .write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)
            .unwrap();
        self.write(name, &png); // content decides, not the extension
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn open(&self) -> ImageSet {
        ImageSet::open(&self.0).unwrap()
    }

    fn classes(&self, list: &[&str]) -> Vec<Option<u32>> {
        let list: Vec<String> = list.iter().map(|s| s.to_string()).collect();
        classes(&ImageSet::open_with_classes(&self.0, &list).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn classes(set: &ImageSet) -> Vec<Option<u32>> {
    set.entries().iter().map(|e| e.class).collect()
}

fn names(set: &ImageSet, root: &Path) -> Vec<String> {
    let name = |p: &Path| {
        p.strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .replace('\\', "/")
    };
    set.entries().iter().map(|e| name(&e.path)).collect()
}

#[derive(serde::Deserialize)]
struct Expected {
    width: u32,
    height: u32,
    pixels: BTreeMap<String, Vec<u8>>,
}

#[test]
fn every_kind_of_image_decodes_as_pillow_does() {
    let text = fs::read_to_string(Path::new(FIXTURES).join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.pixels.len(), 13);
    for (name, pixels) in &expected.pixels {
        let image = decode(Path::new(FIXTURES).join(name)).unwrap();
        assert_eq!(
            (image.width(), image.height()),
            (expected.width, expected.height),
            "{name}"
        );
        assert_eq!(image.view().unwrap().width(), expected.width);
        let tolerance = if name.ends_with("jpg") { 6 } else { 0 };
        let worst = image
            .pixels()
            .iter()
            .zip(pixels)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(worst <= Some(tolerance), "{name}: off by {worst:?}");
    }
}

#[test]
fn listing_is_sorted_recursive_and_blind_to_case() {
    let folder = Folder::with(&[
        "b.PNG",
        "a/z.Jpg",
        "a/b/c.webp",
        "a-b/x.bmp",
        "B.jpeg",
        ".hidden.png",
        ".git/x.png",
    ]);
    folder.write("notes.txt", b"");
    folder.write("a/anim.gif", b"GIF89a");
    let set = folder.open();
    assert_eq!(
        names(&set, &folder.0),
        ["B.jpeg", "a/b/c.webp", "a/z.Jpg", "a-b/x.bmp", "b.PNG"]
    );
    assert_eq!((set.report().found, set.report().other_files), (5, 2));
}

#[cfg(unix)]
#[test]
fn links_are_followed_once() {
    let folder = Folder::with(&["one/a.png"]);
    std::os::unix::fs::symlink(&folder.0, folder.0.join("one/loop")).unwrap();
    std::os::unix::fs::symlink("one/a.png", folder.0.join("linked.png")).unwrap();
    std::os::unix::fs::symlink("nowhere.png", folder.0.join("broken.png")).unwrap();
    let set = folder.open();
    assert_eq!(
        names(&set, &folder.0),
        ["broken.png", "linked.png", "one/a.png"]
    );
    let mut images = set.images();
    assert_eq!(images.by_ref().count(), 2);
    assert!(images.report().skipped[0].reason.contains("broken.png"));
}

#[test]
fn sub_folders_are_classes() {
    let sorted = Folder::with(&["dog/1.png", "cat/1.png", "cat/2/3.png", "top.png"]);
    assert_eq!(sorted.classes(&[]), [Some(0), Some(0), Some(1), None]);
    assert_eq!(sorted.open().class_names().get(&1), Some(&"dog".to_owned()));
    assert_eq!(sorted.open().report().unlabelled, 1);
    assert_eq!(
        sorted.classes(&["ant", "Dog", "cat"]),
        [Some(2), Some(2), Some(1), None]
    );
    let numbered = Folder::with(&["10/1.png", "2/1.png", "0/1.png"]);
    assert_eq!(numbered.classes(&[]), [Some(0), Some(10), Some(2)]);
    assert_eq!(numbered.classes(&["x"; 11]), [Some(0), Some(10), Some(2)]);
    let single = Folder::with(&["images/1.png"]);
    assert_eq!(single.classes(&[]), [None]);
    let list: Vec<String> = vec!["ant".into()];
    let message = ImageSet::open_with_classes(&sorted.0, &list)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`cat`") && message.contains("below 1"),
        "{message}"
    );
}

#[test]
fn label_files_beat_folders_and_count_what_is_missing() {
    let folder = Folder::with(&["images/a.png", "images/b.png", "images/sub/c.png"]);
    let csv = "file,class,label\na.png,7,\"tench, a fish\"\nsub/c.png,3,shark\ngone.png,1,x\n";
    folder.write("labels.csv", csv.as_bytes());
    for root in [folder.0.join("images"), folder.0.clone()] {
        let set = ImageSet::open(&root).unwrap();
        assert_eq!(classes(&set)[..2], [Some(7), None]);
        assert_eq!(set.class_names().get(&7), Some(&"tench, a fish".to_owned()));
    }
    let set = ImageSet::open(folder.0.join("images")).unwrap();
    assert_eq!(classes(&set), [Some(7), None, Some(3)]);
    assert_eq!(
        (set.report().rows_without_file, set.report().unlabelled),
        (1, 1)
    );
    assert_eq!(set.labelled().entries().len(), 2);
}

#[test]
fn label_files_are_checked() {
    let folder = Folder::with(&["a.png", "b.png"]);
    let refuse = |csv: &str| {
        folder.write("labels.csv", csv.as_bytes());
        ImageSet::open(&folder.0).unwrap_err().to_string()
    };
    assert!(
        refuse("name,class\na.png,1").contains("line 1: expected a header with a column `file`")
    );
    assert!(
        refuse("file,class\na.png,1\nb.png,dog").contains("line 3")
            && refuse("").contains("line 1")
    );
    assert_eq!(
        folder.classes_after("file,class\na.png,dog\nb.png,0", &["cat", "dog"]),
        [Some(1), Some(0)]
    );
}

impl Folder {
    fn classes_after(&self, csv: &str, list: &[&str]) -> Vec<Option<u32>> {
        self.write("labels.csv", csv.as_bytes());
        self.classes(list)
    }
}

#[test]
fn a_label_file_beside_that_speaks_of_other_images_is_left_alone() {
    let folder = Folder::with(&["set/x/a.png", "set/y/b.png"]);
    folder.write("labels.csv", b"file,class\nother.png,5");
    let set = ImageSet::open(folder.0.join("set")).unwrap();
    assert_eq!(
        (classes(&set), set.report().rows_without_file),
        (vec![Some(0), Some(1)], 0)
    );
}

#[test]
fn limits_balance_classes() {
    let files: Vec<String> = (0..40)
        .map(|i| format!("{}/{i:02}.png", if i < 36 { "many" } else { "rare" }))
        .collect();
    let folder = Folder::with(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let set = folder.open().limit(6);
    assert_eq!(
        names(&set, &folder.0),
        [
            "many/06.png",
            "many/18.png",
            "many/30.png",
            "rare/36.png",
            "rare/38.png",
            "rare/39.png"
        ]
    );
    assert_eq!((set.report().found, set.report().chosen), (40, 6));
}

#[test]
fn images_come_in_order_and_failures_are_reported() {
    let folder = Folder::new();
    (0..50).for_each(|i| folder.image(&format!("{i:02}.png"), i));
    folder.write("07.png", b"");
    folder.write("21.png", b"not an image at all");
    let set = folder.open();
    let mut images = set.images();
    let levels: Vec<u8> = images.by_ref().map(|s| s.image.pixels()[0]).collect();
    assert_eq!(
        levels,
        (0..50)
            .filter(|i| ![7, 21].contains(i))
            .collect::<Vec<u8>>()
    );
    let report = images.report();
    assert_eq!((report.decoded, report.skipped.len()), (48, 2));
    assert!(
        report.skipped[0].reason.contains("07.png") && report.skipped[1].reason.contains("21.png")
    );
    assert!(report.to_string().contains("48 of 50") && report.check().is_ok());
}

#[test]
fn one_thread_gives_the_same_images() {
    let folder = Folder::new();
    (0..20).for_each(|i| folder.image(&format!("{i:02}.png"), i));
    let set = folder.open();
    let levels = || set.images().map(|s| (s.index, s.image)).collect::<Vec<_>>();
    let alone = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
        .install(levels);
    assert_eq!(alone, levels());
}

#[test]
fn nothing_to_decode_is_an_error() {
    let folder = Folder::new();
    folder.write("readme.txt", b"");
    let message = ImageSet::open(&folder.0).unwrap_err().to_string();
    assert!(message.contains("got 1 other files"), "{message}");
    let message = ImageSet::open(folder.0.join("missing"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("missing"), "{message}");
    folder.write("a.png", b"damaged");
    let set = folder.open();
    let mut images = set.images();
    assert_eq!(images.by_ref().count(), 0);
    assert!(
        images
            .report()
            .check()
            .unwrap_err()
            .to_string()
            .contains("a.png")
    );
}

#[test]
fn a_single_file_is_a_set_of_one() {
    let set = ImageSet::open(Path::new(FIXTURES).join("rgb.jpg")).unwrap();
    assert_eq!(
        set.images().map(|s| s.image.width()).collect::<Vec<_>>(),
        [12]
    );
}

#[test]
fn damaged_files_have_typed_errors() {
    let read = |name: &str| fs::read(Path::new(FIXTURES).join(name)).unwrap();
    let fail = |bytes: &[u8]| decode_bytes(bytes, Path::new("x.jpg")).unwrap_err();
    for name in [
        "rgb.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "turned.jpg",
        "rgba.png",
        "rgba.webp",
        "rgb.bmp",
        "bit.png",
    ] {
        let bytes = read(name);
        for keep in [
            0,
            1,
            8,
            bytes.len() / 4,
            bytes.len() / 2,
            bytes.len() * 3 / 4,
        ] {
            let error = fail(&bytes[..keep]);
            let typed = matches!(
                error,
                DataError::Damaged { .. } | DataError::Unsupported { .. }
            );
            assert!(
                typed && error.to_string().contains("x.jpg"),
                "{name} {keep}: {error:?}"
            );
        }
    }
    assert!(matches!(
        fail(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"),
        DataError::Unsupported { .. }
    ));
    assert!(matches!(fail(&bmp(20_000, 1)), DataError::TooLarge { .. }));
    assert!(matches!(
        fail(&bmp(0, 4)),
        DataError::Empty {
            width: 0,
            height: 4,
            ..
        }
    ));
    let mut png = read("bit.png");
    png[20..24].fill(0);
    assert!(matches!(
        fail(&png),
        DataError::Empty {
            width: 12,
            height: 0,
            ..
        }
    ));
}

/// A 24-bit BMP header without pixels.
fn bmp(width: i32, height: i32) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for word in [
        54u32,
        0,
        54,
        40,
        width as u32,
        height as u32,
        0x18_0001,
        0,
        0,
        0,
        0,
        0,
        0,
    ] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = crate::calibrate::testing::Lcg(6);
    for name in [
        "rgb.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "palette.png",
        "rgba.webp",
        "palette.bmp",
    ] {
        let bytes = fs::read(Path::new(FIXTURES).join(name)).unwrap();
        for _ in 0..200 {
            let mut changed = bytes.clone();
            for _ in 0..1 + rng.next() % 6 {
                let at = rng.next() as usize % changed.len();
                changed[at] = (rng.next() >> 7) as u8;
            }
            let _ = decode_bytes(&changed, Path::new(name)); // may succeed
        }
    }
}
