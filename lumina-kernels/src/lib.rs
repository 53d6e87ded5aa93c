//! CPU kernels of the Lumina-mGPT networks, without a tensor library: plain functions on slices.
//!
//! | module | kernels |
//! | --- | --- |
//! | [`matmul`] | GEMV and GEMM with weights in the format of their file, `f32` GEMM for training |
//! | [`mod@format`] | formats of weights: `f32`, `f16`, `bf16`, and the 8- to 4-bit blocks of GGUF |
//! | [`attention`] | causal attention with gradients, KV storage and attention to it, attention over an image |
//! | [`norm`] | RMS norm, layer norm of heads with RoPE, moments of groups |
//! | [`elementwise`] | SwiGLU, scaled swish, dropout and residual addition |
//! | [`conv`] | convolutions with 3×3 kernels, upsampling; others by im2col |
//! | [`precise`] | norm, swish and attention in `f64`, for a few positions |
//! | [`loss`], [`optim`] | cross entropy with z-loss; AdamW, Muon |
//! | [`memory`] | memory for large results |
//!
//! An operator has `forward`, `forward_into` where decoding reuses memory, and `backward` with hand-written gradients.
//!
//! ```
//! use lumina_kernels::{ActivationPrecision, Format, Matmul, Matrix};
//!
//! let (rows, columns) = (64, 128);
//! let mut bytes = vec![0; Format::Q4_0.matrix_bytes(rows, columns)?]; // or a slice of a memory-mapped file
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
//! # Results
//!
//! The order of every sum depends on shapes and on the instruction set alone: neither on the batch nor on the number of
//! threads.
//!
//! # Features
//!
//! - `threads` (default): kernels run on the threads of the current rayon pool, otherwise on the calling thread.
//!
//! # Untrusted input
//!
//! Any bytes of the right length are a matrix, and lengths are checked: broken files give wrong numbers, or NaN, but
//! neither panics nor accesses outside of them. Operators index their slices by the shapes that they are given, and
//! panic where a slice is too short.
//!
//! # Unsafe code
//!
//! Unsafe code is denied but where a reason allows it: vector instructions behind tokens that prove their detection
//! (`simd`), calls of functions that are compiled for an instruction set, results that several threads write, and views
//! of bytes as blocks.

#![deny(unsafe_code)]

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod amx_emulation;
pub mod attention;
pub mod conv;
pub mod elementwise;
mod error;
pub mod format;
pub mod loss;
pub mod matmul;
mod matrix;
pub mod memory;
pub mod norm;
#[cfg(test)]
mod numerical_gradients;
pub mod optim;
mod parallel;
pub mod precise;
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
