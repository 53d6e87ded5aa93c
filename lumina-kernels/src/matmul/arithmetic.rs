//! In which type a product is computed, and how its operands are cut into steps.

use std::ops::Range;

use super::kernel::FEW;
use crate::scratch::Lanes;
use crate::{Format, Isa};

/// The precision of activations in a matmul.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum ActivationPrecision {
    /// Activations stay `f32`: weights are dequantised or cast up, and each product is exact up to `f32` rounding.
    #[default]
    F32,
    /// Activations are rounded to what the processor multiplies fastest with the weights' format, as in PyTorch's `bf16` and
    /// llama.cpp: to `bf16` with `BF16` weights where the processor multiplies that, to 8-bit integers with a scale for
    /// each 32 with `Q8_0` and `Q4_0` weights. Otherwise as [`F32`](Self::F32).
    Reduced,
}

/// The type that a product is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// `f32`.
    Float,
    /// Pairs of `bf16` into `f32`.
    Bfloat,
    /// Tiles of pairs of `bf16` into `f32`, in the order in which AMX adds: the pairs' first and second halves by themselves for 16 pairs, and both
    /// to the result.
    Tiles,
    /// Blocks of 32 bytes into integers, scaled into `f32`; `offset` is what the packed weights have in excess.
    Bytes { offset: i32 },
    /// The same for many rows with AMX, and the same results: signed bytes by signed bytes, in tiles.
    TileBytes,
}

/// Elements of a block of [`Arithmetic::Bytes`].
pub(super) const BLOCK: usize = 32;
/// Words of a block of an activation row: 32 bytes, the scale, and the sum to begin with.
pub(super) const INPUT_BLOCK: usize = 10;
/// Vectors of a block of 16 weight rows: 32 bytes each, and the scales.
pub(super) const PANEL_BLOCK: usize = 9;

/// Vectors of a block of 16 weight rows in tiles, and words of one of an activation row: 32 bytes, and the scale.
pub(super) const TILE_BLOCK: usize = 9;

/// Words of a row that are multiplied before the next tile's: those of two panels fit the first-level cache.
pub(super) const TILE_RUN: usize = 128;

/// Blocks that are summed by themselves.
pub(super) const BLOCK_RUN: usize = 16;

impl Arithmetic {
    /// The arithmetic for `n` rows of activations.
    pub(super) fn choose(format: Format, precision: ActivationPrecision, isa: Isa, n: usize) -> Self {
        match (precision, format) {
            (ActivationPrecision::Reduced, Format::Q8_0 | Format::Q4_0) if isa >= Isa::Amx && n > FEW => {
                Self::TileBytes
            }
            (ActivationPrecision::Reduced, Format::BF16) if isa >= Isa::Amx => Self::Tiles,
            (ActivationPrecision::Reduced, Format::BF16) if isa >= Isa::Avx512Bf16 => Self::Bfloat,
            // VNNI multiplies unsigned with signed bytes, so the weights are shifted up.
            (ActivationPrecision::Reduced, Format::Q8_0) if isa >= Isa::Avx512Vnni => Self::Bytes { offset: 128 },
            (ActivationPrecision::Reduced, Format::Q8_0) => Self::Bytes { offset: 0 },
            (ActivationPrecision::Reduced, Format::Q4_0) => Self::Bytes { offset: 8 },
            _ => Self::Float,
        }
    }

    /// Elements of a row that one step takes.
    pub(super) fn step_elements(self) -> usize {
        match self {
            Self::Float => 1,
            Self::Bfloat | Self::Tiles => 2,
            Self::Bytes { .. } | Self::TileBytes => BLOCK,
        }
    }

    /// Vectors of a panel for one step.
    pub(super) fn step_vectors(self) -> usize {
        match self {
            Self::Float | Self::Bfloat | Self::Tiles => 1,
            Self::Bytes { .. } => PANEL_BLOCK,
            Self::TileBytes => TILE_BLOCK,
        }
    }

    /// Words of an activation row for one step.
    pub(super) fn step_words(self) -> usize {
        match self {
            Self::Float | Self::Bfloat | Self::Tiles => 1,
            Self::Bytes { .. } => INPUT_BLOCK,
            Self::TileBytes => TILE_BLOCK,
        }
    }

    /// Steps of a row, with those that fill it up with zeros.
    pub(super) fn steps(self, columns: usize) -> usize {
        let steps = columns.div_ceil(self.step_elements());
        match self {
            Self::Float | Self::Bfloat | Self::Tiles => steps.next_multiple_of(Lanes::COUNT),
            Self::Bytes { .. } | Self::TileBytes => steps,
        }
    }

    /// Words of a packed row of activations.
    pub(super) fn row_words(self, columns: usize) -> usize {
        self.steps(columns) * self.step_words()
    }

    /// The parts of a row that are summed by themselves, one after the other, before they are added to the result, in this order: the steps of
    /// each, in the order in which panels have them. Part of what a result is.
    ///
    /// Words are dealt to 16 parts in turn, as vectors have 16 lanes: whoever sums a row lane by lane, and whoever sums part after part, gets the
    /// same. Blocks of bytes go in runs of 16. Tiles add to the result itself, so that their parts are only what fits a cache.
    pub(super) fn parts(self, columns: usize) -> impl Iterator<Item = Range<usize>> {
        let steps = self.steps(columns);
        let len = match self {
            Self::Float | Self::Bfloat => steps / Lanes::COUNT,
            Self::Tiles => TILE_RUN,
            Self::Bytes { .. } | Self::TileBytes => BLOCK_RUN,
        };
        (0..steps).step_by(len.max(1)).map(move |first| first..(first + len).min(steps))
    }
}
