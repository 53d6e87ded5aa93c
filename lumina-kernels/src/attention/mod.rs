//! Attention: of whole sequences with gradients (`causal`), and of new tokens with cached keys and values
//! (`kv_storage`).

pub mod causal;
mod decode;
pub mod kv_storage;
