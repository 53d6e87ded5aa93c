//! Small parameters, such as the weights of norms.

use std::sync::Arc;

/// A small parameter, such as the weight of a norm, where activations are: in host memory, on a GPU, or as a parameter
/// of Burn. Made by [`Loader::values`](crate::Loader::values).
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub enum Values<const D: usize> {
    /// In host memory.
    Host(HostValues<D>),
    /// On a GPU.
    #[cfg(feature = "cube")]
    Gpu(GpuValues<D>),
    /// As a parameter of Burn.
    #[cfg(feature = "burn")]
    Tensor(burn::module::Param<burn::tensor::Tensor<D>>),
}

/// A parameter's values in host memory. Cloning it copies none.
#[derive(Clone)]
pub struct HostValues<const D: usize> {
    values: Arc<[f32]>,
    shape: [usize; D],
}

/// A parameter's values on a GPU. Cloning it copies none.
#[cfg(feature = "cube")]
#[derive(Clone)]
pub struct GpuValues<const D: usize> {
    #[cfg(feature = "burn")]
    pub(super) gpu: lumina_cube::Gpu,
    pub(super) values: lumina_cube::Buffer,
    shape: [usize; D],
}

impl<const D: usize> Values<D> {
    pub(crate) fn host(values: Vec<f32>, shape: [usize; D]) -> Self {
        Self::Host(HostValues { values: values.into(), shape })
    }

    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(gpu: &lumina_cube::Gpu, values: &[f32], shape: [usize; D]) -> Self {
        Self::Gpu(GpuValues {
            #[cfg(feature = "burn")]
            gpu: gpu.clone(),
            values: gpu.upload_f32(values),
            shape,
        })
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
            Self::Host(host) => host.shape,
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.shape,
            #[cfg(feature = "burn")]
            Self::Tensor(param) => param.dims(),
        }
    }

    /// The values, where they are in host memory.
    pub(super) fn slice(&self) -> Option<&[f32]> {
        match self {
            Self::Host(host) => Some(&host.values),
            _ => None,
        }
    }
}

impl<const D: usize> std::fmt::Debug for HostValues<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostValues").field("shape", &self.shape).finish_non_exhaustive()
    }
}

#[cfg(feature = "cube")]
impl<const D: usize> std::fmt::Debug for GpuValues<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuValues").field("shape", &self.shape).finish_non_exhaustive()
    }
}
