//! Packing with AVX-512: 16 rows are loaded a cache line each, transposed in registers so that a row becomes a lane,
//! and stored.

use std::arch::x86_64::*;
use std::mem::offset_of;

use super::arithmetic::{Arithmetic, BLOCK};
use super::blocks::PanelBlock;
use super::kernel::{GROUP, Pack};
use super::portable_gemm;
use super::weight_rows::{RowBlocks, WeightRows};
use super::x86_memory::{load_16, load_32, load_64, store_floats, store_lanes};
use crate::Format;
use crate::format::{q4_0::BlockQ4_0, q8_0::BlockQ8_0};
use crate::scratch::Lanes;
use crate::simd::prefetch::LINE;

pub(super) fn pack(arithmetic: Arithmetic, format: Format) -> Pack {
    match (arithmetic, format) {
        (Arithmetic::Bf16, _) | (_, Format::F32) => words,
        (Arithmetic::AmxBf16, _) => amx_words,
        (Arithmetic::AmxInt8, Format::Q8_0) => amx_integers::<false>,
        (Arithmetic::AmxInt8, _) => amx_integers::<true>,
        (Arithmetic::Int8 { .. }, Format::Q8_0) => integers::<false>,
        (Arithmetic::Int8 { .. }, _) => integers::<true>,
        (_, Format::BF16) => half_floats::<false>,
        (_, Format::F16) => half_floats::<true>,
        _ => dequantised,
    }
}

/// The plain code, compiled for wider vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn dequantised(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    portable_gemm::pack_floats(weights, index, group, 0);
}

/// `f32`, or pairs of `bf16`: a line of a row has a word of every part.
#[target_feature(enable = "avx512f")]
fn words(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / 16;
    for line in 0..part {
        for (class, vector) in transposed_line(weights, line).into_iter().enumerate() {
            store_lanes(&mut group[(class * GROUP + index) * part + line], vector);
        }
    }
}

/// Pairs of `bf16`, in the order of the row.
#[target_feature(enable = "avx512f")]
fn amx_words(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let steps = group.len() / GROUP;
    for line in 0..steps / 16 {
        let place = index * steps + line * 16;
        for (to, vector) in group[place..place + 16].iter_mut().zip(transposed_line(weights, line)) {
            store_lanes(to, vector);
        }
    }
}

/// 16-bit floats, cast up: a line of a row has two words of every part, if it is whole.
#[target_feature(enable = "avx512f")]
fn half_floats<const F16: bool>(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / 16;
    for line in 0..part.div_ceil(2) {
        for (pair, vector) in transposed_line(weights, line).into_iter().enumerate() {
            let (low, high) = if F16 {
                let low = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(vector));
                let high = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(vector)));
                (_mm512_castps_si512(low), _mm512_castps_si512(high))
            } else {
                let upper = _mm512_set1_epi32(0xFFFF_0000u32.cast_signed());
                (_mm512_slli_epi32::<16>(vector), _mm512_and_si512(vector, upper))
            };
            let (m, class) = (line * 2 + pair / 8, pair % 8 * 2);
            if m < part {
                store_lanes(&mut group[(class * GROUP + index) * part + m], low);
                store_lanes(&mut group[((class + 1) * GROUP + index) * part + m], high);
            }
        }
    }
}

/// Line `line` of all rows, transposed. Beyond a row's end there are zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed_line(weights: &WeightRows<'_>, line: usize) -> [__m512i; 16] {
    let start = line * LINE;
    let left = weights.row(0).len() - start;
    let mut vectors = [_mm512_setzero_si512(); 16];
    if left >= LINE {
        let blocks = weights.blocks::<LINE>(start);
        for (row, vector) in vectors.iter_mut().enumerate() {
            *vector = load_64(blocks.get::<0, LINE>(row));
        }
    } else {
        for (row, vector) in vectors.iter_mut().enumerate() {
            let mut last = [0; LINE];
            last[..left].copy_from_slice(&weights.row(row)[start..]);
            *vector = load_64(&last);
        }
    }
    transpose(vectors)
}

/// Blocks of `Q8_0`, made unsigned, or of `Q4_0`, from 0 to 15.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn integers<const NIBBLES: bool>(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let blocks = weights.columns / BLOCK;
    for block in 0..blocks {
        let (quads, scales) = if NIBBLES { nibble_quads(weights, block) } else { byte_quads(weights, block) };
        store_block(PanelBlock::at(group, portable_gemm::block_place(block, blocks, index)), quads, scales);
    }
}

