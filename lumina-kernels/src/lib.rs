//! CPU kernels for matrix products with weights that stay where a mapped file has them.
//!
//! - [`Format`]: how a matrix's elements lie in bytes, from `f32` to the 4-bit blocks of GGUF, with plain functions that
//!   read and write rows.
//! - [`Matrix`]: a matrix of weights in such bytes.
//! - [`Matmul`]: its products with activations, by the best instructions that the processor has.

//!
//! ```
//! use lumina_kernels::{ActivationPrecision, Format, Matmul, Matrix};
//!
//! let (rows, columns) = (64, 128);
//! let mut bytes = vec![0; Format::Q4_0.matrix_bytes(rows, columns)?]; // or a slice of a mapped file
//! for row in bytes.chunks_mut(Format::Q4_0.row_bytes(columns)?) {
//!     Format::Q4_0.quantise_row(&[0.25; 128], row)?;
//! }
//! let w = Matrix::new(Format::Q4_0, rows, columns, &bytes)?;
//!
//! let mut y = vec![0.0; rows];
//! Matmul::new(ActivationPrecision::Reduced).run(&[1.0; 128], w, &mut y)?;
//! assert!(y.iter().all(|y| (y - 32.0).abs() < 1e-3));
//! # Ok::<(), lumina_kernels::Error>(())
//! ```
//!
//! # How it is fast
//!
//! Decoding reads every weight once for a row or a few of activations, so it can be as fast as memory, and no faster. The kernels for up to 8 rows
//! multiply weights as they are read, ask for the next rows of the matrix meanwhile, and give each thread a part of the matrix
//! to go through from front to back. For more rows, 32 rows of the weights at a time are packed into the caches and multiplied with all activations.
//!
//! # Untrusted input
//!
//! Any bytes of the right length are a matrix, and lengths are checked: broken files give wrong numbers, or such as are none, but no panic and no
//! access outside of them. `unsafe` is for loads and stores of vectors, for results that threads write side by side, and for calls of functions that are
//! compiled for instructions found at run time.

pub mod format;

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod amx_emulation;
pub mod attention;
pub mod conv;
pub mod elementwise;
mod error;
pub mod loss;
pub mod matmul;
mod matrix;
pub mod memory;
pub mod norm;
#[cfg(test)]
mod numerical_gradients;
pub mod optim;
mod parallel;
mod scratch;
mod simd;

pub use error::{Error, Result};
pub use format::Format;
pub use matmul::{ActivationPrecision, Matmul, MatmulTask};
pub use matrix::Matrix;
pub use simd::isa::Isa;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
