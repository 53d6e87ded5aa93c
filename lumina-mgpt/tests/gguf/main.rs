//! Models in GGUF files: names, order of rows and config, quantising, and what is refused.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, but not in what they share")]

#[path = "../../../lumina-checkpoint/tests/checkpoint/gguf/build.rs"]
mod build;
mod hostile;
mod interchange;
mod llama_order;
mod quantising;
mod reading;
#[path = "../../../lumina-checkpoint/tests/checkpoint/shared.rs"]
mod shared;
mod support;
