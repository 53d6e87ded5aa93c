//! Feature maps of the VQGAN, and the operators on them: in host memory, on a GPU, or in tensors.

mod attention;
mod bands;
mod codebook;
mod conv;
mod group_norm;
mod patches;

use lumina_checkpoint::Dtype;

pub use self::attention::maps_attention;
pub use self::bands::Bands;
pub use self::codebook::Codebook;
pub(crate) use self::codebook::Entries;
#[cfg(feature = "cube")]
pub(crate) use self::codebook::GpuEntries;
pub(in crate::ops) use self::codebook::{CODEBOOK_CHUNK, nearest_entry};
pub(crate) use self::conv::ConvWeights;
#[cfg(feature = "cube")]
pub(crate) use self::conv::GpuConv;
pub use self::conv::{Conv2d, downsample, norm_swish_conv, upsample};
pub use self::group_norm::{GroupNorm, norm_swish};
use super::host::HostMaps;
use crate::{Compute, Result};

/// Feature maps `[batch, channels, height, width]`.
///
/// With [`Compute::cpu`] they are in host memory, in `f32` but for small ones. On a GPU they are in its memory, in
/// `f32`, channels last. Elsewhere they are a tensor, which may record gradients. The operators take either, so a
/// network is written once. Maps are where the weights of their network are; cloning them copies no value.
///
/// # Panics
/// Operators do where their operands are in different places.
#[derive(Clone)]
pub struct Maps(pub(super) MapsData);

/// Where feature maps are.
#[allow(clippy::large_enum_variant, reason = "there are a few at a time, on the stack")]
#[derive(Clone)]
pub(super) enum MapsData {
    Host(HostMaps),
    #[cfg(feature = "cube")]
    Gpu(GpuMaps),
    #[cfg(feature = "burn")]
    Burn(burn::tensor::Tensor<4>),
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

impl From<HostMaps> for Maps {
    fn from(maps: HostMaps) -> Self {
        Self(MapsData::Host(maps))
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

impl Maps {
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
        if compute.is_host() {
            return on_host(values, shape);
        }
        in_tensors!(values, shape => super::burn::maps(compute, values, shape))
    }

    /// `[batch, channels, height, width]`.
    pub fn dims(&self) -> [usize; 4] {
        match &self.0 {
            MapsData::Host(own) => own.shape(),
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => own.maps.shape(),
            #[cfg(feature = "burn")]
            MapsData::Burn(tensor) => tensor.dims(),
        }
    }

    /// The type of the numbers.
    pub fn dtype(&self) -> Dtype {
        match &self.0 {
            MapsData::Host(HostMaps::F32(_)) => Dtype::F32,
            MapsData::Host(HostMaps::F64(_)) => Dtype::F64,
            #[cfg(feature = "cube")]
            MapsData::Gpu(_) => Dtype::F32,
            #[cfg(feature = "burn")]
            MapsData::Burn(tensor) => super::burn::dtype_of(tensor),
        }
    }

    /// The same numbers in another type. In host memory it is `f64` or `f32`; on a GPU they are in `f32`.
    #[must_use]
    pub fn cast(self, dtype: Dtype) -> Self {
        match self.0 {
            MapsData::Host(own) if dtype == Dtype::F64 => own.into_f64().into(),
            MapsData::Host(own) => own.into_f32().into(),
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => Self(MapsData::Gpu(own)),
            #[cfg(feature = "burn")]
            MapsData::Burn(tensor) => super::burn::cast(tensor, dtype).into(),
        }
    }

    /// The maps in the type that a layer computes them in: `f64` where they are small, else `dtype`.
    ///
    /// A group norm over a few values divides by their spread, which can be a thousandth of their magnitude, and so
    /// enlarges rounding errors that much. In larger maps the spread is that of the image. Small ones cost next to
    /// nothing. Where gradients are recorded, and elsewhere than on the processor, nothing changes.
    #[must_use]
    pub fn in_precision(self, dtype: Dtype) -> Self {
        let [_, _, height, width] = self.dims();
        let is_small = height * width <= MAX_PRECISE_POSITIONS && dtype == Dtype::F32;
        let precise = is_small
            && match &self.0 {
                MapsData::Host(_) => true,
                #[cfg(feature = "cube")]
                MapsData::Gpu(_) => false,
                #[cfg(feature = "burn")]
                MapsData::Burn(tensor) => super::burn::can_be_precise(tensor),
            };
        self.cast(if precise { Dtype::F64 } else { dtype })
    }

    /// For convolutions whose numbers are rounded to `f16` where tensor cores multiply them. Elsewhere nothing changes.
    #[must_use]
    pub fn in_halves(self) -> Self {
        match self.0 {
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => {
                Self(MapsData::Gpu(GpuMaps { precision: lumina_cube::conv::ConvPrecision::F16, ..own }))
            }
            other => Self(other),
        }
    }

    /// The values in `f32`, in the order of the shape.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), `Error::Gpu` where the device fails.
    pub fn read(self) -> Result<Vec<f32>> {
        match self.0 {
            MapsData::Host(own) => Ok(own.into_values()),
            #[cfg(feature = "cube")]
            MapsData::Gpu(own) => Ok(own.gpu.read_f32(&own.maps.to_planes(&own.gpu))?),
            #[cfg(feature = "burn")]
            MapsData::Burn(tensor) => super::read(tensor),
        }
    }
}

/// Values in host memory.
fn on_host(values: Vec<f32>, shape: [usize; 4]) -> Maps {
    HostMaps::new(values, shape).into()
}

/// Values in planes, on a GPU.
#[cfg(feature = "cube")]
fn on_gpu(gpu: &lumina_cube::Gpu, values: &[f32], shape: [usize; 4]) -> Maps {
    let maps = lumina_cube::conv::Maps::from_planes(gpu, &gpu.upload_f32(values), shape);
    let precision = lumina_cube::conv::ConvPrecision::F32;
    Maps(MapsData::Gpu(GpuMaps { gpu: gpu.clone(), maps, precision }))
}

impl std::fmt::Debug for Maps {
    /// The shape, without the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("shape", &self.dims()).finish_non_exhaustive()
    }
}
