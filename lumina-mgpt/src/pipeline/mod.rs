//! What users write: a model opened, tasks, and answers as values or as streams. All of it goes through the
//! [engine](crate::engine).

mod clock;
#[cfg(feature = "hub")]
mod download;
mod generation;
mod image_folder;
mod lumina;
mod output;
mod stream;
mod tasks;
mod warm_up;

pub use clock::SystemClock;
pub use generation::Generation;
pub use lumina::{Lumina, LuminaBuilder};
pub use output::{Answer, Output};
pub(crate) use stream::with_memory;
pub use stream::{BatchStream, Stream};
pub use warm_up::WarmUp;
