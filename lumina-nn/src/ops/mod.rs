//! The operators of the networks. Each is one public function or type in a file of its own, which documents formula and
//! shapes and has one `match` on where it runs.
//!
//! | operator | formula | CPU kernel in `lumina-kernels` |
//! | --- | --- | --- |
//! | [`Linear`] | `x · Wᵀ + b` and a LoRA update | `matmul` |
//! | [`Embedding`], [`gather`] | rows by index | |
//! | [`rms_norm`], [`add_rms_norm`] | RMS norm, alone and after a residual addition | `norm::rms_norm` |
//! | [`head_norm_rotated`] | QK-norm and rotary positions | `norm::head_norm` |
//! | [`causal_attention`], [`cached_attention`], [`attention`] | softmax(q · kᵀ / √d) · v | `attention` |
//! | [`swiglu`] | silu(gate) · up | `elementwise::swiglu` |
//! | [`dropout_add`] | x + dropout(y) | `elementwise::add` |
//! | [`conv3x3`], [`upsample2x`], [`scaled_swish`], [`group_moments`] | the VQGAN | `conv`, `elementwise::swish`, `norm::group_moments` |
//! | [`Conv2d`], [`norm_swish_conv`], [`GroupNorm`], [`maps_attention`], [`Codebook`] | the VQGAN's layers on [`Maps`] | those above |
//! | [`RowWriter`] | a result in bands of rows | |
//! | [`cross_entropy`] | the loss and its z-loss | `loss::cross_entropy` |
//! | [`adamw`], [`square_sum`] | an optimizer's step | `optim::adamw` |
//!
//! # Where they run
//!
//! - `host/`: on slices in host memory, which is where activations are with [`Compute::cpu`](crate::Compute::cpu).
//!   Nothing is allocated for a step of decoding but what the step before has returned.
//! - `cube/`: on a GPU, with [`Compute::cuda`](crate::Compute) and `wgpu`, by the kernels of `lumina-cube`.
//! - `burn/`: on Burn's tensors, with gradients. On its `flex` backend in `f32`, operators are CPU kernels with
//!   backward passes of their own (`burn/kernel.rs`); elsewhere they are composed of Burn's operations.

#![cfg_attr(
    not(feature = "flex"),
    allow(dead_code, reason = "CPU kernels on Burn's tensors, which only its flex backend runs")
)]

mod adamw;
mod attention;
mod burn;
mod conv;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod dropout_add;
mod embedding;
mod gather;
mod group_moments;
mod head_norm;
mod hidden;
pub(crate) mod host;
mod linear;
pub(crate) mod low_rank;
mod maps;
mod rms_norm;
mod row_writer;
mod swiglu;
mod values;
pub(crate) mod weight;

pub use lumina_kernels::ActivationPrecision;
pub use lumina_kernels::attention::cached::{AttentionPath, CachedRow, MIN_GEMM_QUERIES};
pub use lumina_kernels::attention::kv_storage::{KV_BLOCK_TOKENS, KvStorage};

pub use self::adamw::{AdamWStep, Moments, adamw, square_sum};
pub use self::attention::{cached_attention, causal_attention};
pub use self::burn::attention::attention;
pub use self::burn::read::read;
pub use self::conv::{Conv3x3, conv3x3, scaled_swish, upsample2x};
pub use self::cross_entropy::cross_entropy;
#[cfg(feature = "cube")]
pub use self::cube::{
    GpuDraw, GpuInputs, GpuKv, GpuKvPool, GpuPass, GpuPassValues, GpuResult, GpuRow, GpuTokens, Recordings,
    norm_attention,
};
pub use self::dropout_add::dropout_add;
pub use self::embedding::Embedding;
pub use self::gather::gather;
pub use self::group_moments::group_moments;
pub use self::head_norm::head_norm_rotated;
pub use self::hidden::Hidden;
pub use self::host::HostMatrix;
pub use self::linear::Linear;
pub use self::maps::{
    Bands, Codebook, Conv2d, GroupNorm, Maps, Turn, downsample, maps_attention, norm_swish, norm_swish_conv, upsample,
};
pub use self::rms_norm::{add_rms_norm, rms_norm};
pub use self::row_writer::{RowWriter, is_on_cpu};
pub use self::swiglu::swiglu;
pub use self::values::Values;
