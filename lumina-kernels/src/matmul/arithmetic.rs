//! In which type a matmul is computed, and how its operands are cut into steps.

use std::ops::Range;

use super::blocks::{ActivationBlock, PanelBlock};
use super::kernel::MAX_GEMV_ROWS;
use crate::scratch::Lanes;
use crate::{Format, Isa};

/// The precision of activations in a matmul.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum ActivationPrecision {
    /// Activations stay `f32`: weights are dequantised or cast up, and each product is exact up to `f32` rounding.
    #[default]
    F32,
    /// Activations are rounded to what the processor multiplies fastest with the weights' format, as in PyTorch's
    /// `bf16` and llama.cpp: to `bf16` with `BF16` weights where the processor multiplies that, to 8-bit integers with
    /// a scale for each 32 with `Q8_0` and `Q4_0` weights. Otherwise as [`F32`](Self::F32).
    Reduced,
}

/// The types of a matmul's operands and sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// `f32`.
    F32,
    /// Pairs of `bf16`, summed in `f32`.
    Bf16,
    /// Tiles of pairs of `bf16`, summed in `f32` in the order of AMX: for 16 pairs the first and the second halves by
    /// themselves, and both to the result.
    AmxBf16,
    /// Blocks of 32 8-bit integers, summed as integers and scaled in `f32`. `offset` is what the packed weights have in
    /// excess.
    Int8 { offset: i32 },
    /// The same for GEMM with AMX, with the same results: signed times signed integers, in tiles.
    AmxInt8,
}

/// Elements of a block of [`Arithmetic::Int8`].
pub(super) const BLOCK: usize = 32;

/// Words of an activation row's block for AMX: 32 integers and the scale. They are stored apart, see
/// `activations::pack`.
pub(super) const AMX_BLOCK_WORDS: usize = 9;

/// Steps of a row that [`Arithmetic::AmxBf16`] multiplies before the next tile's: those of two panels fit the
/// first-level cache.
pub(super) const AMX_PART: usize = 128;

/// Blocks that are summed by themselves.
pub(super) const BLOCK_PART: usize = 16;

impl Arithmetic {
    /// The arithmetic for `n` rows of activations.
    pub(super) fn choose(format: Format, precision: ActivationPrecision, isa: Isa, n: usize) -> Self {
        use ActivationPrecision::Reduced;
        match (precision, format) {
            (Reduced, Format::Q8_0 | Format::Q4_0) if isa >= Isa::Amx && n > MAX_GEMV_ROWS => Self::AmxInt8,
            (Reduced, Format::BF16) if isa >= Isa::Amx => Self::AmxBf16,
            (Reduced, Format::BF16) if isa >= Isa::Avx512Bf16 => Self::Bf16,
            // VNNI multiplies unsigned by signed integers, so the weights are shifted up.
            (Reduced, Format::Q8_0) if isa >= Isa::Avx512Vnni => Self::Int8 { offset: 128 },
            (Reduced, Format::Q8_0) => Self::Int8 { offset: 0 },
            (Reduced, Format::Q4_0) => Self::Int8 { offset: 8 },
            _ => Self::F32,
        }
    }

    /// Elements of a row in a step.
    pub(super) fn step_elements(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 | Self::AmxBf16 => 2,
            Self::Int8 { .. } | Self::AmxInt8 => BLOCK,
        }
    }

    /// Vectors of a panel in a step.
    pub(super) fn step_vectors(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::AmxBf16 => 1,
            Self::Int8 { .. } | Self::AmxInt8 => PanelBlock::VECTORS,
        }
    }

    /// Words of an activation row in a step.
    pub(super) fn step_words(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::AmxBf16 => 1,
            Self::Int8 { .. } => ActivationBlock::WORDS,
            Self::AmxInt8 => AMX_BLOCK_WORDS,
        }
    }

    /// Steps of a row, including the zeros that pad it.
    pub(super) fn steps(self, columns: usize) -> usize {
        let steps = columns.div_ceil(self.step_elements());
        match self {
            Self::F32 | Self::Bf16 | Self::AmxBf16 => steps.next_multiple_of(Lanes::COUNT),
            Self::Int8 { .. } | Self::AmxInt8 => steps,
        }
    }

    /// Words of a packed row of activations.
    pub(super) fn row_words(self, columns: usize) -> usize {
        self.steps(columns) * self.step_words()
    }

    /// The parts of a row that are summed by themselves, one after the other, before they are added to the result in
    /// this order: the range of steps of each, in the order of panels. It determines the result.
    ///
    /// Words are dealt to 16 parts in turn, as vectors have 16 lanes, so summing a row lane by lane and part by part is
    /// the same. Integers have parts of 16 blocks. [`AmxBf16`](Self::AmxBf16) adds to the result itself, so its parts
    /// are only what fits a cache.
    pub(super) fn parts(self, columns: usize) -> impl Iterator<Item = Range<usize>> {
        let steps = self.steps(columns);
        let len = match self {
            Self::F32 | Self::Bf16 => steps / Lanes::COUNT,
            Self::AmxBf16 => AMX_PART,
            Self::Int8 { .. } | Self::AmxInt8 => BLOCK_PART,
        };
        (0..steps).step_by(len.max(1)).map(move |first| first..(first + len).min(steps))
    }
}