/// Blocks of `Q8_0` or `Q4_0` as signed integers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn amx_integers<const NIBBLES: bool>(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let blocks = group.len() / GROUP / PanelBlock::VECTORS;
    // What the integers are too large, to subtract as bytes.
    let offset = _mm512_set1_epi8(if NIBBLES { 8 } else { i8::MIN });
    for block in 0..blocks {
        let (quads, scales) = if NIBBLES { nibble_quads(weights, block) } else { byte_quads(weights, block) };
        let quads = quads.map(|quad| _mm512_sub_epi8(quad, offset));
        store_block(PanelBlock::at(group, index * blocks + block), quads, scales);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_block(to: &mut PanelBlock, quads: [__m512i; 8], scales: __m512) {
    for (to, quad) in to.quads.iter_mut().zip(quads) {
        store_lanes(to, quad);
    }
    store_floats(&mut to.scales, scales);
}

/// A block of `Q8_0` of 16 rows: quad j of every row, made unsigned as the instruction needs it. And the scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn byte_quads(weights: &WeightRows<'_>, block: usize) -> ([__m512i; 8], __m512) {
    const BYTES: usize = size_of::<BlockQ8_0>();
    const QUANTS: usize = offset_of!(BlockQ8_0, quants);
    let rows = weights.blocks::<BYTES>(block * BYTES);
    let [a, b, c, d] = transpose_quarters(load_quarters::<BYTES, QUANTS>(&rows));
    let [e, f, g, h] = transpose_quarters(load_quarters::<BYTES, { QUANTS + 16 }>(&rows));
    let mut quads = [a, b, c, d, e, f, g, h];
    for quad in &mut quads {
        *quad = _mm512_xor_si512(*quad, _mm512_set1_epi8(i8::MIN));
    }
    (quads, scales(&rows))
}

/// A block of `Q4_0` of 16 rows: quad j of every row, from 0 to 15. And the scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn nibble_quads(weights: &WeightRows<'_>, block: usize) -> ([__m512i; 8], __m512) {
    const BYTES: usize = size_of::<BlockQ4_0>();
    const NIBBLES: usize = offset_of!(BlockQ4_0, nibbles);
    let rows = weights.blocks::<BYTES>(block * BYTES);
    let both = transpose_quarters(load_quarters::<BYTES, NIBBLES>(&rows));
    let mask = _mm512_set1_epi8(15);
    let mut quads = [mask; 8];
    for j in 0..4 {
        quads[j] = _mm512_and_si512(both[j], mask);
        quads[j + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(both[j]), mask);
    }
    (quads, scales(&rows))
}

/// The `f16` scales that blocks begin with, cast up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scales<const BYTES: usize>(rows: &RowBlocks<'_, BYTES>) -> __m512 {
    let mut halves = [[0u8; 2]; 16];
    for (row, half) in halves.iter_mut().enumerate() {
        *half = *rows.get::<0, 2>(row);
    }
    let halves: &[u8; 32] = halves.as_flattened().first_chunk().expect("it is 16 times 2 bytes");
    _mm512_cvtph_ps(load_32(halves))
}

/// 16 bytes from `AT` of all rows: vector j has those of rows j, j + 4, j + 8 and j + 12.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn load_quarters<const BYTES: usize, const AT: usize>(rows: &RowBlocks<'_, BYTES>) -> [__m512i; 4] {
    [
        load_four::<BYTES, AT>(rows, 0),
        load_four::<BYTES, AT>(rows, 1),
        load_four::<BYTES, AT>(rows, 2),
        load_four::<BYTES, AT>(rows, 3),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn load_four<const BYTES: usize, const AT: usize>(rows: &RowBlocks<'_, BYTES>, j: usize) -> __m512i {
    let (a, b) = (load_16(rows.get::<AT, 16>(j)), load_16(rows.get::<AT, 16>(j + 4)));
    let (c, d) = (load_16(rows.get::<AT, 16>(j + 8)), load_16(rows.get::<AT, 16>(j + 12)));
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Transposes 16 × 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut result = rows;
    // Quarter q of `parts[g][j]` has word 4q + j of rows 4g … 4g + 3.
    let mut parts = [[_mm512_setzero_si512(); 4]; 4];
    for g in 0..4 {
        parts[g] = transpose_quarters([rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]]);
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

/// Transposes 4 × 4 words within each quarter.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quarters(rows: [__m512i; 4]) -> [__m512i; 4] {
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
