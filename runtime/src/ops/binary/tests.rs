//! One grid of cases for every instruction set.
