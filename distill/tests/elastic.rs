//! Networks that are cut out of an elastic one against the whole network with masks, in double precision: its own
//! layers at their full size, with channels beyond the cut set to zero behind each of them.

#[path = "../kernels/tests/common/reference.rs"]
#[allow(dead_code)]
mod reference;

use ampoule_distill::elastic::{Elastic, Size};
use ampoule_distill::zoo::{self, Config, TinyVitConfig, Weights};
use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::{Activation, Kind, Node, Op};

fn config() -> TinyVitConfig {
    let config = zoo::find("tinyvit-mini").unwrap().config.clone();
    match config.with_size(32).unwrap() {
        Config::TinyVit(config) => TinyVitConfig {
            depths: [1, 1, 3, 2],
            ..config
        },
        _ => unreachable!("a TinyViT"),
    }
}

/// The whole network's values, and statistics of all sizes.
fn values(elastic: &Elastic) -> Vec<Vec<f32>> {
    let mut values = Weights::random(elastic.whole(), 5).into_values();
    let sizes = elastic.sizes();
    for (i, size) in sizes[..sizes.len() - 1].iter().enumerate() {
        let own = Weights::random(size.network(), 20 + i as u64).into_values();
        let all = own.into_iter().zip(size.network().parameters());
        values.extend(
            all.filter(|(_, p)| p.kind == Kind::Statistic)
                .map(|(v, _)| v),
        );
    }
    values
}

/// A size as the whole network with masks.
struct Masked<'a> {
    whole: &'a TinyVitConfig,
    size: &'a TinyVitConfig,
}

impl Masked<'_> {
    /// The whole network's blocks that are kept of a stage: `floor(linspace(0, all − 1, kept))`.
    fn kept(&self, stage: usize) -> Vec<usize> {
        let (all, kept) = (self.whole.depths[stage], self.size.depths[stage]);
        let place = |i: usize| match kept {
            1 => 0.0,
            _ => i as f64 * (all - 1) as f64 / (kept - 1) as f64,
        };
        (0..kept).map(|i| place(i).floor() as usize).collect()
    }

    /// Channels that are used of so many, of a layer's result.
    fn active(&self, name: &str, channels: usize) -> usize {
        let stage = match name.strip_prefix("stages.") {
            Some(rest) => rest[..1].parse().unwrap(),
            None if name.starts_with("head") => 3,
            None => 0,
        };
        match name {
            "head.fc" => channels,
            _ => channels * self.size.widths[stage] / self.whole.widths[stage],
        }
    }

    fn is_dropped(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["stages", stage, "blocks", block, ..] => {
                let stage: usize = stage.parse().unwrap();
                stage > 0 && !self.kept(stage).contains(&block.parse().unwrap())
            }
            _ => false,
        }
    }
}

