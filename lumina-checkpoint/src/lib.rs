//! Checkpoints on disk, read where they lie.
//!
//! [`Checkpoint::open`] takes a Hugging Face folder (one `model.safetensors`, or shards with their index), a
//! safetensors file, a file saved by torch (`.ckpt`, `.pt`, `.pth`, `.bin`), or a [GGUF](gguf) file, and gives every
//! tensor by name as a [`TensorView`]. [`save_safetensors`] writes a file that both this crate and `transformers` read,
//! [`gguf::quantise`] one of narrower weights.
//!
//! ```
//! use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.safetensors");
//! let bytes = [1.0f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
//! save_safetensors(&path, [("norm.weight", Dtype::F32, [2], || Ok(bytes.into()))])?;
//!
//! let checkpoint = Checkpoint::open(&path)?;
//! let norm = checkpoint.get("norm.weight").expect("it was just saved");
//! assert_eq!(norm.shape(), [2]);
//! assert_eq!(norm.to_f32()?, [1.0, 2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Beside tensors, training reads plain data by the same means: [`read_integers`] a pickle of integers, [`map`] any file.
//!
//! # Memory
//!
//! Files are memory-mapped and tensors are slices of the mapping: opening reads headers only, and what is read later is
//! page cache, not heap. The exceptions are tensors in another order of memory (torch's channels-last and transposed views,
//! queries and keys of llama.cpp's GGUF files): their bytes are put in order on the heap when they are first asked for.
//!
//! A mapped file must not be cut short while a checkpoint of it is alive: the system then ends the process with
//! `SIGBUS` at the next access, as with every program that maps files. Replacing a file by renaming another one over it
//! is safe, and it is how [`save_safetensors`] writes. Files on network drives that may vanish are better copied first.
//!
//! # Untrusted input
//!
//! Every size, offset and name is checked on opening, before anything is allocated for it. A pickle is never executed:
//! a small interpreter builds tensors and plain data from the opcodes that torch writes, refuses a global that is not
//! on its list by name, and has limits on everything that could grow. Leftovers of a training run next to the
//! `state_dict` (optimizer states, callbacks) are skipped.

#![deny(unsafe_code)]

mod checkpoint;
mod dequantise;
mod dtype;
mod error;
pub mod gguf;
mod lora;
mod safetensors;
mod save;
mod source;
mod tensor_view;
mod torch;

pub use checkpoint::Checkpoint;
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use lora::Adapter;
pub use save::{save_bytes, save_safetensors};
pub use source::map;
pub use tensor_view::{MappedTensor, Reorder, TensorView};
pub use torch::{Integers, read_integers};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
