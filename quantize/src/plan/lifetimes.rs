//! When each tensor is alive, and which tensors can share one buffer in place.

use ampoule_runtime::TensorId;
use ampoule_runtime::artifact::layout::ALIGN;

use super::Buffer;
use crate::program::Program;

/// First and last step that touch a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// First step; 0 for inputs.
    pub first: usize,
    /// Last step; the last of all for outputs.
    pub last: usize,
}

/// Life span of every tensor; `None` for constants and for tensors nothing touches.
pub fn lifetimes(program: &Program, keep_all: bool) -> Vec<Option<Lifetime>> {
    let end = program.steps.len().saturating_sub(1);
    let mut lives: Vec<Option<Lifetime>> = vec![None; program.tensors.len()];
    let mut touch = |id: TensorId, step: usize| {
        let life = lives[usize::from(id)].get_or_insert(Lifetime {
            first: step,
            last: step,
        });
        life.first = life.first.min(step);
        life.last = life.last.max(step);
    };
    program.inputs.iter().for_each(|p| touch(p.tensor, 0));
    program.outputs.iter().for_each(|p| touch(p.tensor, end));
    for (i, step) in program.steps.iter().enumerate() {
        step.inputs()
            .into_iter()
            .flatten()
            .for_each(|id| touch(id, i));
        [Some(step.output()), step.scratch()]
            .into_iter()
            .flatten()
            .for_each(|id| touch(id, i));
        if keep_all {
            touch(step.output(), end);
        }
    }
    if keep_all {
        program.inputs.iter().for_each(|p| touch(p.tensor, end));
    }
    for (life, tensor) in lives.iter_mut().zip(&program.tensors) {
        if tensor.constant.is_some() {
            *life = None;
        }
    }
    lives
}

/// Groups tensors into buffers: a step that may work in place takes over the memory of an operand of
/// equal size that it is the last to read.
pub(super) fn buffers(
    program: &Program,
    lives: &[Option<Lifetime>],
    in_place: bool,
) -> Vec<Buffer> {
    let mut owner: Vec<Option<usize>> = vec![None; lives.len()];
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut open = |owner: &mut Vec<Option<usize>>, id: TensorId, life: Lifetime| {
        owner[usize::from(id)] = Some(buffers.len());
        buffers.push(Buffer {
            tensors: vec![id],
            size: program.tensor(id).bytes().next_multiple_of(ALIGN),
            first: life.first,
            last: life.last,
        });
        buffers.len() - 1
    };
    for port in &program.inputs {
        if let (Some(life), None) = (
            lives[usize::from(port.tensor)],
            owner[usize::from(port.tensor)],
        ) {
            open(&mut owner, port.tensor, life);
        }
    }
    let mut merges: Vec<(usize, TensorId, Lifetime)> = Vec::new();
    for (i, step) in program.steps.iter().enumerate() {
        for id in [step.scratch(), Some(step.output())].into_iter().flatten() {
            let (Some(life), None) = (lives[usize::from(id)], owner[usize::from(id)]) else {
                continue;
            };
            let donor = (in_place && id == step.output() && life.first == i)
                .then(|| donor(program, lives, i, id))
                .flatten();
            match donor.and_then(|d| owner[usize::from(d)]) {
                Some(buffer) => {
                    owner[usize::from(id)] = Some(buffer);
                    merges.push((buffer, id, life));
                }
                None => {
                    open(&mut owner, id, life);
                }
            }
        }
    }
    for (buffer, id, life) in merges {
        buffers[buffer].tensors.push(id);
        buffers[buffer].last = buffers[buffer].last.max(life.last);
    }
    buffers
}

/// The operand whose memory the output of step `i` takes over.
fn donor(program: &Program, lives: &[Option<Lifetime>], i: usize, y: TensorId) -> Option<TensorId> {
    let step = &program.steps[i];
    let (out, x) = (program.tensor(y), step.in_place_operand()?);
    let t = program.tensor(x);
    let once = step.inputs().iter().flatten().filter(|&&r| r == x).count() == 1;
    let dies = lives[usize::from(x)].is_some_and(|l| l.last == i);
    (dies && once && t.dtype == out.dtype && t.bytes() == out.bytes()).then_some(x)
}
