//! The operators of the networks. Each is one public function or type in a file of its own, which documents formula and
//! shapes and has one `match` on where it runs.
//!
//! | operator | formula | CPU kernel in `lumina-kernels` |
//! | --- | --- | --- |
//! | [`Linear`] | `x · Wᵀ + b` and a LoRA update | `matmul` |
//! | [`Embedding`], [`gather`] | rows by index | |
//! | [`rms_norm`], [`add_rms_norm`] | RMS norm, alone and after a residual addition | `norm::rms_norm` |
//! | [`head_norm_rotated`] | QK-norm and rotary positions | `norm::head_norm` |
//! | [`causal_attention`], [`cached_attention`] | softmax(q · kᵀ / √d) · v | `attention` |
//! | [`swiglu`] | silu(gate) · up | `elementwise::swiglu` |
//! | [`dropout_add`] | x + dropout(y) | `elementwise::add` |
//! | [`conv3x3`], [`upsample2x`], [`scaled_swish`], [`group_moments`] | the VQGAN | `conv`, `elementwise::swish`, `norm::group_moments` |
//! | [`Conv2d`], [`norm_swish_conv`], [`GroupNorm`], [`maps_attention`], [`Codebook`] | the VQGAN's layers on [`Maps`] | those above |
//! | [`cross_entropy`] | the loss and its z-loss | `loss::cross_entropy` |
//! | [`adamw`], [`square_sum`], [`muon`] | an optimizer's step | `optim::adamw`, `optim::muon` |
//!
//! # Where they run
//!
//! - `host/`: on slices in host memory, which is where activations are with [`Compute::cpu`](crate::Compute::cpu).
//!   Nothing is allocated for a step of decoding but what the step before has returned.
//! - `cube/`: on a GPU, with [`Compute::cuda`](crate::Compute) and `wgpu`, by the kernels of `lumina-cube`.
//! - `burn/`: on Burn's tensors, with gradients, with the feature `burn`. On its `flex` backend in `f32`, operators are
//!   CPU kernels with backward passes of their own (`burn/kernel.rs`); elsewhere they are composed of Burn's
//!   operations.

#![cfg_attr(
    not(any(feature = "burn", feature = "cube")),
    allow(unreachable_patterns, reason = "host memory is then the only place where operands can be")
)]

/// Why operands are all in host memory, all on a GPU, or some of them tensors.
const ONE_PLACE: &str = "activations are where weights are, which `Compute` and the loader make sure of";

/// What an operator does where a tensor is among its operands, which are named first: without Burn there is none.
macro_rules! in_tensors {
    ($($operand:ident),* => $result:expr) => {{
        #[cfg(feature = "burn")]
        {
            $result
        }
        #[cfg(not(feature = "burn"))]
        {
            let _ = ($($operand,)*);
            unreachable!("{}", crate::ops::ONE_PLACE)
        }
    }};
}

mod attention;
#[cfg(feature = "burn")]
pub(crate) mod burn;
#[cfg(feature = "cube")]
mod cube;
mod embedding;
mod head_norm;
mod hidden;
pub(crate) mod host;
mod kv;
mod linear;
pub(crate) mod low_rank;
pub(crate) mod maps;
mod rms_norm;
mod swiglu;
mod values;
pub(crate) mod weight;

pub use lumina_kernels::ActivationPrecision;
pub use lumina_kernels::attention::cached::{AttentionPath, MIN_GEMM_QUERIES};
pub use lumina_kernels::attention::kv_storage::KV_BLOCK_TOKENS;

pub use self::attention::{KvRow, cached_attention, causal_attention};
#[cfg(feature = "burn")]
pub use self::burn::{
    AdamWStep, Conv3x3, Moments, MuonStep, TensorKv, adamw, conv3x3, cross_entropy, dropout_add, gather, group_moments,
    muon, read, scaled_swish, square_sum, upsample2x,
};
#[cfg(feature = "cube")]
pub use self::cube::{
    GpuDraw, GpuInputs, GpuKv, GpuKvPool, GpuPass, GpuPassValues, GpuResult, GpuRow, GpuTokens, Recordings,
    norm_attention,
};
pub use self::embedding::Embedding;
pub use self::head_norm::head_norm_rotated;
pub use self::hidden::Hidden;
pub use self::host::HostMatrix;
pub use self::kv::{LayerKv, can_allocate};
pub use self::linear::Linear;
pub use self::maps::{
    Bands, Codebook, Conv2d, GroupNorm, Maps, Turn, downsample, maps_attention, norm_swish, norm_swish_conv, upsample,
};
pub use self::rms_norm::{add_rms_norm, rms_norm};
pub use self::swiglu::swiglu;
pub use self::values::Values;
