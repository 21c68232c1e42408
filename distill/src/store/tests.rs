use std::fs;
use std::path::Path;

use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};
use half::f16;
use tempfile::TempDir;

use super::*;
use crate::augment::Augmentation;

const SAMPLES: usize = 23;

fn header(kind: Kind) -> Header {
    Header {
        format: FORMAT,
        kind,
        teachers: vec![TeacherId {
            name: "t.onnx".to_owned(),
            sha256: "00".to_owned(),
            output: "logits".to_owned(),
            softmax: true,
            preprocess: Preprocess {
                resize: Resize::Exact,
                filter: Filter::Bicubic,
                antialias: true,
                width: 8,
                height: 8,
                channels: Channels::Rgb,
                scale: 1.0 / 255.0,
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
            },
        }],
        augmentation: Augmentation::standard([8, 8]),
        samples: SAMPLES,
        listing: "abc".to_owned(),
        epochs: 2,
        seed: u64::MAX - 1,
        block: 4,
        made_from: MadeFrom::default(),
    }
}

fn sparse() -> Header {
    header(Kind::SparseLogits { k: 3, classes: 10 })
}

/// A made-up answer; sample 5 has none.
fn answer(header: &Header, epoch: usize, sample: usize) -> Option<Answer> {
    let mix = |i: usize| (sample * 31 + epoch * 17 + i * 7) % 97;
    let all: Vec<f32> = (0..10).map(|c| mix(c) as f32 / 97.0).collect();
    (sample != 5).then(|| match header.kind {
        Kind::SparseLogits { k, .. } => Answer::top(&all, k),
        _ => Answer::dense(&all[..header.kind.values()]),
    })
}

fn write_part(folder: &Path, header: &Header, epoch: usize, shard: Shard, stop: usize) -> Writer {
    let mut writer = Writer::open(folder, header, epoch, shard.range(header.samples)).unwrap();
    while writer.next() < shard.range(header.samples).end.min(stop) {
        let sample = writer.next();
        let answer = answer(header, epoch, sample);
        writer.push(sample as i32 * 3, answer.as_ref()).unwrap();
    }
    writer
}

fn write_all(folder: &Path, header: &Header, shards: usize) {
    for index in 1..=shards {
        for epoch in 0..header.epochs {
            let shard = Shard {
                index,
                count: shards,
            };
            write_part(folder, header, epoch, shard, usize::MAX)
                .finish()
                .unwrap();
        }
    }
}

fn made(header: &Header, shards: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), header, shards);
    folder
}

/// All records of an epoch, in the order of the samples.
fn bytes(folder: &Path, header: &Header, epoch: usize) -> Vec<u8> {
    let parts = files::parts(folder, header, epoch).unwrap();
    parts
        .iter()
        .flat_map(|p| fs::read(&p.records).unwrap())
        .collect()
}

#[test]
fn what_is_written_is_read_from_any_shards() {
    let kinds = [
        Kind::SparseLogits { k: 3, classes: 10 },
        Kind::SparseLogits { k: 10, classes: 10 },
        Kind::Embeddings { widths: vec![4, 5] },
        Kind::Features {
            shape: vec![1, 2, 3],
        },
    ];
    for kind in kinds {
        let header = header(kind);
        let whole = made(&header, 1);
        for shards in [1, 2, 5, SAMPLES] {
            let folder = made(&header, shards);
            let store = Store::open_as(folder.path(), &header).unwrap();
            for epoch in 0..2 {
                let records = bytes(folder.path(), &header, epoch);
                assert_eq!(records.len(), SAMPLES * header.kind.record_bytes());
                assert!(records == bytes(whole.path(), &header, epoch));
                let mapped = store.epoch(epoch).unwrap();
                assert_eq!(mapped.verify().unwrap(), SAMPLES);
                for sample in 0..SAMPLES {
                    check_record(&mapped.record(sample).unwrap(), &header, epoch, sample);
                }
                assert!(matches!(
                    mapped.record(SAMPLES),
                    Err(StoreError::Index { .. })
                ));
            }
            assert!(store.epoch(2).is_err());
        }
    }
}

fn check_record(record: &Record<'_>, header: &Header, epoch: usize, sample: usize) {
    let Some(answer) = answer(header, epoch, sample) else {
        assert!(record.is_missing() && record.seed() == MISSING);
        return;
    };
    assert_eq!(record.seed(), sample as i32 * 3);
    assert!(record.indices().eq(answer.indices.iter().copied()));
    assert!(record.values().eq(answer.values.iter().map(|v| v.to_f32())));
}

