//! Packs activations in the order in which the kernels read them.

use super::arithmetic::{AMX_BLOCK_WORDS, Arithmetic, BLOCK};
use super::blocks::ActivationBlock;
use super::kernel::MAX_GEMV_ROWS;
use crate::parallel::*;
use crate::scratch::Lanes;
use crate::simd::exp::ROUND;

/// Quads of a block.
const QUADS: usize = BLOCK / 4;

/// From this many rows on, tiles are packed in parallel.
const MIN_PARALLEL_ROWS: usize = 32;

/// The order of packed words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In tiles of [`MAX_GEMV_ROWS`], and there row by row, for GEMV.
    Rows,
    /// In tiles of so many rows (the last may have fewer), part by part, and in a part step by step, with the rows'
    /// words of a step together, for GEMM.
    Tiles(usize),
}

/// The packed words of up to 16 or 32 values of a row.
type Line = [u32; Lanes::COUNT];

/// Lines of a row that are converted at a time.
const LINES: usize = 8;

/// Packs `x` `[n, columns]`, each row into [`Arithmetic::row_words`]. Blocks of integers are interleaved in both
/// layouts.
pub(super) fn pack(arithmetic: Arithmetic, layout: Layout, x: &[f32], columns: usize, packed: &mut [u32]) {
    let row_words = arithmetic.row_words(columns);
    let tile_rows = match layout {
        Layout::Rows => MAX_GEMV_ROWS,
        Layout::Tiles(rows) => rows,
    };
    let pack_tile = |(packed, x): (&mut [u32], &[f32])| {
        let rows = x.len() / columns;
        match arithmetic {
            Arithmetic::F32 => {
                pack_lines::<{ Lanes::COUNT }>(x, columns, packed, floats, by_parts(layout, rows, row_words));
            }
            Arithmetic::Bf16 => pack_pairs(x, columns, packed, by_parts(layout, rows, row_words)),
            Arithmetic::AmxBf16 => pack_pairs(x, columns, packed, by_lines(layout, rows)),
            Arithmetic::Int8 { offset } => pack_blocks(x, columns, offset, packed),
            Arithmetic::AmxInt8 => pack_amx_blocks(x, columns, packed),
        }
    };
    if x.len() < MIN_PARALLEL_ROWS * columns {
        packed.chunks_mut(tile_rows * row_words).zip(x.chunks(tile_rows * columns)).for_each(pack_tile);
    } else {
        packed.par_chunks_mut(tile_rows * row_words).zip(x.par_chunks(tile_rows * columns)).for_each(pack_tile);
    }
}

/// The places of a line's 16 words.
#[derive(Clone, Copy)]
struct LinePlaces {
    first: usize,
    stride: usize,
}

/// Packs lines of up to `ELEMENTS` values each. Some lines are packed for all rows before the next, so that what is
/// written together stays in the cache. `convert` stores the words of some lines, which are zero before, and `places`
/// says where the words of line m of a row go.
#[inline(always)]
fn pack_lines<const ELEMENTS: usize>(
    x: &[f32],
    columns: usize,
    packed: &mut [u32],
    convert: impl Fn(&[f32], &mut [Line; LINES]),
    places: impl Fn(usize, usize) -> LinePlaces,
) {
    for first in (0..columns.div_ceil(ELEMENTS)).step_by(LINES) {
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let x = &x[first * ELEMENTS..columns.min((first + LINES) * ELEMENTS)];
            let mut lines = [[0; Lanes::COUNT]; LINES];
            convert(x, &mut lines);
            for (m, words) in (first..).zip(&lines).take(x.len().div_ceil(ELEMENTS)) {
                let LinePlaces { first, stride } = places(m, row);
                if stride == 1 {
                    packed[first..first + Lanes::COUNT].copy_from_slice(words);
                } else {
                    packed[first..].iter_mut().step_by(stride).zip(words).for_each(|(to, word)| *to = *word);
                }
            }
        }
    }
}

