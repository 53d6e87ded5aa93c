//! What flows through a network, and the small parameters on its way: in the program's own memory, or in tensors.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::buffer::{Buffer, Buffers};
use crate::{Compute, Error, Result};

/// Hidden states and whatever else each token has of, `[n, width]`.
///
/// Beside weights that kernels read where they lie, activations are in the program's own memory as well, in `f32`: nothing is allocated for a
/// step of decoding then but what the step before has left. Elsewhere they are a tensor, which may record gradients. The operators
/// take either; a network is written once.
#[derive(Debug)]
pub struct Hidden(pub(super) Place);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation")]
pub(super) enum Place {
    Host(Host),
    Tensor(Tensor<2>),
}

/// Rows in the program's own memory.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) values: Buffer,
    pub(super) width: usize,
}

impl Host {
    /// `[n, width]` of arbitrary content, with memory from where this has its own.
    pub(super) fn sibling(&self, width: usize) -> Self {
        let n = self.values.len().checked_div(self.width).unwrap_or(0);
        Self { values: self.values.home().get(n * width), width }
    }
}

impl From<Tensor<2>> for Hidden {
    fn from(tensor: Tensor<2>) -> Self {
        Self(Place::Tensor(tensor))
    }
}

impl From<Host> for Hidden {
    fn from(host: Host) -> Self {
        Self(Place::Host(host))
    }
}

impl Hidden {
    /// `[n, width]`, where the target has its activations; `write` gets all values, of arbitrary content, row by row.
    pub fn new(compute: &Compute, n: usize, width: usize, write: impl FnOnce(&mut [f32])) -> Self {
        let (device, dtype) = compute.options();
        let host = Self::on_host(compute, n, width, write);
        if compute.has_mapped_weights() { host } else { host.into_tensor(device).cast(dtype).into() }
    }

    /// [`Hidden::new`] in the program's own memory.
    pub fn on_host(compute: &Compute, n: usize, width: usize, write: impl FnOnce(&mut [f32])) -> Self {
        let mut values = compute.buffers().get(n * width);
        write(&mut values);
        Host { values, width }.into()
    }

    /// `[n, width]`.
    pub fn dims(&self) -> [usize; 2] {
        match &self.0 {
            Place::Host(host) => [host.values.len().checked_div(host.width).unwrap_or(0), host.width],
            Place::Tensor(tensor) => tensor.dims(),
        }
    }

    /// That of the tensor.
    pub(super) fn device(&self) -> Option<Device> {
        match &self.0 {
            Place::Host(_) => None,
            Place::Tensor(tensor) => Some(tensor.device()),
        }
    }

    /// As a tensor: itself, or one on this device, which takes the memory with it.
    pub fn into_tensor(self, device: &Device) -> Tensor<2> {
        let shape = self.dims();
        match self.0 {
            Place::Host(host) => {
                Tensor::from_data(TensorData::new(host.values.into_vec(), shape), (device, DType::F32))
            }
            Place::Tensor(tensor) => tensor,
        }
    }

    /// A tensor of the same values: itself, or one on this device.
    pub(super) fn to_tensor(&self, device: &Device) -> Tensor<2> {
        match &self.0 {
            Place::Host(host) => {
                Tensor::from_data(TensorData::new(host.values.to_vec(), self.dims()), (device, DType::F32))
            }
            Place::Tensor(tensor) => tensor.clone(),
        }
    }

    /// In the program's own memory and `f32`: itself, or what the tensor holds.
    ///
    /// # Errors
    /// [`Error::Compute`] where the device fails.
    pub fn read(self) -> Result<Self> {
        Ok(self.into_host()?.into())
    }

    /// The values row by row, where they are in the program's own memory.
    pub fn as_slice(&self) -> Option<&[f32]> {
        match &self.0 {
            Place::Host(host) => Some(&host.values),
            Place::Tensor(_) => None,
        }
    }

