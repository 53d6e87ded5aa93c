//! Where a model computes: device, type of activations, and where linear weights live.

use std::sync::Arc;

use burn::tensor::{DType, Device};
use lumina_kernels::Activations;

use crate::ops::KeyValues;
use crate::ops::buffer::Buffers;
use crate::{Error, Result};
use lumina_checkpoint::Dtype;

/// Where the weights of linear layers live, and how wide they are.
///
/// | | linear weights | head | 7B |
/// | --- | --- | --- | --- |
/// | `Mapped` | as in the file | as in the file | 13 GB in `bf16`, page cache |
/// | `BF16`, `F16` | 16 bits | 16 bits | 13 GB |
/// | `Q8` | 8.5 bits, [`Format::Q8_0`] | 8.5 bits | 7 GB, heap |
/// | `Q4` | 4.5 bits, [`Format::Q4_0`] | 8.5 bits | 4 GB, heap |
/// | `Tensor` | in the compute type | in the compute type | 26 GB in `f32` |
///
/// `BF16` to `Q4` narrow while opening, with all threads of the current rayon pool, by the rule of
/// [`gguf::quantise`]: what that writes to a file, opened as `Mapped`, gives the same model without the wait. The
/// embedding stays as in the file, and so does a weight that is as narrow already. On devices whose weights are tensors,
/// quantised files are widened while opening.
///
/// ```
/// use lumina_nn::Weights;
/// assert_eq!("q8".parse::<Weights>()?, Weights::Q8);
/// assert_eq!(Weights::Q4.to_string(), "q4");
/// # Ok::<(), lumina_nn::Error>(())
/// ```
///
/// [`Format::Q8_0`]: lumina_kernels::Format::Q8_0
/// [`Format::Q4_0`]: lumina_kernels::Format::Q4_0
/// [`gguf::quantise`]: lumina_checkpoint::gguf::quantise
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Weights {
    /// In the checkpoint file's mapping, in its own type, read by kernels of ours. Opening costs no copy and
    /// memory is page cache, which the system can take back. CPU devices only.
    Mapped,
    /// In tensors of the device, in the compute type: what GPUs and training need.
    Tensor,
    /// `bf16` where the file is wider, beside the mapping. CPU devices only.
    BF16,
    /// `f16` where the file is wider, beside the mapping. CPU devices only.
    F16,
    /// Blocks of 8-bit numbers where the file is wider, beside the mapping. CPU devices only.
    Q8,
    /// Blocks of 4-bit numbers where the file is wider, and the head in 8 bits, beside the mapping. CPU devices only.
    Q4,
}

impl Weights {
    /// Every choice, from the one that leaves the file as it is to the narrowest.
    pub const ALL: [Self; 6] = [Self::Mapped, Self::Tensor, Self::BF16, Self::F16, Self::Q8, Self::Q4];

    /// The type that linear weights are narrowed to.
    pub(crate) fn narrowed(self) -> Option<Dtype> {
        match self {
            Self::Mapped | Self::Tensor => None,
            Self::BF16 => Some(Dtype::BF16),
            Self::F16 => Some(Dtype::F16),
            Self::Q8 => Some(Dtype::Q8_0),
            Self::Q4 => Some(Dtype::Q4_0),
        }
    }
}

impl std::fmt::Display for Weights {
    /// The name that [`FromStr`](std::str::FromStr) reads.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mapped => "mapped",
            Self::Tensor => "tensor",
            Self::BF16 => "bf16",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        })
    }
}

impl std::str::FromStr for Weights {
    type Err = Error;

    /// `mapped`, `tensor`, `bf16`, `f16`, `q8` or `q4`.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|weights| weights.to_string() == name).ok_or_else(|| {
            let names = Self::ALL.map(|weights| weights.to_string()).join(", ");
            Error::Compute { reason: format!("`{name}` is no way to hold weights; choose one of {names}") }
        })
    }
}

/// Device, type of activations, and where linear weights live.
///
/// Nothing here is global: two models in one program may compute in two places.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use lumina_nn::{Compute, Weights};
/// let compute = Compute::cpu();
/// assert_eq!(compute.placement(), Weights::Mapped);
/// let named: Compute = "cpu".parse()?;
/// # }
/// # Ok::<(), lumina_nn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Compute {
    name: &'static str,
    device: Device,
    on_host: bool,
    dtype: Dtype,
    weights: Weights,
    kv_cache: Dtype,
    activations: Activations,
    master_weights: bool,
    buffers: Arc<Buffers>,
}

