//! GPU kernels of the Lumina-mGPT networks in CubeCL, without a tensor library: one source for CUDA, Vulkan, Metal and
//! WebGPU. The counterpart of `lumina-kernels`.
//!
//! | module | kernels |
//! | --- | --- |
//! | [`matmul`] | products with weights in 32, 16, 8 and 4 bits |
//! | [`conv`] | convolutions, attention over images, codebooks |
//! | [`norm`] | RMS norm, alone and after a residual addition; group norm |
//! | [`attention`] | norms of heads with rotary positions, the cache of keys and values, attention to it |
//! | [`elementwise`] | SwiGLU, additions |
//! | [`embedding`] | rows of a table by token |
//! | [`draw`] | a token from logits: guidance, top-k, temperature and the draw |
//!
//! A [`Gpu`] is a device that is open, a [`Buffer`] numbers on it, a [`Matrix`] weights on it. Kernels are launched in
//! order and run later; [`Gpu::read`] waits for them, and reports what went wrong.
//!
//! # Results
//!
//! The order of every sum depends on shapes and on the device alone, never on the number of rows: a row has the same
//! result alone and in any company, to the bit. Attention of prompts has an order of its own, for sequences that are
//! [named prompts](attention::PassWords::new).
//!
//! # Features
//!
//! - `cuda`: NVIDIA's driver, through NVRTC. It needs the headers of the CUDA toolkit.
//! - `kernel-cache`, with `cuda` or `vulkan`: compiled kernels are kept on disk, so that a later start of the same
//!   program does not compile them. They are in the user's cache folder (`~/.cache/lumina/kernels` on Linux), or in the
//!   folder in the environment variable `LUMINA_KERNEL_CACHE`, which may be `off`. A cache that cannot be read or
//!   written costs time alone. Programs that configure CubeCL themselves, before the first [`Gpu::open`] or in a
//!   `cubecl.toml`, keep their configuration.
//! - `wgpu`: Vulkan, Metal, DirectX 12 or WebGPU, through WGSL; `vulkan` and `metal` go through SPIR-V and MSL, which
//!   are faster.
//!
//! Without any of them the crate compiles, and no device can be opened.
//!
//! # Unsafe code
//!
//! Launching a kernel is unsafe in CubeCL, as the kernel may read beyond its buffers. Each launch is in a function that
//! checks the lengths of its buffers first.

#![allow(
    clippy::manual_div_ceil,
    clippy::manual_is_multiple_of,
    clippy::needless_range_loop,
    reason = "kernels are in the part of Rust that CubeCL knows"
)]

// Tests inside the crate share code with those outside.
#[cfg(test)]
extern crate self as lumina_cube;

pub mod attention;
mod bits;
pub mod conv;
#[cfg(feature = "cuda")]
mod cuda;
pub mod draw;
pub mod elementwise;
pub mod embedding;
mod error;
mod gpu;
#[cfg(all(feature = "kernel-cache", any(feature = "cuda", feature = "vulkan")))]
mod kernel_cache;
pub mod matmul;
pub mod norm;
mod race;
mod reduce;
#[cfg(all(test, feature = "sources"))]
mod sources;
mod staging;
mod tensor_cores;
mod weights;

#[cfg(feature = "cuda")]
pub use cuda::has_nccl;
pub use error::{Error, Result};
pub use gpu::{ALIGNMENT, Buffer, DeviceChoice, Gpu, Recording};
pub use weights::{Arena, Format, Matrix, MatrixRows};
