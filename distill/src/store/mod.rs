//! The teacher store: what teachers answered, on disk. `docs/store.md` specifies the format.
//!
//! A teacher runs once for every picture and epoch; students are trained from its answers alone. A
//! record holds the seed of the augmentation, which makes the teacher's pixels again, and the answer:
//! the largest probabilities with their classes, or an embedding, or a feature map.
//!
//! ```no_run
//! use ampoule_distill::store::Store;
//! let store = Store::open("store")?;
//! let epoch = store.epoch(0)?;
//! let record = epoch.record(17)?;
//! let classes: Vec<(u16, f32)> = record.indices().zip(record.values()).collect();
//! println!("seed {}: {classes:?}", record.seed());
//! # Ok::<(), ampoule_distill::store::StoreError>(())
//! ```

mod error;
mod files;
mod header;
#[allow(unsafe_code)]
mod map;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{Difference, Gap, StoreError};
pub use files::Shard;
pub use header::{FORMAT, Header, Kind, MadeFrom, TeacherId};
pub use reader::{Epoch, Store};
pub use record::{Answer, MISSING, Record};
pub use writer::Writer;

pub(crate) use files::create;
pub(crate) use header::differences;
