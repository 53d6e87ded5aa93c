//! What the tests share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "each test uses a part; a panic is the failure, a print the report"
)]

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
