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

    /// The shape.
    pub fn dims(&self) -> [usize; D] {
        match self {
            Self::Tensor(param) => param.dims(),
            Self::Host(host) => host.shape,
        }
    }

    /// The values, where they are in host memory.
    pub(super) fn slice(&self) -> Option<&[f32]> {
        match self {
            Self::Tensor(_) => None,
            Self::Host(host) => Some(&host.values),
        }
    }

    /// As a tensor: the parameter, or a copy.
    pub(super) fn tensor(&self) -> Tensor<D> {
        match self {
            Self::Tensor(param) => param.val(),
            Self::Host(host) => {
                Tensor::from_data(TensorData::new(host.values.to_vec(), host.shape), (&host.device, DType::F32))
            }
        }
    }

    /// The device of [`Values::tensor`].
    pub(super) fn device(&self) -> Device {
        match self {
            Self::Tensor(param) => param.device(),
            Self::Host(host) => host.device.clone(),
        }
    }
}

impl<const D: usize> std::fmt::Debug for HostValues<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostValues").field("shape", &self.shape).finish_non_exhaustive()
    }
}
