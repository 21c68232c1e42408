//! Execution of one bound step.

use bytemuck::{AnyBitPattern, NoUninit};

use crate::artifact::Bound;
use crate::error::Error;
use crate::exec::Exec;
use crate::isa::Capability;
use crate::memory::{Read, Views};
use crate::operators::{Kind, Operators, Variant};
use crate::ops::attention::{AttentionI8, Geometry};
use crate::ops::conv::{ConvF32, ConvI8, EpilogueI8, QUAD, Residual};
use crate::ops::convert::Rescale;
use crate::ops::depthwise::DepthwiseI8;
use crate::ops::pool::PoolKind;
use crate::ops::reduce::{MeanI8, Reduce, ReduceKind};
use crate::ops::sparse::SparseI8;
use crate::ops::{
    arg_max, attention, binary, conv, convert, copy, depthwise, gather, matmul, merge, norm, pool,
    reduce, resize, softmax, sparse, unary, wide,
};
use crate::tensor::{DType, Tensor};

/// Output pixels that a convolution's share of work is a multiple of: the rows of an AMX tile.
const PIXEL_GRAIN: usize = 16;
/// Values that an element-wise step's share of work is a multiple of.
const CHUNK: usize = 1024;
/// Multiply-accumulates that take about as long as one value of a function, and of a table.
const FUNCTION_COST: usize = 16;
const TABLE_COST: usize = 1;

