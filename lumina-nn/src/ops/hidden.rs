//! Activations: in host memory, on a GPU, or in a tensor.

#[cfg(feature = "cube")]
use std::sync::Arc;

#[cfg(feature = "cube")]
use super::cube::GpuRows;
use super::host::HostRows;
#[cfg(feature = "cube")]
use super::host::buffer::Buffers;
use crate::{Compute, Result};

/// Activations `[n, width]`, a row a token.
///
/// With [`Compute::cpu`] they are in host memory, in `f32`, in buffers that are used again: a step of decoding
/// allocates nothing. On a GPU they are in its memory, in `f32`. Elsewhere they are a tensor, which may record
/// gradients. The operators take either, so a network is written once.
pub struct Hidden(pub(super) Activation);

/// Where activations are.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation")]
pub(super) enum Activation {
    Host(HostRows),
    #[cfg(feature = "cube")]
    Gpu(GpuRows),
    #[cfg(feature = "burn")]
    Burn(burn::tensor::Tensor<2>),
}

#[cfg(feature = "cube")]
impl From<GpuRows> for Hidden {
    fn from(rows: GpuRows) -> Self {
        Self(Activation::Gpu(rows))
    }
}

impl From<HostRows> for Hidden {
    fn from(host: HostRows) -> Self {
        Self(Activation::Host(host))
    }
}

impl Hidden {
    /// `[n, width]`, where `compute` has its activations. `write` gets all values, of arbitrary content, row by row.
    pub fn new(compute: &Compute, n: usize, width: usize, write: impl FnOnce(&mut [f32])) -> Self {
        #[cfg(feature = "cube")]
        if let Some(gpu) = compute.gpu() {
            let mut values = vec![0.0; n * width];
            write(&mut values);
            return GpuRows { gpu: gpu.clone(), values: gpu.upload_f32(&values), width }.into();
        }
        let host = Self::on_host(compute, n, width, write);
        if compute.is_host() { host } else { in_tensors!(host => host.in_tensors(compute)) }
    }

    /// [`Hidden::new`] in host memory.
    pub fn on_host(compute: &Compute, n: usize, width: usize, write: impl FnOnce(&mut [f32])) -> Self {
        let mut values = compute.buffers().get(n * width);
        write(&mut values);
        HostRows { values, width }.into()
    }

    /// `[n, width]`.
    pub fn dims(&self) -> [usize; 2] {
        match &self.0 {
            Activation::Host(host) => [host.n(), host.width],
            #[cfg(feature = "cube")]
            Activation::Gpu(rows) => [rows.n(), rows.width],
            #[cfg(feature = "burn")]
            Activation::Burn(tensor) => tensor.dims(),
        }
    }

    /// A copy in host memory and `f32`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) and `Error::Gpu` where the device fails.
    #[cfg(feature = "cube")]
    pub fn to_host(&self) -> Result<Self> {
        let values = Arc::new(Buffers::default()).adopt(self.to_vec()?);
        Ok(HostRows { values, width: self.dims()[1] }.into())
    }

    /// In host memory and `f32`: itself, or what the tensor holds.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) where the device fails.
    pub fn read(self) -> Result<Self> {
        Ok(self.into_host()?.into())
    }

    /// The values on the GPU.
    ///
    /// # Panics
    /// If they are elsewhere: passes with keys and values on a GPU have nothing elsewhere.
    #[cfg(feature = "cube")]
    pub(super) fn buffer(&self) -> &lumina_cube::Buffer {
        match &self.0 {
            Activation::Gpu(rows) => &rows.values,
            _ => unreachable!("with keys and values on a GPU activations are there, which `Compute` makes sure of"),
        }
    }

    /// The values row by row, where they are in host memory.
    pub fn as_slice(&self) -> Option<&[f32]> {
        match &self.0 {
            Activation::Host(host) => Some(&host.values),
            _ => None,
        }
    }

    /// The values row by row, to be changed, where they are in host memory.
    pub fn as_mut_slice(&mut self) -> Option<&mut [f32]> {
        match &mut self.0 {
            Activation::Host(host) => Some(&mut host.values),
            _ => None,
        }
    }

