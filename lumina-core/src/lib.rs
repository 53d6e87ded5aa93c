//! What the Lumina-mGPT crates share.
//!
//! - [`Vocabulary`]: which token id plays which role, found by name.
//! - [`ImageSize`], [`CodeGrid`] and the allowed sizes: the geometry of an image as tokens.
//! - [`checkpoint`] (feature `checkpoint`): safetensors folders and torch pickles, memory-mapped.
//! - `tensor` features (implied by every backend): where a model computes, and the operators it is made of.
//!
//! Without features this crate has no Burn in it; `lumina-tokenizer` and `lumina-sampling` use it so.
#![deny(unsafe_code)]

mod error;
mod geometry;
mod vocabulary;

#[cfg(feature = "checkpoint")]
pub mod checkpoint;
#[cfg(feature = "tensor")]
mod compute;
#[cfg(feature = "tensor")]
mod loader;
#[cfg(feature = "tensor")]
pub mod ops;

pub use error::{Error, Result};
pub use geometry::{CELL_PX, CodeGrid, ImageSize, LATENT_PX};
pub use vocabulary::Vocabulary;
#[cfg(feature = "tensor")]
pub use {
    compute::{Compute, Weights},
    loader::{LoadProgress, Loader},
};
