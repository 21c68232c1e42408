//! What an optimiser remembers, as named arrays for a checkpoint.

use std::collections::HashMap;

/// A named array.
#[derive(Debug, Clone, PartialEq)]
pub struct StateArray {
    /// Unique in a state: `steps`, or what it is and of which parameter, as `first/head.weight`.
    pub name: String,
    /// The values.
    pub data: StateData,
}

/// Values of one type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StateData {
    /// Numbers.
    F32(Vec<f32>),
    /// Codes of numbers.
    U8(Vec<u8>),
    /// Counts.
    U64(Vec<u64>),
}

/// Why a state does not fit an optimiser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// An array is missing.
    #[error("the state has no `{name}`: it is of another optimiser or of another network")]
    Missing {
        /// Its name.
        name: String,
    },
    /// An array has another length or type.
    #[error("`{name}` of the state has {got}, expected {expected}")]
    Mismatch {
        /// Its name.
        name: String,
        /// Length and type that the optimiser needs.
        expected: String,
        /// Those that the state has.
        got: String,
    },
    /// An array that this optimiser does not have.
    #[error("the state has `{name}`, which this optimiser has not: it is of another one")]
    Unknown {
        /// Its name.
        name: String,
    },
}

impl StateArray {
    pub(super) fn new(name: impl Into<String>, data: StateData) -> Self {
        StateArray {
            name: name.into(),
            data,
        }
    }
}

impl StateData {
    /// Number of values and their type, for messages.
    fn describe(&self) -> String {
        match self {
            StateData::F32(x) => format!("{} values f32", x.len()),
            StateData::U8(x) => format!("{} values u8", x.len()),
            StateData::U64(x) => format!("{} values u64", x.len()),
        }
    }
}

/// A state from which arrays are taken by name.
pub(super) struct Given(HashMap<String, StateData>);

impl Given {
    pub fn new(state: Vec<StateArray>) -> Self {
        Given(state.into_iter().map(|a| (a.name, a.data)).collect())
    }

    pub fn f32(&mut self, name: &str, len: usize) -> Result<Vec<f32>, StateError> {
        match self.take(name)? {
            StateData::F32(x) if x.len() == len => Ok(x),
            other => Err(mismatch(name, format!("{len} values f32"), &other)),
        }
    }

    pub fn u8(&mut self, name: &str, len: usize) -> Result<Vec<u8>, StateError> {
        match self.take(name)? {
            StateData::U8(x) if x.len() == len => Ok(x),
            other => Err(mismatch(name, format!("{len} values u8"), &other)),
        }
    }

    pub fn count(&mut self, name: &str) -> Result<u64, StateError> {
        match self.take(name)? {
            StateData::U64(x) if x.len() == 1 => Ok(x[0]),
            other => Err(mismatch(name, "1 values u64".into(), &other)),
        }
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), StateError> {
        match self.0.into_keys().min() {
            Some(name) => Err(StateError::Unknown { name }),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str) -> Result<StateData, StateError> {
        let found = self.0.remove(name);
        found.ok_or_else(|| StateError::Missing { name: name.into() })
    }
}

fn mismatch(name: &str, expected: String, got: &StateData) -> StateError {
    StateError::Mismatch {
        name: name.into(),
        expected,
        got: got.describe(),
    }
}
