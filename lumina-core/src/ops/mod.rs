//! The operators that are ours: linear layers and embeddings whose weights may stay in the checkpoint, what else the
//! transformer consists of, and convolutions.

#![cfg_attr(
    not(all(feature = "flex", feature = "autodiff")),
    allow(dead_code, reason = "the way back, and what only Burn's CPU backend uses")
)]

mod adamw;
#[cfg(feature = "flex")]
mod adamw_kernel;
mod add;
#[cfg(feature = "flex")]
mod add_kernel;
mod attention;
mod attention_kernel;
pub(crate) mod buffer;
mod cached_kernel;
mod conv;
#[cfg(feature = "flex")]
mod conv_gradient_kernel;
#[cfg(feature = "flex")]
mod conv_kernel;
mod cross_entropy;
#[cfg(feature = "flex")]
mod cross_entropy_kernel;
#[cfg(feature = "flex")]
mod dense_kernel;
#[cfg(feature = "flex")]
mod double_kernel;
mod embedding;
mod exp;
#[cfg(feature = "flex")]
mod flex;
mod gather;
mod head_norm;
mod head_norm_kernel;
mod hidden;
mod key_values;
mod linear;
pub(crate) mod low_rank;
mod mapped;
mod memory;
mod moments;
#[cfg(feature = "flex")]
mod moments_kernel;
mod products;
mod rms_norm;
mod rms_norm_kernel;
#[cfg(all(test, feature = "flex"))]
mod slopes;
mod swiglu;
mod swiglu_kernel;
#[cfg(feature = "flex")]
mod swish_kernel;
mod vector;
pub(crate) mod weight;
#[cfg(feature = "flex")]
mod winograd_kernel;

pub use adamw::{AdamWStep, Moments, adamw, square_sum};
pub use add::add_kept;
pub use attention::{attention, cached_attention, causal_attention};
pub use conv::{conv3x3, doubled, scaled_swish};
pub use cross_entropy::cross_entropy;
pub use embedding::Embedding;
pub use gather::gather;
pub use head_norm::head_norm_rotated;
pub use hidden::{Hidden, Values};
pub use key_values::{CachedRow, KeyValues};
pub use linear::Linear;
pub use lumina_kernels::Activations;
pub use mapped::MappedMatrix;
pub use memory::keep_freed_memory;
pub use moments::group_moments;
pub use rms_norm::rms_norm;
pub use swiglu::swiglu;
