//! Tensors in several memory banks: the same bytes as in one arena.
#![allow(missing_docs)]

#[path = "../../tests/common/mod.rs"]
mod common;

use ampoule_quantize::lower::LowerOptions;
use ampoule_quantize::model::{Compiled, Model, ModelError, compile};
use ampoule_quantize::pipeline::{QuantizeOptions, Quantized};
use ampoule_quantize::plan::{Bank, BankError, BankKind, PlanOptions, Target};
use ampoule_quantize::seal::Extras;
use ampoule_runtime::artifact::golden_input;
use ampoule_runtime::{Arena, Error, Isa, Session};
use common::{inverted_residual, quantized, rows_net, zoo_net};

fn board(banks: &[(usize, f64)]) -> Target {
    let bank = |(i, &(bytes, cost)): (usize, &(usize, f64))| Bank {
        name: format!("bank{i}"),
        kind: BankKind::Ram,
        bytes,
        cost,
    };
    Target {
        name: "board".into(),
        banks: banks.iter().enumerate().map(bank).collect(),
        weights: None,
    }
}

fn sealed(done: &Quantized, target: Option<Target>) -> Result<Compiled, ModelError> {
    let planning = PlanOptions {
        target,
        ..PlanOptions::default()
    };
    let (lowering, extras) = (LowerOptions::default(), Extras::default());
    compile(
        &done.graph,
        Some(&done.scheme),
        &lowering,
        &planning,
        &extras,
    )
}

/// Outputs of a run on an input that the seed tells, on an instruction set.
fn run(compiled: &Compiled, isa: Isa) -> Vec<u8> {
    let mut model = Model::from_bytes(compiled.bytes.clone()).unwrap();
    let mut session = model.session(isa).unwrap();
    for i in 0..session.artifact().inputs().count() {
        let dtype = session.input(i).unwrap().tensor.dtype;
        golden_input(7 + i as u32, dtype, session.input_bytes(i).unwrap());
    }
    session.run().unwrap();
    let outputs = 0..session.artifact().outputs().count();
    outputs
        .flat_map(|o| session.output_bytes(o).unwrap().to_vec())
        .collect()
}

/// Bytes read from and written to each bank, by the tensors of the steps.
fn cost(compiled: &Compiled, target: &Target) -> f64 {
    let prices: Vec<f64> = target.ram().map(|b| b.cost).collect();
    let touched = compiled.program.steps.iter().flat_map(|step| {
        let read = step.inputs().into_iter().flatten();
        read.chain([step.output()])
            .chain(step.scratch())
            .chain(step.scratch())
            .collect::<Vec<_>>()
    });
    touched
        .filter_map(|id| {
            let place = compiled.plan.places[usize::from(id)]?;
            let bytes = compiled.program.tensor(id).bytes() as f64;
            Some(bytes * prices[usize::from(place.bank)])
        })
        .sum()
}

#[test]
fn banks_give_the_same_bytes_within_their_sizes() {
    let nets = [rows_net(), inverted_residual(), zoo_net(3)];
    for done in nets.map(|net| quantized(net, &QuantizeOptions::default())) {
        let plain = sealed(&done, None).unwrap();
        let total = plain.plan.total();
        let mut split = 0;
        for share in [8, 4, 3, 2] {
            let small = (total / share).next_multiple_of(64);
            let target = board(&[(total, 4.0), (small, 1.0), (total, 9.0)]);
            let banked = sealed(&done, Some(target.clone())).unwrap();
            let bytes = &banked.plan.bank_bytes;
            assert!(bytes.iter().zip(target.ram()).all(|(&n, b)| n <= b.bytes));
            let used = bytes.iter().filter(|&&n| n > 0).count();
            split += usize::from(used > 1);
            // The dear bank is for what the others do not hold.
            let all_in_first = cost(&plain, &target);
            assert!(
                cost(&banked, &target) < all_in_first,
                "1/{share}: {bytes:?}"
            );
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                assert_eq!(run(&banked, isa), run(&plain, isa), "{}", isa.name());
            }
        }
        assert!(split > 0, "nothing was placed in two banks");
    }
}

