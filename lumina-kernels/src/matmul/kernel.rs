//! The inner loops of each instruction set, behind one pair of functions.
//!
//! For a few rows of activations, weights are multiplied as they are read. For more, they are first packed. A *panel* is 16 rows of the
//! weights, one a lane: a vector a step, or a record of [`PANEL_BLOCK`] vectors. Panels come in groups of [`GROUP`], so that the sums of a group
//! hide the latency of one another; a group is `[parts, GROUP, steps of the part]`. Both ways give the same sums in the same order.
//!
//! [`PANEL_BLOCK`]: super::arithmetic::PANEL_BLOCK

use std::ops::Range;

use super::arithmetic::Arithmetic;
#[cfg(target_arch = "aarch64")]
use super::neon_gemm;
use super::weight_rows::{Rows, Source};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2_gemm, avx2_pack, avx512_gemm, avx512_gemv, avx512_pack};
use super::{gemv, portable_gemm};
use crate::scratch::Lanes;
use crate::{Format, Isa};

/// Panels that are multiplied side by side.
pub(super) const GROUP: usize = 2;
/// Rows of the weights in a group.
pub(super) const GROUP_ROWS: usize = GROUP * Lanes::COUNT;

/// Groups that tiles are multiplied with at a time: as many as fit the second-level cache with their sums.
const BATCH: usize = 8;

/// Activation rows that go through [`Kernel::few`].
pub(super) const FEW: usize = 8;

/// Calls a function compiled for the number of rows of activations, which `$x` names in `$call`: one of those listed, or else `$most`.
macro_rules! by_rows {
    ($rows:expr, [$($fewer:literal),*], $most:ident, $x:ident => $call:expr) => {
        match $rows {
            $($fewer => {
                const $x: usize = $fewer;
                $call
            })*
            _ => {
                const $x: usize = $most;
                $call
            }
        }
    };
}
pub(super) use by_rows;

/// Fills panel `index` of a group.
pub(super) type Pack = unsafe fn(source: &Source<'_>, index: usize, group: &mut [Lanes]);

/// Multiplies a part of groups of panels with that of a tile of `rows` activation rows, and adds to `sums` `[groups, rows, GROUP]`; as many groups
/// as the kernel's batch at most. Rows of weights that are wanted soon may be asked for meanwhile.
pub(super) type Multiply = unsafe fn(groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows);

/// Multiplies with a few rows of activations, which lie row after row, straight from where the weights lie: `sums` `[n]`.
pub(super) type Few = unsafe fn(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]);

/// How one arithmetic is carried out for one format on one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub(super) arithmetic: Arithmetic,
    /// Most activation rows of a tile.
    pub(super) tile: usize,
    /// Groups that are multiplied together, so that a tile is read once for all of them. Where there are several, they are packed part by part.
    pub(super) batch: usize,
    pack: Pack,
    multiply: Multiply,
    few: Option<Few>,
}

impl Kernel {
    /// The best for an instruction set, which the processor must have: `None` if it has not.
    pub(super) fn new(arithmetic: Arithmetic, format: Format, isa: Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        let (tile, pack, multiply, few): (usize, Pack, Multiply, Option<Few>) = match isa {
            Isa::Portable => (
                portable_gemm::TILE,
                portable_gemm::pack,
                portable_gemm::multiply(arithmetic),
                gemv::plain(arithmetic, format),
            ),
            #[cfg(target_arch = "x86_64")]
            // Without VNNI, bytes are multiplied by AVX2.
            Isa::Avx2 | Isa::Avx512 if isa == Isa::Avx2 || matches!(arithmetic, Arithmetic::Bytes { .. }) => (
                avx2_gemm::TILE,
                avx2_pack::pack(arithmetic, format),
                avx2_gemm::multiply(arithmetic),
                avx2_gemm::few(arithmetic, format),
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if let Some((tile, multiply)) = amx::multiply(arithmetic) => {
                (tile, avx512_pack::pack(arithmetic, format), multiply, amx::few(arithmetic))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => (
                avx512_gemm::TILE,
                avx512_pack::pack(arithmetic, format),
                avx512_gemm::multiply(arithmetic),
                avx512_gemv::few(arithmetic, format),
            ),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => (
                neon_gemm::TILE,
                portable_gemm::pack,
                neon_gemm::multiply(arithmetic, isa),
                neon_gemm::few(arithmetic, format, isa),
            ),
            // Those of other processors, which `is_available` has ruled out.
            _ => return None,
        };
        let batch = if matches!(arithmetic, Arithmetic::Tiles | Arithmetic::TileBytes) { BATCH } else { 1 };
        Some(Self { arithmetic, tile, batch, pack, multiply, few })
    }

    /// Whether `n` rows of activations go through [`few`](Self::few).
    pub(super) fn is_few(&self, n: usize) -> bool {
        n <= FEW && self.few.is_some()
    }

    /// The steps of a row that are packed at a time: all, or part by part.
    pub(super) fn spans(&self, columns: usize) -> impl Iterator<Item = Range<usize>> {
        let whole = (self.batch == 1).then(|| 0..self.arithmetic.steps(columns));
        let parts = (self.batch > 1).then(|| self.arithmetic.parts(columns));
        whole.into_iter().chain(parts.into_iter().flatten())
    }

    pub(super) fn pack(&self, source: &Source<'_>, index: usize, group: &mut [Lanes]) {
        #[allow(unsafe_code, reason = "calls a function compiled for features that `new` detected")]
        // SAFETY: `new` pairs functions with the features they need, and made this only where the processor has them.
        unsafe {
            (self.pack)(source, index, group);
        }
    }

    pub(super) fn multiply(&self, groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
        #[allow(unsafe_code, reason = "calls a function compiled for features that `new` detected")]
        // SAFETY: as for `pack`.
        unsafe {
            (self.multiply)(groups, x, rows, sums, next);
        }
    }

    pub(super) fn few(&self, source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
        if let Some(few) = self.few {
            #[allow(unsafe_code, reason = "calls a function compiled for features that `new` detected")]
            // SAFETY: as for `pack`.
            unsafe {
                few(source, x, sums);
            }
        }
    }
}
