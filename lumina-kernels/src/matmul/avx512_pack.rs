//! Panels with AVX-512: 16 rows are read a cache line each, turned in registers so that a row becomes a lane, and stored.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, BLOCK, PANEL_BLOCK, TILE_BLOCK};
use super::kernel::{GROUP, Pack};
use super::portable_gemm;
use super::prefetch::LINE;
use super::weight_rows::{Blocks, Source};
use crate::Format;
use crate::format::{q4_0, q8_0};
use crate::scratch::Lanes;

pub(super) fn pack(arithmetic: Arithmetic, format: Format) -> Pack {
    match (arithmetic, format) {
        (Arithmetic::Bfloat, _) | (_, Format::F32) => words,
        (Arithmetic::Tiles, _) => tile_words,
        (Arithmetic::TileBytes, Format::Q8_0) => tile_bytes::<false>,
        (Arithmetic::TileBytes, _) => tile_bytes::<true>,
        (Arithmetic::Bytes { .. }, Format::Q8_0) => bytes,
        (Arithmetic::Bytes { .. }, _) => nibbles,
        (_, Format::BF16) => widened::<false>,
        (_, Format::F16) => widened::<true>,
        _ => blocks_as_floats,
    }
}

/// What the compiler makes of the plain code with wider vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn blocks_as_floats(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    portable_gemm::float_panel(source, index, group, 0);
}

/// `f32`, or pairs of `bf16`: a line of a row has a word of every part.
#[target_feature(enable = "avx512f")]
fn words(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / 16;
    for line in 0..part {
        for (class, vector) in turned(source, line).into_iter().enumerate() {
            store(&mut group[(class * GROUP + index) * part + line], vector);
        }
    }
}

/// Pairs of `bf16`, in the order of the row.
#[target_feature(enable = "avx512f")]
fn tile_words(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let steps = group.len() / GROUP;
    for line in 0..steps / 16 {
        let place = index * steps + line * 16;
        for (to, vector) in group[place..place + 16].iter_mut().zip(turned(source, line)) {
            store(to, vector);
        }
    }
}

/// 16-bit floats: a line of a row has two words of every part, if it is whole.
#[target_feature(enable = "avx512f")]
fn widened<const HALVES: bool>(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / 16;
    for line in 0..part.div_ceil(2) {
        for (pair, vector) in turned(source, line).into_iter().enumerate() {
            let (low, high) = if HALVES {
                let low = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(vector));
                let high = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(vector)));
                (_mm512_castps_si512(low), _mm512_castps_si512(high))
            } else {
                let upper = _mm512_set1_epi32(0xFFFF_0000u32.cast_signed());
                (_mm512_slli_epi32::<16>(vector), _mm512_and_si512(vector, upper))
            };
            let (m, class) = (line * 2 + pair / 8, pair % 8 * 2);
            if m < part {
                store(&mut group[(class * GROUP + index) * part + m], low);
                store(&mut group[((class + 1) * GROUP + index) * part + m], high);
            }
        }
    }
}

