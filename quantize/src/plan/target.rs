//! A board's memory banks, as a target file names them.

use ampoule_runtime::artifact::layout::{ALIGN, MAX_BANKS};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Plan;

/// The memory of a board, read from JSON.
///
/// ```
/// use ampoule_quantize::plan::Target;
/// let target = Target::from_json(r#"{
///     "name": "board",
///     "banks": [
///         { "name": "TCM", "kind": "ram", "bytes": 16384, "cost": 1 },
///         { "name": "SRAM", "kind": "ram", "bytes": 262144, "cost": 4 },
///         { "name": "flash", "kind": "flash", "bytes": 1048576, "cost": 8 }
///     ]
/// }"#).unwrap();
/// assert_eq!(target.ram().count(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name of the board.
    pub name: String,
    /// Its banks. Those of RAM are the arena banks of the artifact, numbered in this order.
    pub banks: Vec<Bank>,
    /// The bank that holds the artifact with the weights; the first of flash where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// A piece of memory with one price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bank {
    /// Name, as the board's manual has it.
    pub name: String,
    /// Whether tensors may lie there.
    pub kind: BankKind,
    /// Bytes that the model may take, stack and other variables left out.
    pub bytes: usize,
    /// What reading or writing a byte costs, in any unit.
    pub cost: f64,
}

/// Whether a bank can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BankKind {
    /// Memory of tensors.
    Ram,
    /// Memory of the artifact alone.
    Flash,
}

/// A target file that means nothing, or a model that its banks do not hold.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum BankError {
    /// No target file.
    #[error(
        "no target file: {0}; expected {{\"name\", \"banks\": [{{\"name\", \"kind\": \"ram\" or \"flash\", \"bytes\", \"cost\"}}]}}"
    )]
    File(String),
    /// More bytes are alive at one step than all banks have.
    #[error(
        "{needed} bytes are alive at step {step} (`{name}`), {missing} more than the {held} bytes of RAM in {target}",
        missing = needed - held
    )]
    TooSmall {
        /// Board.
        target: String,
        /// Step with the most bytes alive.
        step: usize,
        /// Its name.
        name: String,
        /// Bytes alive there.
        needed: usize,
        /// Bytes of all banks.
        held: usize,
    },
    /// There is no room for a tensor in one piece.
    #[error(
        "tensor `{tensor}` of {bytes} bytes finds no room in one piece in {target}: its largest bank of RAM has {largest} bytes, all together {held}, and {needed} are alive at once"
    )]
    NoRoom {
        /// Board.
        target: String,
        /// The largest tensor that is left over.
        tensor: String,
        /// Its bytes.
        bytes: usize,
        /// Bytes of the largest bank.
        largest: usize,
        /// Bytes of all banks.
        held: usize,
        /// Most bytes alive at one step.
        needed: usize,
    },
    /// The artifact is larger than its bank.
    #[error("the artifact has {bytes} bytes, and {bank} of {target} has room for {held}")]
    Artifact {
        /// Board.
        target: String,
        /// Bank of the weights.
        bank: String,
        /// Bytes of the artifact.
        bytes: usize,
        /// Bytes of the bank beside tensors.
        held: usize,
    },
}

impl Target {
    /// Reads a target file.
    ///
    /// # Errors
    ///
    /// [`BankError::File`] when it is no such file, or its banks can't be.
    pub fn from_json(text: &str) -> Result<Self, BankError> {
        let target: Target =
            serde_json::from_str(text).map_err(|e| BankError::File(e.to_string()))?;
        match target.fault() {
            Some(fault) => Err(BankError::File(fault)),
            None => Ok(target),
        }
    }

    /// Banks of RAM, in the order of the artifact's arena banks.
    pub fn ram(&self) -> impl Iterator<Item = &Bank> {
        self.banks.iter().filter(|b| b.kind == BankKind::Ram)
    }

    /// The bank that holds the artifact, where there is one.
    pub fn weights(&self) -> Option<&Bank> {
        let mut banks = self.banks.iter();
        match &self.weights {
            Some(name) => banks.find(|b| b.name == *name),
            None => banks.find(|b| b.kind == BankKind::Flash),
        }
    }

    /// Whether an artifact of that many bytes has room beside the tensors.
    ///
    /// # Errors
    ///
    /// [`BankError::Artifact`].
    pub fn check_artifact(&self, plan: &Plan, bytes: usize) -> Result<(), BankError> {
        let Some(bank) = self.weights() else {
            return Ok(());
        };
        let number = self.ram().position(|b| b.name == bank.name);
        let tensors = number.and_then(|n| plan.bank_bytes.get(n)).copied();
        let held = bank.bytes.saturating_sub(tensors.unwrap_or(0));
        match bytes <= held {
            true => Ok(()),
            false => Err(BankError::Artifact {
                target: self.name.clone(),
                bank: bank.name.clone(),
                bytes,
                held,
            }),
        }
    }

    /// Bytes of each bank of RAM that tensors may take, where the constants have `constants` bytes.
    pub(super) fn room(&self, constants: usize) -> Vec<usize> {
        let weights = self.weights().map(|b| b.name.as_str());
        let room = |b: &Bank| match weights == Some(b.name.as_str()) {
            true => b.bytes.saturating_sub(constants),
            false => b.bytes,
        };
        self.ram().map(|b| room(b) / ALIGN * ALIGN).collect()
    }

    fn fault(&self) -> Option<String> {
        let banks = self.ram().count();
        if !(1..=MAX_BANKS).contains(&banks) {
            return Some(format!(
                "{banks} banks of RAM where 1 to {MAX_BANKS} may be"
            ));
        }
        for (i, bank) in self.banks.iter().enumerate() {
            if self.banks[..i].iter().any(|b| b.name == bank.name) {
                return Some(format!("two banks are called `{}`", bank.name));
            }
            if !(bank.cost.is_finite() && bank.cost >= 0.0) {
                return Some(format!("bank `{}` costs {} a byte", bank.name, bank.cost));
            }
            if bank.bytes > u32::MAX as usize {
                return Some(format!("bank `{}` is larger than 4 GiB", bank.name));
            }
        }
        match (&self.weights, self.weights()) {
            (Some(name), None) => Some(format!("weights lie in `{name}`, which is no bank")),
            _ => None,
        }
    }
}
