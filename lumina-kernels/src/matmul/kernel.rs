//! The inner loops of each instruction set, behind one pair of functions.
//!
//! A *panel* is 16 rows of the weights, one a lane, for some steps: `[steps]` vectors, or records of [`PANEL_BLOCK`] vectors. Panels come
//! in groups of [`GROUP`], so that the sums of a group hide the latency of one another.
//!
//! [`PANEL_BLOCK`]: super::arithmetic::PANEL_BLOCK

use super::arithmetic::Arithmetic;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512, avx512_pack};
use crate::scratch::Lanes;
use crate::{Format, Isa, Matrix};

/// Panels that are multiplied side by side.
pub(super) const GROUP: usize = 2;
/// Rows of the weights in a group.
pub(super) const GROUP_ROWS: usize = GROUP * Lanes::COUNT;

/// The part of a matrix that becomes a panel.
pub(super) struct Source<'a> {
    pub(super) matrix: Matrix<'a>,
    /// First of the 16 rows. Rows beyond the last are taken to be the last one.
    pub(super) row: usize,
    /// First step.
    pub(super) step: usize,
    /// Number of steps.
    pub(super) steps: usize,
    /// What will be wanted next, to be fetched from memory meanwhile.
    pub(super) ahead: &'a [u8],
}

impl<'a> Source<'a> {
    /// The bytes of row `lane` from byte `start` on.
    pub(super) fn lane(&self, lane: usize, start: usize) -> &'a [u8] {
        &self.matrix.row((self.row + lane).min(self.matrix.rows() - 1))[start..]
    }
}

/// Fills a panel of `source.steps` steps.
type Pack = unsafe fn(source: &Source<'_>, panel: &mut [Lanes]);

/// Multiplies a group of panels with a tile of `rows` activation rows, both of the same steps, and adds to `sums` `[rows, GROUP]`.
type Multiply = unsafe fn(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes]);

/// How one arithmetic is carried out for one format on one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub(super) arithmetic: Arithmetic,
    /// Most activation rows of a tile.
    pub(super) tile: usize,
    pack: Pack,
    multiply: Multiply,
}

impl Kernel {
    /// The best for an instruction set, which the processor must have: `None` if it has not.
    pub(super) fn new(arithmetic: Arithmetic, format: Format, isa: Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        let (tile, pack, multiply): (usize, Pack, Multiply) = match isa {
            Isa::Portable => (portable::TILE, portable::pack, portable::multiply(arithmetic)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (avx2::TILE, avx2::pack(arithmetic, format), avx2::multiply(arithmetic)),
            #[cfg(target_arch = "x86_64")]
            // Without VNNI, bytes are multiplied by AVX2.
            Isa::Avx512 if matches!(arithmetic, Arithmetic::Bytes { .. }) => {
                (avx2::TILE, avx2::pack(arithmetic, format), avx2::multiply(arithmetic))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => {
                (avx512::TILE, avx512_pack::pack(arithmetic, format), avx512::multiply(arithmetic))
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => return None,
        };
        Some(Self { arithmetic, tile, pack, multiply })
    }

    pub(super) fn pack(&self, source: &Source<'_>, panel: &mut [Lanes]) {
        #[allow(unsafe_code, reason = "calls a function compiled for features that `new` detected")]
        // SAFETY: `new` pairs functions with the features they need, and made this only where the processor has them.
        unsafe {
            (self.pack)(source, panel);
        }
    }

    pub(super) fn multiply(&self, group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes]) {
        #[allow(unsafe_code, reason = "calls a function compiled for features that `new` detected")]
        // SAFETY: as for `pack`.
        unsafe {
            (self.multiply)(group, x, rows, sums);
        }
    }
}