#[test]
fn a_bank_that_holds_everything_is_the_one_arena() {
    let done = quantized(rows_net(), &QuantizeOptions::default());
    let plain = sealed(&done, None).unwrap();
    let total = plain.plan.total();
    let banked = sealed(&done, Some(board(&[(total, 2.0)]))).unwrap();
    // But for scratch that threads share, which one arena has beside.
    assert_eq!(banked.plan.bank_bytes, [total]);
    let isa = Isa::best();
    assert_eq!(run(&banked, isa), run(&plain, isa));
    // The cheaper one is the second of the file: its number stays.
    let target = board(&[(total, 2.0), (total, 1.0)]);
    assert_eq!(
        sealed(&done, Some(target)).unwrap().plan.bank_bytes,
        [0, total]
    );
}

#[test]
fn what_has_no_room_is_an_error_that_says_what_is_missing() {
    let done = quantized(rows_net(), &QuantizeOptions::default());
    let bound = sealed(&done, None).unwrap().plan.lower_bound;
    let refusal = |target| match sealed(&done, Some(target)).unwrap_err() {
        ModelError::Banks(error) => error,
        other => panic!("{other}"),
    };
    let error = refusal(board(&[(bound - 1024, 1.0), (512, 2.0)]));
    assert!(
        matches!(error, BankError::TooSmall { needed, .. } if needed == bound),
        "{error}"
    );
    assert!(error.to_string().contains("more than the"), "{error}");
    // Enough together, and no piece is large enough.
    let error = refusal(board(&[(1024, 1.0); 8].map(|(_, c)| (bound / 8 + 64, c))));
    assert!(matches!(error, BankError::NoRoom { .. }), "{error}");
    let mut target = board(&[(bound * 2, 1.0)]);
    target.banks.push(Bank {
        name: "flash".into(),
        kind: BankKind::Flash,
        bytes: 1000,
        cost: 5.0,
    });
    let error = refusal(target);
    assert!(
        matches!(error, BankError::Artifact { held: 1000, .. }),
        "{error}"
    );
}

#[test]
fn a_session_wants_every_bank() {
    let done = quantized(rows_net(), &QuantizeOptions::default());
    let total = sealed(&done, None).unwrap().plan.total();
    let target = board(&[((total / 3).next_multiple_of(64), 1.0), (total, 3.0)]);
    let banked = sealed(&done, Some(target)).unwrap();
    let model = Model::from_bytes(banked.bytes).unwrap();
    let artifact = model.artifact().unwrap();
    let mut first = Arena::<65536>::new();
    assert!(artifact.bank_bytes(0) <= 65536);
    let refused = Session::new(artifact, [first.bytes()])
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refused, Error::ArenaTooSmall(1));
}

#[test]
fn files_that_are_none_are_refused() {
    let read = |banks: &str, rest: &str| {
        let text = format!(r#"{{"name": "b", "banks": [{banks}]{rest}}}"#);
        Target::from_json(&text)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    let ram = r#"{"name": "A", "kind": "ram", "bytes": 64, "cost": 1}"#;
    read(ram, "").unwrap();
    for (banks, rest, says) in [
        ("".to_owned(), "", "0 banks of RAM"),
        ([ram; 9].join(","), "", "9 banks of RAM"),
        (format!("{ram},{ram}"), "", "two banks"),
        (ram.replace("1}", "-1}"), "", "costs -1"),
        (ram.replace("64", "5000000000"), "", "4 GiB"),
        (ram.replace("ram", "rom"), "", "rom"),
        (ram.to_owned(), r#", "weights": "B""#, "no bank"),
        (ram.to_owned(), r#", "wieghts": "A""#, "wieghts"),
    ] {
        let error = read(&banks, rest).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}
