//! The codebook of the VQGAN: the nearest entries of latents, and entries by code.

use burn::module::{Module, Param};
#[cfg(feature = "cube")]
use burn::tensor::{DType, TensorData};
use burn::tensor::{Device, Tensor};

use super::{Maps, MapsData};
use crate::Result;
use crate::ops::read;

/// Positions that are compared with the codebook at a time; bounds the memory of the distances.
const CHUNK: usize = 256;

/// Entries `[codes, width]`. Made by [`Loader::codebook`](crate::Loader::codebook).
#[derive(Module, Debug)]
pub struct Codebook {
    entries: Entries,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum Entries {
    Burn(Param<Tensor<2>>),
    #[cfg(feature = "cube")]
    Gpu(GpuEntries),
}

/// Cloning it copies no entry.
#[cfg(feature = "cube")]
#[derive(Module)]
struct GpuEntries {
    #[module(skip)]
    gpu: lumina_cube::Gpu,
    #[module(skip)]
    codebook: lumina_cube::conv::Codebook,
    /// The device of a tensor that is made of them.
    #[module(skip)]
    device: Device,
}

impl Codebook {
    pub(crate) fn new(entries: Param<Tensor<2>>) -> Self {
        Self { entries: Entries::Burn(entries) }
    }

    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(gpu: &lumina_cube::Gpu, codebook: lumina_cube::conv::Codebook, device: &Device) -> Self {
        Self { entries: Entries::Gpu(GpuEntries { gpu: gpu.clone(), codebook, device: device.clone() }) }
    }

    /// `[codes, width]`.
    pub fn dims(&self) -> [usize; 2] {
        match &self.entries {
            Entries::Burn(entries) => entries.dims(),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => [own.codebook.codes(), own.codebook.width()],
        }
    }

    /// The device of tensors that are made of the entries.
    pub fn device(&self) -> Device {
        match &self.entries {
            Entries::Burn(entries) => entries.device(),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => own.device.clone(),
        }
    }

    /// Feature maps of a tensor, where the codebook is, and so its network.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) where the device fails.
    pub fn maps(&self, tensor: Tensor<4>) -> Result<Maps> {
        match &self.entries {
            Entries::Burn(_) => Ok(tensor.into()),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => {
                let shape = tensor.dims();
                Ok(super::on_gpu(&own.gpu, &read(tensor)?, shape))
            }
        }
    }

    /// The code with the smallest squared L2 distance to each latent of `[batch, width, height, width]`, in the order
    /// batch, row, column. Of equal distances the smaller code wins. `None` where no distance is finite.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), `Error::Gpu` where the device fails.
    pub fn nearest(&self, latents: Maps) -> Result<Vec<Option<u32>>> {
        match (&self.entries, latents.0) {
            #[cfg(feature = "cube")]
            (Entries::Gpu(own), MapsData::Gpu(latents)) => {
                let codes = own.gpu.read(&own.codebook.nearest(&own.gpu, &latents.maps))?;
                let is_one = |code: &u32| *code != lumina_cube::conv::NOT_FINITE;
                Ok(codes.into_iter().map(|code| Some(code).filter(is_one)).collect())
            }
            (Entries::Burn(entries), MapsData::Burn(latents)) => nearest(entries.val(), latents),
            #[cfg(feature = "cube")]
            _ => unreachable!("{}", super::ONE_PLACE),
        }
    }

    /// The entries of `codes`, as latents `[batch, width, rows, columns]`.
    ///
    /// # Panics
    /// If a code is not in the codebook, or there are not `batch · rows · columns` of them.
    pub fn lookup(&self, codes: &[u32], [batch, rows, columns]: [usize; 3]) -> Maps {
        match &self.entries {
            Entries::Burn(entries) => {
                let codebook = entries.val();
                let width = codebook.dims()[1];
                let indices: Vec<i32> = codes.iter().map(|&code| code as i32).collect();
                let indices = Tensor::from_data(indices.as_slice(), &codebook.device());
                codebook.select(0, indices).reshape([batch, rows, columns, width]).permute([0, 3, 1, 2]).into()
            }
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => {
                let maps = own.codebook.lookup(&own.gpu, codes, [batch, rows, columns]);
                let precision = lumina_cube::conv::ConvPrecision::F32;
                Maps(MapsData::Gpu(super::GpuMaps { gpu: own.gpu.clone(), maps, precision }))
            }
        }
    }

    /// The entries as a tensor: the parameter, or a copy.
    pub fn tensor(&self) -> Tensor<2> {
        match &self.entries {
            Entries::Burn(entries) => entries.val(),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => {
                let values = own.codebook.read(&own.gpu).expect(crate::ops::hidden::NO_TENSORS);
                Tensor::from_data(TensorData::new(values, self.dims()), (&own.device, DType::F32))
            }
        }
    }

    /// Replaces the entries by others of their shape; gradients are recorded as before.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), `Error::Gpu` where the device fails.
    pub fn set(&mut self, entries: Tensor<2>) -> Result<()> {
        match &mut self.entries {
            Entries::Burn(own) => {
                *own = own.clone().map(|old| {
                    let tracked = old.is_require_grad();
                    entries.detach().set_require_grad(tracked)
                });
            }
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => {
                let shape = entries.dims();
                own.codebook = lumina_cube::conv::Codebook::new(&own.gpu, shape, &read(entries)?)?;
            }
        }
        Ok(())
    }
}

/// [`Codebook::nearest`] in tensors.
fn nearest(codebook: Tensor<2>, latents: Tensor<4>) -> Result<Vec<Option<u32>>> {
    let [batch, embed, height, width] = latents.dims();
    let flat = latents.permute([0, 2, 3, 1]).reshape([batch * height * width, embed]);
    let norms = read(codebook.clone().square().sum_dim(1))?;
    let transposed = codebook.transpose();
    let n_positions = batch * height * width;
    let mut codes = Vec::with_capacity(n_positions);
    for start in (0..n_positions).step_by(CHUNK) {
        let positions = flat.clone().narrow(0, start, CHUNK.min(n_positions - start));
        let products = read(positions.matmul(transposed.clone()))?;
        for row in products.chunks_exact(norms.len()) {
            // |z − e|² = |e|² − 2·z·e + |z|², and |z|² is the same for all codes.
            let distances = row.iter().zip(&norms).map(|(product, norm)| norm - 2.0 * product);
            let nearest = distances
                .enumerate()
                .filter(|(_, distance)| distance.is_finite())
                .reduce(|best, candidate| if candidate.1 < best.1 { candidate } else { best });
            codes.push(nearest.map(|(code, _)| code as u32));
        }
    }
    Ok(codes)
}

#[cfg(feature = "cube")]
impl std::fmt::Debug for GpuEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuEntries").field("codebook", &self.codebook).finish_non_exhaustive()
    }
}
