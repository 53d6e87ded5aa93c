//! Models in GGUF files: opening them, and writing them with quantised weights.
//!
//! [`open`] opens a model in any form. Where that is a GGUF file, its tensors have the names and the order of rows that
//! they have in a Hugging Face folder, so a network does not know the difference, and its `config.json` is a document.
//! [`quantise`] makes such a file of a folder.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use lumina_mgpt::Dtype;
//! use lumina_mgpt::convert::{QuantiseOptions, open, quantise};
//!
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/model/prenorm");
//! # let target = tempfile::tempdir()?;
//! # let path = target.path().join("model.gguf");
//! quantise(&open(folder)?, &path, &QuantiseOptions::new(Dtype::Q8_0), &mut |_| ControlFlow::Continue(()))?;
//!
//! let model = open(&path)?;
//! let gate = model.get("model.layers.0.mlp.gate_proj.weight").expect("every model has it");
//! assert_eq!((gate.dtype(), gate.shape()), (Dtype::Q8_0, &[160, 64][..]));
//! assert!(model.document("tokenizer.json")?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Two orders of rows
//!
//! Rotary positions rotate the channels of a head two by two. In Hugging Face's checkpoints, and here, channel `i` goes
//! with `i + width / 2`; llama.cpp has `2i` with `2i + 1` for this architecture, and its converter moves the rows of
//! the query and key projections, their biases, and the QK-norms accordingly (it also keeps only the first row of a
//! QK-norm that has several, so models of several parts are not what they were). [`RowOrder`] says which a file has.
//!
//! - A file of llama.cpp's is put back into our order by whole rows, so quantised weights lose nothing. That costs
//!   a copy on the heap of queries and keys when they are first asked for: a sixth of a 7B model.
//! - A file of [`quantise`] is in our order unless asked otherwise, and is used memory-mapped. Its architecture is then
//!   `lumina`, which llama.cpp refuses: under the name `chameleon` it would compute nonsense.
//! - With [`RowOrder::LlamaCpp`], [`quantise`] writes what llama.cpp runs: its order, a row of QK-norm for each head,
//!   its vocabulary keys, no image tokenizer. It answers in text only, since its graph hides image tokens.

mod config;
mod describe;
mod heads;
mod names;
mod open;
mod quantise;
mod row_order;
mod vocabulary;

pub(crate) use open::name_on_hub;
pub use open::{as_model, open};
pub use quantise::{QuantiseOptions, QuantiseProgress, quantise};
pub use row_order::{RowOrder, row_order};
