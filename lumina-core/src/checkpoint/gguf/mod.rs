//! GGUF, the format of llama.cpp: one file with metadata and tensors, quantised or not.
//!
//! [`Checkpoint::open`](super::Checkpoint::open) reads such a file as any other: versions 2 and 3, little-endian,
//! memory-mapped, with tensors in `f32`, `f16`, `bf16`, `q8_0`, `q4_0`, `q4_k` and `q6_k`. The tensors of a model of the
//! Chameleon architecture get the names that they have in a Hugging Face folder, so models do not know the difference.
//! [`quantise`] makes such a file of a folder; [`GgufWriter`] writes any.

mod cursor;
mod heads;
mod metadata;
mod names;
mod read;
mod value;
mod write;

pub use metadata::{Metadata, RowOrder};
pub use value::{Array, Value};
pub use write::GgufWriter;

pub(super) use heads::Heads;
pub(super) use read::{MAGIC, read};
