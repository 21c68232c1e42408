//! Looks at augmentation: how fast one core and the loader are, and what the pictures look like.
//!
//!     cargo run --release -p ampoule-distill --example augment -- photos/ [sheet.ppm]

use std::sync::Arc;
use std::time::Instant;

use ampoule_distill::augment::{Augmentation, Mix, RandAugment};
use ampoule_distill::data::{Dataset, Loader, LoaderOptions, Pictures, epoch_order, record_seed};
use ampoule_quantize::data::{DataError, ImageSet, RgbImage, decode};
use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};

const SIZE: u16 = 224;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("a folder of pictures, please")?;
    let set = ImageSet::open(&folder)?.limit(64);
    let started = Instant::now();
    let images: Vec<RgbImage> = set
        .entries()
        .iter()
        .map(|e| decode(&e.path))
        .collect::<Result<_, DataError>>()?;
    let rate = |started: Instant| images.len() as f64 / started.elapsed().as_secs_f64();
    println!("decode                {:7.0} images/s", rate(started));
    let size = [SIZE; 2];
    let flipped = Augmentation::light(size);
    let operations = Augmentation {
        rand_augment: Some(RandAugment::default()),
        ..flipped.clone()
    };
    for (name, augmentation) in [
        ("none", Augmentation::none(size, Resize::ShorterSide(256))),
        ("light", flipped),
        ("light + RandAugment", operations),
        ("standard", Augmentation::standard(size)),
    ] {
        let mut rates: Vec<f64> = Vec::new();
        for round in 0..9 {
            let started = Instant::now();
            for (i, image) in images.iter().enumerate() {
                std::hint::black_box(augmentation.picture(image, round * 1000 + i as i32)?);
            }
            rates.push(rate(started));
        }
        rates.sort_by(f64::total_cmp);
        println!(
            "{name:20}  {:7.0} images/s (best {:.0})",
            rates[4], rates[8]
        );
    }
    let none = Augmentation::none(size, Resize::ShorterSide(256));
    println!(
        "loader without        {:7.0} images/s",
        load(&folder, none, 1)?
    );
    for threads in [1, 2, 4] {
        let rate = load(&folder, Augmentation::standard(size), threads)?;
        println!("loader, {threads} threads     {rate:7.0} images/s");
    }
    match arguments.next() {
        Some(path) => Ok(std::fs::write(path, sheet(&images)?)?),
        None => Ok(()),
    }
}

/// Images per second of a loader that decodes and augments, over the whole folder.
fn load(
    folder: &str,
    augmentation: Augmentation,
    threads: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    let data = Arc::new(Dataset::open(folder)?);
    let options = LoaderOptions {
        batch: 64,
        threads,
        ahead: 2,
        preprocess: Preprocess {
            resize: Resize::Exact,
            filter: Filter::Bicubic,
            antialias: true,
            width: SIZE,
            height: SIZE,
            channels: Channels::Rgb,
            scale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.25; 3],
        },
        max_unreadable: 0,
        keep_pixels: false,
    };
    let pictures = Pictures {
        augmentation,
        data: data.clone(),
    };
    let order = epoch_order(0, 0, data.len());
    let started = Instant::now();
    let seeds = Arc::new(|sample| record_seed(0, 0, sample));
    let mut count = 0;
    for batch in Loader::new(pictures, &order, seeds, options) {
        count += batch?.samples.len();
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Rows of pictures under `standard`, the last rows mixed in pairs, as PPM.
fn sheet(images: &[RgbImage]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    const COLUMNS: usize = 8;
    let side = 112;
    let augmentation = Augmentation {
        mix: Some(Mix::default()),
        ..Augmentation::standard([side; 2])
    };
    let mut pixels: Vec<u8> = Vec::new();
    for row in 0..8 {
        let mut pictures = Vec::new();
        for column in 0..COLUMNS {
            let image = &images[(row / 2 * COLUMNS + column) % images.len()];
            pictures.push(augmentation.picture(image, (row * COLUMNS + column) as i32)?);
        }
        if row >= 6 {
            for (i, pair) in pictures.chunks_exact_mut(2).enumerate() {
                let [a, b] = pair else { continue };
                augmentation.mix([a, b], [i as i32, row as i32 + 100]);
            }
        }
        for y in 0..usize::from(side) {
            let pitch = 3 * usize::from(side);
            pixels.extend(pictures.iter().flat_map(|p| &p[y * pitch..][..pitch]));
        }
    }
    let width = COLUMNS * usize::from(side);
    let header = format!("P6\n{width} {}\n255\n", pixels.len() / width / 3);
    Ok([header.into_bytes(), pixels].concat())
}
