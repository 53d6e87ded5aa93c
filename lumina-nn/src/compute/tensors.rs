//! Devices whose activations are Burn's tensors.

use burn::tensor::{DType, Device};
use lumina_checkpoint::Dtype;

use super::{Compute, DeviceKind, Residence, Weights};

/// A device of Burn.
#[derive(Clone)]
pub(super) struct TensorDevice {
    device: Device,
    /// Whether its memory is that of the process.
    is_host: bool,
}

impl TensorDevice {
    pub(super) fn is_host(&self) -> bool {
        self.is_host
    }
}

impl Compute {
    /// The processor through Burn's `flex` backend, with weights and activations in its tensors: what training and
    /// [`Compute::dtype`] on the processor need.
    pub fn flex() -> Self {
        Self::cpu().in_tensors()
    }

    /// The processor through the `ndarray` backend, with weights in its tensors.
    #[cfg(feature = "ndarray")]
    #[allow(deprecated, reason = "burn marks the ndarray backend deprecated in favour of flex; users still ask for it")]
    pub fn ndarray() -> Self {
        let device = TensorDevice { device: Device::ndarray(), is_host: true };
        Self::on("ndarray", DeviceKind::Tensors(device))
    }

    /// Any Burn device, with `f32` activations and weights in its tensors.
    pub fn new(device: Device) -> Self {
        Self::on("device", DeviceKind::Tensors(TensorDevice { device, is_host: false }))
    }

    /// The same on another Burn device, with weights in its tensors: on one that records gradients, for example.
    #[must_use]
    pub fn on_device(self, device: Device) -> Self {
        let own = self.in_tensors();
        let kind = DeviceKind::Tensors(TensorDevice { device, is_host: own.has_host_memory() });
        Self { kind, ..own }
    }

    /// The same device with weights and activations in Burn's tensors, as training and [`Compute::dtype`] need them.
    /// [`Compute::cpu`] becomes `Compute::flex`.
    #[must_use]
    pub fn in_tensors(mut self) -> Self {
        self.others = std::mem::take(&mut self.others).into_iter().map(Self::in_tensors).collect();
        let device = self.device();
        let (name, is_host, kv_cache) = match &self.kind {
            DeviceKind::Cpu => ("flex", true, self.kv_cache),
            #[cfg(feature = "cube")]
            DeviceKind::Gpu(_) => (self.name, false, Dtype::F32),
            DeviceKind::Tensors(own) => (self.name, own.is_host, self.kv_cache),
        };
        let kind = DeviceKind::Tensors(TensorDevice { device, is_host });
        Self { name, kind, kv_cache, residence: Residence::Device, weights: Weights::ComputeType, ..self }
    }

    /// The device of Burn: where its tensors are, or would be after [`Compute::in_tensors`].
    pub fn device(&self) -> Device {
        match &self.kind {
            DeviceKind::Cpu => Device::flex(),
            #[cfg(feature = "cube")]
            DeviceKind::Gpu(gpu) => match gpu.choice() {
                #[cfg(feature = "cuda")]
                lumina_cube::DeviceChoice::Cuda(index) => Device::cuda(index),
                #[cfg(feature = "wgpu")]
                lumina_cube::DeviceChoice::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
                _ => unreachable!("a GPU is chosen by the constructor of its feature"),
            },
            DeviceKind::Tensors(own) => own.device.clone(),
        }
    }

    /// Device and type, for making activations.
    pub fn options(&self) -> (Device, DType) {
        (self.device(), self.burn_dtype())
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
}
