//! Where and how a network computes.

mod devices;
mod gpu;
mod names;
#[cfg(feature = "burn")]
mod tensors;
mod weights;

use std::sync::Arc;

use lumina_checkpoint::Dtype;
use lumina_kernels::ActivationPrecision;

#[cfg(feature = "cube")]
use self::gpu::GpuSlot;
pub use self::weights::{Residence, Role, Weights, head_dtype};
use crate::ops::host::buffer::Buffers;
use crate::{Error, Result};

/// Where and how a network computes: the device, where its linear weights reside, and their format.
///
/// The three are independent, and [`Compute::check`] says which combinations do not work (yet). Where activations are
/// follows from the device alone: in host memory for [`Compute::cpu`], in buffers of our own kernels on a GPU, and with
/// the feature `burn` in Burn's tensors elsewhere, as training needs them.
///
/// | device | residence | format |
/// | --- | --- | --- |
/// | `cpu` | [`Residence::Mapped`] (default), [`Residence::Host`] | [`Weights::AsStored`] (default), `BF16`, `F16`, `Q8`, `Q4` |
/// | `cuda`, `wgpu` | [`Residence::Device`] | [`Weights::AsStored`] (default), `BF16`, `F16`, `Q8`, `Q4` |
/// | `flex`, `ndarray`, any after `Compute::in_tensors` | [`Residence::Device`] | [`Weights::ComputeType`] |
///
/// Nothing here is global: two models in one program may compute in two places, and one that is too large for a device
/// in several: [`Compute::then`].
///
/// ```
/// use lumina_nn::{Compute, Residence, Weights};
/// let compute = Compute::cpu().weights(Weights::Q8);
/// assert_eq!((compute.residence(), compute.format()), (Residence::Mapped, Weights::Q8));
/// let named: Compute = "cpu".parse()?;
/// # Ok::<(), lumina_nn::Error>(())
/// ```
#[derive(Clone)]
pub struct Compute {
    name: &'static str,
    kind: DeviceKind,
    dtype: Dtype,
    residence: Residence,
    weights: Weights,
    kv_cache: Dtype,
    activations: ActivationPrecision,
    master_weights: bool,
    buffers: Arc<Buffers>,
    /// The most bytes that a model may take, where the caller says so.
    max_memory: Option<u64>,
    /// Devices for what does not fit this one, each alone.
    others: Vec<Compute>,
}

/// How a device is computed on.
#[derive(Clone)]
enum DeviceKind {
    /// The processor, by the kernels of `lumina-kernels` on slices in host memory.
    Cpu,
    /// A GPU, by the kernels of `lumina-cube`.
    #[cfg(feature = "cube")]
    Gpu(GpuSlot),
    /// Any device, by a backend of Burn.
    #[cfg(feature = "burn")]
    Tensors(tensors::TensorDevice),
}