/// For vector kernels: row by row, or in 16 parts of every 16th word, with a word of every row together.
fn by_parts(layout: Layout, rows: usize, row_words: usize) -> impl Fn(usize, usize) -> LinePlaces {
    move |m, row| match layout {
        Layout::Rows => LinePlaces { first: row * row_words + m * Lanes::COUNT, stride: 1 },
        Layout::Tiles(_) => LinePlaces { first: m * rows + row, stride: row_words / Lanes::COUNT * rows },
    }
}

/// For AMX: in a GEMV a word of every row, in a GEMM a line of every row, then the next.
fn by_lines(layout: Layout, rows: usize) -> impl Fn(usize, usize) -> LinePlaces {
    move |m, row| match layout {
        Layout::Rows => LinePlaces { first: m * Lanes::COUNT * rows + row, stride: rows },
        Layout::Tiles(_) => LinePlaces { first: (m * rows + row) * Lanes::COUNT, stride: 1 },
    }
}

/// Words of single values.
#[inline(always)]
fn floats(x: &[f32], lines: &mut [Line; LINES]) {
    for (word, x) in lines.as_flattened_mut().iter_mut().zip(x) {
        *word = x.to_bits();
    }
}

/// Words of pairs of `bf16`.
#[inline(always)]
fn pairs(x: &[f32], lines: &mut [Line; LINES]) {
    for (word, x) in lines.as_flattened_mut().iter_mut().zip(x.chunks(2)) {
        *word = pair(x);
    }
}

/// Packs lines of pairs of `bf16`, with the instruction for it where the processor has it.
fn pack_pairs(x: &[f32], columns: usize, packed: &mut [u32], places: impl Fn(usize, usize) -> LinePlaces) {
    const PAIRS: usize = 2 * Lanes::COUNT;
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86_memory::store_bf16_pairs;
        // Only the conversion is compiled for the instruction set: scattered stores of vectors are slow.
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn avx512_bf16(x: &[f32], lines: &mut [Line; LINES]) {
            let (whole, rest) = x.as_chunks::<PAIRS>();
            for (line, x) in lines.iter_mut().zip(whole) {
                store_bf16_pairs(line, x);
            }
            if let Some(line) = lines.get_mut(whole.len()) {
                line.iter_mut().zip(rest.chunks(2)).for_each(|(word, x)| *word = pair(x));
            }
        }
        if let Some(_token) = crate::simd::x86::Avx512Bf16::detect() {
            #[allow(unsafe_code, reason = "calls a function that is compiled for an instruction set")]
            // SAFETY: the token proves that the processor has the instruction set.
            let convert = |x: &[f32], lines: &mut [Line; LINES]| unsafe { avx512_bf16(x, lines) };
            return pack_lines::<PAIRS>(x, columns, packed, convert, places);
        }
    }
    pack_lines::<PAIRS>(x, columns, packed, pairs, places);
}

/// Two values in a word; a missing second one is zero.
fn pair(x: &[f32]) -> u32 {
    bf16_bits(x[0]) | x.get(1).map_or(0, |high| bf16_bits(*high) << 16)
}

/// The nearest `bf16`, ties to even; NaN stays NaN.
pub(super) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Blocks of integers: block 0 of every row, block 1 of every row, and so on.
fn pack_blocks(x: &[f32], columns: usize, offset: i32, packed: &mut [u32]) {
    let rows = x.len() / columns;
    let blocks = ActivationBlock::slice_mut(packed);
    for (row, x) in x.chunks_exact(columns).enumerate() {
        for (values, block) in x.as_chunks::<BLOCK>().0.iter().zip(blocks[row..].iter_mut().step_by(rows)) {
            *block = quantise(values, offset);
        }
    }
}

/// Blocks of integers for AMX: of each block the integers of every row, then the scales of every row.
fn pack_amx_blocks(x: &[f32], columns: usize, packed: &mut [u32]) {
    let rows = x.len() / columns;
    for (row, x) in x.chunks_exact(columns).enumerate() {
        let packed = packed.chunks_exact_mut(rows * AMX_BLOCK_WORDS);
        for (values, packed) in x.as_chunks::<BLOCK>().0.iter().zip(packed) {
            let (quads, scales) = packed.split_at_mut(rows * QUADS);
            let block = quantise(values, 0);
            quads[row * QUADS..][..QUADS].copy_from_slice(&block.quads.map(i32::cast_unsigned));
            scales[row] = block.scale.to_bits();
        }
    }
}

