//! Everything worth knowing about an artifact, for tables, JSON and reports.

use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::Meta;
use ampoule_quantize::plan::Target;
use ampoule_runtime::artifact::layout::{ALIGN, field, u16_at};
use ampoule_runtime::artifact::{Blob, Conv, Io, Step};
use ampoule_runtime::preprocess::Preprocess;
use ampoule_runtime::{Artifact, CONSTANT_BANK, DType, Tensor};
use serde::Serialize;

use crate::cli::error::Failure;
use crate::cli::output::hex;

/// An artifact.
#[derive(Debug, Clone, Serialize)]
pub struct Details {
    pub format_version: String,
    pub digest: String,
    pub file_bytes: usize,
    /// Bytes of a packed file; `file_bytes` are then those in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed_bytes: Option<usize>,
    pub weight_bytes: usize,
    pub macs: u64,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub preprocess: Option<Preprocess>,
    pub labels: usize,
    pub golden_vectors: usize,
    pub memory: Memory,
    pub steps: Vec<StepDetails>,
    pub meta: Option<Meta>,
}

/// An input or output.
#[derive(Debug, Clone, Serialize)]
pub struct Port {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u32>,
    pub scale: f32,
    pub zero_point: i32,
}

/// The arena.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Bytes of every bank.
    pub banks: Vec<usize>,
    /// Bytes that a run reads from and writes to every bank.
    pub traffic: Vec<usize>,
    /// The board that the banks are of.
    pub target: Option<Target>,
    /// Most bytes alive at one step.
    pub lower_bound: usize,
    /// That step.
    pub peak_step: usize,
    /// Bytes alive at every step.
    pub live: Vec<usize>,
}

/// One step.
#[derive(Debug, Clone, Serialize)]
pub struct StepDetails {
    pub index: usize,
    pub op: &'static str,
    pub name: String,
    pub inputs: Vec<Vec<u32>>,
    pub output: Vec<u32>,
    pub dtype: &'static str,
    pub weight_bytes: usize,
    pub macs: u64,
    /// Bytes of operands, constants and result.
    pub bytes: usize,
    pub live_bytes: usize,
    /// Arena bank of the result.
    pub bank: u8,
}

impl Details {
    /// Reads a verified artifact.
    pub fn of(model: &Model) -> Result<Self, Failure> {
        let artifact = model.artifact()?;
        let meta: Option<Meta> = artifact.meta().and_then(|m| serde_json::from_str(m).ok());
        let target = meta.as_ref().and_then(|m| m.facts.get("target")).cloned();
        let target = target.and_then(|t| serde_json::from_value(t).ok());
        let memory = Memory::of(&artifact, target)?;
        let steps = artifact.steps().enumerate();
        let steps = steps.map(|(i, step)| StepDetails::of(&artifact, i, &step, memory.live[i]));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let version = |at| u16_at(model.bytes(), at).unwrap_or(0);
        Ok(Details {
            format_version: format!("{}.{}", version(field::MAJOR), version(field::MINOR)),
            digest: hex(artifact.digest()),
            file_bytes: model.bytes().len(),
            packed_bytes: None,
            weight_bytes: artifact.weight_bytes(),
            macs: steps.iter().map(|s| s.macs).sum(),
            inputs: artifact.inputs().map(|io| Port::of(&io)).collect(),
            outputs: artifact.outputs().map(|io| Port::of(&io)).collect(),
            preprocess: artifact.preprocess(),
            labels: artifact.labels().map_or(0, Iterator::count),
            golden_vectors: artifact.golden().count(),
            memory,
            steps,
            meta,
        })
    }
}

impl Port {
    fn of(io: &Io<'_>) -> Self {
        let t = &io.tensor;
        Port {
            name: io.name.unwrap_or_default().to_owned(),
            dtype: t.dtype.name(),
            shape: t.shape.dims().to_vec(),
            scale: t.scale,
            zero_point: t.zero_point,
        }
    }
}

impl Memory {
    fn of(artifact: &Artifact<'_>, target: Option<Target>) -> Result<Self, Failure> {
        let count = artifact.tensor_count() as u16;
        let tensors = (0..count)
            .map(|id| artifact.tensor(id))
            .collect::<Result<Vec<_>, _>>()?;
        let live: Vec<usize> = (0..artifact.step_count())
            .map(|step| live_bytes(&tensors, step))
            .collect();
        let peak = live
            .iter()
            .copied()
            .enumerate()
            .max_by_key(|&(i, n)| (n, usize::MAX - i));
        let (peak_step, lower_bound) = peak.unwrap_or_default();
        let banks: Vec<usize> = (0..artifact.banks())
            .map(|b| artifact.bank_bytes(b))
            .collect();
        let mut traffic = vec![0; banks.len()];
        for step in artifact.steps() {
            // Working memory is written and read.
            let scratch = step.scratch();
            let read = step.inputs().into_iter().flatten().chain(scratch);
            for id in read.chain(scratch).chain([step.output()]) {
                let t = &tensors[usize::from(id)];
                if let Some(bytes) = traffic.get_mut(usize::from(t.bank)) {
                    *bytes += t.bytes();
                }
            }
        }
        Ok(Memory {
            banks,
            traffic,
            target,
            lower_bound,
            peak_step,
            live,
        })
    }
}

