//! What the tests share.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part; a panic is the failure")]

use lumina_cube::{DeviceChoice, Gpu};

/// The device of the tests: the software Vulkan driver in CI, or a GPU. `None` where the machine has neither, which
/// `LUMINA_REQUIRE_GPU` forbids.
pub(crate) fn gpu() -> Option<Gpu> {
    let choice = match std::env::var("LUMINA_GPU").as_deref() {
        Ok("cuda") => DeviceChoice::Cuda(0),
        _ => DeviceChoice::Wgpu,
    };
    match Gpu::open(choice) {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("LUMINA_REQUIRE_GPU").is_none() => {
            eprintln!("left out: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Numbers from −1 to 1.
pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
    lumina_testing::lcg(seed).take(n).map(|state| (state >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The worst difference, as a share of the largest expected number.
pub(crate) fn worst(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-30, |most: f64, value| most.max(value.abs()));
    let difference = |(found, expected): (&f32, &f64)| {
        let difference = (f64::from(*found) - expected).abs() / scale;
        if difference.is_nan() { f64::INFINITY } else { difference }
    };
    found.iter().zip(expected).map(difference).fold(0.0, f64::max)
}