/// Quantises a block of activations to whole numbers up to 127, for weights that are `offset` too large. The scale is
/// the largest magnitude ÷ 127; it is NaN if a value is not finite, so that the result is NaN, too.
#[inline]
fn quantise(values: &[f32; BLOCK], offset: i32) -> ActivationBlock {
    let mut largest = 0;
    for value in values {
        // As integers magnitudes are ordered like the values, and what is not finite comes last.
        largest = largest.max((value.to_bits() & 0x7FFF_FFFF).cast_signed());
    }
    let largest = f32::from_bits(largest.cast_unsigned());
    if !largest.is_finite() {
        return ActivationBlock { quads: [0; QUADS], scale: f32::NAN, start: 0 };
    }
    let scale = largest / 127.0;
    let inverse = if scale.recip().is_finite() { scale.recip() } else { 0.0 };
    let mut quants = [0i8; BLOCK];
    let mut sum = 0;
    for (quant, value) in quants.iter_mut().zip(values) {
        let whole = (value * inverse + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed();
        *quant = whole as i8;
        sum += whole;
    }
    let mut quads = [0; QUADS];
    for (word, quad) in quads.iter_mut().zip(quants.as_chunks::<4>().0) {
        *word = i32::from_le_bytes(quad.map(i8::cast_unsigned));
    }
    ActivationBlock { quads, scale, start: -offset * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_layout_asked_for() {
        let x: Vec<f32> = (0..36).map(|v| v as f32).collect();
        let floats = |layout| {
            let mut packed = [7; 64];
            pack(Arithmetic::F32, layout, &x, 18, &mut packed);
            packed.map(f32::from_bits)
        };
        let rows = floats(Layout::Rows);
        assert_eq!((rows[1], rows[17], rows[18], rows[32], rows[49]), (1.0, 17.0, 0.0, 18.0, 35.0));
        let tiles = floats(Layout::Tiles(2));
        // Part 0: elements 0 and 16 of both rows.
        assert_eq!(tiles[..4], [0.0, 18.0, 16.0, 34.0]);
        assert_eq!(tiles[4 * 15..], [15.0, 33.0, 0.0, 0.0]);
        let mut packed = [7; 16];
        pack(Arithmetic::Bf16, Layout::Rows, &x[..5], 5, &mut packed);
        assert_eq!(packed[..4], [0x3F80_0000, 0x4040_4000, 0x4080, 0]);
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for value in [0.0, -1.5, 3.4e38, f32::MAX, f32::INFINITY, 1e-40, 1.003_906_2, 1.011_718_8] {
            assert_eq!(bf16_bits(value), u32::from(half::bf16::from_f32(value).to_bits()), "{value}");
        }
        assert!(f32::from_bits(bf16_bits(f32::NAN) << 16).is_nan());
        assert!(f32::from_bits(bf16_bits(f32::from_bits(0x7F80_0001)) << 16).is_nan());
    }

    #[test]
    fn blocks_are_quantised() {
        let mut values = [0.0; BLOCK];
        (values[0], values[1], values[2], values[31]) = (254.0, -253.0, 3.0, -254.0);
        let found = quantise(&values, 8);
        assert_eq!(found.quads[0].to_le_bytes().map(|b| b as i8), [127, -126, 2, 0]);
        assert_eq!(found.quads[7].to_le_bytes()[3] as i8, -127);
        assert_eq!(found.scale, 2.0);
        assert_eq!(found.start, -8 * (127 - 126 + 2 - 127));
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            values[7] = bad;
            assert!(quantise(&values, 8).scale.is_nan());
        }
        assert_eq!(quantise(&[0.0; BLOCK], 128), ActivationBlock { quads: [0; 8], scale: 0.0, start: 0 });
    }
}
