//! Activations in the order in which the kernels read them: tiles of a few rows, and in a tile step by step, the rows' values of a
//! step side by side.

use crate::parallel::*;

use super::arithmetic::{Arithmetic, BLOCK, INPUT_BLOCK, TILE_BLOCK};
use crate::Isa;
use crate::scratch::Lanes;

/// Words of the bytes of a block.
const BLOCK_WORDS: usize = BLOCK / 4;

/// Rows from which on tiles are packed in parallel.
const PARALLEL_ROWS: usize = 32;

/// How kernels want to read words of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Row after row.
    Rows,
    /// In tiles of so many rows (the last may have fewer), part after part, and in a part step by step, the rows' words of a step side by side.
    Tiles(usize),
}

/// Packs `x` `[n, columns]`, each row into [`Arithmetic::row_words`]. Blocks of bytes lie side by side in both orders; rows are one tile then.
pub(super) fn pack(arithmetic: Arithmetic, order: Order, x: &[f32], columns: usize, packed: &mut [u32]) {
    let row_words = arithmetic.row_words(columns);
    let tile = match order {
        Order::Rows => x.len() / columns,
        Order::Tiles(rows) => rows,
    };
    let vectors = Isa::Avx512Bf16.is_available();
    const PAIRS: usize = 2 * Lanes::COUNT;
    let pairs = |x: &[f32]| line_of_pairs(x, vectors);
    let one = |(packed, x): (&mut [u32], &[f32])| match (arithmetic, x.len() / columns) {
        (Arithmetic::Float, rows) => {
            lines::<{ Lanes::COUNT }>(x, columns, packed, line_of_floats, in_parts(order, rows, row_words));
        }
        (Arithmetic::Bfloat, rows) => lines::<PAIRS>(x, columns, packed, pairs, in_parts(order, rows, row_words)),
        (Arithmetic::Tiles, rows) => lines::<PAIRS>(x, columns, packed, pairs, in_lines(order, rows)),
        (Arithmetic::Bytes { offset }, _) => bytes(x, columns, offset, packed),
        (Arithmetic::TileBytes, _) => tile_bytes(x, columns, packed),
    };
    if x.len() < PARALLEL_ROWS * columns {
        packed.chunks_mut(tile * row_words).zip(x.chunks(tile * columns)).for_each(one);
    } else {
        packed.par_chunks_mut(tile * row_words).zip(x.par_chunks(tile * columns)).for_each(one);
    }
}

/// Lines of up to `ELEMENTS` values each, line after line of all rows, so that what is written together lies together. `place` gives where the
/// words of a line of a row begin, and how far they lie apart.
#[inline(always)]
fn lines<const ELEMENTS: usize>(
    x: &[f32],
    columns: usize,
    packed: &mut [u32],
    line: impl Fn(&[f32]) -> [u32; Lanes::COUNT],
    place: impl Fn(usize, usize) -> (usize, usize),
) {
    for m in 0..columns.div_ceil(ELEMENTS) {
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let words = line(&x[m * ELEMENTS..columns.min((m + 1) * ELEMENTS)]);
            let (first, step) = place(m, row);
            if step == 1 {
                packed[first..first + Lanes::COUNT].copy_from_slice(&words);
            } else {
                packed[first..].iter_mut().step_by(step).zip(words).for_each(|(to, word)| *to = word);
            }
        }
    }
}

/// Where words lie: row after row, or in parts of every 16th word, a word of every row side by side.
fn in_parts(order: Order, rows: usize, row_words: usize) -> impl Fn(usize, usize) -> (usize, usize) {
    move |m, row| match order {
        Order::Rows => (row * row_words + m * Lanes::COUNT, 1),
        Order::Tiles(_) => (m * rows + row, row_words / Lanes::COUNT * rows),
    }
}

/// Where pairs for tiles lie: of many rows, a line of every row, and so on; of a few, a word of every row, and so on.
fn in_lines(order: Order, rows: usize) -> impl Fn(usize, usize) -> (usize, usize) {
    move |m, row| match order {
        Order::Rows => (m * Lanes::COUNT * rows + row, rows),
        Order::Tiles(_) => ((m * rows + row) * Lanes::COUNT, 1),
    }
}

/// Up to 16 values, and zeros.
#[inline(always)]
fn line_of_floats(x: &[f32]) -> [u32; Lanes::COUNT] {
    let mut words = [0; Lanes::COUNT];
    for (word, x) in words.iter_mut().zip(x) {
        *word = x.to_bits();
    }
    words
}

/// Up to 16 pairs, and zeros; `vectors` says that the processor has AVX-512 BF16.
#[inline(always)]
fn line_of_pairs(x: &[f32], vectors: bool) -> [u32; Lanes::COUNT] {
    #[cfg(target_arch = "x86_64")]
    if let (true, Ok(x)) = (vectors, x.try_into()) {
        #[allow(unsafe_code, reason = "calls a function compiled for features that were detected")]
        // SAFETY: the caller has seen that the processor has them.
        return unsafe { super::amx::pairs(x) };
    }
    let _ = vectors;
    let mut words = [0; Lanes::COUNT];
    for (word, x) in words.iter_mut().zip(x.chunks(2)) {
        *word = pair(x);
    }
    words
}

/// Two values in a word; a second one that is not there is zero.
fn pair(x: &[f32]) -> u32 {
    bfloat(x[0]) | x.get(1).map_or(0, |high| bfloat(*high) << 16)
}

