//! The kernels of each instruction set behind three functions: pack, GEMM and GEMV.
//!
//! A *GEMV* kernel multiplies a few rows of activations with weights as it reads them. For more rows, weights are
//! packed and multiplied by a *GEMM* kernel. A *panel* is 16 rows of the weights, a row a lane: for each step a vector,
//! or a [`PanelBlock`](super::blocks::PanelBlock). Panels come in groups of [`GROUP`], so that independent sums hide
//! latency. A packed group is `[parts, GROUP, steps of the part]`. Both kernels give the same sums in the same order.

use std::ops::Range;

use super::arithmetic::Arithmetic;
use super::weight_rows::{PrefetchRows, WeightRows};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2_gemm, avx2_gemv, avx2_pack, avx512_gemm, avx512_gemv, avx512_pack};
use super::{gemv, portable_gemm};
#[cfg(target_arch = "aarch64")]
use super::{neon_gemm, neon_gemv};
use crate::scratch::Lanes;
use crate::{Format, Isa};

/// Panels that are multiplied together.
pub(super) const GROUP: usize = 2;
/// Rows of the weights in a group.
pub(super) const GROUP_ROWS: usize = GROUP * Lanes::COUNT;

/// Groups that AMX multiplies with a tile at a time: as many as fit the second-level cache with their sums.
const AMX_BATCH: usize = 8;

/// Maximum rows of activations of a GEMV.
pub(super) const MAX_GEMV_ROWS: usize = 8;

/// Calls a function that is generic over the number of rows of activations, which `$x` names in `$call`: with one of
/// the numbers listed, or else with `$max`.
macro_rules! with_constant_rows {
    ($rows:expr, [$($fewer:literal),*], $max:ident, $x:ident => $call:expr) => {
        match $rows {
            $($fewer => {
                const $x: usize = $fewer;
                $call
            })*
            _ => {
                const $x: usize = $max;
                $call
            }
        }
    };
}
pub(super) use with_constant_rows;

/// Packs panel `index` of a group.
pub(super) type Pack = unsafe fn(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]);

/// Multiplies a part of groups of panels with that part of a tile of `rows` activation rows, and adds to `sums`
/// `[groups, rows, GROUP]`. There are at most as many groups as the kernel's batch. `next` may be prefetched.
pub(super) type Gemm = unsafe fn(groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows);

/// Multiplies up to [`MAX_GEMV_ROWS`] rows of activations with weights that are not packed: `sums` `[n]`.
pub(super) type Gemv = unsafe fn(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]);

/// The functions for one arithmetic and one format on one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub(super) arithmetic: Arithmetic,
    /// Maximum activation rows of a tile.
    pub(super) tile: usize,
    /// Groups that are multiplied together, so that a tile is read once for all of them. Where there are several, they
    /// are packed part by part.
    pub(super) batch: usize,
    pack: Pack,
    gemm: Gemm,
    gemv: Option<Gemv>,
}

impl Kernel {
    /// The kernel for an instruction set; `None` if the processor lacks it.
    pub(super) fn new(arithmetic: Arithmetic, format: Format, isa: Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        let (tile, pack, gemm, gemv): (usize, Pack, Gemm, Option<Gemv>) = match isa {
            Isa::Portable => (
                portable_gemm::TILE,
                portable_gemm::pack,
                portable_gemm::gemm(arithmetic),
                gemv::portable(arithmetic, format),
            ),
            #[cfg(target_arch = "x86_64")]
            // Without VNNI, AVX2 multiplies 8-bit integers.
            Isa::Avx2 | Isa::Avx512 if isa == Isa::Avx2 || matches!(arithmetic, Arithmetic::Int8 { .. }) => (
                avx2_gemm::TILE,
                avx2_pack::pack(arithmetic, format),
                avx2_gemm::gemm(arithmetic),
                avx2_gemv::gemv(arithmetic, format),
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if let Some(gemm) = amx::gemm(arithmetic) => {
                (amx::TILE, avx512_pack::pack(arithmetic, format), gemm, amx::gemv(arithmetic))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => (
                avx512_gemm::TILE,
                avx512_pack::pack(arithmetic, format),
                avx512_gemm::gemm(arithmetic),
                avx512_gemv::gemv(arithmetic, format),
            ),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => (
                neon_gemm::TILE,
                portable_gemm::pack,
                neon_gemm::gemm(arithmetic, isa),
                neon_gemv::gemv(arithmetic, format, isa),
            ),
            // Those of other processors, which `is_available` has ruled out.
            _ => return None,
        };
        let batch = if matches!(arithmetic, Arithmetic::AmxBf16 | Arithmetic::AmxInt8) { AMX_BATCH } else { 1 };
        Some(Self { arithmetic, tile, batch, pack, gemm, gemv })
    }

    /// Whether `n` rows of activations take the GEMV: also in several tiles, while packing the weights for a GEMM takes
    /// longer than reading them again from the cache.
    pub(super) fn is_gemv(&self, n: usize) -> bool {
        // Where both take about as long with AVX-512. Integers are unpacked again for each tile.
        let tiles = match self.arithmetic {
            Arithmetic::F32 | Arithmetic::Bf16 => 4,
            Arithmetic::Int8 { .. } => 3,
            Arithmetic::AmxBf16 | Arithmetic::AmxInt8 => 1,
        };
        n <= tiles * MAX_GEMV_ROWS && self.gemv.is_some()
    }

    /// The steps of a row that are packed at a time: all, or part by part.
    pub(super) fn spans(&self, columns: usize) -> impl Iterator<Item = Range<usize>> {
        let whole = (self.batch == 1).then(|| 0..self.arithmetic.steps(columns));
        let parts = (self.batch > 1).then(|| self.arithmetic.parts(columns));
        whole.into_iter().chain(parts.into_iter().flatten())
    }

    /// See [`Pack`].
    pub(super) fn pack(&self, weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
        #[allow(unsafe_code, reason = "calls a function that is compiled for an instruction set")]
        // SAFETY: `new`, which alone makes kernels, checks that the processor has `isa`, and chooses functions for it.
        unsafe {
            (self.pack)(weights, index, group);
        }
    }

    /// See [`Gemm`].
    pub(super) fn gemm(&self, groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows) {
        #[allow(unsafe_code, reason = "calls a function that is compiled for an instruction set")]
        // SAFETY: as for `pack`.
        unsafe {
            (self.gemm)(groups, x, rows, sums, next);
        }
    }

    /// See [`Gemv`]. Nothing is done where there is none, which [`is_gemv`](Self::is_gemv) says.
    pub(super) fn gemv(&self, weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
        if let Some(gemv) = self.gemv {
            #[allow(unsafe_code, reason = "calls a function that is compiled for an instruction set")]
            // SAFETY: as for `pack`.
            unsafe {
                gemv(weights, x, sums);
            }
        }
    }
}
