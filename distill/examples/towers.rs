//! Trains clip-mini on pairs.
use ampoule_distill::augment::{Augmentation, Crop, RandAugment};
use ampoule_distill::data::{Dataset, Pictures};
use ampoule_distill::export::{self, Settings};
use ampoule_distill::teacher::TextTeacher;
use ampoule_distill::text::WordPiece;
use ampoule_distill::train::pairs::{Pairs, PairsOptions, PairsWeights, Space, TextTeaching};
use ampoule_distill::train::{EpochReport, Observer, StepReport, TrainOptions, Trainer};
use ampoule_distill::zoo::{self, Weights};
use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};
use std::collections::HashMap;
use std::sync::Arc;
struct Print;
impl Observer for Print {
    fn step(&mut self, r: &StepReport) {
        if r.step % 25 == 0 {
            println!(
                "step {} epoch {} loss {:.3} rate {:.2e} norm {:.2} {:.0} ms {:?}",
                r.step,
                r.epoch,
                r.measures.loss.unwrap_or(0.0),
                r.rate,
                r.gradient_norm,
                r.seconds * 1e3,
                r.measures.others
            );
        }
    }
    fn epoch(&mut self, r: &EpochReport) {
        if !r.measures.others.is_empty() {
            println!("epoch {} step {} {:?}", r.epoch, r.step, r.measures.others);
        }
    }
}
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: HashMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|a| a.split_once('=').map(|(k, v)| (k.into(), v.into())))
        .collect();
    let get = |k: &str, d: &str| args.get(k).cloned().unwrap_or(d.into());
    let number = |k: &str, d: &str| get(k, d).parse::<f64>().unwrap();
    let tokenizer = WordPiece::read(get("vocab", "/work/shared/data/clip-mini/vocab.txt"))?;
    let dir = get("dir", "/tmp/tw/pairs");
    let data = Arc::new(Dataset::open(format!(
        "{dir}/{}.jsonl",
        get("train", "unseen-train")
    ))?);
    let test = Arc::new(Dataset::open(format!(
        "{dir}/{}.jsonl",
        get("test", "unseen-153")
    ))?);
    let towers = zoo::clip_mini(tokenizer.len()).build()?;
    let mut values = Weights::initial(&towers.image, 0).into_values();
    let text = get("text-weights", "/tmp/tw/text.safetensors");
    values.extend(match text.as_str() {
        "none" => Weights::initial(&towers.text, 1).into_values(),
        path => Weights::read(&towers.text, path.as_ref())?.into_values(),
    });
    values.push(vec![(1.0f32 / 0.07).ln()]);
    let preprocess = Preprocess {
        resize: Resize::Exact,
        filter: Filter::Bicubic,
        antialias: true,
        width: 64,
        height: 64,
        channels: Channels::Rgb,
        scale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.5; 3],
    };
    let augmentation = Augmentation {
        crop: Crop::Random {
            scale: [number("scale", "0.6"), 1.0],
            ratio: [0.8, 1.25],
        },
        rand_augment: Some(RandAugment {
            operations: 2,
            probability: 0.5,
            magnitude: number("mag", "7"),
            deviation: 0.5,
        }),
        ..Augmentation::none([64, 64], Resize::Exact)
    };
    let threads = number("threads", "2") as usize;
    let options = PairsOptions {
        batch: number("batch", "256") as usize,
        tokens: 32,
        weights: PairsWeights {
            contrast: number("contrast", "1"),
            picture: number("picture", "1"),
            text: number("text", "4"),
            relational: 0.0,
        },
        seed: number("seed", "0") as u64,
        preprocess,
        threads,
        max_unreadable: 0,
        evaluate_every: number("every", "4") as usize,
    };
    let mut task = Pairs::new(Pictures { data, augmentation }, test, &tokenizer, options)?;
    let teacher = get("teacher", "/work/shared/data/clip-mini/text_encoder.onnx");
    if teacher != "none" {
        let vocab = get("teacher-vocab", "/work/shared/data/clip-mini/vocab.txt");
        let teacher = TextTeacher::load(&teacher, WordPiece::read(vocab)?)?;
        let texts = &task.captions().texts;
        let started = std::time::Instant::now();
        let all = teacher.embed_all(texts, threads, |_| ())?;
        println!(
            "{} texts in {:.1} s",
            texts.len(),
            started.elapsed().as_secs_f64()
        );
        let space = Space::of(&all, teacher.width(), 128);
        let embeddings: Vec<f32> = all
            .chunks(teacher.width())
            .flat_map(|e| space.project(e))
            .collect();
        println!("space in {:.1} s", started.elapsed().as_secs_f64());
        task = task.with_text_teacher(TextTeaching { embeddings });
    }
    let factor = number("factor", "0.1") as f32;
    let options = TrainOptions {
        epochs: number("epochs", "20") as usize,
        rate: number("rate", "2e-3") as f32,
        warmup: 0.05,
        ema: Some(number("ema", "0.98") as f32),
        clip: Some(1.0),
        threads,
        factors: vec![
            ("text.head".into(), number("head", "0.5") as f32),
            ("text.".into(), factor),
        ],
        ..TrainOptions::default()
    };
    let graph = towers.graph();
    println!(
        "{} + {} parameters, {} + {} MACs",
        towers.image.parameter_count(),
        towers.text.parameter_count(),
        towers.image.macs(),
        towers.text.macs()
    );
    let mut trainer = Trainer::new(graph, values, options)?;
    trainer.train(&mut task, None, &mut Print)?;
    println!("{:?}", task.retrieval(&mut trainer.evaluator())?);
    let out = get("out", "/tmp/tw/out");
    std::fs::create_dir_all(&out)?;
    let [image, text] = towers.split(trainer.weights());
    for (name, network, values, input) in [
        ("image", &towers.image, image, "input"),
        ("text", &towers.text, text, "input_ids"),
    ] {
        let settings = Settings {
            fold: true,
            inputs: &[input],
            outputs: &["embedding"],
            ..Settings::default()
        };
        std::fs::write(
            format!("{out}/{name}.onnx"),
            export::onnx(network.graph(), values, &settings)?,
        )?;
    }
    let raw: Vec<u8> = trainer
        .weights()
        .iter()
        .flatten()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    std::fs::write(format!("{out}/weights.bin"), raw)?;
    Ok(())
}