/// Runs a step. Errors are faults: verification has established what the kernels check.
pub(super) fn run<O: Operators>(
    bound: &Bound<'_>,
    cap: Capability,
    exec: Exec<'_>,
    views: Views<'_>,
) -> Result<(), Error> {
    let cap = cap.built_in::<O>();
    let Views { y, scratch, reads } = views;
    let [x, second, third, fourth] = reads;
    let has = |kind, dtype| O::SET.has(kind, dtype);
    match bound {
        Bound::ConvI8 {
            conv,
            residual,
            batch,
        } if has(Kind::Conv, DType::I8) => {
            let data = residual.map(|_| typed::<i8>(second)).transpose()?;
            let task = |i: usize, x: &[i8], y: &mut [i8]| {
                let conv = ConvI8 {
                    epilogue: with_residual(conv.epilogue, *residual, data, i, y.len())?,
                    ..*conv
                };
                conv_i8::<O>(&conv, cap, exec, x, y, scratch)
            };
            batches(*batch, typed(x)?, typed_mut(y)?, task)
        }
        Bound::ConvI16 { conv, batch } if has(Kind::Conv, DType::I16) => batches(
            *batch,
            typed(x)?,
            typed_mut(y)?,
            |_, x: &[i16], y: &mut [i16]| {
                let cost = cost(y.len(), conv.window.taps().saturating_mul(conv.input[2]));
                exec.rows(y, conv.output[2], 1, cost, &mut [], 0, |first, y, _| {
                    wide::conv_i16(conv, x, first, y)
                })
            },
        ),
        Bound::Sparse { op, residual } if has(Kind::Sparse, DType::I8) => {
            let data = residual.map(|_| typed::<i8>(second)).transpose()?;
            let (x, y): (&[i8], &mut [i8]) = (typed(x)?, typed_mut(y)?);
            let epilogue = with_residual(op.conv.epilogue, *residual, data, 0, y.len())?;
            let conv = ConvI8 {
                epilogue,
                ..op.conv
            };
            let op = SparseI8 { conv, ..*op };
            let (depth, channels) = (conv.depth(), conv.output[2]);
            let work = op.blocks.quads.len() / channels * QUAD;
            exec.rows(
                y,
                channels,
                PIXEL_GRAIN,
                cost(y.len(), work),
                scratch,
                sparse::scratch_bytes(depth) / 2,
                |first, y, scratch| sparse::sparse_i8(cap, &op, x, first, y, scratch),
            )
        }
        Bound::ConvF32 { conv, batch } if has(Kind::Conv, DType::F32) => {
            let data = match second {
                Read::None => None,
                other => Some(typed::<f32>(other)?),
            };
            let task = |i: usize, x: &[f32], y: &mut [f32]| {
                let residual = data.map(|d| part(d, i, y.len())).transpose()?;
                let conv = ConvF32 { residual, ..*conv };
                let cost = cost(y.len(), conv.depth());
                exec.rows(
                    y,
                    conv.output[2],
                    PIXEL_GRAIN,
                    cost,
                    scratch,
                    0,
                    |first, y, scratch| conv::conv_f32(cap, &conv, x, first, y, scratch),
                )
            };
            batches(*batch, typed(x)?, typed_mut(y)?, task)
        }
        Bound::DepthwiseI8 {
            op,
            residual,
            batch,
            in_place,
        } if has(Kind::Depthwise, DType::I8) => {
            let data = residual.map(|_| typed::<i8>(second)).transpose()?;
            let image = |i: usize, len: usize| -> Result<DepthwiseI8<'_>, Error> {
                Ok(DepthwiseI8 {
                    epilogue: with_residual(op.epilogue, *residual, data, i, len)?,
                    ..*op
                })
            };
            let (row, taps) = (op.output[1] * op.input[2], op.window.taps());
            if let (Some(map), Read::InPlace) = (in_place, x) {
                let scratch = typed_mut(scratch)?;
                return images(*batch, typed_mut(y)?, |i, y: &mut [i8]| {
                    let op = image(i, y.len())?;
                    map.run(exec, cost(y.len(), taps), y, scratch, |band, x, y| {
                        depthwise::depthwise_i8_for::<O>(cap, &op.band(&band, y.len())?, x, 0, y)
                    })
                });
            }
            batches(
                *batch,
                typed(x)?,
                typed_mut(y)?,
                |i, x: &[i8], y: &mut [i8]| {
                    let op = image(i, y.len())?;
                    exec.rows(y, row, 1, cost(y.len(), taps), &mut [], 0, |first, y, _| {
                        depthwise::depthwise_i8_for::<O>(cap, &op, x, first, y)
                    })
                },
            )
        }
        Bound::DepthwiseF32 {
            op,
            residual,
            batch,
            in_place,
        } if has(Kind::Depthwise, DType::F32) => {
            let (row, taps) = (op.output[1] * op.input[2], op.window.taps());
            if let (Some(map), Read::InPlace) = (in_place, x) {
                let scratch = typed_mut(scratch)?;
                images(*batch, typed_mut(y)?, |_, y: &mut [f32]| {
                    map.run(exec, cost(y.len(), taps), y, scratch, |band, x, y| {
                        depthwise::depthwise_f32(cap, &op.band(&band), x, 0, y)
                    })
                })?;
            } else {
                batches(
                    *batch,
                    typed(x)?,
                    typed_mut(y)?,
                    |_, x: &[f32], y: &mut [f32]| {
                        exec.rows(y, row, 1, cost(y.len(), taps), &mut [], 0, |first, y, _| {
                            depthwise::depthwise_f32(cap, op, x, first, y)
                        })
                    },
                )?;
            }
            if *residual {
                add_residual(op.lo, op.hi, typed(second)?, typed_mut(y)?)
            } else {
                Ok(())
            }
        }
        Bound::Table(table) if has(Kind::Table, DType::I8) => {
            each_row(exec, x, y, CHUNK, TABLE_COST, |x, y| match x {
                None => unary::table_i8_in_place(cap, table, y),
                Some(x) => unary::table_i8(cap, table, x, y),
            })
        }
        Bound::Unary(kind) if has(Kind::Unary, DType::F32) => {
            each_row(exec, x, y, CHUNK, FUNCTION_COST, |x, y| match x {
                None => unary::unary_f32_in_place(cap, *kind, y),
                Some(x) => unary::unary_f32(cap, *kind, x, y),
            })
        }
        Bound::BinaryI8(op, layout) if has(Kind::Binary, DType::I8) => match x {
            Read::InPlace => {
                binary::binary_i8_in_place(cap, op, layout, typed_mut(y)?, typed(second)?)
            }
            x => binary::binary_i8(cap, op, layout, typed(x)?, typed(second)?, typed_mut(y)?),
        },
        Bound::BinaryI16(op, layout) if has(Kind::Binary, DType::I16) => match x {
            Read::InPlace => {
                binary::binary_i16_in_place(cap, op, layout, typed_mut(y)?, typed(second)?)
            }
            x => binary::binary_i16(cap, op, layout, typed(x)?, typed(second)?, typed_mut(y)?),
        },
        Bound::BinaryF32(op, layout) if has(Kind::Binary, DType::F32) => match x {
            Read::InPlace => {
                binary::binary_f32_in_place(cap, op, layout, typed_mut(y)?, typed(second)?)
            }
            x => binary::binary_f32(cap, op, layout, typed(x)?, typed(second)?, typed_mut(y)?),
        },
        Bound::Pool {
            kind,
            pool,
            average,
            dtype,
            batch,
        } if O::SET.any(Kind::Pool) => {
            let row = pool.output[1] * pool.input[2];
            match dtype {
                DType::I8 if has(Kind::Pool, DType::I8) => batches(
                    *batch,
                    typed(x)?,
                    typed_mut(y)?,
                    |_, x: &[i8], y: &mut [i8]| {
                        let cost = cost(y.len(), pool.window.taps());
                        exec.rows(y, row, 1, cost, &mut [], 0, |first, y, _| match kind {
                            PoolKind::Max if O::SET.includes(Variant::MaxPool) => {
                                pool::max_pool_i8(cap, pool, x, first, y)
                            }
                            PoolKind::Max => Err(fault()),
                            PoolKind::Average => pool::average_pool_i8(cap, average, x, first, y),
                        })
                    },
                ),
                _ if has(Kind::Pool, DType::F32) => batches(
                    *batch,
                    typed(x)?,
                    typed_mut(y)?,
                    |_, x: &[f32], y: &mut [f32]| match kind {
                        PoolKind::Max => pool::max_pool_f32(cap, pool, x, 0, y),
                        PoolKind::Average => pool::average_pool_f32(cap, pool, x, 0, y),
                    },
                ),
                _ => Err(fault()),
            }
        }
        Bound::Reduce {
            kind,
            axes,
            x: from,
            y: to,
        } if O::SET.any(Kind::Reduce) => run_reduce::<O>(cap, *kind, *axes, from, to, x, y),
        Bound::Softmax { row, log, table } if O::SET.any(Kind::Softmax) => match (table, x) {
            (Some(table), Read::InPlace) if has(Kind::Softmax, DType::I8) => {
                softmax::softmax_i8_in_place(cap, table, *row, typed_mut(y)?)
            }
            (Some(table), x) if has(Kind::Softmax, DType::I8) => {
                softmax::softmax_i8(cap, table, *row, typed(x)?, typed_mut(y)?)
            }
            (None, x) if *log && has(Kind::Softmax, DType::F32) => {
                softmax::log_softmax_f32(cap, *row, typed(x)?, typed_mut(y)?)
            }
            (None, x) if has(Kind::Softmax, DType::F32) => {
                softmax::softmax_f32(cap, *row, typed(x)?, typed_mut(y)?)
            }
            _ => Err(fault()),
        },
        Bound::LayerNorm { op, dtype } if O::SET.any(Kind::LayerNorm) => {
            let row = op.gain.len();
            match dtype {
                DType::I8 if has(Kind::LayerNorm, DType::I8) => {
                    each_row(exec, x, y, row, FUNCTION_COST, |x, y| match x {
                        None => norm::layer_norm_i8_in_place(cap, op, y),
                        Some(x) => norm::layer_norm_i8(cap, op, x, y),
                    })
                }
                DType::I16 if has(Kind::LayerNorm, DType::I16) => {
                    each_row(exec, x, y, row, FUNCTION_COST, |x, y| match x {
                        None => Err(fault()),
                        Some(x) => norm::layer_norm_i16(cap, op, x, y),
                    })
                }
                _ if has(Kind::LayerNorm, DType::F32) => {
                    each_row(exec, x, y, row, FUNCTION_COST, |x: Option<&[f32]>, y| {
                        if let Some(x) = x {
                            y.copy_from_slice(x);
                        }
                        norm::layer_norm_in_place(cap, y, op.gain, op.offset, op.epsilon)
                    })
                }
                _ => Err(fault()),
            }
        }
        Bound::Copy { map, size } if O::SET.any(Kind::Copy) => match x {
            // Only an identity may be in place: nothing is left to move.
            Read::InPlace => Ok(()),
            Read::Bytes(x) if O::SET.includes(Variant::Scatter) => copy::copy(map, *size, x, y),
            Read::Bytes(x) => {
                let bytes = map.elements() as usize * size;
                let (x, y) = (x.get(..bytes), y.get_mut(..bytes));
                let (x, y) = x.zip(y).ok_or(fault())?;
                y.copy_from_slice(x);
                Ok(())
            }
            Read::None => Err(fault()),
        },
        Bound::Fill { bits, size } if O::SET.any(Kind::Fill) => {
            let bytes = bits.to_le_bytes();
            y.chunks_exact_mut(*size)
                .for_each(|e| e.copy_from_slice(&bytes[..*size]));
            Ok(())
        }
        Bound::Resize {
            resize,
            dtype,
            batch,
        } if O::SET.any(Kind::Resize) => match dtype {
            DType::I8 => batches(*batch, typed(x)?, typed_mut(y)?, |_, x, y| {
                resize::resize::<i8>(resize, x, y)
            }),
            DType::I16 => batches(*batch, typed(x)?, typed_mut(y)?, |_, x, y| {
                resize::resize::<i16>(resize, x, y)
            }),
            _ => batches(*batch, typed(x)?, typed_mut(y)?, |_, x, y| {
                resize::resize::<f32>(resize, x, y)
            }),
        },
        Bound::MatMul {
            a,
            b,
            y: shape,
            integer: None,
        } if has(Kind::MatMul, DType::F32) => {
            let (x, second) = (typed(x)?, typed(second)?);
            let (y, n): (&mut [f32], _) = (typed_mut(y)?, shape.last());
            let cost = cost(y.len(), a.last());
            exec.rows(y, n, 1, cost, &mut [], 0, |first, y, _| {
                matmul::matmul(cap, a, x, b, second, shape, first, y)
            })
        }
        Bound::MatMul {
            a,
            b,
            y: shape,
            integer: Some(op),
        } if has(Kind::MatMul, DType::I8) => {
            let (x, second) = (typed(x)?, typed(second)?);
            let (y, n): (&mut [i8], _) = (typed_mut(y)?, shape.last());
            let cost = cost(y.len(), a.last());
            exec.rows(y, n, 1, cost, &mut [], 0, |first, y, _| {
                matmul::matmul_i8(cap, op, a, x, b, second, shape, first, y)
            })
        }
        Bound::AttentionI8(op) if has(Kind::Attention, DType::I8) => {
            let (q, k, v) = (typed(x)?, typed(second)?, typed(third)?);
            let op = AttentionI8 {
                sizes: optional(fourth)?,
                ..*op
            };
            let (y, least): (&mut [i8], _) =
                (typed_mut(y)?, attention::scratch_bytes(&op.geometry));
            attend(
                exec,
                &op.geometry,
                y,
                scratch,
                least,
                |first, y, scratch| attention::attention_i8(cap, &op, q, k, v, first, y, scratch),
            )
        }
        Bound::AttentionF32 {
            geometry,
            multiplier,
            bias,
        } if has(Kind::Attention, DType::F32) => {
            let (g, m, b) = (geometry, *multiplier, *bias);
            let (q, k, v) = (typed(x)?, typed(second)?, typed(third)?);
            let sizes = optional(fourth)?;
            let (y, least): (&mut [f32], _) = (typed_mut(y)?, attention::scratch_bytes_f32(g));
            attend(exec, g, y, scratch, least, |first, y, scratch| {
                attention::attention_f32(cap, g, m, b, sizes, q, k, v, first, y, scratch)
            })
        }
        Bound::Match {
            matching,
            zero,
            dtype,
        } if O::SET.any(Kind::Match) => {
            let y = typed_mut(y)?;
            match dtype {
                DType::I8 => merge::match_tokens::<i8>(cap, matching, *zero, typed(x)?, y, scratch),
                _ => merge::match_tokens::<f32>(cap, matching, 0, typed(x)?, y, scratch),
            }
        }
        Bound::Merge {
            channels,
            zero,
            dtype,
        } if O::SET.any(Kind::Merge) => {
            let (n, places, sizes) = (*channels, typed(second)?, optional(third)?);
            match (dtype, sizes) {
                (_, None) => merge::merge_sizes(typed(x)?, places, typed_mut(y)?),
                (DType::I8, Some(sizes)) => {
                    merge::merge::<i8>(cap, n, *zero, typed(x)?, places, sizes, typed_mut(y)?)
                }
                (DType::I16, Some(sizes)) => {
                    merge::merge::<i16>(cap, n, 0, typed(x)?, places, sizes, typed_mut(y)?)
                }
                (_, Some(sizes)) => {
                    merge::merge::<f32>(cap, n, 0, typed(x)?, places, sizes, typed_mut(y)?)
                }
            }
        }
        Bound::Gather { axis, inner } if O::SET.any(Kind::Gather) => match x {
            Read::Bytes(x) => gather::gather(x, *axis, *inner, typed(second)?, y),
            _ => Err(fault()),
        },
        Bound::ArgMax {
            axis,
            inner,
            last,
            dtype,
        } if O::SET.any(Kind::ArgMax) => {
            let y = typed_mut(y)?;
            match dtype {
                DType::I8 => arg_max::arg_max::<i8>(typed(x)?, *axis, *inner, *last, y),
                DType::I32 => arg_max::arg_max::<i32>(typed(x)?, *axis, *inner, *last, y),
                _ => arg_max::arg_max::<f32>(typed(x)?, *axis, *inner, *last, y),
            }
        }
        Bound::Convert { x: from, y: to } if O::SET.any(Kind::Convert) => {
            run_convert::<O>(cap, from, to, x, y)
        }
        _ => Err(fault()),
    }
}