    pub(super) fn into_host(self) -> Result<Host> {
        let width = self.dims()[1];
        match self.0 {
            Place::Host(host) => Ok(host),
            // On a CPU device reading it is a move, where this is the only handle.
            Place::Tensor(tensor) => {
                let failed = |error: &dyn std::fmt::Debug| Error::Compute { reason: format!("{error:?}") };
                let data = tensor.try_into_data().map_err(|error| failed(&error))?;
                let values = data.convert::<f32>().try_into_vec::<f32>().map_err(|error| failed(&error))?;
                Ok(Host { values: Arc::new(Buffers::default()).adopt(values), width })
            }
        }
    }

    /// The values in `f32`, row by row.
    ///
    /// # Errors
    /// [`Error::Compute`] where the device fails.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match &self.0 {
            Place::Host(host) => Ok(host.values.to_vec()),
            Place::Tensor(tensor) => Ok(Self::from(tensor.clone()).into_host()?.values.into_vec()),
        }
    }

    /// The rows at `indices`, `[indices.len(), width]`.
    ///
    /// # Panics
    /// Where there is no such row.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        match &self.0 {
            Place::Host(host) => {
                let width = host.width;
                let mut values = host.values.home().get(indices.len() * width);
                for (row, &index) in values.chunks_exact_mut(width.max(1)).zip(indices) {
                    row.copy_from_slice(&host.values[index * width..][..width]);
                }
                Host { values, width }.into()
            }
            Place::Tensor(tensor) => {
                let indices: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
                let indices = Tensor::from_data(indices.as_slice(), &tensor.device());
                tensor.clone().select(0, indices).into()
            }
        }
    }

    /// `self + scale · other`, of the same shape.
    pub(super) fn add_scaled(self, other: Self, scale: f64) -> Self {
        match self.beside(other) {
            Pair::Host(mut x, y) => {
                let scale = scale as f32;
                x.values.iter_mut().zip(&*y.values).for_each(|(x, y)| *x += scale * y);
                x.into()
            }
            Pair::Tensors(x, y) => (x + if scale == 1.0 { y } else { y * scale }).into(),
        }
    }

    /// Both in the same place.
    pub(super) fn beside(self, other: Self) -> Pair {
        match (self.0, other.0) {
            (Place::Host(x), Place::Host(y)) => Pair::Host(x, y),
            (Place::Tensor(x), y) => {
                let y = Self(y).into_tensor(&x.device());
                Pair::Tensors(x, y)
            }
            (x, Place::Tensor(y)) => Pair::Tensors(Self(x).into_tensor(&y.device()), y),
        }
    }
}

impl std::ops::Add for Hidden {
    type Output = Self;

    /// The sum of two of one shape.
    fn add(self, other: Self) -> Self {
        self.add_scaled(other, 1.0)
    }
}

/// Two of the same place.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation")]
pub(super) enum Pair {
    Host(Host, Host),
    Tensors(Tensor<2>, Tensor<2>),
}

/// A small parameter, such as the weight of a norm: a tensor's, or values in the program's own memory where weights are mapped.
/// Made by [`Loader::values`](crate::Loader::values).
#[derive(Module, Debug)]
pub enum Values<const D: usize> {
    /// As a parameter of Burn.
    Tensor(Param<Tensor<D>>),
    /// As they are.
    Host(HostValues<D>),
}

/// A parameter's values in the program's own memory. Cloning it copies none.
#[derive(Module, Debug)]
pub struct HostValues<const D: usize> {
    #[module(skip)]
    values: Arc<[f32]>,
    #[module(skip)]
    shape: [usize; D],
    /// Where they go where they meet a tensor.
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

    /// The values, where they are in the program's own memory.
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

    /// That of the tensor.
    pub(super) fn device(&self) -> Device {
        match self {
            Self::Tensor(param) => param.device(),
            Self::Host(host) => host.device.clone(),
        }
    }
}
