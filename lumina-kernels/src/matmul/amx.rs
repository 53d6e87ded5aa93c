//! GEMM with AMX, and GEMV of `bf16`: a register holds a tile of 16 rows, and one instruction multiplies two of them.
//!
//! The intrinsics are not stable, so these are inline assembly. What a tile register holds never outlives a block of
//! it. Only the shapes of the tiles do, which nothing else in a program changes. Without intrinsics there is no target
//! feature that makes the functions safe to call, so they are unsafe, and their contract is that the processor has
//! [`Isa::Amx`].
//!
//! [`Isa::Amx`]: crate::Isa::Amx

use std::arch::asm;

use super::arithmetic::{AMX_BLOCK_WORDS, Arithmetic, BLOCK_PART};
use super::blocks::PanelBlock;
use super::kernel::{GROUP, GROUP_ROWS, Gemm, Gemv, MAX_GEMV_ROWS};
use super::weight_rows::{PrefetchRows, WeightRows};
use super::x86_memory::{add_floats, load_floats};
use crate::scratch::Lanes;

/// Rows of a tile register.
const ROWS: usize = 16;
/// Bytes of a row of a tile register.
const LINE: usize = 64;
/// Activation rows of a tile: those of two registers.
pub(super) const TILE: usize = 2 * ROWS;
/// Quads of a block.
const QUADS: usize = AMX_BLOCK_WORDS - 1;
/// Bytes of the next tile of activations that are prefetched at each step: all of it for 32 rows and 8 groups.
const AHEAD: usize = 4 * LINE;

/// The GEMM for an arithmetic of AMX.
pub(super) fn gemm(arithmetic: Arithmetic) -> Option<Gemm> {
    match arithmetic {
        Arithmetic::AmxBf16 => Some(gemm_bf16),
        Arithmetic::AmxInt8 => Some(gemm_integers),
        _ => None,
    }
}

/// A GEMV of integers would leave most of a tile empty.
pub(super) fn gemv(arithmetic: Arithmetic) -> Option<Gemv> {
    (arithmetic == Arithmetic::AmxBf16).then_some(gemv_bf16)
}

/// The shapes of the tile registers, as the instruction reads them.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The shape of a tile register.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    row_bytes: usize,
}

/// Tile registers in use by this thread, until this is dropped.
struct Tiles(());