fn conv_i8<O: Operators>(
    conv: &ConvI8<'_>,
    cap: Capability,
    exec: Exec<'_>,
    x: &[i8],
    y: &mut [i8],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let cost = cost(y.len(), conv.depth());
    exec.rows(
        y,
        conv.output[2],
        PIXEL_GRAIN,
        cost,
        scratch,
        0,
        |first, y, scratch| conv::conv_i8_for::<O>(cap, conv, x, first, y, scratch),
    )
}

/// Work of a step whose outputs take `each`, or as much as a 32-bit `usize` counts: it decides on threads only.
fn cost(outputs: usize, each: usize) -> usize {
    outputs.saturating_mul(each)
}

/// Splits an attention where its result may be split; `f` gets the first value of its part.
fn attend<T: Send>(
    exec: Exec<'_>,
    g: &Geometry,
    y: &mut [T],
    scratch: &mut [u8],
    least: usize,
    f: impl Fn(usize, &mut [T], &mut [u8]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let grain = g.grain().unwrap_or(y.len());
    let products = g.key_count() * (g.depth + g.width) as usize;
    let cost = cost(y.len() / g.width.max(1) as usize, products);
    exec.rows(y, grain, 1, cost, scratch, least, |row, y, scratch| {
        f(row * grain, y, scratch)
    })
}

/// Splits a step that treats each row of `row` values on its own, at `cost` multiply-accumulates a
/// value; `f` gets `None` where it is to work in place.
fn each_row<T: AnyBitPattern + Sync, U: AnyBitPattern + NoUninit + Send>(
    exec: Exec<'_>,
    x: Read<'_>,
    y: &mut [u8],
    row: usize,
    cost: usize,
    f: impl Fn(Option<&[T]>, &mut [U]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let y: &mut [U] = typed_mut(y)?;
    let x = match x {
        Read::InPlace => None,
        x => Some(typed::<T>(x)?),
    };
    if x.is_some_and(|x| x.len() != y.len()) {
        return Err(fault());
    }
    let cost = self::cost(y.len(), cost);
    exec.rows(y, row, 1, cost, &mut [], 0, |first, y, _| {
        let start = first * row;
        f(x.map(|x| &x[start..start + y.len()]), y)
    })
}

/// Image `i`'s residual put into the epilogue.
fn with_residual<'v>(
    epilogue: EpilogueI8<'v>,
    term: Option<(i32, f32)>,
    data: Option<&'v [i8]>,
    i: usize,
    len: usize,
) -> Result<EpilogueI8<'v>, Error> {
    let residual = match (term, data) {
        (Some((zero, multiplier)), Some(data)) => Some(Residual {
            data: part(data, i, len)?,
            zero,
            multiplier,
        }),
        _ => None,
    };
    Ok(EpilogueI8 {
        residual,
        ..epilogue
    })
}

