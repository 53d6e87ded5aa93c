//! GEMV with AVX2.
//!
//! Floats: the lanes of a sum, in two vectors, are columns. As many rows are multiplied together as keep the units
//! busy. Integers: a block of 16 rows at a time is transposed in registers, so that rows are lanes.

use std::arch::x86_64::*;
use std::mem::offset_of;

use super::arithmetic::{Arithmetic, BLOCK_PART};
use super::blocks::ActivationBlock;
use super::gemv::{RowLanes, add_lanes, float_gemv};
use super::kernel::{Gemv, MAX_GEMV_ROWS, with_constant_rows};
use super::weight_rows::{RowBlocks, WeightRows};
use super::x86_memory::{load_16, load_32, load_words_256, store_floats_256, store_half};
use crate::Format;
use crate::format::{q4_0::BlockQ4_0, q8_0::BlockQ8_0};
use crate::scratch::Lanes;
use crate::simd::prefetch::{LINE, prefetch};

/// The kind of weights in 32 or 16 bytes.
const F32: u8 = 0;
const BF16: u8 = 1;
const F16: u8 = 2;

pub(super) fn gemv(arithmetic: Arithmetic, format: Format) -> Option<Gemv> {
    match (arithmetic, format) {
        (Arithmetic::F32, Format::F32) => Some(floats::<F32>),
        (Arithmetic::F32, Format::F16) => Some(floats::<F16>),
        (Arithmetic::F32, Format::BF16) => Some(floats::<BF16>),
        (Arithmetic::Int8 { .. }, Format::Q8_0) => Some(integers::<false>),
        (Arithmetic::Int8 { .. }, Format::Q4_0) => Some(integers::<true>),
        _ => None,
    }
}

/// The sums of a row of weights with a row of activations: 16 lanes.
type Sums = [__m256; 2];

float_gemv!("avx2,fma,f16c");

/// `R` rows of weights from `row` on with `X` rows of activations.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_rows<const R: usize, const X: usize, const KIND: u8>(
    weights: &WeightRows<'_>,
    row: usize,
    x: [&[u32]; X],
) -> [[Sums; X]; R] {
    let vector = if KIND == F32 { 64 } else { 32 };
    let row_bytes = weights.row(0).len();
    let ahead = weights.address(row + R);
    let mut acc = [[[_mm256_setzero_ps(); 2]; X]; R];
    for m in 0..row_bytes / vector {
        for at in (0..R * vector).step_by(LINE) {
            prefetch(ahead, m * R * vector + at);
        }
        let mut w = [[_mm256_setzero_ps(); 2]; R];
        for (r, w) in w.iter_mut().enumerate() {
            *w = if KIND == F32 {
                let rows = weights.blocks::<64>(m * 64);
                [as_floats(rows.get::<0, 32>(row + r)), as_floats(rows.get::<32, 32>(row + r))]
            } else {
                let rows = weights.blocks::<32>(m * 32);
                [to_f32::<KIND>(rows.get::<0, 16>(row + r)), to_f32::<KIND>(rows.get::<16, 16>(row + r))]
            };
        }
        multiply_add(&mut acc, &w, &x, m);
    }
    let whole = row_bytes / vector;
    if whole * vector < row_bytes {
        let mut w = [[_mm256_setzero_ps(); 2]; R];
        for (r, w) in w.iter_mut().enumerate() {
            let rest = &weights.row(row + r)[whole * vector..];
            let mut last = [0u8; 64];
            last[..rest.len()].copy_from_slice(rest);
            let (halves, quarters) = (last.as_chunks::<32>().0, last.as_chunks::<16>().0);
            *w = if KIND == F32 {
                [as_floats(&halves[0]), as_floats(&halves[1])]
            } else {
                [to_f32::<KIND>(&quarters[0]), to_f32::<KIND>(&quarters[1])]
            };
        }
        multiply_add(&mut acc, &w, &x, whole);
    }
    acc
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn multiply_add<const R: usize, const X: usize>(acc: &mut [[Sums; X]; R], w: &[Sums; R], x: &[&[u32]; X], m: usize) {
    for i in 0..X {
        let x: &[u32; 16] = x[i][m * 16..].first_chunk().expect("rows are padded to whole vectors");
        let x = x.as_chunks::<8>().0;
        let x = [load_words_256(&x[0]), load_words_256(&x[1])];
        for r in 0..R {
            acc[r][i][0] = _mm256_fmadd_ps(w[r][0], x[0], acc[r][i][0]);
            acc[r][i][1] = _mm256_fmadd_ps(w[r][1], x[1], acc[r][i][1]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_rows<const R: usize, const X: usize>(acc: [[Sums; X]; R], row: usize, totals: &mut [[[f32; 16]; 16]]) {
    for (r, acc) in acc.iter().enumerate() {
        for (acc, totals) in acc.iter().zip(totals.iter_mut()) {
            for (totals, acc) in totals[row + r].as_chunks_mut::<8>().0.iter_mut().zip(acc) {
                store_floats_256(totals, *acc);
            }
        }
    }
}

/// Eight `bf16` or `f16`, cast up.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn to_f32<const KIND: u8>(bytes: &[u8; 16]) -> __m256 {
    if KIND == F16 {
        _mm256_cvtph_ps(load_16(bytes))
    } else {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_16(bytes))))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn as_floats(bytes: &[u8; 32]) -> __m256 {
    _mm256_castsi256_ps(load_32(bytes))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn integers<const NIBBLES: bool>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
    with_constant_rows!(sums.len(), [1, 2, 3, 4, 5, 6, 7], MAX_GEMV_ROWS, X => {
        integer_tile::<X, NIBBLES>(weights, x, sums);
    });
}

/// The loop over blocks of 16 rows.
#[target_feature(enable = "avx2,fma,f16c")]
fn integer_tile<const X: usize, const NIBBLES: bool>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
    let ahead = weights.address(Lanes::COUNT);
    let bytes = Lanes::COUNT * if NIBBLES { size_of::<BlockQ4_0>() } else { size_of::<BlockQ8_0>() };
    let mut totals = [[_mm256_setzero_ps(); X]; 2];
    let mut block = 0;
    for part in ActivationBlock::slice(x).as_chunks::<X>().0.chunks(BLOCK_PART) {
        let mut acc = [[_mm256_setzero_ps(); X]; 2];
        for x in part {
            for at in (0..bytes).step_by(LINE) {
                prefetch(ahead, block * bytes + at);
            }
            for (half, acc) in acc.iter_mut().enumerate() {
                let (quads, scales) =
                    if NIBBLES { nibble_quads(weights, block, half) } else { byte_quads(weights, block, half) };
                for i in 0..X {
                    let dot = if NIBBLES { dot_nibbles(&quads, &x[i]) } else { dot_bytes(&quads, &x[i]) };
                    let dot = _mm256_add_epi32(dot, _mm256_set1_epi32(x[i].start));
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x[i].scale));
                    acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc[i]);
                }
            }
            block += 1;
        }
        for (totals, acc) in totals.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
            *totals = _mm256_add_ps(*totals, *acc);
        }
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        store_half(sums, 0, _mm256_castps_si256(totals[0][i]));
        store_half(sums, 1, _mm256_castps_si256(totals[1][i]));
    }
}

