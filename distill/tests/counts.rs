//! Parameters and multiply-accumulates, as published or as counted from the authors' code.
#![allow(missing_docs)]

use ampoule_distill::zoo::{self, Config, MODELS, Network};

fn build(name: &str) -> Network {
    zoo::find(name).unwrap().config.build().unwrap()
}

#[test]
fn parameters_and_gmacs() {
    let expected = [
        ("tinyvit-5m", 5_392_764, 1.255),
        ("tinyvit-11m", 10_996_972, 2.016),
        ("tinyvit-21m", 21_198_568, 4.250),
        ("tinyvit-21m-384", 21_230_488, 13.70),
        ("tinyvit-21m-512", 21_268_120, 26.88),
        ("tiny-moat-0", 3_355_348, 1.041),
        ("tiny-moat-1", 5_122_895, 1.576),
        ("tiny-moat-2", 9_772_741, 2.975),
        ("tiny-moat-3", 19_534_390, 5.897),
        ("moat-0", 27_846_892, 5.638),
        ("moat-1", 41_598_448, 9.001),
    ];
    for (name, parameters, gmacs) in expected {
        let network = build(name);
        assert_eq!(network.parameter_count(), parameters, "{name}");
        let got = network.macs() as f64 / 1e9;
        let digits = if gmacs > 10.0 { 0.005 } else { 0.0005 };
        assert!((got - gmacs).abs() <= digits, "{name}: {got} GMACs");
    }
    let minis = ["tinyvit-mini", "tiny-moat-mini", "mci-mini"];
    assert_eq!(MODELS.len(), expected.len() + minis.len());
}

/// PyTorch's counts: `tests/fixtures/zoo/make.py --count`.
#[test]
fn minis() {
    assert_eq!(build("tinyvit-mini").parameter_count(), 449_413);
    assert_eq!(build("tiny-moat-mini").parameter_count(), 418_363);
    assert_eq!(build("mci-mini").parameter_count(), 488_389);
}

#[test]
fn classes_sizes_and_tables() {
    for (name, parameters) in [
        ("tinyvit-5m", 12_082_725),
        ("tinyvit-11m", 20_354_581),
        ("tinyvit-21m", 33_223_825),
    ] {
        let config = zoo::find(name).unwrap().config.clone();
        let network = config.with_classes(21_841).build().unwrap();
        assert_eq!(network.parameter_count(), parameters, "{name}");
    }
    let large = zoo::find("tinyvit-21m").unwrap().config.clone();
    for size in [384, 512] {
        let resized = large.clone().with_size(size).unwrap();
        let name = format!("tinyvit-21m-{size}");
        // They are published after fine-tuning, which drops less.
        let published = zoo::find(&name).unwrap().config.clone();
        assert_eq!(resized, published.with_drop_path(0.2));
    }
    for (name, parameters) in [
        ("tiny-moat-0", 3_332_232),
        ("tiny-moat-1", 5_094_000),
        ("tiny-moat-2", 9_732_288),
        ("tiny-moat-3", 19_476_600),
        ("moat-0", 27_777_544),
        ("moat-1", 41_467_864),
    ] {
        let Config::Moat(mut config) = zoo::find(name).unwrap().config.clone() else {
            panic!("{name} is no MOAT");
        };
        config.tables = None;
        let network = Config::Moat(config).build().unwrap();
        assert_eq!(network.parameter_count(), parameters, "{name}");
    }
}

#[test]
fn parts_add_up() {
    for model in MODELS {
        let network = model.config.build().unwrap();
        let parts = network.parts();
        let parameters: u64 = parts.iter().map(|p| p.parameters).sum();
        let macs: u64 = parts.iter().map(|p| p.macs).sum();
        assert_eq!(
            (parameters, macs),
            (network.parameter_count(), network.macs())
        );
        assert_eq!(parts.last().unwrap().output, [model.config.classes()]);
    }
}

#[test]
fn sizes_that_do_not_go_together() {
    let tiny_vit = &zoo::find("tinyvit-5m").unwrap().config;
    let error = tiny_vit.clone().with_size(250).unwrap_err().to_string();
    assert!(error.contains("224 or 256"), "{error}");
    assert!(tiny_vit.clone().with_size(0).is_err());
    assert!(tiny_vit.clone().with_windows([14, 7]).is_err());
    let Config::TinyVit(mut config) = tiny_vit.clone() else {
        panic!("no TinyViT");
    };
    config.widths[2] = 100;
    let error = Config::TinyVit(config).build().unwrap_err().to_string();
    assert!(error.contains("100 channels"), "{error}");
    let moat = zoo::find("moat-0").unwrap().config.clone();
    assert!(moat.with_windows([14, 0]).is_err());
}
