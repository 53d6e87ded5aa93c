//! Safetensors files.

mod dtype;
mod read;

pub(crate) use dtype::to_safetensors;
pub(crate) use read::FORMAT;