/// Weights from 0 to 15: sums of all 16 products of a pair of bytes, at most 16 · 15 · 127, fit 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_nibbles(quads: &[__m256i; 8], x: &ActivationBlock) -> __m256i {
    let mut pairs = _mm256_setzero_si256();
    for (quad, x) in quads.iter().zip(x.quads) {
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(*quad, _mm256_set1_epi32(x)));
    }
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// Signed weights. The instruction multiplies unsigned by signed integers, so the weight's sign moves to the
/// activation. Two products, at most 2 · 128 · 127, fit 16 bits; more do not.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_bytes(quads: &[__m256i; 8], x: &ActivationBlock) -> __m256i {
    let mut dot = _mm256_setzero_si256();
    for (quad, x) in quads.iter().zip(x.quads) {
        let signed = _mm256_sign_epi8(_mm256_set1_epi32(x), *quad);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(*quad), signed);
        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    dot
}

/// A block of `Q8_0` of 8 of 16 rows: quad j of each. And the scales.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn byte_quads(weights: &WeightRows<'_>, block: usize, half: usize) -> ([__m256i; 8], __m256) {
    const BYTES: usize = size_of::<BlockQ8_0>();
    const QUANTS: usize = offset_of!(BlockQ8_0, quants);
    let rows = weights.blocks::<BYTES>(block * BYTES);
    let [a, b, c, d] = transposed::<BYTES, QUANTS>(&rows, half);
    let [e, f, g, h] = transposed::<BYTES, { QUANTS + 16 }>(&rows, half);
    ([a, b, c, d, e, f, g, h], scales(&rows, half))
}

/// A block of `Q4_0` of 8 of 16 rows: quad j of each, from 0 to 15. And the scales.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn nibble_quads(weights: &WeightRows<'_>, block: usize, half: usize) -> ([__m256i; 8], __m256) {
    const BYTES: usize = size_of::<BlockQ4_0>();
    const NIBBLES: usize = offset_of!(BlockQ4_0, nibbles);
    let rows = weights.blocks::<BYTES>(block * BYTES);
    let both = transposed::<BYTES, NIBBLES>(&rows, half);
    let mask = _mm256_set1_epi8(15);
    let mut quads = [mask; 8];
    for j in 0..4 {
        quads[j] = _mm256_and_si256(both[j], mask);
        quads[j + 4] = _mm256_and_si256(_mm256_srli_epi16::<4>(both[j]), mask);
    }
    (quads, scales(&rows, half))
}

/// 16 bytes from `AT` of 8 rows: vector j has word j of each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transposed<const BYTES: usize, const AT: usize>(
    rows: &RowBlocks<'_, BYTES>,
    half: usize,
) -> [__m256i; 4] {
    let mut pairs = [_mm256_setzero_si256(); 4];
    for (j, pair) in pairs.iter_mut().enumerate() {
        let (low, high) = (rows.get::<AT, 16>(half * 8 + j), rows.get::<AT, 16>(half * 8 + j + 4));
        *pair = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load_16(low)), load_16(high));
    }
    let [a, b, c, d] = pairs;
    let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab_low, cd_low),
        _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The `f16` scales that blocks of 8 rows begin with, cast up.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales<const BYTES: usize>(rows: &RowBlocks<'_, BYTES>, half: usize) -> __m256 {
    let mut halves = [0u8; 16];
    for (row, to) in halves.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *to = *rows.get::<0, 2>(half * 8 + row);
    }
    _mm256_cvtph_ps(load_16(&halves))
}
