//! The operators whose weights may stay in the checkpoint: linear layers and embeddings.

mod embedding;
pub(crate) mod linear;
mod mapped;
mod matmul;

pub use embedding::Embedding;
pub use linear::Linear;
pub use mapped::MappedMatrix;
