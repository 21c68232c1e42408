//! Assembly that is repeated. The compiler takes the length of inline assembly from its number of lines, so that
//! `.rept` would let it place constants out of their loads' reach.

/// The lines, two times.
macro_rules! twice {
    ($($line:expr),+) => {
        concat!($($line, "\n",)+ $($line, "\n",)+)
    };
}

/// The lines, three times.
macro_rules! thrice {
    ($($line:expr),+) => {
        concat!($($line, "\n",)+ $($line, "\n",)+ $($line, "\n",)+)
    };
}

pub(super) use {thrice, twice};
