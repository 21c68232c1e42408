//! Reports are single files that open anywhere.

use crate::program::{ampoule, photos, quantize_args, vww_amp, vww_onnx};
use crate::words;

/// Fails when a page needs anything beside itself, runs scripts, or is cut off.
#[track_caller]
pub fn is_self_contained(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    for outside in [
        "<script", "<link", "@import", "url(", "http://", "https://", "srcset",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    for source in page.split("src=\"").skip(1) {
        assert!(source.starts_with("data:image/"), "{}", &source[..40]);
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
    for word in [">NaN", "Infinity", ">inf", "\"NaN"] {
        assert!(!page.contains(word), "{word}");
    }
    for tag in ["table", "svg", "figure", "tr", "td"] {
        let count = |what: String| page.matches(&what).count();
        assert_eq!(
            count(format!("<{tag}")),
            count(format!("</{tag}>")),
            "{tag}"
        );
    }
}

#[test]
fn quantize_report() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.html");
    let args = quantize_args(&folder.path().join("vww.amp"));
    let words = words!["--json", "--report", &report];
    let json = ampoule(args.iter().map(|a| a.as_os_str()).chain(words)).json();
    let page = std::fs::read_to_string(report).unwrap();
    is_self_contained(&page);
    assert!(page.contains(json["digest"].as_str().unwrap()));
    assert!(page.contains(&format!("multiply-accumulates in {} steps", json["steps"])));
    assert!(page.contains(&format!("{} B.", json["arena_bytes"])));
}

#[test]
fn compare_report() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("layers.html");
    let onnx = vww_onnx();
    let json = ampoule(words![
        "compare",
        &onnx,
        vww_amp(),
        "--data",
        photos(),
        "--samples",
        "2",
        "--html",
        &report,
        "--json"
    ])
    .json();
    let page = std::fs::read_to_string(report).unwrap();
    is_self_contained(&page);
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(page.matches("<tr>").count(), layers.len() + 1);
    for layer in layers {
        assert!(page.contains(&format!("{:.1}</td>", layer["sqnr_db"].as_f64().unwrap())));
    }
}
