//! Direct calls of the CUDA driver and of NVRTC, for what CubeCL does not offer.

use std::path::Path;

use cudarc::driver::CudaContext;
use cudarc::{driver, nccl, nvrtc};

use crate::{Error, Result};

/// Whether kernels can be compiled. CubeCL would panic at the first one, on its own thread.
pub(crate) fn check_compiler() -> Result<()> {
    check_headers(cubecl::cuda::install::cuda_path().as_deref())?;
    check_nvrtc(has_nvrtc())
}

/// Whether the loader finds NVRTC.
fn has_nvrtc() -> bool {
    // SAFETY: it only tries to load the library by each of its names, as the first kernel would.
    unsafe { nvrtc::sys::is_culib_present() }
}

/// Whether the loader finds the driver and NCCL. Where it does not, their first call would panic.
pub fn has_nccl() -> bool {
    // SAFETY: as for `has_nvrtc`.
    has_driver() && unsafe { nccl::sys::is_culib_present() }
}

/// Whether the loader finds the driver.
fn has_driver() -> bool {
    // SAFETY: as for `has_nvrtc`.
    unsafe { driver::sys::is_culib_present() }
}

fn check_nvrtc(is_there: bool) -> Result<()> {
    const REASON: &str = "the library of NVRTC, which compiles kernels, is not found (libnvrtc.so, or nvrtc64_*.dll on \
                          Windows); install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc`, and put the folder \
                          that has the library in LD_LIBRARY_PATH, or in PATH on Windows";
    if is_there { Ok(()) } else { Err(Error::NoDevice { reason: REASON.to_owned() }) }
}

/// Whether a CUDA toolkit has the headers that NVRTC includes in each kernel.
fn check_headers(toolkit: Option<&Path>) -> Result<()> {
    const INSTALL: &str = "install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc nvidia-cuda-nvcc`, and set \
                           CUDA_PATH to the folder that has include/cuda_fp16.h";
    let reason = match toolkit {
        None => format!("there is no CUDA toolkit at CUDA_PATH, /usr/local/cuda or /opt/cuda; {INSTALL}"),
        Some(folder) => {
            let missing = ["cuda_fp16.h", "cuda_bf16.h"].map(|name| folder.join("include").join(name));
            match missing.iter().find(|header| !header.is_file()) {
                None => return Ok(()),
                Some(header) => format!("the CUDA toolkit has no {}; {INSTALL}", header.display()),
            }
        }
    };
    Err(Error::NoDevice { reason })
}

/// Bytes that are free on the device of this index, as its driver says.
pub(crate) fn free_memory(index: usize) -> Option<u64> {
    // The primary context of the device, in which CubeCL works, too.
    let context = CudaContext::new(index).ok()?;
    let (free, _) = context.mem_get_info().ok()?;
    Some(free as u64)
}

/// The versions of driver and NVRTC, as a part of a file's name; `None` where one of them is not there.
#[cfg(feature = "kernel-cache")]
pub(crate) fn versions() -> Option<String> {
    if !has_driver() || !has_nvrtc() {
        return None;
    }
    let (mut version, mut major, mut minor) = (0, 0, 0);
    // SAFETY: both libraries are there, and these functions need no device; they write numbers that outlive them.
    unsafe {
        driver::sys::cuDriverGetVersion(&mut version).result().ok()?;
        nvrtc::sys::nvrtcVersion(&mut major, &mut minor).result().ok()?;
    }
    Some(format!("cuda-{version}-nvrtc-{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_headers_are_named() {
        let folder = std::env::temp_dir().join(format!("lumina-cuda-headers-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("include")).expect("a temporary folder");
        std::fs::write(folder.join("include/cuda_fp16.h"), "").expect("a file in it");
        let error = check_headers(Some(&folder)).expect_err("one header is not there").to_string();
        assert!(error.contains("cuda_bf16.h") && error.contains("CUDA_PATH"), "{error}");
        std::fs::write(folder.join("include/cuda_bf16.h"), "").expect("a file in it");
        assert!(check_headers(Some(&folder)).is_ok());
        std::fs::remove_dir_all(&folder).expect("the folder is there");
        assert!(check_headers(None).is_err());
    }

    /// Looking for NCCL panics nowhere, and where it is found it answers.
    #[test]
    fn nccl_answers_where_it_is_found() {
        if has_nccl() {
            assert!(nccl::result::get_nccl_version().is_ok());
        }
    }

    /// On a machine without NVRTC it is the case of a user who has the headers alone.
    #[test]
    fn a_missing_library_of_nvrtc_is_an_error() {
        let error = check_nvrtc(false).expect_err("it is not there").to_string();
        assert!(error.contains("libnvrtc.so") && error.contains("LD_LIBRARY_PATH"), "{error}");
        match has_nvrtc() {
            false => assert!(check_compiler().is_err()),
            // It answers where it is there.
            true => {
                let (mut major, mut minor) = (0, 0);
                // SAFETY: the library is there, and writes two numbers.
                let result = unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
                assert!(result.result().is_ok() && major > 0);
            }
        }
    }
}
