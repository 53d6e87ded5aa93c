//! CPU kernels for matrix products with weights that stay where a mapped file has them.
//!
//! - [`Format`]: how a matrix's elements lie in bytes, from `f32` to the 4-bit blocks of GGUF, with plain functions that
//!   read and write rows.
//! - [`Matrix`]: a matrix of weights in such bytes.
//! - [`Kernels`]: its products with activations, by the best instructions that the processor has.

pub mod format;

mod error;
mod isa;
mod matmul;
mod matrix;
mod scratch;

pub use error::{Error, Result};
pub use format::Format;
pub use isa::Isa;
pub use matmul::{Activations, Kernels, Product};
pub use matrix::Matrix;
