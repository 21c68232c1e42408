//! A graph made executable: lowered, planned, sealed and held in memory with its arena.

use ampoule_runtime::{Artifact, Isa, Observation, Pool, Session, packed};
use thiserror::Error;

use crate::graph::Graph;
use crate::lower::{LowerError, LowerOptions, lower};
use crate::plan::{
    BankError, Plan, PlanOptions, Tiled, place, plan_in_place, plan_within, widen_scratch,
};
use crate::program::Program;
use crate::scheme::Scheme;
use crate::seal::{AlignedBytes, Extras, SealError, seal, unpack};

/// Why a graph could not be made executable or run.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Lowering failed.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// No plan fits.
    #[error("no plan needs at most {budget} bytes of arena; the least is {least}")]
    ArenaBudget {
        /// Bytes allowed.
        budget: usize,
        /// Bytes of the smallest plan.
        least: usize,
    },
    /// The banks of the target do not hold the model.
    #[error(transparent)]
    Banks(#[from] BankError),
    /// Writing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The runtime refused the artifact or the data.
    #[error(transparent)]
    Runtime(#[from] ampoule_runtime::Error),
}

/// An executable model: artifact bytes and arena.
///
/// ```
/// use ampoule_quantize::graph::{Graph, Op};
/// use ampoule_quantize::model::Model;
/// use ampoule_runtime::ops::unary::UnaryKind;
/// let mut g = Graph::default();
/// let x = g.input("x", &[1, 4]);
/// let y = g.push("relu", Op::Unary(UnaryKind::Relu), &[x]).unwrap();
/// g.output("y", y);
/// let mut model = Model::float(&g).unwrap();
/// assert_eq!(model.run_f32(&[vec![-1.0, 2.0, -3.0, 4.0]]).unwrap(), [[0.0, 2.0, 0.0, 4.0]]);
/// ```
#[derive(Debug, Clone)]
pub struct Model {
    bytes: AlignedBytes,
    banks: Vec<AlignedBytes>,
}

impl Model {
    /// A float model of the graph.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    pub fn float(graph: &Graph) -> Result<Self, ModelError> {
        let compiled = compile(
            graph,
            None,
            &LowerOptions::default(),
            &PlanOptions::default(),
            &Extras::default(),
        )?;
        Self::from_bytes(compiled.bytes)
    }

    /// A model from the bytes of an artifact, which are verified. A packed file is unpacked first.
    ///
    /// # Errors
    ///
    /// [`ModelError::Runtime`] when the bytes are refused.
    pub fn from_bytes(bytes: AlignedBytes) -> Result<Self, ModelError> {
        let bytes = match packed::is_packed(&bytes) {
            true => unpack(&bytes)?,
            false => bytes,
        };
        let artifact = Artifact::verify(&bytes)?;
        let banks = (0..artifact.banks())
            .map(|b| AlignedBytes::zeroed(artifact.bank_bytes(b)))
            .collect();
        Ok(Model { bytes, banks })
    }

    /// The artifact.
    ///
    /// # Errors
    ///
    /// None in practice: the bytes were verified when the model was made.
    pub fn artifact(&self) -> Result<Artifact<'_>, ModelError> {
        Ok(Artifact::verify_structure(&self.bytes)?)
    }

    /// The artifact's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A session over this model's arena.
    ///
    /// # Errors
    ///
    /// [`ModelError::Runtime`] when the instruction set is not available.
    pub fn session(&mut self, isa: Isa) -> Result<Session<'_, '_>, ModelError> {
        let artifact = Artifact::verify_structure(&self.bytes)?;
        Ok(Session::with_isa(
            artifact,
            self.banks.iter_mut().map(|b| &mut b[..]),
            isa,
        )?)
    }

    /// A session that splits its work over a pool.
    ///
    /// # Errors
    ///
    /// As [`Model::session`].
    pub fn session_with_pool<'s>(
        &'s mut self,
        isa: Isa,
        pool: &'s Pool,
    ) -> Result<Session<'s, 's>, ModelError> {
        let artifact = Artifact::verify_structure(&self.bytes)?;
        Ok(
            Session::with_isa(artifact, self.banks.iter_mut().map(|b| &mut b[..]), isa)?
                .with_pool(pool),
        )
    }

    /// Runs once on real values, in the stored layout, and returns every output as real values.
    ///
    /// # Errors
    ///
    /// [`ModelError::Runtime`] when an input has the wrong length.
    pub fn run_f32(&mut self, inputs: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.run_observed(inputs, |_| ())
    }

    /// [`Model::run_f32`], showing each step's result to `observe`.
    ///
    /// # Errors
    ///
    /// As [`Model::run_f32`].
    pub fn run_observed(
        &mut self,
        inputs: &[Vec<f32>],
        observe: impl FnMut(Observation<'_>),
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut session = self.session(Isa::best())?;
        for (i, values) in inputs.iter().enumerate() {
            session.write_f32(i, values)?;
        }
        session.run_observed(observe)?;
        outputs_f32(&session)
    }
}

/// Every output of a session as real values.
///
/// # Errors
///
/// [`ModelError::Runtime`] when an output can't be read, which verification excludes.
pub fn outputs_f32(session: &Session<'_, '_>) -> Result<Vec<Vec<f32>>, ModelError> {
    let count = session.artifact().outputs().count();
    (0..count)
        .map(|i| {
            let mut out = vec![0.0; session.output(i)?.tensor.shape.elements()];
            session.read_f32(i, &mut out)?;
            Ok(out)
        })
        .collect()
}

/// A sealed program with what reports need to know about it.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Steps and tensors.
    pub program: Program,
    /// Memory plan.
    pub plan: Plan,
    /// What bands of rows do for the arena, where it has a budget.
    pub tiled: Option<Tiled>,
    /// The artifact.
    pub bytes: AlignedBytes,
}

/// Lowers, plans and seals a graph.
///
/// # Errors
///
/// [`ModelError`].
pub fn compile(
    graph: &Graph,
    scheme: Option<&Scheme>,
    lowering: &LowerOptions,
    planning: &PlanOptions,
    extras: &Extras,
) -> Result<Compiled, ModelError> {
    let mut program = lower(graph, scheme, lowering)?;
    let (plan, tiled) = match planning.arena_budget {
        None => (plan_in_place(&mut program, planning), None),
        Some(budget) => {
            let (plan, tiled) = plan_within(&mut program, budget, planning);
            let least = plan.total();
            if least > budget {
                return Err(ModelError::ArenaBudget { budget, least });
            }
            (plan, Some(tiled))
        }
    };
    let plan = match &planning.target {
        None => widen_scratch(&mut program, plan, planning),
        Some(target) => place(&program, plan, target, planning)?,
    };
    let bytes = seal(&program, &plan, extras)?;
    if let Some(target) = &planning.target {
        target.check_artifact(&plan, bytes.len())?;
    }
    Ok(Compiled {
        program,
        plan,
        tiled,
        bytes,
    })
}
