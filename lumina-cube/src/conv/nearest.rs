//! The codebook: the nearest entry of each latent, and entries by code.

use std::fmt;

use cubecl::prelude::*;

use super::tiles::Call;
use super::{LOAD, Maps, padded};
use crate::{Buffer, Error, Gpu, Result, embedding};

/// Units of a cube that has a latent.
const UNITS: u32 = 256;

/// The most words of products at a time: 16 MiB. At least one latent's are there.
const PRODUCT_WORDS: usize = 4 << 20;

/// The code of a latent that has no distance which is finite.
pub const NOT_FINITE: u32 = u32::MAX;

/// Codes and their vectors on a device.
#[derive(Clone)]
pub struct Codebook {
    /// `[codes, width]`, rows padded.
    entries: Buffer,
    /// `[width, codes]`, both padded.
    transposed: Buffer,
    /// The squared length of each.
    norms: Buffer,
    codes: usize,
    width: usize,
}

/// Grid: a cube a latent, folded. The least of `norm − 2 · product`, of equal ones the first.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    products: &[f32],
    norms: &[f32],
    nearest: &mut [u32],
    codes: u32,
    row: u32,
    first: u32,
    latents: u32,
) {
    let mut distances = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut indices = Shared::<[u32]>::new_slice(comptime!(UNITS as usize));
    let latent = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let base = min(latent, latents - 1u32) * row;
    let mut best = 3.402_823_5e38f32;
    let mut index = comptime!(NOT_FINITE).runtime();
    let mut code = UNIT_POS;
    while code < codes {
        let distance = fma(-2.0f32, products[(base + code) as usize], norms[code as usize]);
        // By its bits, as compilers may take it that numbers are finite.
        let is_finite = u32::reinterpret(distance) & 0x7f80_0000u32 != 0x7f80_0000u32;
        if is_finite && (distance < best || index == comptime!(NOT_FINITE)) {
            best = distance;
            index = code;
        }
        code += comptime!(UNITS);
    }
    distances[UNIT_POS as usize] = best;
    indices[UNIT_POS as usize] = index;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(UNITS.ilog2()) {
        let others = comptime!(UNITS >> (step + 1));
        if UNIT_POS < others {
            let own = UNIT_POS as usize;
            let other = (UNIT_POS + others) as usize;
            let closer = distances[other] < distances[own]
                || (distances[other] == distances[own] && indices[other] < indices[own])
                || indices[own] == comptime!(NOT_FINITE);
            if closer && indices[other] != comptime!(NOT_FINITE) {
                distances[own] = distances[other];
                indices[own] = indices[other];
            }
        }
        sync_cube();
    }
    if UNIT_POS == 0 && latent < latents {
        nearest[(first + latent) as usize] = indices[0];
    }
}

impl Codebook {
    /// Copies a codebook `[codes, width]` to the device.
    ///
    /// # Errors
    /// [`Error::Weights`] where it is of another size or empty, [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, [codes, width]: [usize; 2], entries: &[f32]) -> Result<Self> {
        if codes.checked_mul(width) != Some(entries.len()) || entries.is_empty() {
            return Err(Error::Weights { what: "codebook", found: entries.len(), shape: vec![codes, width] });
        }
        let (row, column) = (padded(width), padded(codes));
        let mut rows = vec![0.0; codes * row];
        let mut transposed = vec![0.0; row * column];
        let mut norms = vec![0.0; codes];
        for (code, entry) in entries.chunks_exact(width).enumerate() {
            rows[code * row..][..width].copy_from_slice(entry);
            entry.iter().enumerate().for_each(|(at, value)| transposed[at * column + code] = *value);
            norms[code] = entry.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() as f32;
        }
        let [entries, transposed, norms] = [rows, transposed, norms].map(|values| gpu.upload_f32(&values));
        gpu.check(&entries)?;
        gpu.check(&transposed)?;
        Ok(Self { entries, transposed, norms, codes, width })
    }

    /// Number of codes.
    pub fn codes(&self) -> usize {
        self.codes
    }

    /// Channels of an entry.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The entries, `[codes, width]`, on the host.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<f32>> {
        let rows = gpu.read_f32(&self.entries)?;
        Ok(rows.chunks_exact(padded(self.width)).flat_map(|row| row[..self.width].iter().copied()).collect())
    }

    /// The code of the nearest entry of each position of `latents` `[batch, width, height, width]`: the one with the
    /// least `|e|² − 2 · z · e`, of equal ones the smallest; [`NOT_FINITE`] where none is finite.
    ///
    /// # Panics
    /// If the latents have other channels.
    pub fn nearest(&self, gpu: &Gpu, latents: &Maps) -> Buffer {
        assert_eq!(latents.shape[1], self.width, "latents have the channels of the codebook");
        let positions = latents.positions();
        let row = padded(self.codes);
        let nearest = gpu.empty(positions);
        let chunk = (PRODUCT_WORDS / row).clamp(1, positions.max(1));
        for start in (0..positions).step_by(chunk) {
            let rows = chunk.min(positions - start);
            let products = gpu.empty(rows * row);
            let mut call = Call::product(gpu, rows, &latents.values, &self.transposed, &products);
            call.size.inputs = latents.loads() as u32;
            call.size.outputs = (row / LOAD) as u32;
            call.size.weight_rows = padded(self.width) as u32;
            call.size.first = (start * latents.loads()) as u32;
            call.run();
            // SAFETY: the products are `[rows, row]`, and there is a code for each position.
            unsafe {
                kernel::launch_unchecked(
                    gpu.client(),
                    gpu.line(rows),
                    CubeDim::new_1d(UNITS),
                    products.arg(1),
                    self.norms.arg(1),
                    nearest.arg(1),
                    self.codes as u32,
                    row as u32,
                    start as u32,
                    rows as u32,
                );
            }
        }
        nearest
    }

    /// The entries of `codes`, `[batch, rows, columns]`, as maps `[batch, width, rows, columns]`.
    ///
    /// # Panics
    /// If there are more or fewer codes, or one is not in the codebook.
    pub fn lookup(&self, gpu: &Gpu, codes: &[u32], [batch, rows, columns]: [usize; 3]) -> Maps {
        assert_eq!(codes.len(), batch * rows * columns, "codes of {batch} grids of {rows}x{columns}");
        assert!(codes.iter().all(|&code| (code as usize) < self.codes), "codes are below {}", self.codes);
        let codes = gpu.upload(codes);
        let values = embedding::select(gpu, &self.entries, padded(self.width), &codes);
        Maps { values, shape: [batch, self.width, rows, columns] }
    }
}

impl fmt::Debug for Codebook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codebook").field("codes", &self.codes).field("width", &self.width).finish_non_exhaustive()
    }
}
