//! Activations and small parameters as tensors.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::read;
use crate::ops::hidden::{Activation, Hidden};
use crate::ops::host::HostRows;
use crate::ops::host::buffer::Buffers;
use crate::ops::values::Values;
use crate::{Compute, Result};

impl From<Tensor<2>> for Hidden {
    fn from(tensor: Tensor<2>) -> Self {
        Self(Activation::Burn(tensor))
    }
}

impl Hidden {
    /// As a tensor: itself, or one on this device, which takes over memory of the host.
    pub fn into_tensor(self, device: &Device) -> Tensor<2> {
        let shape = self.dims();
        let values = match self.0 {
            Activation::Burn(tensor) => return tensor,
            Activation::Host(host) => host.values.into_vec(),
            #[cfg(feature = "cube")]
            Activation::Gpu(rows) => rows.read().expect(super::GPU_WORKS),
        };
        Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
    }

    /// A tensor of the same values: itself, or one on this device.
    pub(in crate::ops) fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let values = match &self.0 {
            Activation::Burn(tensor) => return tensor.clone(),
            Activation::Host(host) => host.values.to_vec(),
            #[cfg(feature = "cube")]
            Activation::Gpu(rows) => rows.read().expect(super::GPU_WORKS),
        };
        Tensor::from_data(TensorData::new(values, self.dims()), (device, DType::F32))
    }

    /// That of the tensor; `None` where it is none.
    pub(in crate::ops) fn device(&self) -> Option<Device> {
        match &self.0 {
            Activation::Burn(tensor) => Some(tensor.device()),
            _ => None,
        }
    }

    /// These activations, where `compute` has its tensors, and in its type.
    pub(in crate::ops) fn in_tensors(self, compute: &Compute) -> Self {
        let (device, dtype) = compute.options();
        self.into_tensor(&device).cast(dtype).into()
    }
}

/// The values of a tensor in host memory.
pub(in crate::ops) fn host_rows(tensor: Tensor<2>) -> Result<HostRows> {
    let width = tensor.dims()[1];
    Ok(HostRows { values: Arc::new(Buffers::default()).adopt(read(tensor)?), width })
}

impl<const D: usize> Values<D> {
    /// As a tensor: the parameter, or a copy on this device.
    pub(in crate::ops) fn tensor(&self, device: &Device) -> Tensor<D> {
        let values = match self {
            Self::Tensor(param) => return param.val(),
            Self::Host(_) => self.slice().unwrap_or_default().to_vec(),
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.gpu.read_f32(&own.values).expect(super::GPU_WORKS),
        };
        Tensor::from_data(TensorData::new(values, self.dims()), (device, DType::F32))
    }

    /// The device of the parameter; `None` where it is none.
    pub(in crate::ops) fn device(&self) -> Option<Device> {
        match self {
            Self::Tensor(param) => Some(param.device()),
            _ => None,
        }
    }
}

/// The device of the first tensor among an operator's operands.
pub(in crate::ops) fn first_device(devices: impl IntoIterator<Item = Option<Device>>) -> Device {
    devices.into_iter().flatten().next().expect(crate::ops::ONE_PLACE)
}
