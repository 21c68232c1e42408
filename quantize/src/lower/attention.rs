//! Attention.

use std::f64::consts::LOG2_E;

use ampoule_runtime::artifact::{Attention as Operands, Step};
use ampoule_runtime::ops::attention::{
    BARRED, BiasLayout, Geometry, MAX_BIAS, View, scratch_bytes, scratch_bytes_f32,
};
use ampoule_runtime::{DType, Shape};

use super::{LowerError, Lowering};
use crate::graph::{Attention, Node};
use crate::program::{Stage, VirtualTensor};

/// Keys that a row of a full bias is padded to a multiple of.
const LANES: usize = 16;

impl Lowering<'_> {
    pub(super) fn attention(
        &mut self,
        node: &Node,
        attention: &Attention,
        dtype: DType,
    ) -> Result<(), LowerError> {
        let q = self.operand(node.inputs[0], dtype)?;
        let k = self.operand(node.inputs[1], dtype)?;
        let v = self.operand(node.inputs[2], dtype)?;
        let y = self.result(node.output, Stage::Post, dtype)?;
        let mut geometry = attention.geometry;
        let bias = match node.inputs.get(3).and_then(|&b| self.graph.constant(b)) {
            Some(data) => {
                let bias = Bias {
                    shape: self.graph.shape(node.inputs[3]),
                    values: data.iter().map(|&b| octaves(b)).collect(),
                };
                let (values, layout) = match bias.relative(&geometry) {
                    Some((values, layout, window)) => {
                        geometry = window;
                        (values, layout)
                    }
                    None => bias.full(&geometry),
                };
                Some((self.program.constants.add_f32(&values), layout))
            }
            None => None,
        };
        let (sq, sk) = (self.program.tensor(q).scale, self.program.tensor(k).scale);
        let multiplier = f64::from(sq) * f64::from(sk) * f64::from(attention.scale) * LOG2_E;
        let bytes = match dtype {
            DType::F32 => scratch_bytes_f32(&geometry),
            _ => scratch_bytes(&geometry),
        };
        let scratch = self.program.add_tensor(VirtualTensor {
            name: format!("{}:scratch", node.name),
            dtype: DType::I8,
            shape: Shape::new(&[bytes]).ok_or_else(|| LowerError::Shape {
                name: node.name.clone(),
                shape: vec![bytes],
            })?,
            scale: 1.0,
            zero_point: 0,
            constant: None,
            origin: None,
            view: None,
        });
        let step = Operands {
            q,
            k,
            v,
            y,
            geometry,
            multiplier: multiplier as f32,
            bias,
            scratch,
        };
        self.program.push(
            &node.name,
            self.graph.node_macs(node),
            Step::Attention(step),
        );
        Ok(())
    }
}

/// A bias in octaves; what masks (−∞ or nearly) becomes as low as arithmetic allows.
fn octaves(b: f32) -> f32 {
    ((f64::from(b) * LOG2_E) as f32).clamp(-MAX_BIAS, MAX_BIAS)
}

/// A constant bias `[outer.., queries, keys]`.
struct Bias<'a> {
    shape: &'a [usize],
    values: Vec<f32>,
}

impl Bias<'_> {
    /// Steps along the outer indices, for `size` values per matrix.
    fn outer(&self, size: usize) -> [u32; 4] {
        let mut step = size;
        let mut out = [0; 4];
        for d in (0..4).rev() {
            if self.shape[d] > 1 {
                out[d] = step as u32;
            }
            step *= self.shape[d];
        }
        out
    }

    /// Every row, padded.
    fn full(&self, g: &Geometry) -> (Vec<f32>, BiasLayout) {
        let keys = g.key_count();
        let padded = keys.next_multiple_of(LANES);
        let rows = self.values.chunks_exact(keys).flat_map(|row| {
            let pad = std::iter::repeat_n(BARRED, padded - keys);
            row.iter().copied().chain(pad)
        });
        let outer = self.outer(g.query_count() * padded);
        (rows.collect(), BiasLayout::Full { outer })
    }

    /// One value per offset, where that is all the bias depends on, with the geometry whose tokens have
    /// the rows and columns of those offsets.
    fn relative(&self, g: &Geometry) -> Option<(Vec<f32>, BiasLayout, Geometry)> {
        let n = g.query_count();
        if n != g.key_count() || n < 4 {
            return None;
        }
        // The squarest window first.
        let mut sides: Vec<usize> = (2..=n).filter(|h| n % h == 0).collect();
        sides.sort_by_key(|&h| h.abs_diff(n / h));
        sides.iter().find_map(|&h| {
            let window = with_tokens(g, [h as u32, (n / h) as u32])?;
            let (values, size) = self.table([h, n / h])?;
            Some((
                values,
                BiasLayout::Relative {
                    outer: self.outer(size),
                },
                window,
            ))
        })
    }

    fn table(&self, [h, w]: [usize; 2]) -> Option<(Vec<f32>, usize)> {
        let (n, size) = (h * w, (2 * h - 1) * (2 * w - 1));
        let mut out = Vec::new();
        for matrix in self.values.chunks_exact(n * n) {
            let mut table = vec![None; size];
            for i in 0..n {
                for j in 0..n {
                    let (dy, dx) = (j / w + h - 1 - i / w, j % w + w - 1 - i % w);
                    let slot = table[dy * (2 * w - 1) + dx].get_or_insert(matrix[i * n + j]);
                    if *slot != matrix[i * n + j] {
                        return None;
                    }
                }
            }
            out.extend(table.into_iter().map(Option::unwrap_or_default));
        }
        out.resize(out.len() + LANES, 0.0);
        Some((out, size))
    }
}

/// The same attention with tokens counted in `tokens` rows and columns, where the views allow that.
fn with_tokens(g: &Geometry, tokens: [u32; 2]) -> Option<Geometry> {
    let view = |v: &View, now: [u32; 2]| {
        let token = if now == tokens {
            v.token
        } else if now[0] == 1 {
            [v.token[1].checked_mul(tokens[1])?, v.token[1]]
        } else {
            return None;
        };
        Some(View { token, ..*v })
    };
    Some(Geometry {
        queries: tokens,
        keys: tokens,
        q: view(&g.q, g.queries)?,
        k: view(&g.k, g.keys)?,
        v: view(&g.v, g.keys)?,
        y: view(&g.y, g.queries)?,
        ..*g
    })
}
