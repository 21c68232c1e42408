//! A segment's steps, band by band.

use std::collections::HashMap;
use std::ops::Range;

use ampoule_runtime::artifact::Step;
use ampoule_runtime::ops::copy::Strided;
use ampoule_runtime::{Shape, TensorId};

use super::rows::replaced;
use super::{Segment, Tiling};
use crate::program::{Program, VirtualTensor};

/// Writes the steps of a segment into `out`, which has its tensors, so that the rows of the result
/// appear in as many bands as the tiling says.
///
/// Every row is computed once: a map inside the segment exists as a few rows, and rows that are needed
/// again move to the front of these before the next are computed.
pub(super) fn emit(segment: &Segment<'_>, tiling: &Tiling, out: &mut Program) -> Option<Work> {
    let source = segment.program;
    let y = source.steps[segment.last].output();
    let height = |t: TensorId| source.tensor(t).shape.dim(1);
    let per_band = height(y).div_ceil(tiling.bands);
    let grain = (segment.first..=segment.last).map(|s| {
        let t = source.steps[s].output();
        (
            t,
            Rows {
                producer: s,
                grain: height(t).div_ceil(tiling.bands),
                produced: 0,
                ring: None,
                held: 0..0,
                most: 0,
            },
        )
    });
    let mut stream = Stream {
        segment,
        maps: grain.collect(),
        views: HashMap::new(),
        panels: tiling.panels,
        work: Work::default(),
        out,
        y,
    };
    for from in (0..height(y)).step_by(per_band) {
        stream.compute(y, from..(from + per_band).min(height(y)))?;
    }
    for map in stream.maps.values() {
        if let Some(ring) = map.ring {
            let tensor = &mut stream.out.tensors[usize::from(ring)];
            tensor.shape = with_rows(&tensor.shape, map.most)?;
        }
    }
    Some(stream.work)
}

/// What bands cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Bytes of rows copied in a run.
    pub copied: usize,
}

/// A map that is computed by rows.
struct Rows {
    producer: usize,
    /// Rows computed at once.
    grain: usize,
    /// Rows computed so far.
    produced: usize,
    /// The tensor that holds some of them.
    ring: Option<TensorId>,
    /// Which.
    held: Range<usize>,
    /// How many at most.
    most: usize,
}

struct Stream<'s, 'p> {
    segment: &'s Segment<'p>,
    maps: HashMap<TensorId, Rows>,
    /// By tensor, rows and number of rows before them.
    views: HashMap<(TensorId, Range<usize>, usize), TensorId>,
    panels: bool,
    work: Work,
    out: &'s mut Program,
    y: TensorId,
}

impl Stream<'_, '_> {
    /// Computes those rows of a map, and before them what they need.
    fn compute(&mut self, t: TensorId, rows: Range<usize>) -> Option<()> {
        let source = self.segment.program;
        let number = self.maps.get(&t)?.producer;
        let step = &source.steps[number];
        let operands = self.segment.operands(number);
        for &(x, reach) in operands {
            self.hold(x, reach.rows(&rows, self.height(x)))?;
        }
        let mut tensors = HashMap::new();
        for &(x, reach) in operands {
            let view = self.view(x, reach.rows(&rows, self.height(x)))?;
            tensors.insert(x, view);
        }
        tensors.insert(t, self.view(t, rows.clone())?);
        let scratch = step.scratch().filter(|_| self.panels).map(|s| {
            let tensor = self.out.tensor(s).clone();
            self.out.add_tensor(tensor)
        });
        let banded = replaced(
            step,
            &rows,
            |x| self.height(x),
            scratch,
            |x| tensors.get(&x).copied().unwrap_or(x),
        )?;
        let (height, macs) = (self.height(t) as u64, source.step_macs[number]);
        let share = |row: usize| macs * row as u64 / height;
        let name = format!(
            "{} rows {}..{}",
            source.step_names[number], rows.start, rows.end
        );
        self.out
            .push(&name, share(rows.end) - share(rows.start), banded);
        self.maps.get_mut(&t)?.produced = rows.end;
        Some(())
    }

