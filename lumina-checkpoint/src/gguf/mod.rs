//! GGUF, the format of llama.cpp: one file with metadata and tensors, quantised or not.
//!
//! [`Checkpoint::open`](crate::Checkpoint::open) reads such a file as any other: versions 2 and 3, little-endian, with
//! tensors in `f32`, `f16`, `bf16`, `q8_0`, `q5_1`, `q5_0`, `q4_1`, `q4_0` and `q2_k` to `q6_k`, under the names in
//! the file.
//! [`Checkpoint::metadata`](crate::Checkpoint::metadata) returns the rest. [`GgufWriter`] writes any file, and
//! [`quantise_tensor`] converts a tensor. This module does not know what names and keys mean: for the models of this
//! project, `lumina_mgpt::convert` does.
//!
//! # Untrusted input
//!
//! Counts and lengths are compared with the size of the file before anything is allocated for them. A header has at
//! most 64 MiB, and arrays nest at most four deep. Names and keys must be unique, and tensors aligned, within the file
//! and without overlap. Any bytes are a valid block of a quantised type, but its values can be infinite or NaN.

mod cursor;
mod dtype;
mod metadata;
mod quantise;
mod read;
mod value;
mod write;

pub use metadata::Metadata;
pub use quantise::{check_finite, quantise_rows, quantise_slices, quantise_tensor};
pub use value::{Array, Value};
pub use write::GgufWriter;

pub(crate) use read::{FORMAT, MAGIC};
