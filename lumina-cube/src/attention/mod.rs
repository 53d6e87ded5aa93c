//! Attention of the tokens of a pass to cached keys and values: `softmax(q · kᵀ / √head_dim) · v`, each token to the
//! positions of its own sequence up to itself.
//!
//! The cache is in blocks of [`BLOCK_TOKENS`] tokens that sequences take as they grow ([`AttentionShape`] has the
//! layout). [`norm_rotate_write`] norms and rotates queries and keys and writes the cache, [`attention`] reads it.
//!
//! There are two kernels. Tokens of prompts, which a pass names, go through tensor cores (`prompt`). All others, and so
//! all that is decoded, are multiplied in `f32` (`split`): keys are split at fixed positions, a cube has a split of one
//! head of keys for a few queries, its teams of lanes have equal parts of the split, and results of teams and splits
//! are added in their order. With either a query's sums depend on its position and the device alone, neither on the
//! other tokens of the pass nor on how many share a cube.

mod attend;
pub(crate) mod combine;
mod kv;
pub(crate) mod norm_rotate;
mod pass;
pub(crate) mod prompt;
pub(crate) mod split;

pub use self::attend::{attention, attention_with, has_prompts};
pub use self::kv::{AttentionShape, BLOCK_TOKENS, KvFormat};
pub use self::norm_rotate::{NormParams, norm_rotate_write};
pub use self::pass::{Pass, PassWords};
