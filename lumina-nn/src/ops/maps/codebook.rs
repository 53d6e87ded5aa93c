//! The codebook of the VQGAN: the nearest entries of latents, and entries by code.

use super::{Maps, MapsData};
use crate::Result;
use crate::ops::ONE_PLACE;
use crate::ops::host::HostCodebook;

/// Positions that are compared with the codebook at a time; bounds the memory of the distances.
pub(in crate::ops) const CODEBOOK_CHUNK: usize = 256;

/// Entries `[codes, width]`. Made by [`Loader::codebook`](crate::Loader::codebook).
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub struct Codebook {
    pub(in crate::ops) entries: Entries,
}

#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub(crate) enum Entries {
    Host(HostCodebook),
    #[cfg(feature = "cube")]
    Gpu(GpuEntries),
    #[cfg(feature = "burn")]
    Burn(burn::module::Param<burn::tensor::Tensor<2>>),
}

/// Cloning it copies no entry.
#[cfg(feature = "cube")]
#[derive(Clone)]
pub(crate) struct GpuEntries {
    pub(crate) gpu: lumina_cube::Gpu,
    pub(crate) codebook: lumina_cube::conv::Codebook,
}

impl Codebook {
    pub(crate) fn new(entries: Entries) -> Self {
        Self { entries }
    }

    /// `[codes, width]`.
    pub fn dims(&self) -> [usize; 2] {
        match &self.entries {
            Entries::Host(own) => own.dims(),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => [own.codebook.codes(), own.codebook.width()],
            #[cfg(feature = "burn")]
            Entries::Burn(entries) => entries.dims(),
        }
    }

    /// These maps where the codebook is, and so its network: themselves, or copies.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), `Error::Gpu` where a device fails.
    pub fn place(&self, maps: Maps) -> Result<Maps> {
        match (&self.entries, maps.0) {
            (Entries::Host(_), MapsData::Host(maps)) => Ok(maps.into()),
            #[cfg(feature = "cube")]
            (Entries::Gpu(_), MapsData::Gpu(maps)) => Ok(Maps(MapsData::Gpu(maps))),
            #[cfg(feature = "burn")]
            (Entries::Burn(_), MapsData::Burn(maps)) => Ok(maps.into()),
            #[cfg(any(feature = "cube", feature = "burn"))]
            (entries, maps) => {
                let maps = Maps(maps);
                let shape = maps.dims();
                let values = maps.read()?;
                Ok(match entries {
                    Entries::Host(_) => super::on_host(values, shape),
                    #[cfg(feature = "cube")]
                    Entries::Gpu(own) => super::on_gpu(&own.gpu, &values, shape),
                    #[cfg(feature = "burn")]
                    Entries::Burn(entries) => crate::ops::burn::maps_on(&entries.device(), values, shape),
                })
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
            (Entries::Host(own), MapsData::Host(latents)) => Ok(own.nearest(latents)),
            #[cfg(feature = "cube")]
            (Entries::Gpu(own), MapsData::Gpu(latents)) => {
                let codes = own.gpu.read(&own.codebook.nearest(&own.gpu, &latents.maps))?;
                let is_one = |code: &u32| *code != lumina_cube::conv::NOT_FINITE;
                Ok(codes.into_iter().map(|code| Some(code).filter(is_one)).collect())
            }
            #[cfg(feature = "burn")]
            (Entries::Burn(entries), MapsData::Burn(latents)) => crate::ops::burn::nearest(entries.val(), latents),
            _ => unreachable!("{ONE_PLACE}"),
        }
    }

    /// The entries of `codes`, as latents `[batch, width, rows, columns]`.
    ///
    /// # Panics
    /// If a code is not in the codebook, or there are not `batch · rows · columns` of them.
    pub fn lookup(&self, codes: &[u32], grids: [usize; 3]) -> Maps {
        match &self.entries {
            Entries::Host(own) => own.lookup(codes, grids).into(),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => {
                let maps = own.codebook.lookup(&own.gpu, codes, grids);
                let precision = lumina_cube::conv::ConvPrecision::F32;
                Maps(MapsData::Gpu(super::GpuMaps { gpu: own.gpu.clone(), maps, precision }))
            }
            #[cfg(feature = "burn")]
            Entries::Burn(entries) => crate::ops::burn::lookup(entries.val(), codes, grids).into(),
        }
    }
}

/// The entry that is nearest to a position, from its products with all entries and the squares of their lengths.
pub(in crate::ops) fn nearest_entry(products: &[f32], norms: &[f32]) -> Option<u32> {
    // |z − e|² = |e|² − 2·z·e + |z|², and |z|² is the same for all codes.
    let distances = products.iter().zip(norms).map(|(product, norm)| norm - 2.0 * product);
    let nearest = distances
        .enumerate()
        .filter(|(_, distance)| distance.is_finite())
        .reduce(|best, candidate| if candidate.1 < best.1 { candidate } else { best });
    nearest.map(|(code, _)| code as u32)
}

#[cfg(feature = "cube")]
impl std::fmt::Debug for GpuEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuEntries").field("codebook", &self.codebook).finish_non_exhaustive()
    }
}
