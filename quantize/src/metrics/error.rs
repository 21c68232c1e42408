//! What can be wrong with the operands of a metric.

use thiserror::Error;

/// Two lists that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Different lengths.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// What was compared.
        what: &'static str,
        /// Length of the reference.
        expected: usize,
        /// Length of the other.
        got: usize,
    },
}

pub(super) fn same_length(
    what: &'static str,
    expected: usize,
    got: usize,
) -> Result<(), MetricError> {
    if expected == got {
        Ok(())
    } else {
        Err(MetricError::Length {
            what,
            expected,
            got,
        })
    }
}
