//! Safetensors files.

mod read;

pub(crate) use read::read;
