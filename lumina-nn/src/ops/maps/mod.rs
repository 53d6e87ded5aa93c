//! Feature maps of the VQGAN, and the operators on them: on a GPU, or in tensors.

mod attention;
mod bands;
mod codebook;
mod conv;
mod group_norm;

use burn::tensor::{DType, Device, Tensor, TensorData};

pub use self::attention::maps_attention;
pub use self::bands::Bands;
pub use self::codebook::Codebook;
pub use self::conv::{Conv2d, downsample, norm_swish_conv, upsample};
pub use self::group_norm::{GroupNorm, norm_swish};
use super::row_writer::is_on_cpu;
#[cfg(feature = "cube")]
use crate::Error;
use crate::{Compute, Result};

/// Feature maps `[batch, channels, height, width]`.
///
/// On a GPU they are in its memory, in `f32`, channels last. Elsewhere they are a tensor, which may record gradients.
/// The operators take either, so a network is written once.
#[derive(Clone)]
pub struct Maps(pub(super) MapsData);

/// Where feature maps are.
#[derive(Clone)]
pub(super) enum MapsData {
    #[cfg(feature = "cube")]
    Gpu(GpuMaps),
    Burn(Tensor<4>),
}

/// Feature maps on a GPU.
#[cfg(feature = "cube")]
#[derive(Clone)]
pub(super) struct GpuMaps {
    pub(super) gpu: lumina_cube::Gpu,
    pub(super) maps: lumina_cube::conv::Maps,
    /// That of the convolutions that they go through.
    pub(super) precision: lumina_cube::conv::ConvPrecision,
}

#[cfg(feature = "cube")]
impl GpuMaps {
    /// Others on the same device, for convolutions as exact as those before.
    pub(super) fn with(&self, maps: lumina_cube::conv::Maps) -> Maps {
        Maps(MapsData::Gpu(Self { gpu: self.gpu.clone(), maps, precision: self.precision }))
    }
}

impl From<Tensor<4>> for Maps {
    fn from(tensor: Tensor<4>) -> Self {
        Self(MapsData::Burn(tensor))
    }
}

/// Until it is dropped, no other thread launches anything on the GPU.
#[must_use]
pub struct Turn<'a> {
    #[cfg(feature = "cube")]
    _guard: Option<std::sync::MutexGuard<'a, ()>>,
    #[cfg(not(feature = "cube"))]
    _guard: std::marker::PhantomData<&'a ()>,
}

/// Activations of at most this many positions, 8×8, are computed in `f64`.
const MAX_PRECISE_POSITIONS: usize = 64;

/// Why maps on a GPU meet no tensors.
#[cfg(feature = "cube")]
const ONE_PLACE: &str = "maps are where the weights of their network are, which its loader makes sure of";

impl Maps {
    /// Where networks of feature maps compute: on a GPU, by the kernels of `lumina-cube`, or in tensors. Of several
    /// devices it is the first.
    pub fn compute(compute: &Compute) -> Compute {
        let first = compute.devices().swap_remove(0);
        #[cfg(feature = "cube")]
        if first.gpu().is_some() {
            return first;
        }
        first.in_tensors()
    }

    /// The most bytes that one activation may have where `compute` has it: on a GPU indices have 32 bits.
    pub fn max_bytes(compute: &Compute) -> u64 {
        #[cfg(feature = "cube")]
        if compute.gpu().is_some() {
            return u64::from(u32::MAX) * size_of::<f32>() as u64;
        }
        let _ = compute;
        u64::MAX
    }

