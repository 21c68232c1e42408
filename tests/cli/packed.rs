//! `ampoule quantize --compress`: the same model in a smaller file.

use std::fs;

use crate::commands::shows;
use crate::program::{ampoule, photo, quantize_args};
use crate::words;

#[test]
fn packed_artifacts_are_the_same_models() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, packed] = ["plain.amp", "packed.amp"].map(|n| folder.path().join(n));
    ampoule(quantize_args(&plain)).text();
    let args = quantize_args(&packed).into_iter();
    let json = ampoule(args.chain(["--compress", "--json"].map(Into::into))).json();
    let [plain_bytes, packed_bytes] = [&plain, &packed].map(|p| fs::read(p).unwrap());
    assert_eq!(json["artifact_bytes"], plain_bytes.len());
    assert_eq!(json["packed_bytes"], packed_bytes.len());
    assert!(packed_bytes.len() * 2 < plain_bytes.len());
    assert_eq!(
        &ampoule_quantize::seal::unpack(&packed_bytes).unwrap()[..],
        plain_bytes
    );
    // Every command opens it.
    let run = |model| ampoule(words!["run", model, photo(), "--raw"]).text();
    assert_eq!(run(&plain), run(&packed));
    shows(&ampoule(words!["inspect", &packed]).text(), "packed");
    let json = ampoule(words!["inspect", &packed, "--json"]).json();
    assert_eq!(json["packed_bytes"], packed_bytes.len());
    assert_eq!(json["file_bytes"], plain_bytes.len());
    ampoule(words!["selftest", &packed]).text();
    // Weights of few values pack better, whatever they cost.
    let clustered = folder.path().join("clustered.amp");
    let args = quantize_args(&clustered).into_iter();
    let json =
        ampoule(args.chain(["--compress", "--cluster", "8", "--json"].map(Into::into))).json();
    assert!(json["packed_bytes"].as_u64().unwrap() < packed_bytes.len() as u64);
    ampoule(words!["selftest", &clustered]).text();
    // A damaged or shortened file is refused.
    for at in [8, 20, 200, packed_bytes.len() - 5] {
        let mut damaged = packed_bytes.clone();
        damaged[at] ^= 4;
        fs::write(&packed, &damaged).unwrap();
        ampoule(words!["inspect", &packed]).fails_with_advice(&["packed.amp"]);
    }
    fs::write(&packed, &packed_bytes[..packed_bytes.len() / 2]).unwrap();
    ampoule(words!["inspect", &packed]).fails_with_advice(&["truncated"]);
}
