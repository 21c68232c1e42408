//! The one check at the entry of every operator.

use crate::error::Error;

/// `Ok` when a slice has the length that the operator's geometry asks for.
pub(crate) fn expect(expected: usize, got: usize) -> Result<(), Error> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::Length { expected, got })
    }
}

/// `Ok` when a slice has at least the length that the operator's geometry asks for.
pub(crate) fn at_least(expected: usize, got: usize) -> Result<(), Error> {
    if got >= expected {
        Ok(())
    } else {
        Err(Error::Length { expected, got })
    }
}
