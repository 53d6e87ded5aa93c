//! The transformer and whole requests against the original: `model/` and `generate/` of the reference data, on every
//! compute target of this build and machine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests: a panic is the failure, a print the report"
)]
#![cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]

mod generate;
mod model;
#[cfg(feature = "flex")]
mod quantised;
#[cfg(feature = "flex")]
mod rows;

use lumina_mgpt::{Compute, Dtype};

/// Every target, and the CPU with weights in tensors besides its own kernel on mapped ones.
fn targets() -> Vec<Compute> {
    // With keys and values as wide as activations, which is not the default on GPUs.
    let mut targets: Vec<Compute> =
        Compute::available().into_iter().map(|compute| compute.kv_cache(Dtype::F32)).collect();
    if cfg!(feature = "wgpu") && !targets.iter().any(|compute| compute.to_string().starts_with("wgpu")) {
        eprintln!("SKIPPED on wgpu: this machine has no driver for it");
    }
    #[cfg(feature = "flex")]
    targets.push(Compute::flex());
    targets
}
