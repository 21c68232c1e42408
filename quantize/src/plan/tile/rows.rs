//! Which rows of its operands a step needs for some rows of its result.

use std::ops::Range;

use ampoule_runtime::TensorId;
use ampoule_runtime::artifact::Step;
use ampoule_runtime::ops::Window;

use crate::program::Program;

/// Reach of a step over the rows of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The rows of the result.
    Same,
    /// Those under a window.
    Window(Window),
}

impl Reach {
    /// Rows of an operand of `height` rows that `rows` of the result need.
    pub fn rows(self, rows: &Range<usize>, height: usize) -> Range<usize> {
        match self {
            Reach::Same => rows.clone(),
            Reach::Window(w) => {
                let (stride, pad) = (usize::from(w.stride[0]), usize::from(w.pad[0]));
                let from = (rows.start * stride).saturating_sub(pad);
                let to = ((rows.end - 1) * stride + span(&w)).saturating_sub(pad);
                from.min(height)..to.min(height)
            }
        }
    }

    /// The window with which those rows alone give `rows` of the result.
    pub fn window(self, rows: &Range<usize>, height: usize) -> Option<Window> {
        let Reach::Window(w) = self else { return None };
        let stride = usize::from(w.stride[0]);
        let read = self.rows(rows, height);
        let top = usize::from(w.pad[0]).saturating_sub(rows.start * stride);
        let reached = (rows.len() - 1) * stride + span(&w);
        let bottom = reached.checked_sub(top + read.len())?;
        let [_, left, _, right] = w.pad;
        Some(Window {
            pad: [
                u16::try_from(top).ok()?,
                left,
                u16::try_from(bottom).ok()?,
                right,
            ],
            ..w
        })
    }
}

/// Rows that one position of a window covers.
fn span(w: &Window) -> usize {
    usize::from(w.kernel[0] - 1) * usize::from(w.dilation[0]) + 1
}

/// Operands of a step whose rows follow from the rows of its result, constants left out; `None` for other steps.
pub(super) fn operands(program: &Program, step: &Step) -> Option<Vec<(TensorId, Reach)>> {
    let map = |t: TensorId| program.tensor(t).shape.nhwc().filter(|s| s[0] == 1);
    let y = map(step.output())?;
    let found = match *step {
        Step::Conv(c) | Step::Depthwise(c) | Step::Sparse { layer: c, .. } => {
            let reach = if c.window.is_point() {
                Reach::Same
            } else {
                Reach::Window(c.window)
            };
            let residual = c.residual.map(|(r, _)| (r, Reach::Same));
            [Some((c.x, reach)), residual]
        }
        Step::Pool { x, window, .. } => [Some((x, Reach::Window(window))), None],
        Step::Table { x, .. }
        | Step::Unary { x, .. }
        | Step::Convert { x, .. }
        | Step::LayerNorm { x, .. }
        | Step::Softmax { x, .. } => [Some((x, Reach::Same)), None],
        Step::Binary(b) => [Some((b.a, Reach::Same)), Some((b.b, Reach::Same))],
        _ => return None,
    };
    let found: Vec<_> = found.into_iter().flatten().collect();
    let fits = found.iter().all(|&(t, reach)| {
        let constant = program.tensor(t).constant.is_some();
        // A constant that is broadcast along the rows goes with any rows.
        let broadcast = constant && matches!(step, Step::Binary(_)) && {
            let s = program.tensor(t).shape;
            s.rank() < 3 || s.dim(s.rank() - 3) == 1
        };
        broadcast
            || (!constant
                && map(t).is_some_and(|x| match reach {
                    Reach::Same => x[1] == y[1],
                    Reach::Window(w) => usize::from(w.pad[0]) < span(&w),
                }))
    });
    let distinct = found.len() < 2 || found[0].0 != found[1].0;
    (fits && distinct).then(|| {
        found
            .into_iter()
            .filter(|&(t, _)| program.tensor(t).constant.is_none())
            .collect()
    })
}

/// The step on other tensors: `of` gives the new number of each that has rows.
pub(super) fn replaced(
    step: &Step,
    rows: &Range<usize>,
    height: impl Fn(TensorId) -> usize,
    scratch: Option<TensorId>,
    of: impl Fn(TensorId) -> TensorId,
) -> Option<Step> {
    let mut step = *step;
    match &mut step {
        Step::Conv(c) | Step::Depthwise(c) | Step::Sparse { layer: c, .. } => {
            if !c.window.is_point() {
                c.window = Reach::Window(c.window).window(rows, height(c.x))?;
            }
            (c.x, c.y, c.scratch) = (of(c.x), of(c.y), scratch);
            c.residual = c.residual.map(|(r, m)| (of(r), m));
        }
        Step::Pool { x, y, window, .. } => {
            *window = Reach::Window(*window).window(rows, height(*x))?;
            (*x, *y) = (of(*x), of(*y));
        }
        Step::Table { x, y, .. }
        | Step::Unary { x, y, .. }
        | Step::Convert { x, y }
        | Step::LayerNorm { x, y, .. }
        | Step::Softmax { x, y, .. } => (*x, *y) = (of(*x), of(*y)),
        Step::Binary(b) => (b.a, b.b, b.y) = (of(b.a), of(b.b), of(b.y)),
        _ => return None,
    }
    Some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bands of rows read exactly what the whole reads.
    #[test]
    fn rows_of_bands_join() {
        for (kernel, stride, dilation, pad) in [
            (3, 1, 1, [1, 1]),
            (3, 2, 1, [0, 1]),
            (3, 2, 1, [1, 1]),
            (5, 2, 1, [2, 2]),
            (7, 1, 1, [3, 3]),
            (3, 1, 2, [2, 2]),
            (2, 2, 1, [0, 0]),
            (4, 4, 1, [0, 0]),
        ] {
            let window = Window {
                kernel: [kernel, 1],
                stride: [stride, 1],
                dilation: [dilation, 1],
                pad: [pad[0], 0, pad[1], 0],
            };
            let reach = Reach::Window(window);
            for height in 8..20 {
                let out = window.output(0, height).unwrap();
                for from in 0..out {
                    for to in from + 1..=out {
                        let read = reach.rows(&(from..to), height);
                        let small = reach.window(&(from..to), height).unwrap();
                        assert_eq!(small.output(0, read.len()), Some(to - from));
                        // The first output's first tap is where it was.
                        let whole = (from * usize::from(stride)) as i64 - i64::from(pad[0]);
                        assert_eq!(read.start as i64 - i64::from(small.pad[0]), whole);
                    }
                }
            }
        }
    }
}
