//! Models that are quantised already: no data, their own parameters, and errors for what does not apply.

use crate::program::{ampoule, fixture, photos};
use crate::words;

const ALREADY: &str = "already quantised: parameters taken from the file";

#[test]
fn int8_files_need_no_data() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("tflite/kws_dscnn_int8.tflite", "TFLite version 3"),
        ("quantised/qdq_int8.onnx", "ONNX opset 17"),
        ("quantised/operators.onnx", "ONNX opset 17"),
    ] {
        let model = fixture(&format!("models/{name}"));
        let amp = folder.path().join("model.amp");
        let args = || {
            let paths = [model.as_os_str(), amp.as_os_str()];
            words!["quantize", "--deny-fallback", "--verify"]
                .into_iter()
                .chain([paths[0]])
                .chain(words!["-o"])
                .chain([paths[1]])
        };
        let text = ampoule(args()).text();
        assert!(
            text.contains(ALREADY) && text.contains("not int8     nothing"),
            "{text}"
        );
        let json = ampoule(args().chain(words!["--json"])).json();
        assert_eq!(json["format"], format);
        assert_eq!(
            (&json["from_source"], &json["samples"]),
            (&true.into(), &0.into())
        );
        let shown = ampoule(words!["inspect"].into_iter().chain([amp.as_os_str()])).text();
        assert!(
            shown.contains(ALREADY) && shown.contains("2 vectors"),
            "{shown}"
        );
        ampoule(words!["selftest"].into_iter().chain([amp.as_os_str()])).text();
        let source = ampoule(words!["inspect"].into_iter().chain([model.as_os_str()])).text();
        assert!(
            source.contains("Quantize") && source.contains(format),
            "{source}"
        );
    }
}

#[test]
fn what_does_not_apply_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let amp = folder.path().join("model.amp");
    let int8 = fixture("models/tflite/kws_dscnn_int8.tflite");
    let float = fixture("models/tflite/kws_dscnn_float.tflite");
    let run = |model: &std::path::Path, more: &[&std::ffi::OsStr]| {
        let args = words!["quantize", "-o"].into_iter();
        ampoule(
            args.chain([amp.as_os_str(), model.as_os_str()])
                .chain(more.iter().copied()),
        )
    };
    let data = words!["--calibration"];
    run(&int8, &[data[0], photos().as_os_str()])
        .fails(2, &["quantised already", "leave --calibration out"]);
    run(&int8, &words!["--max-drop", "1"]).fails(2, &["leave --max-drop out"]);
    run(&float, &[]).fails(2, &["in float", "--calibration", "--float"]);
    run(&float, &words!["--float"]).text();
    assert!(amp.exists());
    let cut = folder.path().join("cut.tflite");
    std::fs::write(&cut, &std::fs::read(&int8).unwrap()[..20_000]).unwrap();
    run(&cut, &[]).fails_with_advice(&["not a TFLite model, or a damaged one"]);
}
