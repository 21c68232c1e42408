//! Depthwise convolutions that overwrite their input, where that makes the arena smaller.
//!
//! A depthwise convolution between two large maps sets the arena of most hybrids. In place it needs one of
//! the maps and a few rows of working memory; copying those rows costs about a hundredth of a
//! whole inference, so only steps at the peak are changed.

use ampoule_runtime::artifact::Step;
use ampoule_runtime::ops::depthwise::in_place_bytes;
use ampoule_runtime::{DType, Shape};

use super::{Plan, PlanOptions, plan};
use crate::program::{Program, VirtualTensor};

/// Threads that an in-place convolution has working memory for.
const THREADS: usize = 2;
/// The least that is worth it: one part of the arena in so many.
const WORTH: usize = 32;

/// Plans the arena; depthwise convolutions that bound it get working memory to run in place, unless
/// that gains nothing.
pub fn plan_in_place(program: &mut Program, options: &PlanOptions) -> Plan {
    let mut best = plan(program, options);
    if !options.in_place || options.keep_all {
        return best;
    }
    let mut changed = Vec::new();
    let mut kept = 0;
    let mut peak = best.peak_step;
    while let Some(scratch) = working_memory(program, peak) {
        let id = program.add_tensor(scratch);
        if let Step::Depthwise(conv) = &mut program.steps[peak] {
            conv.scratch = Some(id);
        }
        changed.push(peak);
        let next = plan(program, options);
        peak = next.peak_step;
        if next.total() + best.total() / WORTH <= best.total() {
            (best, kept) = (next, changed.len());
        }
    }
    for step in changed.drain(kept..) {
        program.tensors.pop();
        if let Step::Depthwise(conv) = &mut program.steps[step] {
            conv.scratch = None;
        }
    }
    best
}

/// What a depthwise step needs to run in place; `None` when it can't, or has it.
fn working_memory(program: &Program, step: usize) -> Option<VirtualTensor> {
    let Step::Depthwise(conv) = program.steps.get(step)? else {
        return None;
    };
    let (x, y) = (program.tensor(conv.x), program.tensor(conv.y));
    let [_, height, width, channels] = x.shape.nhwc()?;
    let integer = x.dtype == DType::I8 && y.dtype == DType::I8;
    let float = x.dtype == DType::F32 && y.dtype == DType::F32;
    let free = conv.scratch.is_none() && x.constant.is_none() && !conv.window.is_point();
    ((integer || float) && free).then_some(())?;
    let map = [height, width, channels];
    let bytes = in_place_bytes(&conv.window, map, x.dtype.size(), THREADS)?;
    Some(VirtualTensor {
        name: format!("{}:rows", program.step_names[step]),
        dtype: DType::I8,
        shape: Shape::new(&[bytes])?,
        scale: 1.0,
        zero_point: 0,
        constant: None,
        origin: None,
        view: None,
    })
}
