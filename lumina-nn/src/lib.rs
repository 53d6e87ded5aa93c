//! The operators of the Lumina-mGPT networks: compute target, parameters from a checkpoint, and one function an operator.
#![forbid(unsafe_code)]

mod compute;
mod error;
mod loader;
pub mod ops;

pub use compute::{Compute, Residence, Role, Weights, head_dtype};
pub use error::{Error, Result};
pub use loader::{LoadProgress, Loader};
pub use lumina_kernels::memory::keep_freed_memory;
