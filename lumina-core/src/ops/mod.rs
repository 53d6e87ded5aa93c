//! The operators that are ours: linear layers and embeddings whose weights may stay in the checkpoint, and convolutions.

mod conv;
#[cfg(feature = "flex")]
mod conv_kernel;
mod embedding;
#[cfg(feature = "flex")]
mod flex;
mod linear;
pub(crate) mod low_rank;
mod mapped;
mod matmul;
#[cfg(feature = "flex")]
mod swish_kernel;
#[cfg(feature = "flex")]
mod vector;
pub(crate) mod weight;

pub use conv::{conv3x3, scaled_swish};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mapped::MappedMatrix;