fn logits(elastic: &Elastic, size: &Size, values: &[Vec<f32>], input: &[f32]) -> Vec<f64> {
    let whole = config();
    let masked = Masked {
        whole: &whole,
        size: size.config(),
    };
    let graph = elastic.whole().graph();
    let count = graph.parameters().len();
    let wide = |v: &Vec<f32>| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let mut parameters: Vec<Vec<f64>> = values[..count].iter().map(wide).collect();
    // The size's own statistics, under the names of the whole network's blocks.
    let place = elastic
        .sizes()
        .iter()
        .position(|s| s.config() == size.config());
    let place = place.unwrap();
    let statistics = |s: &Size| {
        let parameters = s.network().parameters().iter();
        parameters.filter(|p| p.kind == Kind::Statistic).count()
    };
    if place + 1 < elastic.sizes().len() {
        let before: usize = elastic.sizes()[..place].iter().map(statistics).sum();
        let mut own = values[count + before..].iter();
        for p in size.network().parameters() {
            if p.kind != Kind::Statistic {
                continue;
            }
            let mut parts: Vec<String> = p.name.split('.').map(str::to_owned).collect();
            if parts[0] == "stages" && parts[2] == "blocks" {
                let kept = masked.kept(parts[1].parse().unwrap());
                parts[3] = kept[parts[3].parse::<usize>().unwrap()].to_string();
            }
            let name = parts.join(".");
            let at = graph
                .parameters()
                .iter()
                .position(|q| q.name == name)
                .unwrap();
            let own = wide(own.next().unwrap());
            parameters[at][..own.len()].copy_from_slice(&own);
        }
    }
    let active_of: std::collections::HashMap<usize, usize> = graph
        .nodes()
        .iter()
        .map(|n| {
            let channels = graph.map(n.output).channels;
            (n.output.0, masked.active(&n.name, channels))
        })
        .collect();
    let compute = |node: &Node, x: &[&[f64]], layer: &reference::Layer<'_>| {
        let channels = graph.map(node.output).channels;
        if masked.is_dropped(&node.name)
            && matches!(
                node.op,
                Op::Add { .. } | Op::Depthwise { .. } | Op::BatchNorm(_)
            )
        {
            return x[0].to_vec();
        }
        let from = graph.map(node.inputs[0]).channels;
        let used = active_of.get(&node.inputs[0].0).copied().unwrap_or(from);
        let mut y = match &node.op {
            // A cut input counts for all of it; the bias as it is.
            Op::Conv { .. } => {
                let factor = from as f64 / used as f64;
                let scaled: Vec<f64> = x[0].iter().map(|x| factor * x).collect();
                layer(&[&scaled])
            }
            Op::LayerNorm {
                weight,
                bias,
                epsilon,
            } => x[0]
                .chunks_exact(from)
                .flat_map(|row| {
                    let seen = &row[..used];
                    let mean = seen.iter().sum::<f64>() / used as f64;
                    let squares = seen.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
                    let r = 1.0 / (squares / used as f64 + f64::from(*epsilon)).sqrt();
                    let (weight, bias) = (&parameters[weight.0], &parameters[bias.0]);
                    let one = move |(i, x): (usize, &f64)| (x - mean) * r * weight[i] + bias[i];
                    row.iter().enumerate().map(one).collect::<Vec<_>>()
                })
                .collect(),
            // Beyond 6 the reference's series has no digits left, and Φ is 0 or 1 to 1e-9.
            Op::Activation(Activation::Gelu) => {
                let small: Vec<f64> = x[0].iter().map(|x| x.clamp(-6.0, 6.0)).collect();
                let pairs = layer(&[&small]).into_iter().zip(x[0]);
                pairs
                    .map(|(y, &x)| if x.abs() > 6.0 { x.max(0.0) } else { y })
                    .collect()
            }
            _ => layer(x),
        };
        let active = active_of[&node.output.0];
        for row in y.chunks_exact_mut(channels) {
            row[active..].fill(0.0);
        }
        y
    };
    let input = vec![input.iter().map(|&x| f64::from(x)).collect()];
    reference::forward_with(graph, &parameters, &input, 1, false, &compute)
}

#[test]
fn cut_networks_are_the_masked_whole() {
    let elastic = Elastic::new(config(), &[0.34, 0.67]).unwrap();
    // Three widths, three depths.
    assert_eq!(elastic.sizes().len(), 9);
    let values = values(&elastic);
    let input: Vec<f32> = (0..32 * 32 * 3)
        .map(|i| (i * i % 101) as f32 / 50.0 - 1.0)
        .collect();
    let mut seen = Vec::new();
    for size in elastic.sizes() {
        let expected = logits(&elastic, size, &values, &input);
        let mut own = elastic.extract(size, &values).unwrap().into_values();
        let mut engine = Engine::new(size.network().graph().clone(), 1).unwrap();
        engine.forward(&mut own, &[&input], 1, Mode::EVAL).unwrap();
        let got = engine.output(0);
        let largest = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        let differences = expected
            .iter()
            .zip(got)
            .map(|(e, &g)| (e - f64::from(g)).abs());
        let worst = differences.fold(0.0, f64::max);
        assert!(
            worst <= 1e-5 * largest,
            "{:?}: {worst} of {largest}",
            size.config()
        );
        seen.push(got.to_vec());
    }
    // They are different networks.
    seen.sort_by(|a, b| a[0].total_cmp(&b[0]));
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn files_sizes_and_budgets() {
    let elastic = Elastic::new(config(), &[0.34, 0.67]).unwrap();
    let values = values(&elastic);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("elastic.safetensors");
    std::fs::write(&path, elastic.to_bytes(&values).unwrap()).unwrap();
    let (read, again) = Elastic::read(&path).unwrap();
    assert_eq!(again, values);
    let macs: Vec<u64> = read.sizes().iter().map(Size::macs).collect();
    assert!(macs.is_sorted());
    assert_eq!(macs[8], elastic.whole().macs());
    assert_eq!(read.within(macs[3]).unwrap().macs(), macs[3]);
    assert_eq!(read.within(macs[4] - 1).unwrap().macs(), macs[3]);
    assert_eq!(read.within(u64::MAX).unwrap().macs(), macs[8]);
    let error = read.within(macs[0] - 1).unwrap_err().to_string();
    assert!(error.contains(&macs[0].to_string()), "{error}");
    for (shares, words) in [
        (&[0.9999][..], "no size below"),
        (&[1.0], "a share of 1"),
        (&[], "no size"),
    ] {
        let error = Elastic::new(config(), shares).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    std::fs::write(&path, b"nothing").unwrap();
    let error = Elastic::read(&path).unwrap_err().to_string();
    assert!(error.contains("is no elastic network"), "{error}");
    assert!(elastic.to_bytes(&values[1..]).is_err());
}
