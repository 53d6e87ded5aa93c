//! A few rows of activations with AVX-512, weights straight from where they lie.
//!
//! Words: the lanes of a sum are columns; four rows of weights go side by side, and the sums of 16 are turned and added up at their end.
//! Bytes: a block of 16 rows at a time is turned in registers, so that rows are lanes.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, BLOCK_RUN, INPUT_BLOCK};
use super::avx512_gemm::add_block;
use super::avx512_pack::{byte_quads, load_half, load_line, nibble_quads, turn};
use super::kernel::{FEW, Few, by_rows};
use super::prefetch::{LINE, fetch};
use super::weight_rows::Source;
use crate::Format;
use crate::format::{q4_0, q8_0};
use crate::scratch::Lanes;

/// What 64 or 32 bytes of weights become.
const FLOATS: u8 = 0;
const BFLOATS: u8 = 1;
const HALVES: u8 = 2;
const PAIRS: u8 = 3;

pub(super) fn few(arithmetic: Arithmetic, format: Format) -> Option<Few> {
    Some(match (arithmetic, format) {
        (Arithmetic::Bfloat, _) => pairs::<PAIRS>,
        (Arithmetic::Bytes { .. }, Format::Q8_0) => bytes::<false>,
        (Arithmetic::Bytes { .. }, _) => bytes::<true>,
        (_, Format::F32) => words::<FLOATS>,
        (_, Format::BF16) => words::<BFLOATS>,
        (_, Format::F16) => words::<HALVES>,
        _ => return None,
    })
}

/// Rows of activations, and rows of weights, that are multiplied side by side: their sums take 16 registers. More rows of activations go in turn,
/// while the weights are in the cache.
const TOGETHER: usize = 4;

/// The loop over the rows of weights, for either instruction of multiply-add, and what calls it compiled for the number of rows of activations.
macro_rules! rows_of {
    ($few:ident, $name:ident, $features:literal, $multiply_add:ident) => {
        #[target_feature(enable = $features)]
        fn $few<const KIND: u8>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
            let row_words = x.len() / sums.len();
            for (x, sums) in x.chunks(TOGETHER * row_words).zip(sums.chunks_mut(TOGETHER)) {
                by_rows!(sums.len(), [1, 2, 3], TOGETHER, X => $name::<X, KIND>(source, x, sums));
            }
        }

        #[target_feature(enable = $features)]
        fn $name<const X: usize, const KIND: u8>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
            let vector = if matches!(KIND, FLOATS | PAIRS) { LINE } else { LINE / 2 };
            let row_words = x.len() / X;
            let mut totals = [[_mm512_setzero_ps(); X]; Lanes::COUNT];
            for (group, totals) in totals.as_chunks_mut::<TOGETHER>().0.iter_mut().enumerate() {
                let rows: [&[u8]; TOGETHER] = std::array::from_fn(|r| source.lane(group * TOGETHER + r));
                let whole = rows[0].len() / vector;
                let ahead = source.address((group + 1) * TOGETHER);
                let mut acc = [[_mm512_setzero_ps(); X]; TOGETHER];
                for m in 0..whole {
                    let mut w = [_mm512_setzero_ps(); TOGETHER];
                    for r in 0..TOGETHER {
                        w[r] = widen::<KIND>(&rows[r][m * vector..]);
                        if vector == LINE || r % 2 == 0 {
                            fetch(ahead, (m * TOGETHER + r) * vector);
                        }
                    }
                    for i in 0..X {
                        let x = load_words(&x[i * row_words + m * Lanes::COUNT..]);
                        for r in 0..TOGETHER {
                            acc[r][i] = $multiply_add(acc[r][i], w[r], x);
                        }
                    }
                }
                if whole * vector < rows[0].len() {
                    for r in 0..TOGETHER {
                        let mut last = [0u8; LINE];
                        let rest = &rows[r][whole * vector..];
                        last[..rest.len()].copy_from_slice(rest);
                        let w = widen::<KIND>(&last);
                        for i in 0..X {
                            let x = load_words(&x[i * row_words + whole * Lanes::COUNT..]);
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
                for lane in turn(columns) {
                    sum = _mm512_add_ps(sum, _mm512_castsi512_ps(lane));
                }
                store(&mut sums[i], sum);
            }
        }
    };
}

rows_of!(words, word_rows, "avx512f,avx512bw,avx512vl", multiply_add);
rows_of!(pairs, pair_rows, "avx512f,avx512bw,avx512vl,avx512bf16", multiply_add_pairs);

#[inline]
#[target_feature(enable = "avx512f")]
fn multiply_add(acc: __m512, w: __m512, x: __m512) -> __m512 {
    _mm512_fmadd_ps(w, x, acc)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_add_pairs(acc: __m512, w: __m512, x: __m512) -> __m512 {
    #[allow(unsafe_code, reason = "there is no intrinsic that only changes the type")]
    // SAFETY: both types are 64 bytes for which every pattern is valid.
    let [w, x] = unsafe { std::mem::transmute::<[__m512; 2], [__m512bh; 2]>([w, x]) };
    _mm512_dpbf16_ps(acc, w, x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen<const KIND: u8>(bytes: &[u8]) -> __m512 {
    match KIND {
        BFLOATS => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_half(from(bytes))))),
        HALVES => _mm512_cvtph_ps(load_half(from(bytes))),
        _ => _mm512_castsi512_ps(load_line(from(bytes))),
    }
}

/// The first bytes of a slice that has them, as callers have counted.
#[inline(always)]
fn from<const LEN: usize>(bytes: &[u8]) -> &[u8; LEN] {
    bytes.first_chunk().expect("callers count whole vectors")
}

/// Calls the loop compiled for the number of rows of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn bytes<const NIBBLES: bool>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
    by_rows!(sums.len(), [1, 2, 3, 4, 5, 6, 7], FEW, X => byte_rows::<X, NIBBLES>(source, x, sums));
}