impl Compute {
    /// The types that [`Compute::kv_cache`] takes.
    pub const KV_CACHE_DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::BF16, Dtype::Q8_0];

    /// The processor: `f32` activations, weights read where they lie in the file.
    #[cfg(feature = "flex")]
    pub fn cpu() -> Self {
        Self { name: "cpu", on_host: true, weights: Weights::Mapped, ..Self::new(Device::flex()) }
    }

    /// The processor through the `ndarray` backend, with weights in its tensors.
    #[cfg(feature = "ndarray")]
    #[allow(deprecated, reason = "burn marks the ndarray backend deprecated in favour of flex; users still ask for it")]
    pub fn ndarray() -> Self {
        Self { name: "ndarray", on_host: true, ..Self::new(Device::ndarray()) }
    }

    /// The CUDA device with this index. [`Compute::dtype`] with [`Dtype::BF16`] halves its memory.
    #[cfg(feature = "cuda")]
    pub fn cuda(index: usize) -> Self {
        Self { name: "cuda", ..Self::new(Device::cuda(index)) }
    }

    /// The default device of wgpu: Vulkan, Metal or DirectX, whichever the machine has.
    ///
    /// On a machine without them wgpu takes OpenGL ES, which is not tested; with a software driver of it, it stops with "Could not lock
    /// adapter context", and what waits for a result waits for ever. Mesa's Vulkan driver helps, or `Compute::cpu`.
    #[cfg(feature = "wgpu")]
    pub fn wgpu() -> Self {
        Self { name: "wgpu", ..Self::new(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)) }
    }

    /// Every target that is compiled in and found on this machine, the first a good default for a small model.
    ///
    /// Looking for GPUs starts their drivers.
    pub fn available() -> Vec<Self> {
        let candidates = [
            #[cfg(feature = "flex")]
            Some(Self::cpu()),
            #[cfg(feature = "ndarray")]
            Some(Self::ndarray()),
            #[cfg(feature = "cuda")]
            on_this_machine(burn::tensor::DeviceType::Cuda).then(|| Self::cuda(0)),
            #[cfg(feature = "wgpu")]
            on_this_machine(burn::tensor::DeviceType::Wgpu).then(Self::wgpu),
            None,
        ];
        candidates.into_iter().flatten().collect()
    }

    /// Any Burn device, with `f32` activations and weights in its tensors.
    pub fn new(device: Device) -> Self {
        Self {
            name: "device",
            device,
            on_host: false,
            dtype: Dtype::F32,
            weights: Weights::Tensor,
            kv_cache: Dtype::F32,
            activations: Activations::Full,
            master_weights: false,
            buffers: Arc::default(),
        }
    }

    /// Sets the type of activations and of tensor weights: [`Dtype::F32`], [`Dtype::F16`] or [`Dtype::BF16`].
    #[must_use]
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// Sets where the weights of linear layers live.
    #[must_use]
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Sets the type of the keys and values that a CPU keeps of a sequence: [`Dtype::F32`], [`Dtype::BF16`], or [`Dtype::Q8_0`] for
    /// bytes with a scale for each token and head. Each token reads all of them: with a long context they are as much as
    /// narrow weights.
    #[must_use]
    pub fn kv_cache(mut self, dtype: Dtype) -> Self {
        self.kv_cache = dtype;
        self
    }

    /// Rounds activations to `bf16` beside `bf16` weights, where the CPU multiplies that (AVX-512 BF16, AMX): prompts take half the time. Each
    /// number is rounded by at most 2⁻⁸ of itself, and sums stay `f32`. On other CPUs, and where pictures become codes and codes pictures, nothing
    /// changes.
    #[must_use]
    pub fn compact(mut self) -> Self {
        self.activations = Activations::Compact;
        self
    }

    /// Keeps parameters in `f32` whatever the type of activations, as training does: an update of a `bf16` weight would
    /// mostly round to nothing.
    #[must_use]
    pub fn master_weights(mut self) -> Self {
        self.master_weights = true;
        self
    }

    /// The same on another Burn device, with weights in its tensors: on one that records gradients, for example.
    #[must_use]
    pub fn on_device(mut self, device: Device) -> Self {
        self.device = device;
        self.weights = Weights::Tensor;
        self
    }

    /// The Burn device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the device computes in the program's own memory.
    pub fn on_host(&self) -> bool {
        self.on_host
    }

    /// What becomes of activations in products on a CPU.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Where the weights of linear layers live.
    pub fn placement(&self) -> Weights {
        self.weights
    }

    /// Runs `op` on a thread of the current rayon pool, where kernels run on them: several operators in a row then enter the pool once, not
    /// one by one, which takes about as long as a small product. Elsewhere `op` stays on the thread that calls.
    pub fn in_pool<R: Send>(&self, op: impl FnOnce() -> R + Send) -> R {
        if self.has_mapped_weights() { rayon::scope(|_| op()) } else { op() }
    }

    /// Whether weights are where kernels read them; activations are in the program's own memory then.
    pub(crate) fn has_mapped_weights(&self) -> bool {
        self.weights != Weights::Tensor
    }

    /// Memory for activations.
    pub(crate) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    /// An empty cache for keys and values of `capacity` tokens, where they are kept in the program's own memory.
    pub fn key_values(&self, kv_heads: usize, capacity: usize, head_dim: usize) -> Option<KeyValues> {
        let in_memory = self.on_host && self.dtype == Dtype::F32;
        let format = self.kv_cache.format().filter(|_| in_memory)?;
        KeyValues::new(format, kv_heads, capacity, head_dim)
    }

    /// The type of activations, as Burn names it.
    pub(crate) fn burn_dtype(&self) -> DType {
        match self.dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => DType::F32,
        }
    }

    /// The type of parameters, as Burn names it.
    pub(crate) fn parameter_dtype(&self) -> DType {
        if self.master_weights { DType::F32 } else { self.burn_dtype() }
    }

    /// Device and type, for making activations.
    pub fn options(&self) -> (&Device, DType) {
        (&self.device, self.burn_dtype())
    }

    /// Checks that the device can compute as asked.
    ///
    /// # Errors
    /// [`Error::Compute`] where the type is no float type of 16 or 32 bits, the device lacks it, or mapped weights
    /// (or narrowed ones, or keys and values in another type) are asked of a device that cannot read them.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Compute { reason });
        if !matches!(self.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return refuse(format!("{} is not a type to compute in; choose f32, f16 or bf16", self.dtype));
        }
        if self.weights != Weights::Tensor && (!self.on_host || self.dtype != Dtype::F32) {
            return refuse(format!(
                "{} weights need a CPU device and f32 activations; choose `Weights::Tensor` or leave the type at f32",
                self.weights
            ));
        }
        if !Self::KV_CACHE_DTYPES.contains(&self.kv_cache) {
            return refuse(format!("{} is not a type for keys and values; choose f32, bf16 or q8_0", self.kv_cache));
        }
        if self.kv_cache != Dtype::F32 && (!self.on_host || self.dtype != Dtype::F32) {
            return refuse(format!(
                "keys and values in {} need a CPU device and f32 activations; elsewhere they have the type of activations",
                self.kv_cache
            ));
        }
        if self.dtype != Dtype::F32 && !self.device.supports_dtype(self.burn_dtype()) {
            return refuse(format!("this device cannot compute in {}; choose f32 or f16", self.dtype));
        }
        Ok(())
    }
}