/// Line `line` of all rows, turned; beyond a row's end there are zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn turned(source: &Source<'_>, line: usize) -> [__m512i; 16] {
    let start = line * LINE;
    let left = source.lane(0).len() - start;
    let mut vectors = [_mm512_setzero_si512(); 16];
    if left >= LINE {
        let blocks = source.blocks::<LINE>(start);
        for (lane, vector) in vectors.iter_mut().enumerate() {
            *vector = load_line(blocks.get::<0, LINE>(lane));
        }
    } else {
        for (lane, vector) in vectors.iter_mut().enumerate() {
            let mut last = [0; LINE];
            last[..left].copy_from_slice(&source.lane(lane)[start..]);
            *vector = load_line(&last);
        }
    }
    turn(vectors)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn bytes(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let blocks = source.columns / BLOCK;
    for block in 0..blocks {
        let (quads, scales) = byte_quads(source, block);
        store_block(portable_gemm::block_place(block, blocks, index), group, quads, scales);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn nibbles(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let blocks = source.columns / BLOCK;
    for block in 0..blocks {
        let (quads, scales) = nibble_quads(source, block);
        store_block(portable_gemm::block_place(block, blocks, index), group, quads, scales);
    }
}

/// Blocks of `Q8_0` or `Q4_0` as signed bytes, and their scales.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn tile_bytes<const NIBBLES: bool>(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let panel = group.len() / GROUP;
    // What makes the numbers signed, as bytes to be taken off.
    let offset = _mm512_set1_epi8(if NIBBLES { 8 } else { i8::MIN });
    for number in 0..panel / TILE_BLOCK {
        let (quads, scales) = if NIBBLES { nibble_quads(source, number) } else { byte_quads(source, number) };
        let quads = quads.map(|quad| _mm512_sub_epi8(quad, offset));
        store_block(index * panel + number * TILE_BLOCK, group, quads, scales);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_block(place: usize, group: &mut [Lanes], quads: [__m512i; 8], scales: __m512) {
    let to = &mut group[place..place + PANEL_BLOCK];
    for (to, quad) in to.iter_mut().zip(quads) {
        store(to, quad);
    }
    store(&mut to[PANEL_BLOCK - 1], _mm512_castps_si512(scales));
}

/// A block of `Q8_0` of 16 rows: vector `j` has bytes `4j … 4j + 3` of every row, made unsigned as the instruction wants them. And the scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn byte_quads(source: &Source<'_>, block: usize) -> ([__m512i; 8], __m512) {
    let rows = source.blocks::<{ q8_0::BYTES }>(block * q8_0::BYTES);
    let [a, b, c, d] = turn_quarters(fours::<{ q8_0::BYTES }, { q8_0::QUANTS }>(&rows));
    let [e, f, g, h] = turn_quarters(fours::<{ q8_0::BYTES }, { q8_0::QUANTS + 16 }>(&rows));
    let mut quads = [a, b, c, d, e, f, g, h];
    for quad in &mut quads {
        *quad = _mm512_xor_si512(*quad, _mm512_set1_epi8(i8::MIN));
    }
    (quads, scales(&rows))
}

/// A block of `Q4_0` of 16 rows: vector `j` has numbers `4j … 4j + 3` of every row. And the scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn nibble_quads(source: &Source<'_>, block: usize) -> ([__m512i; 8], __m512) {
    let rows = source.blocks::<{ q4_0::BYTES }>(block * q4_0::BYTES);
    let both = turn_quarters(fours::<{ q4_0::BYTES }, { q4_0::QUANTS }>(&rows));
    let mask = _mm512_set1_epi8(15);
    let mut quads = [mask; 8];
    for j in 0..4 {
        quads[j] = _mm512_and_si512(both[j], mask);
        quads[j + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(both[j]), mask);
    }
    (quads, scales(&rows))
}

/// The `f16` that blocks begin with, widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scales<const BYTES: usize>(rows: &Blocks<'_, BYTES>) -> __m512 {
    let mut halves = [[0u8; 2]; 16];
    for (lane, half) in halves.iter_mut().enumerate() {
        *half = *rows.get::<0, 2>(lane);
    }
    let halves: &[u8; 32] = halves.as_flattened().first_chunk().expect("it is 16 times 2 bytes");
    _mm512_cvtph_ps(load_half(halves))
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn fours<const BYTES: usize, const AT: usize>(rows: &Blocks<'_, BYTES>) -> [__m512i; 4] {
    [four::<BYTES, AT>(rows, 0), four::<BYTES, AT>(rows, 1), four::<BYTES, AT>(rows, 2), four::<BYTES, AT>(rows, 3)]
}

/// 16 bytes from `AT` of rows `j`, `j + 4`, `j + 8` and `j + 12`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn four<const BYTES: usize, const AT: usize>(rows: &Blocks<'_, BYTES>, j: usize) -> __m512i {
    let (a, b) = (load_quarter(rows.get::<AT, 16>(j)), load_quarter(rows.get::<AT, 16>(j + 4)));
    let (c, d) = (load_quarter(rows.get::<AT, 16>(j + 8)), load_quarter(rows.get::<AT, 16>(j + 12)));
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Turns 16 × 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn turn(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut result = rows;
    // Quarter q of `parts[g][j]` has word 4q + j of rows 4g … 4g + 3.
    let mut parts = [[_mm512_setzero_si512(); 4]; 4];
    for g in 0..4 {
        parts[g] = turn_quarters([rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]]);
    }
    for j in 0..4 {
        let even_low = _mm512_shuffle_i32x4::<0b10_00_10_00>(parts[0][j], parts[1][j]);
        let odd_low = _mm512_shuffle_i32x4::<0b11_01_11_01>(parts[0][j], parts[1][j]);
        let even_high = _mm512_shuffle_i32x4::<0b10_00_10_00>(parts[2][j], parts[3][j]);
        let odd_high = _mm512_shuffle_i32x4::<0b11_01_11_01>(parts[2][j], parts[3][j]);
        result[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even_low, even_high);
        result[j + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even_low, even_high);
        result[j + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd_low, odd_high);
        result[j + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd_low, odd_high);
    }
    result
}

/// Turns 4 × 4 words within each quarter.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn_quarters(rows: [__m512i; 4]) -> [__m512i; 4] {
    let [a, b, c, d] = rows;
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_line(line: &[u8; LINE]) -> __m512i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `line` is 64 bytes; the instruction asks for no alignment.
    unsafe {
        _mm512_loadu_si512(line.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_half(half: &[u8; 32]) -> __m256i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `half` is 32 bytes; the instruction asks for no alignment.
    unsafe {
        _mm256_loadu_si256(half.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_quarter(quarter: &[u8; 16]) -> __m128i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `quarter` is 16 bytes; the instruction asks for no alignment.
    unsafe {
        _mm_loadu_si128(quarter.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut Lanes, vector: __m512i) {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a `Lanes` is 64 bytes, aligned to 64.
    unsafe {
        _mm512_store_si512(to.0.as_mut_ptr().cast(), vector);
    }
}