impl Compute {
    /// The types that [`Compute::kv_cache`] takes on the processor.
    pub const KV_CACHE_DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::BF16, Dtype::Q8_0];

    /// The types that [`Compute::kv_cache`] takes on a GPU.
    pub const GPU_KV_CACHE_DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::Q8_0];

    /// The processor: `f32` activations, weights read from the memory-mapped file in its own format.
    pub fn cpu() -> Self {
        let on = Self::on("cpu", DeviceKind::Cpu);
        Self { residence: Residence::Mapped, weights: Weights::AsStored, ..on }
    }

    /// The CUDA device with this index: weights in the format of the file, keys and values in `f16`.
    #[cfg(feature = "cuda")]
    pub fn cuda(index: usize) -> Self {
        Self::on_gpu("cuda", lumina_cube::DeviceChoice::Cuda(index))
    }

    /// The default device of wgpu: Vulkan, Metal or DirectX, whichever the machine has. Weights are in the format of
    /// the file, keys and values in `f16`.
    ///
    /// On a machine without them wgpu takes OpenGL ES, which is not tested. With a software driver of it, it stops with
    /// "Could not lock adapter context", and whoever waits for a result waits for ever. Mesa's Vulkan driver helps, or
    /// `Compute::cpu`.
    #[cfg(feature = "wgpu")]
    pub fn wgpu() -> Self {
        Self::on_gpu("wgpu", lumina_cube::DeviceChoice::Wgpu)
    }

    #[cfg(feature = "cube")]
    fn on_gpu(name: &'static str, choice: lumina_cube::DeviceChoice) -> Self {
        let kind = DeviceKind::Gpu(GpuSlot::new(choice));
        Self { weights: Weights::AsStored, kv_cache: Dtype::F16, ..Self::on(name, kind) }
    }

    /// A device with the settings that tensors have.
    fn on(name: &'static str, kind: DeviceKind) -> Self {
        Self {
            name,
            kind,
            dtype: Dtype::F32,
            residence: Residence::Device,
            weights: Weights::ComputeType,
            kv_cache: Dtype::F32,
            activations: ActivationPrecision::F32,
            master_weights: false,
            buffers: Arc::default(),
            max_memory: None,
            others: Vec::new(),
        }
    }

    /// Every target that is compiled in and found on this machine, the first a good default for a small model.
    ///
    /// Looking for GPUs starts their drivers.
    pub fn available() -> Vec<Self> {
        #[cfg(any(feature = "cuda", feature = "wgpu"))]
        let gpus = lumina_cube::Gpu::enumerate();
        let candidates = [
            Some(Self::cpu()),
            #[cfg(feature = "ndarray")]
            Some(Self::ndarray()),
            #[cfg(feature = "cuda")]
            gpus.contains(&lumina_cube::DeviceChoice::Cuda(0)).then(|| Self::cuda(0)),
            #[cfg(feature = "wgpu")]
            gpus.contains(&lumina_cube::DeviceChoice::Wgpu).then(Self::wgpu),
            None,
        ];
        candidates.into_iter().flatten().collect()
    }

    /// Sets the type of activations, and of weights in [`Weights::ComputeType`]: [`Dtype::F32`], [`Dtype::F16`] or
    /// [`Dtype::BF16`].
    #[must_use]
    pub fn dtype(self, dtype: Dtype) -> Self {
        self.each(|device| device.dtype = dtype)
    }

    /// Sets where linear weights reside: on this device, not on those [after](Compute::then) it.
    #[must_use]
    pub fn weights_in(mut self, residence: Residence) -> Self {
        self.residence = residence;
        self
    }

    /// Sets the format of linear weights.
    #[must_use]
    pub fn weights(self, weights: Weights) -> Self {
        self.each(|device| device.weights = weights)
    }

    /// Sets the type of the keys and values that are kept of a sequence: [`Dtype::F32`], [`Dtype::BF16`], on a GPU
    /// [`Dtype::F16`] as well, or [`Dtype::Q8_0`] for bytes with a scale for each token and head. Each token reads all
    /// of them: with a long context they are as many bytes as quantised weights.
    #[must_use]
    pub fn kv_cache(self, dtype: Dtype) -> Self {
        self.each(|device| device.kv_cache = dtype)
    }

    /// Rounds activations to `bf16` in products with `bf16` weights, where the CPU multiplies that (AVX-512 BF16, AMX):
    /// prompts take half the time. Each number is rounded by at most 2⁻⁸ of itself, and sums stay `f32`. On other CPUs,
    /// and in the image tokenizer, nothing changes.
    ///
    /// In training it is what is called mixed precision: both operands of the products of linear layers are rounded, in
    /// the backward pass as well, while weights, gradients and what is between the layers stay `f32`.
    #[must_use]
    pub fn bf16_activations(self) -> Self {
        self.each(|device| device.activations = ActivationPrecision::Reduced)
    }

    /// Keeps parameters in `f32` whatever the type of activations, as training does: an update of a `bf16` weight would
    /// mostly round to nothing.
    #[must_use]
    pub fn master_weights(self) -> Self {
        self.each(|device| device.master_weights = true)
    }

    /// The type of the keys and values that are kept of a sequence.
    pub fn kv_dtype(&self) -> Dtype {
        self.kv_cache
    }

    /// Where linear weights reside.
    pub fn residence(&self) -> Residence {
        self.residence
    }

    /// The format of linear weights.
    pub fn format(&self) -> Weights {
        self.weights
    }

    /// How activations are rounded in products on a CPU.
    pub fn activations(&self) -> ActivationPrecision {
        self.activations
    }

    /// Whether activations are slices in host memory, which the kernels of `lumina-kernels` compute on.
    pub fn is_host(&self) -> bool {
        matches!(self.kind, DeviceKind::Cpu)
    }

    /// Whether a token's results do not depend on how many others share its pass, to the bit: so it is with our own
    /// kernels. Burn's matrix products may round otherwise for another number of rows.
    pub fn has_independent_rows(&self) -> bool {
        !self.is_in_tensors()
    }

    /// Whether the device's memory is that of the process.
    pub fn has_host_memory(&self) -> bool {
        match &self.kind {
            DeviceKind::Cpu => true,
            #[cfg(feature = "cube")]
            DeviceKind::Gpu(_) => false,
            #[cfg(feature = "burn")]
            DeviceKind::Tensors(device) => device.is_host(),
        }
    }

    /// Whether activations are Burn's tensors.
    pub(crate) fn is_in_tensors(&self) -> bool {
        #[cfg(feature = "burn")]
        return matches!(self.kind, DeviceKind::Tensors(_));
        #[cfg(not(feature = "burn"))]
        false
    }

    /// Memory for activations.
    pub(crate) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    /// Whether keys and values are kept in host memory.
    pub(crate) fn has_host_cache(&self) -> bool {
        self.has_host_memory() && self.dtype == Dtype::F32
    }

    /// Checks that the device can compute as asked.
    ///
    /// # Errors
    /// [`Error::ComputeType`] for a type of activations that is no float type of 16 or 32 bits, [`Error::DeviceType`]
    /// for one that the device lacks, [`Error::Residence`] and [`Error::WeightFormat`] for weights that the device
    /// cannot read, [`Error::KvCacheType`] and [`Error::KvCacheDevice`] for keys and values that it cannot read;
    /// [`Error::Together`] for one that cannot have a part of a model.
    pub fn check(&self) -> Result<()> {
        self.check_others()?;
        let &Self { name: device, dtype, residence, weights, kv_cache, .. } = self;
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(Error::ComputeType { dtype });
        }
        match &self.kind {
            DeviceKind::Cpu => {
                if dtype != Dtype::F32 {
                    let choices = "f32, or with the feature `flex` `Compute::flex()`, which computes in Burn's tensors";
                    return Err(Error::DeviceType { device, dtype, choices });
                }
                if residence == Residence::Device {
                    let choices = "`mapped` or `host`, or with the feature `flex` `Compute::flex()`, which has tensors";
                    return Err(Error::Residence { device, residence, choices });
                }
                if weights == Weights::ComputeType {
                    let choices = "`as-stored`, which loses nothing, or one of bf16, f16, q8, q4";
                    return Err(Error::WeightFormat { device, weights, choices });
                }
            }
            #[cfg(feature = "cube")]
            DeviceKind::Gpu(gpu) => {
                if dtype != Dtype::F32 {
                    let choices = "f32, or `Compute::in_tensors()`, which computes in Burn's tensors";
                    return Err(Error::DeviceType { device, dtype, choices });
                }
                if residence != Residence::Device {
                    return Err(Error::Residence { device, residence, choices: "`device`" });
                }
                if weights == Weights::ComputeType {
                    let choices = "`as-stored`, which loses nothing, or one of bf16, f16, q8, q4";
                    return Err(Error::WeightFormat { device, weights, choices });
                }
                if !Self::GPU_KV_CACHE_DTYPES.contains(&kv_cache) {
                    return Err(Error::KvCacheType { dtype: kv_cache });
                }
                gpu.open().map_err(|reason| Error::Gpu(lumina_cube::Error::NoDevice { reason: reason.to_owned() }))?;
                return Ok(());
            }
            #[cfg(feature = "burn")]
            DeviceKind::Tensors(_) => {
                if residence != Residence::Device {
                    return Err(Error::Residence { device, residence, choices: "`device`" });
                }
                if weights != Weights::ComputeType {
                    let choices = "`compute-type`, with bf16 or f16 activations where memory is short, or device `cpu`";
                    return Err(Error::WeightFormat { device, weights, choices });
                }
                if dtype != Dtype::F32 && !self.device().supports_dtype(self.burn_dtype()) {
                    return Err(Error::DeviceType { device, dtype, choices: "f32 or f16" });
                }
            }
        }
        if !Self::KV_CACHE_DTYPES.contains(&kv_cache) {
            return Err(Error::KvCacheType { dtype: kv_cache });
        }
        if kv_cache != Dtype::F32 && !self.has_host_cache() {
            return Err(Error::KvCacheDevice { device, dtype: kv_cache });
        }
        Ok(())
    }
}