    pub(super) fn into_host(self) -> Result<HostRows> {
        match self.0 {
            Activation::Host(host) => Ok(host),
            #[cfg(feature = "cube")]
            Activation::Gpu(rows) => {
                let values = Arc::new(Buffers::default()).adopt(rows.read()?);
                Ok(HostRows { values, width: rows.width })
            }
            #[cfg(feature = "burn")]
            Activation::Burn(tensor) => super::burn::host_rows(tensor),
        }
    }

    /// The values in `f32`, row by row.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) where the device fails.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match &self.0 {
            Activation::Host(host) => Ok(host.values.to_vec()),
            #[cfg(feature = "cube")]
            Activation::Gpu(rows) => rows.read(),
            #[cfg(feature = "burn")]
            Activation::Burn(tensor) => super::read(tensor.clone()),
        }
    }

    /// The rows at `indices`, `[indices.len(), width]`.
    ///
    /// # Panics
    /// Where there is no such row.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        match &self.0 {
            Activation::Host(host) => {
                let width = host.width;
                let mut values = host.values.pool().get(indices.len() * width);
                for (row, &index) in values.chunks_exact_mut(width.max(1)).zip(indices) {
                    row.copy_from_slice(&host.values[index * width..][..width]);
                }
                HostRows { values, width }.into()
            }
            #[cfg(feature = "cube")]
            Activation::Gpu(rows) => {
                let indices: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
                let indices = rows.gpu.upload(&indices);
                rows.with(lumina_cube::embedding::select(&rows.gpu, &rows.values, rows.width, &indices), rows.width)
                    .into()
            }
            #[cfg(feature = "burn")]
            Activation::Burn(tensor) => {
                super::burn::select(tensor.clone(), indices.iter().map(|&index| index as i32)).into()
            }
        }
    }

    /// `self + scale · other`, of the same shape.
    pub(super) fn add_scaled(self, other: Self, scale: f64) -> Self {
        match self.pair(other) {
            Pair::Host(mut x, y) => {
                let scale = scale as f32;
                x.values.iter_mut().zip(&*y.values).for_each(|(x, y)| *x += scale * y);
                x.into()
            }
            #[cfg(feature = "cube")]
            Pair::Gpu(x, y) => {
                let sum = lumina_cube::elementwise::add_scaled(&x.gpu, &x.values, &y.values, scale as f32);
                x.with(sum, x.width).into()
            }
            #[cfg(feature = "burn")]
            Pair::Burn(x, y) => (x + if scale == 1.0 { y } else { y * scale }).into(),
        }
    }

    /// Both in the same place: where they are if both are there, else in tensors.
    pub(super) fn pair(self, other: Self) -> Pair {
        match (self.0, other.0) {
            (Activation::Host(x), Activation::Host(y)) => Pair::Host(x, y),
            #[cfg(feature = "cube")]
            (Activation::Gpu(x), Activation::Gpu(y)) => Pair::Gpu(x, y),
            #[cfg(feature = "cube")]
            (Activation::Gpu(x), Activation::Host(y)) => {
                let values = x.gpu.upload_f32(&y.values);
                let y = x.with(values, y.width);
                Pair::Gpu(x, y)
            }
            #[cfg(feature = "cube")]
            (Activation::Host(x), Activation::Gpu(y)) => {
                let values = y.gpu.upload_f32(&x.values);
                Pair::Gpu(y.with(values, x.width), y)
            }
            #[cfg(feature = "burn")]
            (Activation::Burn(x), y) => {
                let y = Self(y).into_tensor(&x.device());
                Pair::Burn(x, y)
            }
            #[cfg(feature = "burn")]
            (x, Activation::Burn(y)) => Pair::Burn(Self(x).into_tensor(&y.device()), y),
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

/// Two activations in the same place.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation")]
pub(super) enum Pair {
    Host(HostRows, HostRows),
    #[cfg(feature = "cube")]
    Gpu(GpuRows, GpuRows),
    #[cfg(feature = "burn")]
    Burn(burn::tensor::Tensor<2>, burn::tensor::Tensor<2>),
}

impl std::fmt::Debug for Hidden {
    /// The shape, without the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hidden").field("shape", &self.dims()).finish_non_exhaustive()
    }
}