#[test]
fn a_record_is_what_the_format_says() {
    let header = sparse();
    assert_eq!(header.kind.record_bytes(), 4 + 4 * 3);
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &header, 0, 0..1).unwrap();
    let answer = Answer::top(&[0.0, 0.5, 0.25, 0.0, 0.25], 3);
    writer.push(0x0102_0304, Some(&answer)).unwrap();
    writer.finish().unwrap();
    let expected = [4, 3, 2, 1, 1, 0, 2, 0, 4, 0, 0, 0x38, 0, 0x34, 0, 0x34];
    let records = fs::read(folder.path().join("epoch-0/0-1.records")).unwrap();
    assert_eq!(records, expected);
    let sums = fs::read(folder.path().join("epoch-0/0-1.sums")).unwrap();
    assert_eq!(sums, crc32fast::hash(&expected).to_le_bytes());
}

#[test]
fn writing_goes_on_after_a_cut_at_any_byte() {
    let header = Header {
        epochs: 1,
        ..sparse()
    };
    let whole = made(&header, 1);
    let expected = bytes(whole.path(), &header, 0);
    let name = format!("epoch-0/0-{SAMPLES}");
    let sums = fs::read(whole.path().join(format!("{name}.sums"))).unwrap();
    for (file, length) in [("records", expected.len()), ("sums", sums.len())] {
        for cut in 0..length {
            let folder = made(&header, 1);
            let path = folder.path().join(format!("{name}.{file}"));
            fs::write(&path, &fs::read(&path).unwrap()[..cut]).unwrap();
            let refused = Store::open(folder.path()).unwrap_err();
            let size = header.kind.record_bytes();
            match refused {
                StoreError::Cut { sample, got, .. } => {
                    assert_eq!((sample, got), (cut / size, cut % size));
                }
                StoreError::Incomplete { gaps, .. } => {
                    assert_eq!(gaps[0].samples, cut / size..SAMPLES);
                    assert!(file == "records" && cut % size == 0);
                }
                StoreError::Length { .. } => assert_eq!(file, "sums"),
                other => panic!("{other}"),
            }
            write_all(folder.path(), &header, 1);
            Store::open_as(folder.path(), &header).unwrap();
            assert!(bytes(folder.path(), &header, 0) == expected);
        }
    }
}

#[test]
fn writing_goes_on_after_a_stop_at_any_sample() {
    let header = sparse();
    let whole = made(&header, 1);
    for stop in 0..SAMPLES {
        let folder = tempfile::tempdir().unwrap();
        drop(write_part(folder.path(), &header, 0, Shard::WHOLE, stop));
        let writer = Writer::open(folder.path(), &header, 0, 0..SAMPLES).unwrap();
        assert_eq!(writer.next(), stop / header.block * header.block);
        drop(writer);
        write_all(folder.path(), &header, 1);
        let same = bytes(folder.path(), &header, 0) == bytes(whole.path(), &header, 0);
        assert!(same);
    }
}

#[test]
fn a_flipped_bit_is_found_and_done_again() {
    let header = sparse();
    let folder = made(&header, 1);
    let path = folder.path().join(format!("epoch-1/0-{SAMPLES}.records"));
    let good = fs::read(&path).unwrap();
    let size = header.kind.record_bytes();
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        let epoch = Store::open(folder.path()).unwrap().epoch(1).unwrap();
        let sample = bit / 8 / size;
        let StoreError::Damaged { samples, .. } = epoch.record(sample).unwrap_err() else {
            panic!("bit {bit}");
        };
        assert!(samples.contains(&sample) && samples.len() <= header.block);
        assert!(epoch.verify().is_err());
        // Other blocks can still be read.
        let other = (samples.end) % SAMPLES;
        epoch.record(other).unwrap();
    }
    write_all(folder.path(), &header, 1);
    assert!(fs::read(&path).unwrap() == good);
}

#[test]
fn missing_shards_and_doubled_ones_are_named() {
    let header = sparse();
    let folder = made(&header, 5);
    for part in &files::parts(folder.path(), &header, 1).unwrap()[1..3] {
        fs::remove_file(&part.records).unwrap();
    }
    match Store::open(folder.path()).unwrap_err() {
        StoreError::Incomplete { gaps, .. } => assert_eq!(
            gaps,
            [Gap {
                epoch: 1,
                samples: 4..13
            }]
        ),
        other => panic!("{other}"),
    }
    let open = |range| Writer::open(folder.path(), &header, 1, range);
    assert!(matches!(open(0..6), Err(StoreError::Range { .. })));
    open(4..13).unwrap(); // fits the gap
    fs::write(folder.path().join("epoch-0/1-3.records"), []).unwrap();
    let doubled = Store::open(folder.path()).unwrap_err();
    assert!(matches!(doubled, StoreError::Range { .. }), "{doubled}");
    let folder = made(&header, 1);
    fs::write(folder.path().join("epoch-0/23-99.records"), []).unwrap();
    assert!(matches!(
        Store::open(folder.path()),
        Err(StoreError::Range { .. })
    ));
}

