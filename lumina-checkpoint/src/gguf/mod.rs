//! GGUF, the format of llama.cpp: one file with metadata and tensors, quantised or not.
//!
//! [`Checkpoint::open`](super::Checkpoint::open) reads such a file as any other: versions 2 and 3, little-endian,
//! memory-mapped, with tensors in `f32`, `f16`, `bf16`, `q8_0`, `q4_0`, `q4_k` and `q6_k`. The tensors of a model of the
//! Chameleon architecture get the names and the order of rows that they have in a Hugging Face folder, so models do not
//! know the difference; [`Checkpoint::document`](super::Checkpoint::document) gives its `config.json`. [`quantise`]
//! makes such a file of a folder, [`quantise_tensor`] narrows one tensor in memory, and [`GgufWriter`] writes any file.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use lumina_checkpoint::gguf::{QuantiseOptions, quantise};
//! use lumina_checkpoint::{Checkpoint, Dtype};
//!
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/model/prenorm");
//! # let target = tempfile::tempdir()?;
//! # let path = target.path().join("model.gguf");
//! quantise(&Checkpoint::open(folder)?, &path, &QuantiseOptions::new(Dtype::Q8_0), &mut |_| ControlFlow::Continue(()))?;
//!
//! let model = Checkpoint::open(&path)?;
//! let gate = model.get("model.layers.0.mlp.gate_proj.weight").expect("every model has it");
//! assert_eq!((gate.dtype(), gate.shape()), (Dtype::Q8_0, &[160, 64][..]));
//! assert!(model.document("tokenizer.json")?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Two orders of rows
//!
//! Rotary positions turn the channels of a head two by two. In Hugging Face's checkpoints, and here, channel `i` goes with
//! `i + width / 2`; llama.cpp has `2i` with `2i + 1` for this architecture, and its converter moves the rows of the query
//! and key projections, their biases, and the QK-norms accordingly (it also keeps only the first row of a QK-norm that
//! has several, so models of several parts are not what they were). [`RowOrder`] says which a file has.
//!
//! - A file of llama.cpp's is put back into our order by whole rows, so quantised weights lose nothing. That costs
//!   a copy on the heap of queries and keys when they are first asked for: a sixth of a 7B model.
//! - A file of [`quantise`] is in our order unless asked otherwise, and is used where it lies. Its architecture is then
//!   `lumina`, which llama.cpp refuses: under the name `chameleon` it would compute nonsense.
//! - With [`RowOrder::LlamaCpp`], [`quantise`] writes what llama.cpp runs: its order, a row of QK-norm for each head, its
//!   vocabulary keys, no image tokenizer. It answers in text only, since its graph hides image tokens.
//!
//! # Untrusted input
//!
//! Counts and lengths are compared with the bytes that are there before anything is allocated for them; headers end at
//! 100 MB, arrays lie at most four deep, names and keys come once, tensors lie apart, aligned and within the file. Any
//! bytes are a block of a quantised type, though its values may be infinite or not a number.

mod cursor;
mod describe;
mod heads;
mod metadata;
mod names;
mod quantise;
mod read;
mod value;
mod vocabulary;
mod write;

pub use metadata::{Metadata, RowOrder};
pub use quantise::{QuantiseOptions, QuantiseProgress, quantise, quantise_tensor};
pub use value::{Array, Value};
pub use write::GgufWriter;

pub(super) use heads::Heads;
pub(super) use read::{MAGIC, read};
