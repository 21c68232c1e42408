//! Names what is in a folder of photos: `classify model.amp photos/`.

use std::path::Path;
use std::process::ExitCode;

use ampoule::quantize::data::ImageSet;
use ampoule::{Classifier, ClassifyError};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, photos] = &arguments[..] else {
        eprintln!("usage: classify MODEL.amp FOLDER");
        return ExitCode::from(2);
    };
    match classify(Path::new(model), Path::new(photos)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn classify(model: &Path, photos: &Path) -> Result<(), ClassifyError> {
    let mut classifier = Classifier::open(model)?;
    let set = ImageSet::open(photos)?;
    let mut images = set.images();
    for sample in images.by_ref() {
        if let Some(best) = classifier.classify(&sample.image.view()?)?.top(1).first() {
            println!(
                "{:5.1} %  {:20}  {}",
                100.0 * best.probability,
                best.label,
                sample.path.display()
            );
        }
    }
    for skipped in &images.report().skipped {
        eprintln!("skipped: {}", skipped.reason);
    }
    Ok(images.report().check()?)
}
