//! GEMV with AVX-512.
//!
//! Floats: the lanes of a sum are columns. Four rows of weights are multiplied together, and the sums of 16 rows are
//! transposed and added up at their end. Integers: a block of 16 rows at a time is transposed in registers, so that
//! rows are lanes.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, BLOCK_PART};
use super::avx512_gemm::add_block;
use super::avx512_pack::{byte_quads, nibble_quads, transpose};
use super::blocks::ActivationBlock;
use super::kernel::{Gemv, MAX_GEMV_ROWS, with_constant_rows};
use super::weight_rows::WeightRows;
use super::x86_memory::{as_bf16, load_32, load_64, load_words_512, store_floats};
use crate::Format;
use crate::format::{q4_0::BlockQ4_0, q8_0::BlockQ8_0};
use crate::scratch::Lanes;
use crate::simd::prefetch::{LINE, prefetch};

/// The kind of weights in 64 or 32 bytes.
const F32: u8 = 0;
const BF16: u8 = 1;
const F16: u8 = 2;
const BF16_PAIRS: u8 = 3;

pub(super) fn gemv(arithmetic: Arithmetic, format: Format) -> Option<Gemv> {
    Some(match (arithmetic, format) {
        (Arithmetic::Bf16, _) => pairs::<BF16_PAIRS>,
        (Arithmetic::Int8 { .. }, Format::Q8_0) => integers::<false>,
        (Arithmetic::Int8 { .. }, _) => integers::<true>,
        (_, Format::F32) => floats::<F32>,
        (_, Format::BF16) => floats::<BF16>,
        (_, Format::F16) => floats::<F16>,
        _ => return None,
    })
}

/// Rows of activations, and rows of weights, that are multiplied together: their sums take 16 registers. More rows of
/// activations are multiplied in turn, while the weights are in the cache.
const TILE: usize = 4;

/// The loop over the rows of weights, for either multiply-add instruction, and the function that calls it with a
/// constant number of rows of activations.
macro_rules! float_gemv {
    ($gemv:ident, $tile:ident, $features:literal, $multiply_add:ident) => {
        #[target_feature(enable = $features)]
        fn $gemv<const KIND: u8>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
            let row_words = x.len() / sums.len();
            for (x, sums) in x.chunks(TILE * row_words).zip(sums.chunks_mut(TILE)) {
                with_constant_rows!(sums.len(), [1, 2, 3], TILE, X => $tile::<X, KIND>(weights, x, sums));
            }
        }

        #[target_feature(enable = $features)]
        fn $tile<const X: usize, const KIND: u8>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
            let vector = if matches!(KIND, F32 | BF16_PAIRS) { LINE } else { LINE / 2 };
            let row_words = x.len() / X;
            let mut totals = [[_mm512_setzero_ps(); X]; Lanes::COUNT];
            for (group, totals) in totals.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let rows: [&[u8]; TILE] = std::array::from_fn(|r| weights.row(group * TILE + r));
                let whole = rows[0].len() / vector;
                let ahead = weights.address((group + 1) * TILE);
                let mut acc = [[_mm512_setzero_ps(); X]; TILE];
                for m in 0..whole {
                    let mut w = [_mm512_setzero_ps(); TILE];
                    for r in 0..TILE {
                        w[r] = load::<KIND>(&rows[r][m * vector..]);
                        if vector == LINE || r % 2 == 0 {
                            prefetch(ahead, (m * TILE + r) * vector);
                        }
                    }
                    for i in 0..X {
                        let x = load_x(&x[i * row_words + m * Lanes::COUNT..]);
                        for r in 0..TILE {
                            acc[r][i] = $multiply_add(acc[r][i], w[r], x);
                        }
                    }
                }
                if whole * vector < rows[0].len() {
                    for r in 0..TILE {
                        let mut last = [0u8; LINE];
                        let rest = &rows[r][whole * vector..];
                        last[..rest.len()].copy_from_slice(rest);
                        let w = load::<KIND>(&last);
                        for i in 0..X {
                            let x = load_x(&x[i * row_words + whole * Lanes::COUNT..]);
                            acc[r][i] = $multiply_add(acc[r][i], w, x);
                        }
                    }
                }
                *totals = acc;
            }
            for i in 0..X {
                let mut columns = [_mm512_setzero_si512(); Lanes::COUNT];
                for (column, totals) in columns.iter_mut().zip(&totals) {
                    *column = _mm512_castps_si512(totals[i]);
                }
                let mut sum = _mm512_setzero_ps();
                for lane in transpose(columns) {
                    sum = _mm512_add_ps(sum, _mm512_castsi512_ps(lane));
                }
                store_floats(&mut sums[i], sum);
            }
        }
    };
}

float_gemv!(floats, float_tile, "avx512f,avx512bw,avx512vl", multiply_add);
float_gemv!(pairs, pair_tile, "avx512f,avx512bw,avx512vl,avx512bf16", multiply_add_pairs);

#[inline]
#[target_feature(enable = "avx512f")]
fn multiply_add(acc: __m512, w: __m512, x: __m512) -> __m512 {
    _mm512_fmadd_ps(w, x, acc)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_add_pairs(acc: __m512, w: __m512, x: __m512) -> __m512 {
    _mm512_dpbf16_ps(acc, as_bf16(_mm512_castps_si512(w)), as_bf16(_mm512_castps_si512(x)))
}

/// Weights cast up to `f32`, or pairs of `bf16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load<const KIND: u8>(bytes: &[u8]) -> __m512 {
    match KIND {
        BF16 => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_32(first(bytes))))),
        F16 => _mm512_cvtph_ps(load_32(first(bytes))),
        _ => _mm512_castsi512_ps(load_64(first(bytes))),
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_x(words: &[u32]) -> __m512 {
    load_words_512(words.first_chunk().expect("rows are padded to whole vectors"))
}

#[inline(always)]
fn first<const LEN: usize>(bytes: &[u8]) -> &[u8; LEN] {
    bytes.first_chunk().expect("callers count whole vectors")
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn integers<const NIBBLES: bool>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
    with_constant_rows!(sums.len(), [1, 2, 3, 4, 5, 6, 7], MAX_GEMV_ROWS, X => {
        integer_tile::<X, NIBBLES>(weights, x, sums);
    });
}

/// The loop over blocks of 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn integer_tile<const X: usize, const NIBBLES: bool>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
    let ahead = weights.address(Lanes::COUNT);
    let bytes = Lanes::COUNT * if NIBBLES { size_of::<BlockQ4_0>() } else { size_of::<BlockQ8_0>() };
    let mut totals = [_mm512_setzero_ps(); X];
    let mut block = 0;
    for part in ActivationBlock::slice(x).as_chunks::<X>().0.chunks(BLOCK_PART) {
        let mut acc = [_mm512_setzero_ps(); X];
        for x in part {
            for line in 0..bytes.div_ceil(LINE) {
                prefetch(ahead, block * bytes + line * LINE);
            }
            let (quads, scales) = if NIBBLES { nibble_quads(weights, block) } else { byte_quads(weights, block) };
            block += 1;
            for i in 0..X {
                acc[i] = add_block(acc[i], &quads, scales, &x[i]);
            }
        }
        for i in 0..X {
            totals[i] = _mm512_add_ps(totals[i], acc[i]);
        }
    }
    for i in 0..X {
        store_floats(&mut sums[i], totals[i]);
    }
}