    /// Makes the tensor of a map hold those rows.
    fn hold(&mut self, t: TensorId, rows: Range<usize>) -> Option<()> {
        let Some(map) = self.maps.get(&t) else {
            // What comes into the segment is there as a whole.
            return Some(());
        };
        let (produced, grain, held) = (map.produced, map.grain, map.held.clone());
        if map.ring.is_some() && held.start <= rows.start && rows.end <= held.end {
            return Some(());
        }
        if map.ring.is_none() {
            let of = self.out.tensor(t);
            let ring = VirtualTensor {
                name: format!("{} rows", of.name),
                origin: None,
                ..of.clone()
            };
            let ring = self.out.add_tensor(ring);
            self.maps.get_mut(&t)?.ring = Some(ring);
        }
        let keep = self.first_needed(t)?.min(rows.start);
        let free = keep.checked_sub(held.start)?;
        let again = keep..produced.max(keep);
        if free > 0 {
            // As many at a time as there are free rows, so that what is read stays whole.
            for from in again.clone().step_by(free) {
                let moved = from..(from + free).min(again.end);
                let at = self.view(t, moved.clone())?;
                self.maps.get_mut(&t)?.held.start = keep;
                let to = self.view(t, moved)?;
                self.maps.get_mut(&t)?.held.start = held.start;
                self.copy(at, to)?;
            }
        }
        let map = self.maps.get_mut(&t)?;
        map.held = keep..rows.end;
        map.most = map.most.max(map.held.len());
        for at in (again.end..rows.end).step_by(grain) {
            self.compute(t, at..(at + grain).min(rows.end))?;
        }
        Some(())
    }

    /// The first row of a map that some step still needs.
    fn first_needed(&self, t: TensorId) -> Option<usize> {
        let height = self.height(t);
        let mut first = height;
        for number in self.segment.first..=self.segment.last {
            let result = self.segment.program.steps[number].output();
            let next = self.maps.get(&result)?.produced;
            if next == self.height(result) {
                continue;
            }
            for &(x, reach) in self.segment.operands(number) {
                if x == t {
                    first = first.min(reach.rows(&(next..next + 1), height).start);
                }
            }
        }
        Some(first)
    }

    /// A tensor for those rows of what holds them.
    fn view(&mut self, t: TensorId, rows: Range<usize>) -> Option<TensorId> {
        let (of, first) = match self.maps.get(&t) {
            Some(map) if t != self.y => (map.ring?, rows.start.checked_sub(map.held.start)?),
            _ => (t, rows.start),
        };
        if let Some(&known) = self.views.get(&(of, rows.clone(), first)) {
            return Some(known);
        }
        let tensor = self.out.tensor(of);
        let row = tensor.bytes() / tensor.shape.dim(1);
        let view = VirtualTensor {
            name: format!(
                "{} rows {}..{}",
                self.out.tensor(t).name,
                rows.start,
                rows.end
            ),
            shape: with_rows(&tensor.shape, rows.len())?,
            origin: None,
            view: Some((of, first * row)),
            ..tensor.clone()
        };
        let id = self.out.add_tensor(view);
        self.views.insert((of, rows, first), id);
        Some(id)
    }

    fn copy(&mut self, x: TensorId, y: TensorId) -> Option<()> {
        let tensor = self.out.tensor(y);
        let (elements, bytes, name) =
            (tensor.shape.elements(), tensor.bytes(), tensor.name.clone());
        let map = Strided {
            dims: [1, 1, 1, 1, 1, u32::try_from(elements).ok()?],
            x_start: 0,
            x_strides: [0, 0, 0, 0, 0, 1],
            y_start: 0,
            y_strides: [0, 0, 0, 0, 0, 1],
        };
        self.work.copied += bytes;
        self.out
            .push(&format!("{name} kept"), 0, Step::Copy { x, y, map });
        Some(())
    }

    fn height(&self, t: TensorId) -> usize {
        self.segment.program.tensor(t).shape.dim(1)
    }
}

fn with_rows(shape: &Shape, rows: usize) -> Option<Shape> {
    let [n, _, w, c] = shape.nhwc()?;
    Shape::new(&[n, rows, w, c])
}
