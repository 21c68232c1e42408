//! Training: a [`Task`] says what is learnt from what, a [`Trainer`] learns it.
//!
//! The trainer owns the network's graph, parameters, optimiser, learning rates, averages and seeds. Each
//! step takes a batch from the task, runs the network forward, asks the task for the loss and its
//! gradients, and changes the parameters. With a [`Run`] folder it writes checkpoints and a metrics file,
//! and a run that was stopped anywhere, even killed, goes on to the same final weights.
//!
//! A graph may have several inputs and outputs: two towers are one graph with two of each. Parameters that
//! no layer uses, such as a temperature, are added to the graph too; the task's loss reads them and adds
//! to their gradients.
//!
//! Nothing here prints: an [`Observer`] sees every step, and can ask to stop.

mod branches;
mod checkpoint;
pub mod classify;
mod error;
mod metrics;
mod observer;
mod optimizer;
pub mod pairs;
mod task;
#[cfg(test)]
mod tests;
mod trainer;
mod zeros;

pub use checkpoint::{FORMAT, Run, Snapshot};
pub use error::TrainError;
pub use metrics::{Effort, Record, read_metrics};
pub use observer::{EpochReport, Observer, Silent, StepReport};
pub use optimizer::OptimizerKind;
pub use task::{Evaluator, Inputs, Measures, Step, Task};
pub use trainer::{End, TrainOptions, Trainer};