fn add_residual(lo: f32, hi: f32, residual: &[f32], y: &mut [f32]) -> Result<(), Error> {
    y.iter_mut()
        .zip(residual)
        .for_each(|(y, &r)| *y = (*y + r).max(lo).min(hi));
    Ok(())
}

fn run_reduce<O: Operators>(
    cap: Capability,
    kind: ReduceKind,
    axes: u8,
    from: &Tensor,
    to: &Tensor,
    x: Read<'_>,
    y: &mut [u8],
) -> Result<(), Error> {
    let reduce = Reduce {
        shape: from.shape,
        axes,
    };
    if O::SET.has(Kind::Reduce, DType::F32) && from.dtype == DType::F32 {
        return reduce::reduce_f32(cap, kind, &reduce, typed(x)?, typed_mut(y)?);
    }
    let op = MeanI8 {
        reduce,
        x_zero: from.zero_point,
        multiplier: from.scale / to.scale,
        zero: to.zero_point,
        lo: i8::MIN,
        hi: i8::MAX,
    };
    reduce::mean_i8(cap, &op, typed(x)?, typed_mut(y)?)
}

fn run_convert<O: Operators>(
    cap: Capability,
    from: &Tensor,
    to: &Tensor,
    x: Read<'_>,
    y: &mut [u8],
) -> Result<(), Error> {
    let (lo, hi) = if to.dtype == DType::I8 {
        (-128, 127)
    } else {
        (-32767, 32767)
    };
    let multiplier = from.scale / to.scale;
    let op = Rescale {
        x_zero: from.zero_point,
        multiplier,
        zero: to.zero_point,
        lo,
        hi,
    };
    let inverse = 1.0 / to.scale;
    let has = |dtype| O::SET.has(Kind::Convert, dtype);
    match (from.dtype, to.dtype) {
        (DType::I8, DType::I8) if has(DType::I8) && x == Read::InPlace => {
            convert::rescale_i8_in_place(cap, &op, typed_mut(y)?)
        }
        (DType::I8, DType::I8) if has(DType::I8) => {
            convert::rescale_i8(cap, &op, typed(x)?, typed_mut(y)?)
        }
        (DType::I8, DType::I16) if has(DType::I8) => {
            convert::widen_i8_i16(cap, &op, typed(x)?, typed_mut(y)?)
        }
        (DType::I16, DType::I8) if has(DType::I16) => {
            convert::narrow_i16_i8(cap, &op, typed(x)?, typed_mut(y)?)
        }
        (DType::I8, DType::F32) if has(DType::I8) => {
            convert::dequantize_i8(cap, from.scale, from.zero_point, typed(x)?, typed_mut(y)?)
        }
        (DType::I16, DType::F32) if has(DType::I16) => {
            convert::dequantize_i16(cap, from.scale, typed(x)?, typed_mut(y)?)
        }
        (DType::F32, DType::I8) if has(DType::F32) => {
            convert::quantize_i8(cap, inverse, to.zero_point, typed(x)?, typed_mut(y)?)
        }
        (DType::F32, DType::I16) if has(DType::F32) => {
            convert::quantize_i16(cap, inverse, typed(x)?, typed_mut(y)?)
        }
        _ => Err(fault()),
    }
}

