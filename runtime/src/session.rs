//! Running an artifact.

mod run;

use core::marker::PhantomData;

use crate::artifact::{Artifact, Bound, Direction, Io, Step, golden_input};
use crate::error::Error;
use crate::exec::Exec;
use crate::isa::{Capability, Isa};
use crate::memory::Memory;
use crate::operators::{AllOperators, Operators};
#[cfg(feature = "std")]
use crate::pool::Pool;
use crate::tensor::{DType, Tensor, TensorId};

/// An artifact with the memory to run it.
///
/// Inputs and outputs live in the arena: write the inputs, [`Session::run`], read the outputs. A run
/// may reuse the inputs' memory, so write them before each run. Two sessions over different arenas
/// are independent.
///
/// ```no_run
/// use ampoule_runtime::{Arena, Artifact, Session};
/// # fn demo(bytes: &[u8], pixels: &[i8]) -> Result<(), ampoule_runtime::Error> {
/// let artifact = Artifact::verify(bytes)?;
/// let mut arena = Arena::<65536>::new();
/// let mut session = Session::new(artifact, [arena.bytes()])?;
/// session.write_i8(0, pixels)?;
/// session.run()?;
/// let scores: &[i8] = session.output_i8(0)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session<'m, 'a, O = AllOperators> {
    artifact: Artifact<'m>,
    memory: Memory<'a>,
    capability: Capability,
    exec: Exec<'a>,
    operators: PhantomData<fn() -> O>,
}

/// What an observer sees after each step.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'v> {
    /// Step number.
    pub index: usize,
    /// The step.
    pub step: Step,
    /// Its output.
    pub output: TensorId,
    /// Record of the output.
    pub tensor: Tensor,
    /// Bytes of the output.
    pub bytes: &'v [u8],
}

impl<'m, 'a> Session<'m, 'a> {
    /// Takes one arena slice per bank, each at least [`Artifact::bank_bytes`] long and aligned to
    /// [`crate::ARENA_ALIGN`], and the strongest instruction set of this processor.
    ///
    /// # Errors
    ///
    /// [`Error::ArenaTooSmall`] or [`Error::ArenaMisaligned`].
    pub fn new(
        artifact: Artifact<'m>,
        banks: impl IntoIterator<Item = &'a mut [u8]>,
    ) -> Result<Self, Error> {
        Self::with_isa(artifact, banks, Isa::best())
    }

    /// [`Session::new`] with a given instruction set.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`] as well.
    pub fn with_isa(
        artifact: Artifact<'m>,
        banks: impl IntoIterator<Item = &'a mut [u8]>,
        isa: Isa,
    ) -> Result<Self, Error> {
        let memory = Memory::new(&artifact, banks)?;
        Ok(Session {
            artifact,
            memory,
            capability: Capability::new(isa)?,
            exec: Exec::default(),
            operators: PhantomData,
        })
    }
}

impl<'m, 'a, O: Operators> Session<'m, 'a, O> {
    /// [`Session::new`] for an artifact that [`Artifact::verify_for`] the same operators has accepted.
    ///
    /// # Errors
    ///
    /// As [`Session::new`].
    pub fn linked(
        artifact: Artifact<'m>,
        banks: impl IntoIterator<Item = &'a mut [u8]>,
    ) -> Result<Self, Error> {
        Ok(Session {
            artifact,
            memory: Memory::new(&artifact, banks)?,
            capability: match Capability::BUILT_IN {
                Some(built_in) => built_in,
                None => Capability::new(Isa::best())?,
            },
            exec: Exec::default(),
            operators: PhantomData,
        })
    }

