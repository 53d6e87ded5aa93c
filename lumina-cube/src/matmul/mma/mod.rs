//! Products by tensor cores, for devices that have them with fragments in registers (CUDA from compute capability 8.0).
//!
//! Weights are the 16 rows of a matrix instruction, up to eight rows of activations its columns. A lane's load of 16
//! bytes of weights serves two to four instructions as it lies in memory: inside an instruction any order of k will
//! do if both sides share it, so activations are packed in that order first (`pack`), but for up to eight rows beside
//! `bf16`, which are read as they are: a launch less for each input of a layer that decodes.
//!
//! # One order of sums
//!
//! k is cut into runs of equal length by its size and the format alone. A run is a chain of products from zero, and the
//! runs are added in their order, in `f32`. Up to 32 rows of activations each plane of a cube has a run (`few`); more
//! rows go through tiles in shared memory, where a plane walks all runs, or a cube has one and a second kernel adds
//! them (`many`). The instructions and their order are the same, and so are the bits of a row in any company.
//!
//! Runs are whole turns of a loop: activations are zeros beyond the end of k, and weights are some others of the row.

pub(crate) mod few;
mod fragments;
pub(crate) mod many;
pub(crate) mod pack;
#[cfg(all(test, feature = "wgpu"))]
mod tests;

use cubecl::prelude::*;

pub(super) use self::pack::{Packed, pack};
use super::{MatmulPrecision, Part};
use crate::weights::{BLOCK, Format, Matrix};
use crate::{Buffer, Gpu, tensor_cores};

/// Rows of weights of an instruction.
const TILE_OUTPUTS: usize = 16;

/// Rows of activations of an instruction.
const TILE_ROWS: usize = 8;

/// The most runs of k: planes of a cube in `few`.
const MAX_RUNS: usize = 8;

/// What a kernel multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// The weights' format, in 16 bits or fewer.
    format: Format,
    /// 16-bit numbers of an activation, beside weights in 16 bits.
    parts: usize,
    /// Rows of weights have an even number of blocks, so that the scales of two lie in one word.
    paired_scales: bool,
    /// The instruction is computed number by number instead, for tests on devices without it.
    emulated: bool,
}

impl Kind {
    pub(crate) fn new(format: Format, columns: usize, precision: MatmulPrecision) -> Self {
        let parts = if precision == MatmulPrecision::High && !format.has_scales() { 2 } else { 1 };
        let paired_scales = columns.is_multiple_of(2 * BLOCK);
        Self { format, parts, paired_scales: format.has_scales() && paired_scales, emulated: false }
    }

    /// Numbers of k in a step: a load of each of the four lanes that have a row.
    const fn step(self) -> usize {
        4 * self.format.per_load()
    }

    /// Blocks of a step.
    const fn blocks(self) -> usize {
        self.step() / BLOCK
    }

    /// Instructions of a step, for each part.
    const fn products(self) -> usize {
        if matches!(self.format, Format::Q4_0) { 4 } else { 2 }
    }

    /// Loads of activations that a lane has for a step.
    const fn loads(self) -> usize {
        if matches!(self.format, Format::Q4_0) { 2 } else { self.parts }
    }

    /// Steps that are loaded at once in `few`: runs are multiples of it.
    const fn unroll(self) -> usize {
        if self.format.has_scales() { 2 } else { 4 }
    }
}

/// How k is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Runs {
    count: usize,
    /// Steps of a run.
    len: usize,
}

impl Runs {
    /// It depends on the shape and the format alone, as the order of sums does.
    fn new(kind: Kind, columns: usize) -> Self {
        let steps = columns.div_ceil(kind.step()).max(1);
        let len = steps.div_ceil(MAX_RUNS).next_multiple_of(kind.unroll());
        Self { count: steps.div_ceil(len), len }
    }

    /// Steps of all runs, and so of packed activations.
    fn steps(self) -> usize {
        self.count * self.len
    }
}

/// Whether a device has the instructions of this tier.
pub(crate) fn is_offered(client: &Client) -> bool {
    tensor_cores::are_offered(client, &[Format::F16, Format::BF16, Format::Q8_0])
}

/// Whether this tier has kernels for a matrix.
pub(super) fn takes(matrix: &Matrix) -> bool {
    matrix.format() != Format::F32 && matrix.columns() > 0 && matrix.columns().is_multiple_of(BLOCK)
}

/// The matrices of one launch.
pub(super) struct Launch<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) kind: Kind,
    pub(super) matrix: &'a Matrix,
    /// Their parts, without [`Part::end`].
    pub(super) parts: [Part; super::MAX_GROUP],
    /// Rows of activations.
    pub(super) n: usize,
    pub(super) x: &'a Packed,
    /// Where the results go.
    pub(super) out: &'a Buffer,
}

impl Launch<'_> {
    /// The parts with cubes of so many rows of weights.
    fn places(&self, outputs: usize) -> [Part; super::MAX_GROUP] {
        let mut end = 0;
        self.parts.map(|part| {
            end += part.outputs.div_ceil(outputs as u32);
            Part { end, ..part }
        })
    }

    fn loads(&self) -> u32 {
        self.matrix.format().row_loads(self.matrix.columns()) as u32
    }

    fn runs(&self) -> Runs {
        Runs::new(self.kind, self.matrix.columns())
    }

    pub(super) fn run(&self) {
        if self.n <= few::MAX_TILES * TILE_ROWS { few::launch(self) } else { many::launch(self) }
    }
}
