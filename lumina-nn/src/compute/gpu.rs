//! The GPU of our own kernels: opened when it is first needed.

#[cfg(feature = "cube")]
use std::sync::Arc;

use super::Compute;
#[cfg(feature = "cube")]
use super::DeviceKind;
use crate::{Error, Result};

/// A GPU that is opened when it is first needed, and then shared by clones.
#[cfg(feature = "cube")]
#[derive(Clone)]
pub(super) struct GpuSlot {
    choice: lumina_cube::DeviceChoice,
    opened: Arc<std::sync::OnceLock<std::result::Result<lumina_cube::Gpu, String>>>,
}

#[cfg(feature = "cube")]
impl GpuSlot {
    pub(super) fn new(choice: lumina_cube::DeviceChoice) -> Self {
        Self { choice, opened: Arc::default() }
    }

    /// Which GPU it is.
    #[cfg(any(feature = "burn", feature = "cuda"))]
    pub(super) fn choice(&self) -> lumina_cube::DeviceChoice {
        self.choice
    }

    /// The device, or why there is none.
    pub(super) fn open(&self) -> std::result::Result<&lumina_cube::Gpu, &str> {
        let open = || {
            lumina_cube::Gpu::open(self.choice).map_err(|error| match error {
                lumina_cube::Error::NoDevice { reason } => reason,
                other => other.to_string(),
            })
        };
        self.opened.get_or_init(open).as_ref().map_err(String::as_str)
    }
}

impl Compute {
    /// Bytes of the memory of a GPU that our own kernels compute on, where its driver says so; at most what
    /// [`Compute::max_memory`] allows, and that where the driver says nothing.
    pub fn device_memory(&self) -> Option<u64> {
        #[cfg(feature = "cube")]
        let of_driver = self.gpu().and_then(lumina_cube::Gpu::memory_bytes);
        #[cfg(not(feature = "cube"))]
        let of_driver = None;
        of_driver.into_iter().chain(self.max_memory).min()
    }

    /// The index of a CUDA device of our own kernels.
    pub(super) fn cuda_index(&self) -> Option<usize> {
        #[cfg(feature = "cube")]
        if let DeviceKind::Gpu(GpuSlot { choice: lumina_cube::DeviceChoice::Cuda(index), .. }) = self.kind {
            return Some(index);
        }
        None
    }

    /// Bytes of that memory that are free now, where its driver says so: on CUDA. At most [`Compute::max_memory`].
    pub fn free_device_memory(&self) -> Option<u64> {
        #[cfg(feature = "cube")]
        return Some(self.gpu()?.free_memory_bytes()?.min(self.max_memory.unwrap_or(u64::MAX)));
        #[cfg(not(feature = "cube"))]
        None
    }

    /// Bytes a second that a GPU reads and writes, both counted, when it copies memory: the limit of decoding. It takes
    /// half a gigabyte twice, for a moment.
    ///
    /// # Errors
    /// `Error::Gpu` where it fails; [`Error::Residence`] on other devices.
    pub fn copy_bandwidth(&self) -> Result<f64> {
        #[cfg(feature = "cube")]
        if let Some(gpu) = self.gpu() {
            const COPIES: u32 = 8;
            // Far beyond caches, where the device has buffers of that size.
            let words = (gpu.max_buffer_bytes() / 8).min(1 << 27) as usize / 4 * 4;
            let (from, to) = (gpu.empty(words), gpu.empty(words));
            let mut fastest = f64::MAX;
            for _ in 0..4 {
                gpu.sync()?;
                let start = std::time::Instant::now();
                (0..COPIES).for_each(|_| gpu.copy(&from, &to));
                gpu.sync()?;
                fastest = fastest.min(start.elapsed().as_secs_f64());
            }
            gpu.check(&to)?;
            return Ok(f64::from(COPIES) * (2 * words * size_of::<u32>()) as f64 / fastest);
        }
        Err(Error::Residence { device: self.name, residence: self.residence, choices: "a GPU" })
    }

    /// Waits until a GPU, and those [after](Compute::then) it, have done what was launched on them, such as uploads of
    /// weights.
    ///
    /// # Errors
    /// `Error::Gpu` with what failed.
    pub fn sync(&self) -> Result<()> {
        #[cfg(feature = "cube")]
        if let Some(gpu) = self.gpu() {
            gpu.sync()?;
        }
        self.others.iter().try_for_each(Self::sync)
    }

    /// The GPU whose kernels compute, once [`Compute::check`] has opened it.
    #[cfg(feature = "cube")]
    pub(crate) fn gpu(&self) -> Option<&lumina_cube::Gpu> {
        match &self.kind {
            DeviceKind::Gpu(gpu) => gpu.open().ok(),
            _ => None,
        }
    }

    /// Runs `op` on a thread of the current rayon pool, where kernels run on them: several operators in a row then
    /// enter the pool once, which takes about as long as a small product. Elsewhere `op` stays on the calling thread.
    pub fn in_pool<R: Send>(&self, op: impl FnOnce() -> R + Send) -> R {
        if self.is_host() { rayon::scope(|_| op()) } else { op() }
    }
}