    /// Splits the work over a pool's threads. Results do not depend on it.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn with_pool(mut self, pool: &'a Pool) -> Self {
        self.exec = Exec { pool: Some(pool) };
        self
    }

    /// The artifact.
    pub fn artifact(&self) -> &Artifact<'m> {
        &self.artifact
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.capability.isa()
    }

    /// Runs every step.
    ///
    /// # Errors
    ///
    /// [`Error::IndexOutOfRange`] when an input has token ids that the model does not know. For a verified
    /// artifact nothing else: [`Error::Internal`] would be a fault of the library.
    pub fn run(&mut self) -> Result<(), Error> {
        let artifact = self.artifact;
        for (index, step) in artifact.steps_for::<O>().enumerate() {
            self.step(index, &step)?;
        }
        Ok(())
    }

    /// Runs every step and shows each result to `observe`.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn run_observed(&mut self, mut observe: impl FnMut(Observation<'_>)) -> Result<(), Error> {
        let artifact = self.artifact;
        for (index, step) in artifact.steps_for::<O>().enumerate() {
            self.step(index, &step)?;
            let output = step.output();
            let tensor = artifact.tensor(output)?;
            let bytes = self
                .memory
                .tensor(&artifact, &tensor)
                .ok_or(Error::Internal(index as u16))?;
            observe(Observation {
                index,
                step,
                output,
                tensor,
                bytes,
            });
        }
        Ok(())
    }

    fn step(&mut self, index: usize, step: &Step) -> Result<(), Error> {
        let fault = Error::Internal(index as u16);
        let Some(bound) = Bound::new::<O>(&self.artifact, step) else {
            return Err(fault);
        };
        let views = self
            .memory
            .views(&self.artifact, step.output(), step.scratch(), step.inputs())
            .ok_or(fault)?;
        match run::run::<O>(&bound, self.capability, self.exec, views) {
            Err(bad @ Error::IndexOutOfRange(_)) => Err(bad),
            other => other.map_err(|_| fault),
        }
    }

    /// Record of input `index`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`].
    pub fn input(&self, index: usize) -> Result<Io<'m>, Error> {
        self.artifact.inputs().nth(index).ok_or(Error::NoSuchIo)
    }

    /// Record of output `index`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`].
    pub fn output(&self, index: usize) -> Result<Io<'m>, Error> {
        self.artifact.outputs().nth(index).ok_or(Error::NoSuchIo)
    }

    /// The memory of input `index`, to fill in place.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`].
    pub fn input_bytes(&mut self, index: usize) -> Result<&mut [u8], Error> {
        let tensor = self.port(Direction::Input, index)?;
        self.memory.tensor_mut(&tensor).ok_or(Error::NoSuchIo)
    }

    /// The bytes of output `index`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`].
    pub fn output_bytes(&self, index: usize) -> Result<&[u8], Error> {
        let tensor = self.port(Direction::Output, index)?;
        self.memory
            .tensor(&self.artifact, &tensor)
            .ok_or(Error::NoSuchIo)
    }

    /// Copies codes into an i8 input.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`] when it is not i8, [`Error::Length`] when the length differs.
    pub fn write_i8(&mut self, index: usize, codes: &[i8]) -> Result<(), Error> {
        self.expect(index, Direction::Input, DType::I8)?;
        copy_exact(bytemuck::cast_slice(codes), self.input_bytes(index)?)
    }

    /// Writes real values into an input, quantising them where it holds codes.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`] or [`Error::Length`].
    pub fn write_f32(&mut self, index: usize, values: &[f32]) -> Result<(), Error> {
        let t = self.port(Direction::Input, index)?;
        let capability = self.capability;
        let bytes = self.input_bytes(index)?;
        let expected = bytes.len() / t.dtype.size();
        if expected != values.len() {
            return Err(Error::Length {
                expected,
                got: values.len(),
            });
        }
        match t.dtype {
            DType::F32 => copy_exact(bytemuck::cast_slice(values), bytes),
            DType::I8 => {
                let codes = bytemuck::cast_slice_mut(bytes);
                crate::ops::convert::quantize_i8(
                    capability,
                    1.0 / t.scale,
                    t.zero_point,
                    values,
                    codes,
                )
            }
            // Indices; what is not a whole number is rounded towards zero.
            DType::I32 => {
                let (words, _) = bytes.as_chunks_mut::<4>();
                let pairs = words.iter_mut().zip(values);
                pairs.for_each(|(w, &v)| *w = (v as i32).to_le_bytes());
                Ok(())
            }
            _ => Err(Error::NoSuchIo),
        }
    }

    /// The codes of an i8 output.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`] when it is not i8.
    pub fn output_i8(&self, index: usize) -> Result<&[i8], Error> {
        self.expect(index, Direction::Output, DType::I8)?;
        Ok(bytemuck::cast_slice(self.output_bytes(index)?))
    }

    /// Copies an output as real values, dequantising codes.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchIo`] or [`Error::Length`].
    pub fn read_f32(&self, index: usize, out: &mut [f32]) -> Result<(), Error> {
        let t = self.port(Direction::Output, index)?;
        let bytes = self.output_bytes(index)?;
        let expected = bytes.len() / t.dtype.size();
        if expected != out.len() {
            return Err(Error::Length {
                expected,
                got: out.len(),
            });
        }
        dequantize(&t, bytes, out);
        Ok(())
    }

    /// Runs the golden vectors inside the artifact and compares every byte.
    ///
    /// # Errors
    ///
    /// [`Error::SelfTest`] with the number of the first vector that differs.
    pub fn self_test(&mut self) -> Result<usize, Error> {
        let artifact = self.artifact;
        let mut count = 0;
        for (i, golden) in artifact.golden().enumerate() {
            for (number, io) in artifact.inputs().enumerate() {
                golden_input(
                    golden.seed.wrapping_add(number as u32),
                    io.tensor.dtype,
                    self.input_bytes(number)?,
                );
            }
            self.run()?;
            let mut expected = golden.outputs;
            for number in 0..artifact.outputs().count() {
                let got = self.output_bytes(number)?;
                let (mine, rest) = expected
                    .split_at_checked(got.len())
                    .ok_or(Error::SelfTest(i as u16))?;
                if mine != got {
                    return Err(Error::SelfTest(i as u16));
                }
                expected = rest;
            }
            count += 1;
        }
        Ok(count)
    }

    /// An arena bank, for inspection.
    pub fn bank(&self, bank: usize) -> Option<&[u8]> {
        self.memory.bank(bank)
    }

    fn expect(&self, index: usize, direction: Direction, dtype: DType) -> Result<(), Error> {
        if self.port(direction, index)?.dtype == dtype {
            Ok(())
        } else {
            Err(Error::NoSuchIo)
        }
    }

    /// The tensor of an input or output, without its name, the search for which takes flash.
    fn port(&self, direction: Direction, index: usize) -> Result<Tensor, Error> {
        self.artifact.port(direction, index).ok_or(Error::NoSuchIo)
    }
}

