//! CPU kernels for matrix products with weights that stay where a mapped file has them.
//!
//! - [`Format`]: how a matrix's elements lie in bytes, from `f32` to the 4-bit blocks of GGUF, with plain functions that
//!   read and write rows.

pub mod format;

mod error;

pub use error::{Error, Result};
pub use format::Format;
