//! Products with AMX: a register holds a tile of 16 rows, and one instruction multiplies two of them.
//!
//! The intrinsics are not stable, so these are inline assembly. What a tile register holds never outlives a block of it; only the shapes of the
//! tiles do, which nothing else in a program changes.

use std::arch::asm;
use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, INPUT_BLOCK, PANEL_BLOCK};
use super::avx512::{add, load_ps};
use super::avx512_pack::fetch;
use super::kernel::{FEW, Few, GROUP, GROUP_ROWS, Multiply};
use super::source::{Rows, Source};
use crate::scratch::Lanes;

/// Rows of a tile, and bytes of one of its rows.
const ROWS: usize = 16;
const LINE: usize = 64;
/// Bytes of the next tile of activations that are asked for at each step: all of it for 32 rows and 8 groups.
const AHEAD: usize = 4 * LINE;

pub(super) fn tile(arithmetic: Arithmetic) -> usize {
    match arithmetic {
        Arithmetic::Bytes { .. } => ROWS,
        _ => 2 * ROWS,
    }
}

pub(super) fn multiply(arithmetic: Arithmetic) -> Multiply {
    match arithmetic {
        Arithmetic::Bytes { .. } => bytes,
        _ => bfloats,
    }
}

pub(super) fn few() -> Few {
    few_bfloats
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
    for (index, (group, sums)) in groups.chunks_exact(GROUP * panel).zip(sums.chunks_exact_mut(rows * GROUP)).enumerate() {
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

/// Blocks of bytes: the whole numbers of a block come from one product of tiles, and are scaled by vectors meanwhile.
#[target_feature(enable = "avx512f")]
fn bytes(groups: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    assert!((1..=ROWS).contains(&rows), "a tile has up to 16 rows");
    let (sums_shape, x_shape, panel_shape) = ((rows, LINE), (rows, 32), (PANEL_BLOCK - 1, LINE));
    let _tiles = Tiles::shaped([sums_shape, x_shape, panel_shape, sums_shape, x_shape, panel_shape]);
    let count = sums.len() / (rows * GROUP);
    let each = groups.chunks_exact(groups.len() / count).zip(sums.chunks_exact_mut(rows * GROUP));
    for (index, (group, sums)) in each.enumerate() {
        let next = next.from(index * GROUP_ROWS);
        if rows == ROWS {
            byte_tile::<true>(group, x, rows, sums, next);
        } else {
            byte_tile::<false>(group, x, rows, sums, next);
        }
    }
}

/// Records of a block of up to 16 rows of activations.
type Records = [[u32; INPUT_BLOCK]];

/// A tile of all 16 rows, or of fewer: rows that are not there are computed like the last one, and dropped. The shapes of tiles are set.
#[target_feature(enable = "avx512f")]
fn byte_tile<const FULL: bool>(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    let x = x.as_chunks::<INPUT_BLOCK>().0;
    // Two blocks are scaled while the next two are multiplied.
    let mut dots = [[[Lanes::ZERO; ROWS]; 2]; 2];
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let blocks = panel.as_chunks::<PANEL_BLOCK>().0;
        let pair = |number: usize| {
            let (first, second) = (2 * number, (2 * number + 1).min(blocks.len() - 1));
            [(&blocks[first], &x[first * rows..][..rows]), (&blocks[second], &x[second * rows..][..rows])]
        };
        let pairs = blocks.len().div_ceil(2);
        let mut acc = [_mm512_setzero_ps(); ROWS];
        dot_pair(pair(0), &mut dots[0]);
        for number in 0..pairs {
            if index == 0 && number * LINE < next.len {
                fetch(next.get(0), number * LINE);
            }
            let [now, later] = &mut dots;
            let (now, later) = if number % 2 == 0 { (now, later) } else { (later, now) };
            if number + 1 < pairs {
                dot_pair(pair(number + 1), later);
            }
            let [first, second] = pair(number);
            scale_block::<FULL>(first, &now[0], &mut acc);
            if 2 * number + 1 < blocks.len() {
                scale_block::<FULL>(second, &now[1], &mut acc);
            }
        }
        for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<GROUP>().0) {
            add(&mut sums[index], *acc);
        }
    }
}

/// The whole numbers of two blocks; side by side, as a register is filled anew only once it has been read.
#[inline]
fn dot_pair(blocks: [(&[Lanes; PANEL_BLOCK], &Records); 2], dots: &mut [[Lanes; ROWS]; 2]) {
    #[allow(unsafe_code, reason = "there are no intrinsics")]
    // SAFETY: the shapes are set for as many rows as there are records, which begin with 32 bytes; a block has 8 lines before its scales;
    // `dots` has twice 16 lines, at least as many as rows.
    unsafe {
        asm!(
            "tileloadd tmm1, [{x} + {record}*1]",
            "tileloadd tmm2, [{block} + {line}*1]",
            "tilezero tmm0",
            "tdpbssd tmm0, tmm1, tmm2",
            "tileloadd tmm4, [{y} + {record}*1]",
            "tileloadd tmm5, [{other} + {line}*1]",
            "tilezero tmm3",
            "tdpbssd tmm3, tmm4, tmm5",
            "tilestored [{dots} + {line}*1], tmm0",
            "tilestored [{dots} + {line}*1 + 1024], tmm3",
            x = in(reg) blocks[0].1.as_ptr(),
            block = in(reg) blocks[0].0.as_ptr(),
            y = in(reg) blocks[1].1.as_ptr(),
            other = in(reg) blocks[1].0.as_ptr(),
            record = in(reg) size_of::<[u32; INPUT_BLOCK]>(),
            line = in(reg) LINE,
            dots = in(reg) dots.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
            options(nostack),
        );
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn scale_block<const FULL: bool>(
    (block, x): (&[Lanes; PANEL_BLOCK], &Records),
    dots: &[Lanes; ROWS],
    acc: &mut [__m512; ROWS],
) {
    let scale = load_ps(&block[PANEL_BLOCK - 1]);
    let full: Option<&[[u32; INPUT_BLOCK]; ROWS]> = if FULL { x.first_chunk() } else { None };
    for i in 0..ROWS {
        let record = full.map_or_else(|| &x[i.min(x.len() - 1)], |x| &x[i]);
        let scale = _mm512_mul_ps(scale, _mm512_set1_ps(f32::from_bits(record[8])));
        let dot = _mm512_cvtepi32_ps(_mm512_castps_si512(load_ps(&dots[i])));
        acc[i] = _mm512_fmadd_ps(dot, scale, acc[i]);
    }
}

/// Pairs of `bf16` from a line of a row: the nearest, ties to even, with numbers below the smallest normal one as zero, as the products take them.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pairs(x: &[f32; 2 * Lanes::COUNT]) -> [u32; Lanes::COUNT] {
    let (low, high) = x.split_at(Lanes::COUNT);
    #[allow(unsafe_code, reason = "the instructions take pointers, and there is no intrinsic that only changes the type")]
    // SAFETY: both halves are 64 bytes; the result is 64 bytes for which every pattern is valid.
    unsafe {
        std::mem::transmute(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(high.as_ptr()), _mm512_loadu_ps(low.as_ptr())))
    }
}
