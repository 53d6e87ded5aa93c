//! The codebook of the VQGAN in host memory.

use std::sync::Arc;

use lumina_kernels::matmul::f32_gemm::{GemmShape, Operand, gemm};
use rayon::prelude::*;

use super::HostMaps;
use crate::ops::maps::{CODEBOOK_CHUNK, nearest_entry};

/// Entries `[codes, width]`. Cloning it copies none.
#[derive(Clone)]
pub(crate) struct HostCodebook {
    entries: Arc<[f32]>,
    /// The square of each entry's length.
    norms: Arc<[f32]>,
    width: usize,
}

impl HostCodebook {
    pub(crate) fn new(entries: Vec<f32>, width: usize) -> Self {
        let square = |entry: &[f32]| entry.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>() as f32;
        let norms = entries.chunks_exact(width.max(1)).map(square).collect();
        Self { entries: entries.into(), norms, width }
    }

    /// `[codes, width]`.
    pub(in crate::ops) fn dims(&self) -> [usize; 2] {
        [self.norms.len(), self.width]
    }

    #[cfg(feature = "burn")]
    pub(in crate::ops) fn entries(&self) -> &[f32] {
        &self.entries
    }

    /// [`Codebook::nearest`](crate::ops::Codebook::nearest).
    pub(in crate::ops) fn nearest(&self, latents: HostMaps) -> Vec<Option<u32>> {
        let [_, width, rows, columns] = latents.shape();
        let (values, plane) = (latents.into_values(), (rows * columns).max(1));
        // Channels come first in maps, and last in entries.
        let images = values.chunks_exact(width * plane);
        let positions = images.flat_map(|image| (0..plane).flat_map(move |at| image[at..].iter().step_by(plane)));
        let positions: Vec<f32> = positions.copied().collect();
        let (n, codes) = (positions.len() / width.max(1), self.norms.len());
        let mut nearest = Vec::with_capacity(n);
        for positions in positions.chunks((CODEBOOK_CHUNK * width).max(1)) {
            let shape = GemmShape { m: positions.len() / width, n: codes, k: width };
            let products = gemm(Operand::Normal(positions), Operand::Transposed(&self.entries), shape);
            nearest.par_extend(products.par_chunks_exact(codes.max(1)).map(|row| nearest_entry(row, &self.norms)));
        }
        nearest
    }

    /// [`Codebook::lookup`](crate::ops::Codebook::lookup).
    pub(in crate::ops) fn lookup(&self, codes: &[u32], [batch, rows, columns]: [usize; 3]) -> HostMaps {
        let (width, plane) = (self.width, (rows * columns).max(1));
        let entry = |code: u32| &self.entries[code as usize * width..][..width];
        let images = codes.chunks_exact(plane);
        let values = images
            .flat_map(|codes| (0..width).flat_map(move |channel| codes.iter().map(move |&code| entry(code)[channel])));
        HostMaps::new(values.collect(), [batch, width, rows, columns])
    }
}

impl std::fmt::Debug for HostCodebook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostCodebook").field("shape", &self.dims()).finish_non_exhaustive()
    }
}
