//! GGUF, the format of llama.cpp: one file with metadata and tensors, quantised or not.
//!
//! [`Checkpoint::open`](crate::Checkpoint::open) reads such a file as any other: versions 2 and 3, little-endian, memory-mapped, with
//! tensors in `f32`, `f16`, `bf16`, `q8_0`, `q4_0`, `q4_k` and `q6_k`, by the names that the file has.
//! [`Checkpoint::metadata`](crate::Checkpoint::metadata) has the rest. [`GgufWriter`] writes any file, and [`quantise_tensor`] converts
//! a tensor. What the names and keys of a model mean is not known here: `lumina-mgpt` has it for its own.
//!
//! # Untrusted input
//!
//! Counts and lengths are compared with the bytes that are there before anything is allocated for them; headers end at
//! 100 MB, arrays lie at most four deep, names and keys come once, tensors lie apart, aligned and within the file. Any
//! bytes are a block of a quantised type, though its values may be infinite or not a number.

mod cursor;
mod metadata;
mod quantise;
mod read;
mod value;
mod write;

pub use metadata::Metadata;
pub use quantise::{quantise_slices, quantise_tensor};
pub use value::{Array, Value};
pub use write::GgufWriter;

pub(crate) use read::{MAGIC, read};