/// Calls `f(image, x, y)` for each image of a batch.
fn batches<T, U>(
    batch: usize,
    mut x: &[T],
    y: &mut [U],
    mut f: impl FnMut(usize, &[T], &mut [U]) -> Result<(), Error>,
) -> Result<(), Error> {
    let n = x.len() / batch.max(1);
    images(batch, y, |i, y| {
        let (image, rest) = x.split_at_checked(n).ok_or(fault())?;
        x = rest;
        f(i, image, y)
    })
}

/// Calls `f(image, y)` for each image of a batch that is worked on in place.
fn images<T>(
    batch: usize,
    mut y: &mut [T],
    mut f: impl FnMut(usize, &mut [T]) -> Result<(), Error>,
) -> Result<(), Error> {
    let n = y.len() / batch.max(1);
    for i in 0..batch {
        let (image, rest) = y.split_at_mut_checked(n).ok_or(fault())?;
        y = rest;
        f(i, image)?;
    }
    Ok(())
}

fn part<T>(data: &[T], i: usize, len: usize) -> Result<&[T], Error> {
    data.get(i * len..(i + 1) * len).ok_or(fault())
}

/// An operand that a step may lack.
fn optional<T: AnyBitPattern>(read: Read<'_>) -> Result<Option<&[T]>, Error> {
    match read {
        Read::None => Ok(None),
        read => typed(read).map(Some),
    }
}

fn typed<T: AnyBitPattern>(read: Read<'_>) -> Result<&[T], Error> {
    match read {
        Read::Bytes(bytes) => bytemuck::try_cast_slice(bytes).map_err(|_| fault()),
        _ => Err(fault()),
    }
}

fn typed_mut<T: AnyBitPattern + NoUninit>(bytes: &mut [u8]) -> Result<&mut [T], Error> {
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| fault())
}

/// Replaced by the step's number where it is reported.
fn fault() -> Error {
    Error::Internal(0)
}
