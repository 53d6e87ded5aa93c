//! The operators that are ours: linear layers and embeddings whose weights may stay in the checkpoint, what else the
//! transformer consists of, and convolutions.

#![cfg_attr(
    not(all(feature = "flex", feature = "autodiff")),
    allow(dead_code, reason = "the way back, and what only Burn's CPU backend uses")
)]

mod adamw;
mod add;
mod attention;
pub(crate) mod buffer;
mod conv;
mod cross_entropy;
mod embedding;
mod gather;
mod head_norm;
mod hidden;
#[cfg(feature = "flex")]
mod host;
mod linear;
pub(crate) mod low_rank;
mod mapped;
mod moments;
mod rms_norm;
mod swiglu;
pub(crate) mod weight;

pub use adamw::{AdamWStep, Moments, adamw, square_sum};
pub use add::add_kept;
pub use attention::{attention, cached_attention, causal_attention};
pub use conv::{conv3x3, doubled, scaled_swish};
pub use cross_entropy::cross_entropy;
pub use embedding::Embedding;
pub use gather::gather;
pub use head_norm::head_norm_rotated;
pub use hidden::{Hidden, Values};
pub use linear::Linear;
pub use lumina_kernels::Activations;
pub use lumina_kernels::attention::kv_storage::{CachedRow, KeyValues};
pub use mapped::MappedMatrix;
pub use moments::group_moments;
pub use rms_norm::rms_norm;
pub use swiglu::swiglu;
