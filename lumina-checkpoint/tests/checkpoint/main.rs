//! Reading and writing checkpoints: what is read, what is refused, and that nothing panics.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, but not in what they share")]

mod attributes;
mod build;
mod corruption;
mod gguf;
mod hostile;
mod memory;
mod reading;
mod reference;
mod shared;
mod writing;