/// The real values of a tensor's bytes; `out` holds one element per value.
pub fn dequantize(t: &Tensor, bytes: &[u8], out: &mut [f32]) {
    let values = out.iter_mut();
    match t.dtype {
        DType::I8 => values
            .zip(bytes)
            .for_each(|(o, &b)| *o = (i32::from(b as i8) - t.zero_point) as f32 * t.scale),
        DType::I16 => {
            let (codes, _) = bytes.as_chunks::<2>();
            values
                .zip(codes)
                .for_each(|(o, &c)| *o = f32::from(i16::from_le_bytes(c)) * t.scale);
        }
        DType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            values
                .zip(words)
                .for_each(|(o, &w)| *o = f32::from_le_bytes(w));
        }
        DType::I32 => {
            let (words, _) = bytes.as_chunks::<4>();
            values
                .zip(words)
                .for_each(|(o, &w)| *o = i32::from_le_bytes(w) as f32);
        }
        DType::F16 => {
            let (codes, _) = bytes.as_chunks::<2>();
            values
                .zip(codes)
                .for_each(|(o, &c)| *o = half::f16::from_le_bytes(c).to_f32());
        }
    }
}

fn copy_exact(from: &[u8], to: &mut [u8]) -> Result<(), Error> {
    if from.len() != to.len() {
        return Err(Error::Length {
            expected: to.len(),
            got: from.len(),
        });
    }
    to.copy_from_slice(from);
    Ok(())
}
