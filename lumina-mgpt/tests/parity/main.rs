//! The transformer and whole requests against the original: `model/` and `generate/` of the reference data, on every
//! compute target of this build and machine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests: a panic is the failure, a print the report"
)]

mod generate;
mod model;
mod quantised;
mod rows;
#[path = "../support/split.rs"]
mod split;

use std::path::Path;

use lumina_mgpt::{Compute, Dtype};

/// Every target, and the CPU with weights in tensors besides its own kernel on mapped ones.
fn targets() -> Vec<Compute> {
    // With keys and values as wide as activations, which is not the default on GPUs.
    let targets: Vec<Compute> = Compute::available().into_iter().map(|compute| compute.kv_cache(Dtype::F32)).collect();
    if cfg!(feature = "wgpu") && !targets.iter().any(|compute| compute.to_string().starts_with("wgpu")) {
        eprintln!("SKIPPED on wgpu: this machine has no driver for it");
    }
    #[cfg(feature = "burn")]
    let targets = targets.into_iter().chain([Compute::flex()]).collect();
    targets
}

/// Every target, and for a model of several layers two devices that share it, or three: host memory, and a GPU where
/// there is one.
fn targets_of(folder: &Path) -> Vec<Compute> {
    let mut targets = targets();
    let n_layers = lumina_testing::json_file(&folder.join("config.json"))["num_hidden_layers"].as_u64().unwrap();
    // Opened anew each time, as a device of its own.
    let is_gpu = |compute: &Compute| ["wgpu", "cuda"].iter().any(|name| compute.to_string().starts_with(name));
    let gpu = || self::targets().into_iter().find(is_gpu);
    let mut shared = vec![vec![Compute::cpu(); 2]];
    if let Some((a, b)) = gpu().zip(gpu()) {
        let cpu = Compute::cpu;
        shared.extend([vec![a.clone(), cpu()], vec![cpu(), a.clone()], vec![a.clone(), b.clone()]]);
        shared.push(vec![a, b, cpu()]);
    }
    shared.retain(|devices| devices.len() as u64 <= n_layers);
    targets.extend(shared.iter().map(|devices| split::split(folder, devices)));
    targets
}
