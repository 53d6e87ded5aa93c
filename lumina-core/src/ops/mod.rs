//! The operators whose weights may stay in the checkpoint: linear layers and embeddings.

mod embedding;
mod linear;
pub(crate) mod low_rank;
mod mapped;
mod matmul;
pub(crate) mod weight;

pub use embedding::Embedding;
pub use linear::Linear;
pub use mapped::MappedMatrix;
