//! When each tensor is alive, and which tensors can share one buffer in place.

use std::collections::HashMap;

use ampoule_runtime::TensorId;
use ampoule_runtime::artifact::layout::ALIGN;

use super::{Buffer, Part};
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
    extend_views(program, &mut lives);
    lives
}

/// A view that is read has its content since the last of it was written; one that is written keeps it until
/// its tensor is last read, in whole or in part.
fn extend_views(program: &Program, lives: &mut [Option<Lifetime>]) {
    let mut written = vec![None; lives.len()];
    for port in &program.inputs {
        written[usize::from(port.tensor)] = Some(0);
    }
    for (i, step) in program.steps.iter().enumerate() {
        written[usize::from(step.output())].get_or_insert(i);
    }
    // Views of a tensor: number, first byte, end.
    let mut views: HashMap<usize, Vec<(usize, usize, usize)>> = HashMap::new();
    for (i, t) in program.tensors.iter().enumerate() {
        if let Some((of, offset)) = t.view {
            let parts = views.entry(usize::from(of)).or_default();
            parts.push((i, offset, offset + t.bytes()));
        }
    }
    for (of, views) in views {
        let ends = || views.iter().map(|v| v.0).chain([of]);
        let until = ends().filter_map(|t| lives[t]).map(|l| l.last).max();
        let whole = views.iter().filter_map(|v| written[v.0]).max();
        if let (Some(step), None, Some(life)) = (whole, written[of], &mut lives[of]) {
            // As a whole it exists once its last view is written.
            life.first = step;
        }
        for &(view, from, to) in &views {
            let Some(life) = lives[view] else { continue };
            let known = match written[view] {
                Some(_) => Lifetime {
                    last: until.unwrap_or(life.last).max(life.last),
                    ..life
                },
                None => {
                    let parts = views.iter().filter(|v| v.1 < to && from < v.2);
                    let before = parts.map(|v| v.0).chain([of]).filter_map(|t| written[t]);
                    let since = before.filter(|&step| step <= life.first).max();
                    Lifetime {
                        first: since.unwrap_or(life.first),
                        ..life
                    }
                }
            };
            lives[view] = Some(known);
        }
    }
}

/// Groups tensors into buffers: views lie in their tensor's, and a step that may work in place takes over
/// the memory of an operand of equal size that it is the last to read.
pub(super) fn buffers(
    program: &Program,
    lives: &[Option<Lifetime>],
    in_place: bool,
) -> Vec<Buffer> {
    let mut viewed = vec![false; lives.len()];
    for (of, _) in program.tensors.iter().filter_map(|t| t.view) {
        viewed[usize::from(of)] = true;
    }
    let mut owner: Vec<Option<usize>> = vec![None; lives.len()];
    let mut placed = vec![false; lives.len()];
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut place = |id: TensorId, donor: Option<TensorId>, buffers: &mut Vec<Buffer>| {
        let (Some(life), false) = (lives[usize::from(id)], placed[usize::from(id)]) else {
            return;
        };
        placed[usize::from(id)] = true;
        let (of, offset) = program.tensor(id).view.unwrap_or((id, 0));
        let known = owner[usize::from(of)].or(donor.and_then(|d| owner[usize::from(d)]));
        let buffer = known.unwrap_or_else(|| {
            buffers.push(Buffer {
                size: program.tensor(of).bytes().next_multiple_of(ALIGN),
                ..Buffer::default()
            });
            buffers.len() - 1
        });
        (owner[usize::from(of)], owner[usize::from(id)]) = (Some(buffer), Some(buffer));
        let size = match program.tensor(id) {
            t if t.view.is_some() => t.bytes(),
            t => t.bytes().next_multiple_of(ALIGN),
        };
        buffers[buffer].parts.push(Part {
            tensor: id,
            offset,
            size,
            first: life.first,
            last: life.last,
        });
    };
    for port in &program.inputs {
        place(port.tensor, None, &mut buffers);
    }
    for (i, step) in program.steps.iter().enumerate() {
        let y = step.output();
        let donor = (in_place && lives[usize::from(y)].is_some_and(|l| l.first == i))
            .then(|| donor(program, lives, &viewed, i, y))
            .flatten();
        // Views, and tensors that were written as views.
        let reads = step.inputs().into_iter().flatten();
        for id in step.scratch().into_iter().chain(reads) {
            place(id, None, &mut buffers);
        }
        place(y, donor, &mut buffers);
    }
    buffers
}

/// The operand whose memory the output of step `i` takes over.
fn donor(
    program: &Program,
    lives: &[Option<Lifetime>],
    viewed: &[bool],
    i: usize,
    y: TensorId,
) -> Option<TensorId> {
    let step = &program.steps[i];
    let (out, x) = (program.tensor(y), step.in_place_operand()?);
    let t = program.tensor(x);
    let once = step.inputs().iter().flatten().filter(|&&r| r == x).count() == 1;
    let dies = lives[usize::from(x)].is_some_and(|l| l.last == i);
    let whole = t.view.is_none()
        && out.view.is_none()
        && !viewed[usize::from(x)]
        && !viewed[usize::from(y)];
    (dies && once && whole && t.dtype == out.dtype && t.bytes() == out.bytes()).then_some(x)
}
