//! Attention: of whole sequences with gradients ([`causal`]), and of new tokens to cached keys and values ([`cached`]).
//!
//! Both compute `softmax(q · kᵀ / √head_dim) · v` with causal masks, for heads of queries that share heads of keys and
//! values. Without a mask, over the positions of an image: [`single_head`].

pub mod cached;
pub mod causal;
mod decode;
pub mod kv_storage;
pub mod single_head;
