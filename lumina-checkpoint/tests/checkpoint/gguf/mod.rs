//! GGUF files: what is refused, and what is written. How a model's tensors are named in them is tested in
//! `lumina-mgpt`.

pub(crate) mod build;
mod hostile;
mod writing;
