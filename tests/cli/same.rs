//! Equal input, equal output: from run to run, on every instruction set, with any number of threads.

use crate::program::{ampoule, photo, quantize_args, vww_amp};
use crate::words;

const ISAS: [&str; 5] = ["portable", "avx2", "avxvnni", "avx512vnni", "amx"];

#[test]
fn artifacts_are_equal_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, more: &[&str]| {
        let path = folder.path().join(name);
        let args = quantize_args(&path);
        ampoule(
            args.iter()
                .map(|a| a.as_os_str())
                .chain(more.iter().map(|m| m.as_ref())),
        )
        .text();
        std::fs::read(path).unwrap()
    };
    let first = make("a.amp", &[]);
    // Nothing in an artifact depends on its name or on the time.
    assert!(first == make("b.amp", &["--json"]));
    assert!(first != make("c.amp", &["--range", "min-max"]));
    let stripped = make("d.amp", &["--strip"]);
    assert!(stripped.len() < first.len());
}

#[test]
fn every_instruction_set_gives_the_same() {
    let run = |isa: &str, threads: &str| {
        ampoule(words![
            "run",
            vww_amp(),
            photo(),
            "--json",
            "--isa",
            isa,
            "--threads",
            threads
        ])
    };
    let expected = run("portable", "1").json()["results"].clone();
    assert_eq!(run("portable", "3").json()["results"], expected);
    let tested = ampoule(words!["selftest", vww_amp(), "--json"]).json();
    let tested = tested.as_array().unwrap();
    assert_eq!(tested.len(), ISAS.len());
    for (isa, test) in ISAS.into_iter().zip(tested) {
        assert_eq!(test["isa"], isa);
        if test["available"] == false {
            println!("skipped: this processor has no {isa}");
            run(isa, "1").fails_with_advice(&[isa, "not available"]);
            ampoule(words!["bench", vww_amp(), "--isa", isa]).fails_with_advice(&[isa]);
            continue;
        }
        assert_eq!(run(isa, "1").json()["results"], expected, "{isa}");
        assert_eq!(test["hash"], tested[0]["hash"], "{isa}");
        assert!(test["vectors"].as_u64() > Some(0), "{isa}");
        let one = ampoule(words!["selftest", vww_amp(), "--isa", isa]).text();
        assert!(one.contains(test["hash"].as_str().unwrap()), "{one}");
    }
}
