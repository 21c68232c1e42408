//! Teachers, the pass in which they answer to every picture, and the check that the answers hold.

mod check;
mod error;
mod model;
mod panel;
mod pass;
mod text;

pub use check::{Drift, check};
pub use error::{TeachError, TeacherError};
pub use model::{Desk, Teacher, TeacherOptions};
pub use panel::{Desks, Panel, Question};
pub use pass::{Taught, TeachOptions, header, teach};
pub use text::TextTeacher;
