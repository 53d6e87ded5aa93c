//! Attention: of whole rows with gradients, and of a few queries to stored keys and values.

pub mod causal;
pub mod decode;
pub mod kv_storage;