/// Whether a driver lists a device of this kind.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn on_this_machine(kind: burn::tensor::DeviceType) -> bool {
    !Device::enumerate(kind).into_vec().is_empty()
}

impl std::fmt::Display for Compute {
    /// The name that [`FromStr`](std::str::FromStr) reads, the type, and how weights are held unless in tensors.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.dtype)?;
        if self.weights == Weights::Tensor { Ok(()) } else { write!(f, " {}", self.weights) }
    }
}

impl std::str::FromStr for Compute {
    type Err = Error;

    /// `cpu`, `ndarray`, `cuda`, `cuda:1`, `wgpu`, as far as their features are compiled in.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            #[cfg(feature = "flex")]
            "cpu" | "flex" => Ok(Self::cpu()),
            #[cfg(feature = "ndarray")]
            "ndarray" => Ok(Self::ndarray()),
            #[cfg(feature = "wgpu")]
            "wgpu" | "vulkan" | "metal" => Ok(Self::wgpu()),
            #[cfg(feature = "cuda")]
            "cuda" => Ok(Self::cuda(0)),
            #[cfg(feature = "cuda")]
            _ if name.strip_prefix("cuda:").is_some_and(|index| index.parse::<usize>().is_ok()) => {
                Ok(Self::cuda(name[5..].parse().unwrap_or(0)))
            }
            _ => {
                let built_in = [
                    ("cpu", cfg!(feature = "flex")),
                    ("ndarray", cfg!(feature = "ndarray")),
                    ("cuda", cfg!(feature = "cuda")),
                    ("wgpu", cfg!(feature = "wgpu")),
                ];
                let names: Vec<_> = built_in.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
                Err(Error::Compute {
                    reason: format!(
                        "`{name}` is not a device of this build, which has: {}; others come with Cargo features",
                        names.join(", ")
                    ),
                })
            }
        }
    }
}