/// Bytes that hold something at a step. Tensors that replace each other in place share theirs.
fn live_bytes(tensors: &[Tensor], step: usize) -> usize {
    let alive = |t: &&Tensor| {
        t.bank != CONSTANT_BANK && (usize::from(t.first)..=usize::from(t.last)).contains(&step)
    };
    let region = |t: &Tensor| {
        (
            t.bank,
            t.offset as usize,
            t.offset as usize + t.bytes().next_multiple_of(ALIGN),
        )
    };
    let mut regions: Vec<(u8, usize, usize)> = tensors.iter().filter(alive).map(region).collect();
    regions.sort_unstable();
    let (mut total, mut bank, mut end) = (0, CONSTANT_BANK, 0);
    for (b, from, to) in regions {
        if b != bank {
            (bank, end) = (b, 0);
        }
        total += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    total
}

impl StepDetails {
    fn of(
        artifact: &Artifact<'_>,
        index: usize,
        step: &Step,
        live_bytes: usize,
    ) -> Result<Self, Failure> {
        let y = artifact.tensor(step.output())?;
        let reads = step
            .inputs()
            .into_iter()
            .flatten()
            .map(|id| artifact.tensor(id))
            .collect::<Result<Vec<_>, _>>()?;
        let constants: usize = reads
            .iter()
            .filter(|t| t.bank == CONSTANT_BANK)
            .map(Tensor::bytes)
            .sum();
        let blobs: usize = blobs(step)
            .into_iter()
            .flatten()
            .map(|b| b.len as usize)
            .sum();
        // A step that changes the type computes in the narrower one, except into float.
        let dtype = match (step, reads.first().map_or(y.dtype, |t| t.dtype)) {
            (Step::Conv(_) | Step::Depthwise(_), DType::I16) => DType::I16,
            _ => y.dtype,
        };
        Ok(StepDetails {
            index,
            op: step.name(),
            name: artifact
                .tensor_name(step.output())
                .unwrap_or_default()
                .to_owned(),
            inputs: reads.iter().map(|t| t.shape.dims().to_vec()).collect(),
            output: y.shape.dims().to_vec(),
            dtype: dtype.name(),
            weight_bytes: constants + blobs,
            macs: macs(step, &reads, &y),
            bytes: distinct_bytes(step, &reads) + blobs + y.bytes(),
            live_bytes,
            bank: y.bank,
        })
    }
}

fn blobs(step: &Step) -> Vec<Option<Blob>> {
    let of = |c: Conv| {
        let always = [Some(c.weights), Some(c.bias)];
        [&always[..], &[c.sums, c.multipliers, c.table]].concat()
    };
    match *step {
        Step::Conv(c) | Step::Depthwise(c) => of(c),
        Step::Sparse {
            layer,
            starts,
            quads,
        } => [of(layer), vec![Some(starts), Some(quads)]].concat(),
        Step::Table { table, .. } => vec![Some(table)],
        Step::Binary(b) => vec![b.table],
        Step::Softmax { table, .. } => vec![table],
        Step::LayerNorm { gain, offset, .. } => vec![Some(gain), Some(offset)],
        _ => Vec::new(),
    }
}

/// Bytes of the tensors that a step reads, each once.
fn distinct_bytes(step: &Step, reads: &[Tensor]) -> usize {
    let ids: Vec<_> = step.inputs().into_iter().flatten().collect();
    let first = |i: usize| !ids[..i].contains(&ids[i]);
    let tensors = reads.iter().enumerate().filter(|&(i, _)| first(i));
    tensors.map(|(_, t)| t.bytes()).sum()
}

/// Multiply-accumulates of a step; 0 for everything but products.
fn macs(step: &Step, reads: &[Tensor], y: &Tensor) -> u64 {
    let depth = reads.first().map_or(1, |x| x.shape.last());
    let per_output = match step {
        Step::Conv(c) => {
            c.window
                .kernel
                .iter()
                .map(|&k| usize::from(k))
                .product::<usize>()
                * depth
        }
        Step::Depthwise(c) => c
            .window
            .kernel
            .iter()
            .map(|&k| usize::from(k))
            .product::<usize>(),
        Step::MatMul { .. } => depth,
        // Only what is multiplied counts.
        Step::Sparse { layer, .. } => {
            let pixels = y.shape.elements() / y.shape.last();
            return pixels as u64 * u64::from(layer.weights.len);
        }
        Step::Attention(a) => {
            let g = &a.geometry;
            let products = g.key_count() * (g.depth + g.width) as usize;
            return (g.outer_count() * g.query_count() * products) as u64;
        }
        _ => 0,
    };
    (y.shape.elements() * per_output) as u64
}