impl Tiles {
    /// Sets the shapes of the first registers.
    ///
    /// # Safety
    ///
    /// The processor has [`Isa::Amx`](crate::Isa::Amx).
    #[inline]
    #[allow(unsafe_code, reason = "there are no intrinsics")]
    unsafe fn shaped<const N: usize>(shapes: [Shape; N]) -> Self {
        const { assert!(N <= 8) };
        let mut config = TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (index, Shape { rows, row_bytes }) in shapes.into_iter().enumerate() {
            assert!(rows <= ROWS && row_bytes <= LINE);
            // A register without rows must have no bytes.
            let row_bytes = if rows == 0 { 0 } else { row_bytes };
            (config.rows[index], config.row_bytes[index]) = (rows as u8, row_bytes as u16);
        }
        // SAFETY: the caller ensures that AMX is available; the shapes are in the limits of palette 1, by the line
        // above.
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
        // SAFETY: `shaped`, which alone makes this, has used AMX. After it the system need not save the registers.
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// `bf16`: sums of up to 32 rows of activations with both panels stay in registers for a part.
///
/// # Safety
///
/// The processor has [`Isa::Amx`](crate::Isa::Amx).
#[allow(unsafe_code, reason = "there are no intrinsics")]
unsafe fn gemm_bf16(groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows) {
    let (first, second) = (rows.min(ROWS), rows.saturating_sub(ROWS));
    assert!(rows > 0 && sums.len() >= rows * GROUP, "there is something to multiply");
    let count = sums.len() / (rows * GROUP);
    let panel = groups.len() / count / GROUP;
    let steps = panel / Lanes::COUNT;
    assert!(second <= ROWS && sums.len() == count * rows * GROUP, "a tile has up to 32 rows");
    assert!(steps > 0 && panel == steps * Lanes::COUNT && x.len() == rows * panel, "rows are padded to whole lines");
    let shapes = [first, first, second, second, first, second, ROWS, ROWS].map(|rows| Shape { rows, row_bytes: LINE });
    // SAFETY: the caller ensures that AMX is available.
    let _tiles = unsafe { Tiles::shaped(shapes) };
    for (index, (group, sums)) in
        groups.chunks_exact(GROUP * panel).zip(sums.chunks_exact_mut(rows * GROUP)).enumerate()
    {
        let next = next.at_row(index * GROUP_ROWS);
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
                    next = inout(reg) next.row(0) => _,
                    after = inout(reg) next.row(1) => _,
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
        // SAFETY: by the assertions, `group` has two panels of `steps` tiles of 16 lines, `x` has `steps` times `rows`
        // lines, and `sums` two consecutive ones for each row; the loops access just these. Shapes are set above, and
        // registers without rows are not used. A prefetch reads nothing, and has no effect where there is no memory.
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

/// GEMV of `bf16`: weights are the left tile, unpacked, and activations the right one, so that all rows take the time
/// of one.
///
/// # Safety
///
/// The processor has [`Isa::Amx`](crate::Isa::Amx).
#[allow(unsafe_code, reason = "there are no intrinsics")]
unsafe fn gemv_bf16(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
    let n = sums.len();
    let row_bytes = weights.row(0).len();
    let (whole, rest) = (row_bytes / LINE, row_bytes % LINE);
    let steps = row_bytes.div_ceil(LINE);
    assert!((1..=MAX_GEMV_ROWS).contains(&n) && x.len() == n * steps * Lanes::COUNT, "rows are padded to whole lines");
    // The rest of the rows, padded with zeros.
    let mut last = [[0u8; LINE]; ROWS];
    if rest > 0 {
        for (row, last) in last.iter_mut().enumerate() {
            last[..rest].copy_from_slice(&weights.row(row)[whole * LINE..]);
        }
    }
    let mut results = [0u32; ROWS * MAX_GEMV_ROWS];
    // SAFETY: the caller ensures that AMX is available.
    let _tiles = unsafe { Tiles::shaped([4 * n, LINE, 4 * n].map(|row_bytes| Shape { rows: ROWS, row_bytes })) };
    // SAFETY: there are 16 rows of `row_bytes`, of which `whole` lines are read; `last` is 16 lines; `x` has 16 rows of
    // `n` words for each line, and `results` 16 rows of `n` words. A prefetch reads nothing, and has no effect where
    // there is no memory.
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
            w = inout(reg) weights.address(0) => _,
            row = inout(reg) row_bytes => _,
            x = inout(reg) x.as_ptr() => _,
            tile = in(reg) ROWS * 4 * n,
            words = in(reg) 4 * n,
            ahead = inout(reg) weights.address(ROWS) => _,
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

/// Blocks of integers: the integer sums of a block are one matmul of tiles, and vectors scale them. A panel stays in
/// the first-level cache for all rows.
///
/// # Safety
///
/// The processor has [`Isa::Amx`](crate::Isa::Amx).
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "there are no intrinsics")]
unsafe fn gemm_integers(groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows) {
    let count = sums.len() / (rows * GROUP);
    let panel = groups.len() / count / GROUP;
    // The last tile, padded to 16 rows.
    let (full, rest) = (rows / ROWS * ROWS, rows % ROWS);
    let mut last = [[0u32; ROWS * AMX_BLOCK_WORDS]; BLOCK_PART];
    if rest > 0 {
        for (last, x) in last.iter_mut().zip(x.chunks_exact(rows * AMX_BLOCK_WORDS)) {
            let (bytes, scales) = x.split_at(rows * QUADS);
            last[..rest * QUADS].copy_from_slice(&bytes[full * QUADS..]);
            last[ROWS * QUADS..][..rest].copy_from_slice(&scales[full..]);
        }
    }
    let shapes = [(ROWS, LINE), (ROWS, LINE / 2), (QUADS, LINE)].map(|(rows, row_bytes)| Shape { rows, row_bytes });
    // SAFETY: the caller ensures that AMX is available.
    let _tiles = unsafe { Tiles::shaped(shapes) };
    for (number, panel) in groups.chunks_exact(panel).enumerate() {
        let (number, index) = (number / GROUP, number % GROUP);
        let sums = &mut sums[number * rows * GROUP..][..rows * GROUP];
        for first in (0..rows).step_by(ROWS) {
            if index == 0 {
                let next = next.at_row(number * GROUP_ROWS + first / ROWS);
                next.prefetch();
            }
            let last = last.as_flattened();
            // SAFETY: the caller ensures that AMX is available; the shapes are set above.
            let results = unsafe {
                if first < full {
                    integer_tile(panel, &x[first * QUADS..], &x[rows * QUADS + first..], rows)
                } else {
                    integer_tile(panel, last, &last[ROWS * QUADS..], ROWS)
                }
            };
            for (result, sums) in results.iter().zip(sums[first * GROUP..].chunks_exact_mut(GROUP)) {
                add_floats(&mut sums[index], load_floats(result));
            }
        }
    }
}

/// 16 rows of activations with a panel. `x` and `scales` begin at their integers and scales in the first block, which
/// is packed for `rows` rows.
///
/// # Safety
///
/// The processor has [`Isa::Amx`](crate::Isa::Amx), and the shapes of registers 0 to 2 are those that [`gemm_integers`]
/// sets.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "there are no intrinsics")]
unsafe fn integer_tile(panel: &[Lanes], x: &[u32], scales: &[u32], rows: usize) -> [Lanes; ROWS] {
    let blocks = panel.len() / PanelBlock::VECTORS;
    let before = (blocks - 1) * rows * AMX_BLOCK_WORDS;
    assert!(blocks > 0 && before + ROWS * QUADS <= x.len() && before + ROWS <= scales.len(), "all blocks are packed");
    let mut dots = [Lanes::ZERO; ROWS];
    let mut results = [Lanes::ZERO; ROWS];
    /// An instruction for every row, from parts that each precede the number of a row.
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
    /// The integer sums of the next block.
    macro_rules! tiles {
        () => {
            "tileloadd tmm1, [{x} + {half}*1]
             tileloadd tmm2, [{w} + {line}*1]
             tilezero tmm0
             tdpbssd tmm0, tmm1, tmm2
             add {x}, {block}
             add {w}, 576"
        };
    }
    /// The integer sums of a block, scaled and added to the sums.
    macro_rules! scale {
        () => {
            concat!(
                "vmovaps zmm16, zmmword ptr [{w_scales}]\n",
                scale!(@ 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                "add {w_scales}, 576\n add {scales}, {block}"
            )
        };
        (@ $($i:literal)*) => {
            concat!($(
                "vmulps zmm17, zmm16, dword ptr [{scales} + 4*", $i, "]{{1to16}}\n",
                "vcvtdq2ps zmm18, zmmword ptr [{dots} + 64*", $i, "]\n",
                "vfmadd231ps zmm", $i, ", zmm18, zmm17\n",
            )*)
        };
    }
    // SAFETY: by the assertion, each of `blocks` blocks, `block` bytes apart, has integers and scales of 16 rows;
    // `panel` has 8 lines and those of the scales for each. The sums of a block are scaled while those of the next are
    // computed. `dots` and the results have 16 lines.
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
            block = in(reg) rows * AMX_BLOCK_WORDS * 4,
            half = in(reg) LINE / 2,
            line = in(reg) LINE,
            dots = in(reg) dots.as_mut_ptr(),
            results = in(reg) results.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _, out("zmm6") _,
            out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _, out("zmm12") _, out("zmm13") _,
            out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _, out("zmm18") _,
            options(nostack),
        );
    }
    results
}
