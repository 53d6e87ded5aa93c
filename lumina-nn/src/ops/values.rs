//! Small parameters, such as the weights of norms.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// A small parameter, such as the weight of a norm: a parameter of Burn, or values in host memory where activations are
/// there too. Made by [`Loader::values`](crate::Loader::values).
#[derive(Module, Debug)]
pub enum Values<const D: usize> {
    /// As a parameter of Burn.
    Tensor(Param<Tensor<D>>),
    /// In host memory.
    Host(HostValues<D>),
    /// On a GPU.
    #[cfg(feature = "cube")]
    Gpu(GpuValues<D>),
}

/// A parameter's values on a GPU. Cloning it copies none.
#[cfg(feature = "cube")]
#[derive(Module)]
pub struct GpuValues<const D: usize> {
    #[module(skip)]
    gpu: lumina_cube::Gpu,
    #[module(skip)]
    values: lumina_cube::Buffer,
    #[module(skip)]
    shape: [usize; D],
    /// The device of a tensor that is made of them.
    #[module(skip)]
    device: Device,
}

/// A parameter's values in host memory. Cloning it copies none.
#[derive(Module)]
pub struct HostValues<const D: usize> {
    #[module(skip)]
    values: Arc<[f32]>,
    #[module(skip)]
    shape: [usize; D],
    /// The device of a tensor that is made of them.
    #[module(skip)]
    device: Device,
}

impl<const D: usize> Values<D> {
    pub(crate) fn host(values: Vec<f32>, shape: [usize; D], device: &Device) -> Self {
        Self::Host(HostValues { values: values.into(), shape, device: device.clone() })
    }

    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(gpu: &lumina_cube::Gpu, values: &[f32], shape: [usize; D], device: &Device) -> Self {
        Self::Gpu(GpuValues { gpu: gpu.clone(), values: gpu.upload_f32(values), shape, device: device.clone() })
    }

    /// The values, where they are on a GPU.
    #[cfg(feature = "cube")]
    pub(super) fn buffer(&self) -> Option<&lumina_cube::Buffer> {
        match self {
            Self::Gpu(own) => Some(&own.values),
            _ => None,
        }
    }

    /// The shape.
    pub fn dims(&self) -> [usize; D] {
        match self {
            Self::Tensor(param) => param.dims(),
            Self::Host(host) => host.shape,
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.shape,
        }
    }

    /// The values, where they are in host memory.
    pub(super) fn slice(&self) -> Option<&[f32]> {
        match self {
            Self::Host(host) => Some(&host.values),
            _ => None,
        }
    }

    /// As a tensor: the parameter, or a copy.
    pub(super) fn tensor(&self) -> Tensor<D> {
        match self {
            Self::Tensor(param) => param.val(),
            Self::Host(host) => {
                Tensor::from_data(TensorData::new(host.values.to_vec(), host.shape), (&host.device, DType::F32))
            }
            #[cfg(feature = "cube")]
            Self::Gpu(own) => {
                let values = own.gpu.read_f32(&own.values).expect(super::hidden::NO_TENSORS);
                Tensor::from_data(TensorData::new(values, own.shape), (&own.device, DType::F32))
            }
        }
    }

    /// The device of [`Values::tensor`].
    pub(super) fn device(&self) -> Device {
        match self {
            Self::Tensor(param) => param.device(),
            Self::Host(host) => host.device.clone(),
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.device.clone(),
        }
    }
}

#[cfg(feature = "cube")]
impl<const D: usize> std::fmt::Debug for GpuValues<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuValues").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<const D: usize> std::fmt::Debug for HostValues<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostValues").field("shape", &self.shape).finish_non_exhaustive()
    }
}
