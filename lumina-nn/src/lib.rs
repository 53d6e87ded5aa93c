#![doc = include_str!("../README.md")]
//!
//! # Memory and speed
//!
//! With `Compute::cpu()`, weights of linear layers and embeddings are read from the memory-mapped file by the kernels
//! of `lumina-kernels`, in the format of the file: opening copies none of them, and the memory is page cache. With
//! [`Weights::Q8`] and `Q4`, linear weights are quantised to the heap while opening. All other tensors, and on other
//! devices these too, are copied one at a time. With weights in host memory, a row's result does not depend on how many
//! rows are computed with it, which is what makes a batch equal to its requests. A program on Linux that calls
//! [`keep_freed_memory`] once gets prompts and images sooner.
//!
//! # Untrusted input
//!
//! Names, shapes and types of a checkpoint's tensors are checked before a network computes with them. What the reader
//! of files checks is on the page of `lumina-checkpoint`.
#![forbid(unsafe_code)]

mod compute;
mod error;
mod loader;
pub mod ops;

pub use compute::{Compute, Residence, Role, Weights, head_dtype};
pub use error::{Error, Result};
pub use loader::{LoadProgress, Loader};
#[cfg(feature = "cuda")]
pub use lumina_cube::has_nccl;
pub use lumina_kernels::memory::keep_freed_memory;
