//! Products with AMX: a register holds a tile of 16 rows, and one instruction multiplies two of them.
//!
//! The intrinsics are not stable, so these are inline assembly. What a tile register holds never outlives a block of it; only the shapes of the
//! tiles do, which nothing else in a program changes.

use std::arch::asm;
use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, BLOCK_RUN, TILE_BLOCK};
use super::avx512_gemm::{add, load_ps};
use super::kernel::{FEW, Few, GROUP, GROUP_ROWS, Multiply};
use super::prefetch::fetch;
use super::weight_rows::{Rows, Source};
use crate::scratch::Lanes;

/// Rows of a tile, and bytes of one of its rows.
const ROWS: usize = 16;
const LINE: usize = 64;
/// Words of bytes of a block of activations, and lines of those of 16 rows of weights.
const QUADS: usize = TILE_BLOCK - 1;
/// Bytes of the next tile of activations that are asked for at each step: all of it for 32 rows and 8 groups.
const AHEAD: usize = 4 * LINE;

/// The rows of a tile, and the product, for an arithmetic that this is for.
pub(super) fn multiply(arithmetic: Arithmetic) -> Option<(usize, Multiply)> {
    match arithmetic {
        Arithmetic::Tiles => Some((2 * ROWS, bfloats)),
        Arithmetic::TileBytes => Some((2 * ROWS, bytes)),
        _ => None,
    }
}

/// Few rows of bytes would leave most of a tile empty.
pub(super) fn few(arithmetic: Arithmetic) -> Option<Few> {
    (arithmetic == Arithmetic::Tiles).then_some(few_bfloats)
}

/// The shapes of the tile registers, as the instruction reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tile registers in use by this thread, in shapes of `[rows, bytes of a row]`, until this is dropped.
struct Tiles(());

impl Tiles {
    #[inline]
    fn shaped<const N: usize>(shapes: [(usize, usize); N]) -> Self {
        const { assert!(N <= 8) };
        let mut config = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (index, (rows, bytes)) in shapes.into_iter().enumerate() {
            assert!(rows <= ROWS && bytes <= LINE);
            // A register of no rows has to be one of no bytes.
            let bytes = if rows == 0 { 0 } else { bytes };
            (config.rows[index], config.row_bytes[index]) = (rows as u8, bytes as u16);
        }
        #[allow(unsafe_code, reason = "there are no intrinsics")]
        // SAFETY: the functions of this module are called only where AMX is available; the shapes are in the limits of palette 1.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly));
        }
        Self(())
    }
}