/// The loop over blocks of 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn byte_rows<const X: usize, const NIBBLES: bool>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
    let ahead = source.address(Lanes::COUNT);
    let (lines, block_bytes) = if NIBBLES { (LINES_OF_NIBBLES, q4_0::BYTES) } else { (LINES_OF_BYTES, q8_0::BYTES) };
    let mut totals = [_mm512_setzero_ps(); X];
    let mut block = 0;
    for records in x.as_chunks::<INPUT_BLOCK>().0.as_chunks::<X>().0.chunks(BLOCK_RUN) {
        let mut acc = [_mm512_setzero_ps(); X];
        for x in records {
            for line in 0..lines {
                fetch(ahead, block * Lanes::COUNT * block_bytes + line * LINE);
            }
            let (quads, scale) = if NIBBLES { nibble_quads(source, block) } else { byte_quads(source, block) };
            block += 1;
            for i in 0..X {
                acc[i] = add_block(acc[i], &quads, scale, &x[i]);
            }
        }
        for i in 0..X {
            totals[i] = _mm512_add_ps(totals[i], acc[i]);
        }
    }
    for i in 0..X {
        store(&mut sums[i], totals[i]);
    }
}

/// Lines that 16 blocks take, the half-read last one included.
const LINES_OF_BYTES: usize = (16 * q8_0::BYTES).div_ceil(LINE);
const LINES_OF_NIBBLES: usize = (16 * q4_0::BYTES).div_ceil(LINE);

#[inline]
#[target_feature(enable = "avx512f")]
fn load_words(words: &[u32]) -> __m512 {
    let words: &[u32; 16] = words.first_chunk().expect("rows are filled up to whole vectors");
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `words` is 64 bytes; the instruction asks for no alignment.
    unsafe {
        _mm512_loadu_ps(words.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut Lanes, sums: __m512) {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a `Lanes` is 64 bytes, aligned to 64.
    unsafe {
        _mm512_store_ps(to.0.as_mut_ptr().cast(), sums);
    }
}