    /// A turn on the GPU, if `compute` has one: launches of one pass are made in it.
    pub fn turn(compute: &Compute) -> Turn<'_> {
        #[cfg(not(feature = "cube"))]
        let _ = compute;
        Turn {
            #[cfg(feature = "cube")]
            _guard: compute.gpu().map(lumina_cube::Gpu::turn),
            #[cfg(not(feature = "cube"))]
            _guard: std::marker::PhantomData,
        }
    }

    /// Maps of these values, `[batch, channels, height, width]`, where `compute` has them.
    ///
    /// # Panics
    /// If there are more or fewer values.
    pub fn new(compute: &Compute, values: Vec<f32>, shape: [usize; 4]) -> Self {
        #[cfg(feature = "cube")]
        if let Some(gpu) = compute.gpu() {
            return on_gpu(gpu, &values, shape);
        }
        Tensor::from_data(TensorData::new(values, shape), compute.options()).into()
    }

    /// `[batch, channels, height, width]`.
    pub fn dims(&self) -> [usize; 4] {
        match &self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => own.maps.shape(),
            MapsData::Burn(tensor) => tensor.dims(),
        }
    }

    /// The type of the numbers.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(_) => DType::F32,
            MapsData::Burn(tensor) => tensor.dtype(),
        }
    }

    /// The same numbers in another type. On a GPU they are in `f32`.
    #[must_use]
    pub fn cast(self, dtype: DType) -> Self {
        match self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => Self(MapsData::Gpu(own)),
            MapsData::Burn(tensor) => as_type(tensor, dtype).into(),
        }
    }

    /// The maps in the type that a layer computes them in: `f64` where they are small, else `dtype`.
    ///
    /// A group norm over a few values divides by their spread, which can be a thousandth of their magnitude, and so
    /// enlarges rounding errors that much. In larger maps the spread is that of the image. Small ones cost next to
    /// nothing. Where gradients are recorded, and on other backends, nothing changes.
    #[must_use]
    pub fn in_precision(self, dtype: DType) -> Self {
        match self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => Self(MapsData::Gpu(own)),
            MapsData::Burn(x) => {
                let [_, _, height, width] = x.dims();
                let is_small = height * width <= MAX_PRECISE_POSITIONS;
                let precise = is_small && dtype == DType::F32 && (x.dtype() == DType::F64 || is_on_cpu(&x));
                as_type(x, if precise { DType::F64 } else { dtype }).into()
            }
        }
    }

    /// For convolutions whose numbers are rounded to `f16` where tensor cores multiply them. Elsewhere nothing changes.
    #[must_use]
    pub fn in_halves(self) -> Self {
        match self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => {
                Self(MapsData::Gpu(GpuMaps { precision: lumina_cube::conv::ConvPrecision::F16, ..own }))
            }
            MapsData::Burn(tensor) => tensor.into(),
        }
    }

    /// As a tensor: itself, or one on this device.
    ///
    /// # Errors
    /// `Error::Gpu` where the GPU fails.
    pub fn into_tensor(self, device: &Device) -> Result<Tensor<4>> {
        match self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => {
                let values = own.gpu.read_f32(&own.maps.to_planes(&own.gpu)).map_err(Error::from)?;
                Ok(Tensor::from_data(TensorData::new(values, own.maps.shape()), (device, DType::F32)))
            }
            MapsData::Burn(tensor) => {
                let _ = device;
                Ok(tensor)
            }
        }
    }

    /// The values in `f32`, in the order of the shape.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), `Error::Gpu` where the device fails.
    pub fn read(self) -> Result<Vec<f32>> {
        match self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => Ok(own.gpu.read_f32(&own.maps.to_planes(&own.gpu))?),
            MapsData::Burn(tensor) => super::read(tensor),
        }
    }
}

/// Values in planes, on a GPU.
#[cfg(feature = "cube")]
fn on_gpu(gpu: &lumina_cube::Gpu, values: &[f32], shape: [usize; 4]) -> Maps {
    let maps = lumina_cube::conv::Maps::from_planes(gpu, &gpu.upload_f32(values), shape);
    let precision = lumina_cube::conv::ConvPrecision::F32;
    Maps(MapsData::Gpu(GpuMaps { gpu: gpu.clone(), maps, precision }))
}

/// The tensor in another type.
fn as_type<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

impl std::fmt::Debug for Maps {
    /// The shape, without the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("shape", &self.dims()).finish_non_exhaustive()
    }
}