#[test]
fn other_settings_are_refused_by_name() {
    let header = sparse();
    let folder = made(&header, 1);
    let mut elsewhere = header.clone();
    elsewhere.made_from.data = "/other".into();
    Store::open_as(folder.path(), &elsewhere).unwrap();
    let mut changes: Vec<(&str, Header)> = Vec::new();
    let mut change = |field, change: &dyn Fn(&mut Header)| {
        let mut changed = header.clone();
        change(&mut changed);
        changes.push((field, changed));
    };
    change("kind.sparse_logits.k", &|h| {
        h.kind = Kind::SparseLogits { k: 4, classes: 10 };
    });
    change("kind.sparse_logits.classes", &|h| {
        h.kind = Kind::SparseLogits { k: 3, classes: 11 };
    });
    change("kind", &|h| h.kind = Kind::Embeddings { widths: vec![6] });
    change("teachers.0.sha256", &|h| h.teachers[0].sha256 = "01".into());
    change("teachers.0.preprocess.mean", &|h| {
        h.teachers[0].preprocess.mean[1] += 1e-6;
    });
    change("teachers", &|h| h.teachers.push(h.teachers[0].clone()));
    change("augmentation.flip", &|h| h.augmentation.flip = 0.25);
    change("augmentation.erase", &|h| h.augmentation.erase = None);
    change("samples", &|h| h.samples += 1);
    change("listing", &|h| h.listing = "abd".into());
    change("epochs", &|h| h.epochs = 3);
    change("seed", &|h| h.seed -= 1);
    for (field, changed) in changes {
        let errors = [
            Store::open_as(folder.path(), &changed).unwrap_err(),
            Writer::open(folder.path(), &changed, 0, 0..SAMPLES).unwrap_err(),
        ];
        for error in errors {
            let StoreError::Differs { differences, .. } = &error else {
                panic!("{field}: {error}");
            };
            assert_eq!(differences.len(), 1, "{error}");
            assert_eq!(differences[0].field, field);
            assert_ne!(differences[0].expected, differences[0].got);
        }
    }
}

#[test]
fn headers_that_are_none_are_refused() {
    let folder = made(&sparse(), 1);
    let path = folder.path().join("store.json");
    let good = fs::read_to_string(&path).unwrap();
    let change = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        fs::write(&path, good.replace(from, to)).unwrap();
        Store::open(folder.path()).unwrap_err()
    };
    let version = change("\"format\": 1", "\"format\": 2");
    assert!(matches!(version, StoreError::Version { .. }), "{version}");
    for (from, to) in [
        ("{", ""),
        ("\"epochs\"", "\"epoch\""),
        ("\"epochs\": 2", "\"epochs\": 0"),
        ("\"k\": 3", "\"k\": 11"),
        ("\"version\": 1", "\"version\": 0"),
        ("\"samples\": 23", "\"samples\": 99999999999"),
    ] {
        let error = change(from, to);
        assert!(matches!(error, StoreError::Header { .. }), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        Store::open(folder.path()),
        Err(StoreError::Read { .. })
    ));
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let header = sparse();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &header, 0, 0..SAMPLES).unwrap();
    let nan = Answer {
        indices: vec![0; 3],
        values: vec![f16::NAN; 3],
    };
    for bad in [nan, Answer::top(&[0.5; 10], 2), Answer::dense(&[0.0; 3])] {
        assert!(matches!(
            writer.push(0, Some(&bad)),
            Err(StoreError::Answer { sample: 0, .. })
        ));
    }
    assert_eq!(writer.next(), 0);
}

#[test]
fn files_in_use_are_left_alone() {
    let header = sparse();
    let folder = made(&header, 1);
    let epoch = Store::open(folder.path()).unwrap().epoch(0).unwrap();
    let again = || Writer::open(folder.path(), &header, 0, 0..SAMPLES);
    assert!(matches!(again(), Err(StoreError::Busy { .. })));
    drop(epoch);
    let writer = again().unwrap();
    assert!(matches!(again(), Err(StoreError::Busy { .. })));
    let read = Store::open(folder.path()).unwrap().epoch(0);
    assert!(matches!(read, Err(StoreError::Busy { .. })));
    drop(writer);
    again().unwrap();
}

#[test]
fn top_is_sorted_with_the_first_of_equals() {
    let top = |p: &[f32], k| Answer::top(p, k).indices;
    assert_eq!(top(&[0.1, 0.3, 0.3, 0.2, 0.1], 4), [1, 2, 3, 0]);
    assert_eq!(top(&[0.5; 6], 2), [0, 1]);
    assert_eq!(top(&[0.25, 0.75], 2), [1, 0]);
    assert_eq!(top(&[1.0], 1), [0]);
}