impl Drop for Tiles {
    #[inline]
    fn drop(&mut self) {
        #[allow(unsafe_code, reason = "there are no intrinsics")]
        // SAFETY: as in `shaped`. Empty registers are none that the system has to save.
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// `bf16`: sums of up to 32 rows of activations with both panels stay in registers for a part.
fn bfloats(groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    let (first, second) = (rows.min(ROWS), rows.saturating_sub(ROWS));
    assert!(rows > 0 && sums.len() >= rows * GROUP, "there is something to multiply");
    let count = sums.len() / (rows * GROUP);
    let panel = groups.len() / count / GROUP;
    let steps = panel / Lanes::COUNT;
    assert!(second <= ROWS && sums.len() == count * rows * GROUP, "a tile has up to 32 rows");
    assert!(steps > 0 && panel == steps * Lanes::COUNT && x.len() == rows * panel, "rows are filled up to whole lines");
    let _tiles = Tiles::shaped([
        (first, LINE),
        (first, LINE),
        (second, LINE),
        (second, LINE),
        (first, LINE),
        (second, LINE),
        (ROWS, LINE),
        (ROWS, LINE),
    ]);
    for (index, (group, sums)) in
        groups.chunks_exact(GROUP * panel).zip(sums.chunks_exact_mut(rows * GROUP)).enumerate()
    {
        let next = next.from(index * GROUP_ROWS);
        let tile_ahead = next.tile.wrapping_byte_add(index * steps * AHEAD);
        macro_rules! multiply {
            ($load:literal, $multiply:literal, $store:literal) => {
                asm!(
                    "tileloadd tmm0, [{c} + {pair}*1]",
                    "tileloadd tmm1, [{c} + {pair}*1 + 64]",
                    $load,
                    "2:",
                    "tileloadd tmm4, [{a} + {line}*1]",
                    "tileloadd tmm6, [{b} + {line}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "prefetcht1 [{next}]",
                    "tileloadd tmm7, [{d} + {line}*1]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "prefetcht1 [{after}]",
                    $multiply,
                    "prefetcht1 [{ahead}]",
                    "prefetcht1 [{ahead} + 64]",
                    "prefetcht1 [{ahead} + 128]",
                    "prefetcht1 [{ahead} + 192]",
                    "add {ahead}, 256",
                    "add {a}, {tile}",
                    "add {b}, 1024",
                    "add {d}, 1024",
                    "add {next}, 64",
                    "add {after}, 64",
                    "dec {n}",
                    "jnz 2b",
                    "tilestored [{c} + {pair}*1], tmm0",
                    "tilestored [{c} + {pair}*1 + 64], tmm1",
                    $store,
                    a = inout(reg) x.as_ptr() => _,
                    b = inout(reg) group.as_ptr() => _,
                    d = inout(reg) group[panel..].as_ptr() => _,
                    c = in(reg) sums.as_mut_ptr(),
                    n = inout(reg) steps => _,
                    next = inout(reg) next.get(0) => _,
                    after = inout(reg) next.get(1) => _,
                    ahead = inout(reg) tile_ahead => _,
                    tile = in(reg) rows * LINE,
                    line = in(reg) LINE,
                    pair = in(reg) GROUP * LINE,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            };
        }
        #[allow(unsafe_code, reason = "there are no intrinsics")]
        // SAFETY: by the assertions, `group` has two panels of `steps` tiles of 16 lines, `x` has `steps` times `rows` lines, and `sums` two for
        // each row, side by side; the loops go through just these. Shapes are set above, and registers with no rows are not used. A prefetch
        // reads nothing, and has no effect where there is no memory.
        unsafe {
            if second == 0 {
                multiply!("", "", "");
            } else {
                multiply!(
                    "tileloadd tmm2, [{c} + {pair}*1 + 2048]\n tileloadd tmm3, [{c} + {pair}*1 + 2112]",
                    "tileloadd tmm5, [{a} + {line}*1 + 1024]\n tdpbf16ps tmm2, tmm5, tmm6\n tdpbf16ps tmm3, tmm5, tmm7",
                    "tilestored [{c} + {pair}*1 + 2048], tmm2\n tilestored [{c} + {pair}*1 + 2112], tmm3"
                );
            }
        }
    }
}

/// A few rows of `bf16`: weights are the left tile, as they lie, and activations the right one, so that all rows take the time of one.
fn few_bfloats(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
    let n = sums.len();
    let row_bytes = source.lane(0).len();
    let (whole, rest) = (row_bytes / LINE, row_bytes % LINE);
    let steps = row_bytes.div_ceil(LINE);
    assert!((1..=FEW).contains(&n) && x.len() == n * steps * Lanes::COUNT, "rows are filled up to whole lines");
    // What is left of the rows, filled up with zeros.
    let mut last = [[0u8; LINE]; ROWS];
    if rest > 0 {
        for (lane, last) in last.iter_mut().enumerate() {
            last[..rest].copy_from_slice(&source.lane(lane)[whole * LINE..]);
        }
    }
    let mut results = [0u32; ROWS * FEW];
    let _tiles = Tiles::shaped([(ROWS, 4 * n), (ROWS, LINE), (ROWS, 4 * n)]);
    #[allow(unsafe_code, reason = "there are no intrinsics")]
    // SAFETY: a source is 16 rows of `row_bytes`, of which `whole` lines are read; `last` is 16 lines; `x` has 16 rows of `n` words for each line,
    // and `results` 16 rows of `n` words. A prefetch reads nothing, and has no effect where there is no memory.
    unsafe {
        asm!(
            "tilezero tmm0",
            "test {n}, {n}",
            "jz 3f",
            "2:",
            "tileloadd tmm1, [{w} + {row}*1]",
            "tileloadd tmm2, [{x} + {words}*1]",
            "tdpbf16ps tmm0, tmm1, tmm2",
            "prefetcht1 [{ahead}]",
            "prefetcht1 [{ahead} + 64]",
            "prefetcht1 [{ahead} + 128]",
            "prefetcht1 [{ahead} + 192]",
            "prefetcht1 [{ahead} + 256]",
            "prefetcht1 [{ahead} + 320]",
            "prefetcht1 [{ahead} + 384]",
            "prefetcht1 [{ahead} + 448]",
            "prefetcht1 [{ahead} + 512]",
            "prefetcht1 [{ahead} + 576]",
            "prefetcht1 [{ahead} + 640]",
            "prefetcht1 [{ahead} + 704]",
            "prefetcht1 [{ahead} + 768]",
            "prefetcht1 [{ahead} + 832]",
            "prefetcht1 [{ahead} + 896]",
            "prefetcht1 [{ahead} + 960]",
            "add {w}, 64",
            "add {x}, {tile}",
            "add {ahead}, 1024",
            "dec {n}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 4f",
            "mov {row}, 64",
            "tileloadd tmm1, [{last} + {row}*1]",
            "tileloadd tmm2, [{x} + {words}*1]",
            "tdpbf16ps tmm0, tmm1, tmm2",
            "4:",
            "tilestored [{results} + {words}*1], tmm0",
            n = inout(reg) whole => _,
            w = inout(reg) source.address(0) => _,
            row = inout(reg) row_bytes => _,
            x = inout(reg) x.as_ptr() => _,
            tile = in(reg) ROWS * 4 * n,
            words = in(reg) 4 * n,
            ahead = inout(reg) source.address(ROWS) => _,
            last = in(reg) last.as_ptr(),
            rest = in(reg) rest,
            results = in(reg) results.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _,
            options(nostack),
        );
    }
    for (index, sums) in sums.iter_mut().enumerate() {
        for (lane, sum) in sums.0.iter_mut().enumerate() {
            *sum = results[lane * n + index];
        }
    }
}

/// Blocks of bytes: the whole numbers of a block come from one product of tiles, and are scaled by vectors. A panel stays in the first-level cache
/// for all rows.
#[target_feature(enable = "avx512f")]
fn bytes(groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    let count = sums.len() / (rows * GROUP);
    let panel = groups.len() / count / GROUP;
    // The last tile, filled up to 16 rows.
    let (full, rest) = (rows / ROWS * ROWS, rows % ROWS);
    let mut last = [[0u32; ROWS * TILE_BLOCK]; BLOCK_RUN];
    if rest > 0 {
        for (last, x) in last.iter_mut().zip(x.chunks_exact(rows * TILE_BLOCK)) {
            let (bytes, scales) = x.split_at(rows * QUADS);
            last[..rest * QUADS].copy_from_slice(&bytes[full * QUADS..]);
            last[ROWS * QUADS..][..rest].copy_from_slice(&scales[full..]);
        }
    }
    let _tiles = Tiles::shaped([(ROWS, LINE), (ROWS, LINE / 2), (QUADS, LINE)]);
    for (number, panel) in groups.chunks_exact(panel).enumerate() {
        let (number, index) = (number / GROUP, number % GROUP);
        let sums = &mut sums[number * rows * GROUP..][..rows * GROUP];
        for first in (0..rows).step_by(ROWS) {
            if index == 0 {
                let next = next.from(number * GROUP_ROWS + first / ROWS);
                (0..next.len).step_by(LINE).for_each(|byte| fetch(next.get(0), byte));
            }
            let results = if first < full {
                byte_tile(panel, &x[first * QUADS..], &x[rows * QUADS + first..], rows)
            } else {
                byte_tile(panel, last.as_flattened(), &last.as_flattened()[ROWS * QUADS..], ROWS)
            };
            for (result, sums) in results.iter().zip(sums[first * GROUP..].chunks_exact_mut(GROUP)) {
                add(&mut sums[index], load_ps(result));
            }
        }
    }
}

/// 16 rows of activations with a panel: `x` and `scales` are what the first block has of them, of `rows` that lie together. The shapes of tiles are
/// set.
#[target_feature(enable = "avx512f")]
fn byte_tile(panel: &[Lanes], x: &[u32], scales: &[u32], rows: usize) -> [Lanes; ROWS] {
    let blocks = panel.len() / TILE_BLOCK;
    let before = (blocks - 1) * rows * TILE_BLOCK;
    assert!(blocks > 0 && before + ROWS * QUADS <= x.len() && before + ROWS <= scales.len(), "all blocks are there");
    let mut dots = [Lanes::ZERO; ROWS];
    let mut results = [Lanes::ZERO; ROWS];
    /// The parts of an instruction, each before the number of a row, for every row.
    macro_rules! each {
        ($($part:literal)*) => {
            each!(@ [$($part)*] 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
        };
        (@ $parts:tt $($i:literal)*) => {
            concat!($(each!(# $parts $i),)*)
        };
        (# [$($part:literal)*] $i:literal) => {
            concat!($($part, $i,)* "\n")
        };
    }
    /// The numbers of the next block.
    macro_rules! tiles {
        () => {
            "tileloadd tmm1, [{x} + {half}*1]
             tileloadd tmm2, [{w} + {line}*1]
             tilezero tmm0
             tdpbssd tmm0, tmm1, tmm2
             add {x}, {record}
             add {w}, 576"
        };
    }
    /// The numbers of a block, scaled and added to the sums.
    macro_rules! scale {
        () => {
            concat!("vmovaps zmm16, zmmword ptr [{w_scales}]\n", scale!(@ 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15), "add {w_scales}, 576\n add {scales}, {record}")
        };
        (@ $($i:literal)*) => {
            concat!($(
                "vmulps zmm17, zmm16, dword ptr [{scales} + 4*", $i, "]{{1to16}}\n",
                "vcvtdq2ps zmm18, zmmword ptr [{dots} + 64*", $i, "]\n",
                "vfmadd231ps zmm", $i, ", zmm18, zmm17\n",
            )*)
        };
    }
    #[allow(unsafe_code, reason = "there are no intrinsics")]
    // SAFETY: by the assertion, each of `blocks` blocks, `record` bytes apart, has bytes and scales of 16 rows; `panel` has 8 lines and those of the
    // scales for each. The numbers of a block are scaled while those of the next are computed. `dots` and the results have 16 lines.
    unsafe {
        asm!(
            each!("vpxord zmm" ", zmm" ", zmm"),
            tiles!(),
            "jmp 3f",
            "2:",
            tiles!(),
            scale!(),
            "3:",
            "tilestored [{dots} + {line}*1], tmm0",
            "dec {n}",
            "jnz 2b",
            scale!(),
            each!("vmovaps zmmword ptr [{results} + 64*" "], zmm"),
            x = inout(reg) x.as_ptr() => _,
            scales = inout(reg) scales.as_ptr() => _,
            w = inout(reg) panel.as_ptr() => _,
            w_scales = inout(reg) panel[QUADS..].as_ptr() => _,
            n = inout(reg) blocks => _,
            record = in(reg) rows * TILE_BLOCK * 4,
            half = in(reg) LINE / 2,
            line = in(reg) LINE,
            dots = in(reg) dots.as_mut_ptr(),
            results = in(reg) results.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
            out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _, out("zmm12") _, out("zmm13") _, out("zmm14") _,
            out("zmm15") _, out("zmm16") _, out("zmm17") _, out("zmm18") _,
            options(nostack),
        );
    }
    results
}

/// Pairs of `bf16` from a line of a row: the nearest, ties to even, with numbers below the smallest normal one as zero, as the products take them.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pairs(x: &[f32; 2 * Lanes::COUNT]) -> [u32; Lanes::COUNT] {
    let (low, high) = x.split_at(Lanes::COUNT);
    #[allow(
        unsafe_code,
        reason = "the instructions take pointers, and there is no intrinsic that only changes the type"
    )]
    // SAFETY: both halves are 64 bytes; the result is 64 bytes for which every pattern is valid.
    unsafe {
        std::mem::transmute(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(high.as_ptr()), _mm512_loadu_ps(low.as_ptr())))
    }
}