/// The nearest `bf16`, ties to even; no number stays no number.
fn bfloat(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

fn bytes(x: &[f32], columns: usize, offset: i32, packed: &mut [u32]) {
    let rows = x.len() / columns;
    let records = packed.as_chunks_mut::<INPUT_BLOCK>().0;
    for (row, x) in x.chunks_exact(columns).enumerate() {
        for (block, to) in x.as_chunks::<BLOCK>().0.iter().zip(records[row..].iter_mut().step_by(rows)) {
            *to = record(block, offset);
        }
    }
}

/// Blocks of all rows one after the other: the bytes of every row, and the scales of every row.
fn tile_bytes(x: &[f32], columns: usize, packed: &mut [u32]) {
    let rows = x.len() / columns;
    for (row, x) in x.chunks_exact(columns).enumerate() {
        for (block, packed) in x.as_chunks::<BLOCK>().0.iter().zip(packed.chunks_exact_mut(rows * TILE_BLOCK)) {
            let (bytes, scales) = packed.split_at_mut(rows * BLOCK_WORDS);
            let record = record(block, 0);
            bytes[row * BLOCK_WORDS..][..BLOCK_WORDS].copy_from_slice(&record[..BLOCK_WORDS]);
            scales[row] = record[BLOCK_WORDS];
        }
    }
}

/// A record of a block of activations: 32 signed bytes, their scale, and what their sum makes the weights' `offset` add, to be taken off.
fn record(block: &[f32; BLOCK], offset: i32) -> [u32; INPUT_BLOCK] {
    let (numbers, scale) = quantise(block);
    let quants = numbers.map(|number| number as i8);
    let sum: i32 = quants.iter().map(|&quant| i32::from(quant)).sum();
    let mut record = [0; INPUT_BLOCK];
    for (word, quad) in record.iter_mut().zip(quants.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(quad.map(|quant| quant as u8));
    }
    record[BLOCK_WORDS] = scale.to_bits();
    record[9] = (-offset * sum) as u32;
    record
}

/// A block of activations as whole numbers up to 127, and their scale: the largest magnitude ÷ 127. A block with a value that is not finite has
/// no number for its scale, and so makes the whole product none.
#[inline(always)]
fn quantise(block: &[f32; BLOCK]) -> ([f32; BLOCK], f32) {
    let mut magnitudes = [0u32; BLOCK];
    for (magnitude, value) in magnitudes.iter_mut().zip(block) {
        // As integers magnitudes are ordered like the values, and what is not finite comes last.
        *magnitude = value.to_bits() & 0x7FFF_FFFF;
    }
    let largest = f32::from_bits(magnitudes.iter().fold(0, |largest, &m| largest.max(m)));
    if !largest.is_finite() {
        return ([0.0; BLOCK], f32::NAN);
    }
    let scale = largest / 127.0;
    let inverse = if scale.recip().is_finite() { scale.recip() } else { 0.0 };
    // Adding and taking off 1.5 · 2²³ rounds to the nearest whole number, ties to even, on any processor alike.
    const ROUND: f32 = 12_582_912.0;
    (block.map(|value| (value * inverse + ROUND) - ROUND), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lie_in_the_order_asked_for() {
        let x: Vec<f32> = (0..36).map(|v| v as f32).collect();
        let floats = |order| {
            let mut packed = [7; 64];
            pack(Arithmetic::Float, order, &x, 18, &mut packed);
            packed.map(f32::from_bits)
        };
        let rows = floats(Order::Rows);
        assert_eq!((rows[1], rows[17], rows[18], rows[32], rows[49]), (1.0, 17.0, 0.0, 18.0, 35.0));
        let tiles = floats(Order::Tiles(2));
        // Part 0: elements 0 and 16 of both rows.
        assert_eq!(tiles[..4], [0.0, 18.0, 16.0, 34.0]);
        assert_eq!(tiles[4 * 15..], [15.0, 33.0, 0.0, 0.0]);
        let mut packed = [7; 16];
        pack(Arithmetic::Bfloat, Order::Rows, &x[..5], 5, &mut packed);
        assert_eq!(packed[..4], [0x3F80_0000, 0x4040_4000, 0x4080, 0]);
    }

    #[test]
    fn bfloat_rounds_to_nearest_even() {
        for value in [0.0, -1.5, 3.4e38, f32::MAX, f32::INFINITY, 1e-40, 1.003_906_2, 1.011_718_8] {
            assert_eq!(bfloat(value), u32::from(half::bf16::from_f32(value).to_bits()), "{value}");
        }
        assert!(f32::from_bits(bfloat(f32::NAN) << 16).is_nan());
        assert!(f32::from_bits(bfloat(f32::from_bits(0x7F80_0001)) << 16).is_nan());
    }

    #[test]
    fn blocks_of_bytes() {
        let mut block = [0.0; BLOCK];
        (block[0], block[1], block[2], block[31]) = (254.0, -253.0, 3.0, -254.0);
        let found = record(&block, 8);
        assert_eq!(found[0].to_le_bytes().map(|b| b as i8), [127, -126, 2, 0]);
        assert_eq!(found[7].to_le_bytes()[3] as i8, -127);
        assert_eq!(f32::from_bits(found[8]), 2.0);
        assert_eq!(found[9] as i32, -8 * (127 - 126 + 2 - 127));
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            block[7] = bad;
            assert!(f32::from_bits(record(&block, 8)[8]).is_nan());
        }
        assert_eq!(record(&[0.0; BLOCK], 128), [0; INPUT_BLOCK]);
    }
}
