#![doc = include_str!("../README.md")]
//!
//! # Features
//!
//! | feature | on by default | without it |
//! | --- | --- | --- |
//! | `mmap` | yes | files are read to the heap |
//! | `threads` | yes | tensors are converted on the calling thread, not on the rayon pool |
//!
//! Without both, the crate compiles for `wasm32-unknown-unknown`; open bytes there.
//!
//! # Memory
//!
//! Opening a file maps it and reads its header. Tensors are slices of the mapping: what is read of them is page cache,
//! not heap. Bytes in memory are not copied either. Two kinds of tensors are copied to the heap when their bytes are
//! first asked for, because their elements are stored in another order: strided views in torch files (transposed,
//! channels-last), and tensors that [`Checkpoint::map_tensors`] reorders.
//!
//! A mapped file must not be cut short while a checkpoint of it exists. The system then ends the process with `SIGBUS`
//! at the next access, as for every program that maps files. Replacing a file by renaming another one over it is safe,
//! and [`save_safetensors`] does so. Copy files from network drives that may vanish.
//!
//! # Untrusted input
//!
//! Sizes, offsets and names are checked on opening, before anything is allocated for them, and broken input is an
//! [`Error`] with the file and the tensor, never a panic. Pickles are not executed: a small interpreter builds tensors
//! and plain data from the opcodes that torch writes. It refuses every global that is not on its list, and everything
//! that could grow has a limit. Data that training leaves next to the `state_dict` (optimizer states, callbacks) is
//! skipped. An index can name files of its own folder only.
#![deny(unsafe_code)]

mod checkpoint;
mod dequantise;
mod dtype;
mod error;
mod format;
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
pub use save::{save_bytes, save_safetensors, sync_folder};
pub use source::map;
pub use tensor_view::{MappedTensor, Reorder, TensorView};
pub use torch::{Integers, read_integers};
