//! A few rows of activations with AVX2, weights straight from where they lie.
//!
//! Words: the lanes of a sum, in two vectors, are columns; as many rows go side by side as keep the units busy.
//! Bytes: a block of 16 rows at a time is turned in registers, so that rows are lanes.

use std::arch::x86_64::*;

use super::arithmetic::{BLOCK_RUN, INPUT_BLOCK};
use super::gemv::{add_lanes, words_by_twos};
use super::kernel::{FEW, by_rows};
use super::prefetch::{LINE, fetch};
use super::weight_rows::{Blocks, Source};
use crate::format::{q4_0, q8_0};
use crate::scratch::Lanes;

/// What 32 or 16 bytes of weights become.
pub(super) const FLOATS: u8 = 0;
pub(super) const BFLOATS: u8 = 1;
pub(super) const HALVES: u8 = 2;

/// Sums of a row of weights with a row of activations: 16 lanes.
type Sums = [__m256; 2];

words_by_twos!("avx2,fma,f16c");

/// `R` rows of weights from `lane` on with `X` rows of activations.
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const R: usize, const X: usize, const KIND: u8>(
    source: &Source<'_>,
    lane: usize,
    x: [&[u32]; X],
) -> [[Sums; X]; R] {
    let vector = if KIND == FLOATS { 64 } else { 32 };
    let row_bytes = source.lane(0).len();
    let ahead = source.address(lane + R);
    let mut acc = [[[_mm256_setzero_ps(); 2]; X]; R];
    for m in 0..row_bytes / vector {
        for at in (0..R * vector).step_by(LINE) {
            fetch(ahead, m * R * vector + at);
        }
        let mut w = [[_mm256_setzero_ps(); 2]; R];
        for (r, w) in w.iter_mut().enumerate() {
            *w = if KIND == FLOATS {
                let rows = source.blocks::<64>(m * 64);
                [as_floats(rows.get::<0, 32>(lane + r)), as_floats(rows.get::<32, 32>(lane + r))]
            } else {
                let rows = source.blocks::<32>(m * 32);
                [widen::<KIND>(rows.get::<0, 16>(lane + r)), widen::<KIND>(rows.get::<16, 16>(lane + r))]
            };
        }
        multiply_add(&mut acc, &w, &x, m);
    }
    let whole = row_bytes / vector;
    if whole * vector < row_bytes {
        let mut w = [[_mm256_setzero_ps(); 2]; R];
        for (r, w) in w.iter_mut().enumerate() {
            let rest = &source.lane(lane + r)[whole * vector..];
            let mut last = [0u8; 64];
            last[..rest.len()].copy_from_slice(rest);
            let (halves, quarters) = (last.as_chunks::<32>().0, last.as_chunks::<16>().0);
            *w = if KIND == FLOATS {
                [as_floats(&halves[0]), as_floats(&halves[1])]
            } else {
                [widen::<KIND>(&quarters[0]), widen::<KIND>(&quarters[1])]
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
        let x: &[u32; 16] = x[i][m * 16..].first_chunk().expect("rows are filled up to whole vectors");
        let (low, high) = x.split_at(8);
        #[allow(unsafe_code, reason = "the instruction takes a pointer")]
        // SAFETY: each half is 32 bytes; the instruction asks for no alignment.
        let x = unsafe { [_mm256_loadu_ps(low.as_ptr().cast()), _mm256_loadu_ps(high.as_ptr().cast())] };
        for r in 0..R {
            acc[r][i][0] = _mm256_fmadd_ps(w[r][0], x[0], acc[r][i][0]);
            acc[r][i][1] = _mm256_fmadd_ps(w[r][1], x[1], acc[r][i][1]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn put<const R: usize, const X: usize>(acc: [[Sums; X]; R], lane: usize, totals: &mut [[[f32; 16]; 16]]) {
    for (r, acc) in acc.iter().enumerate() {
        for (acc, totals) in acc.iter().zip(totals.iter_mut()) {
            let (low, high) = totals[lane + r].split_at_mut(8);
            #[allow(unsafe_code, reason = "the instruction takes a pointer")]
            // SAFETY: each half is 32 bytes; the instruction asks for no alignment.
            unsafe {
                _mm256_storeu_ps(low.as_mut_ptr(), acc[0]);
                _mm256_storeu_ps(high.as_mut_ptr(), acc[1]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen<const KIND: u8>(bytes: &[u8; 16]) -> __m256 {
    if KIND == HALVES {
        _mm256_cvtph_ps(load(bytes))
    } else {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load(bytes))))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn as_floats(bytes: &[u8; 32]) -> __m256 {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `bytes` is 32 bytes; the instruction asks for no alignment.
    unsafe {
        _mm256_loadu_ps(bytes.as_ptr().cast())
    }
}

/// Calls the loop compiled for the number of rows of activations.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bytes<const NIBBLES: bool>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
    by_rows!(sums.len(), [1, 2, 3, 4, 5, 6, 7], FEW, X => rows::<X, NIBBLES>(source, x, sums));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn rows<const X: usize, const NIBBLES: bool>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
    let ahead = source.address(Lanes::COUNT);
    let bytes = Lanes::COUNT * if NIBBLES { q4_0::BYTES } else { q8_0::BYTES };
    let mut totals = [[_mm256_setzero_ps(); X]; 2];
    let mut block = 0;
    for records in x.as_chunks::<INPUT_BLOCK>().0.as_chunks::<X>().0.chunks(BLOCK_RUN) {
        let mut acc = [[_mm256_setzero_ps(); X]; 2];
        for x in records {
            for at in (0..bytes).step_by(LINE) {
                fetch(ahead, block * bytes + at);
            }
            for (half, acc) in acc.iter_mut().enumerate() {
                let (quads, scale) =
                    if NIBBLES { nibble_quads(source, block, half) } else { byte_quads(source, block, half) };
                for i in 0..X {
                    let dot = if NIBBLES { dot_of_nibbles(&quads, &x[i]) } else { dot_of_bytes(&quads, &x[i]) };
                    let dot = _mm256_add_epi32(dot, _mm256_set1_epi32(x[i][9].cast_signed()));
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(f32::from_bits(x[i][8])));
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
        let (low, high) = sums.0.split_at_mut(8);
        #[allow(unsafe_code, reason = "the instruction takes a pointer")]
        // SAFETY: each half is 32 bytes; the instruction asks for no alignment.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr().cast(), totals[0][i]);
            _mm256_storeu_ps(high.as_mut_ptr().cast(), totals[1][i]);
        }
    }
}

/// Numbers from 0 to 15: sums of all 16 products of a pair of bytes, at most 16 · 15 · 127, fit 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_of_nibbles(quads: &[__m256i; 8], x: &[u32; INPUT_BLOCK]) -> __m256i {
    let mut pairs = _mm256_setzero_si256();
    for j in 0..8 {
        let x = _mm256_set1_epi32(x[j].cast_signed());
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(quads[j], x));
    }
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// Signed bytes: the instruction wants one factor unsigned, so the weight's sign goes to the activation. Two products, at most
/// 2 · 128 · 127, fit 16 bits; more do not.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_of_bytes(quads: &[__m256i; 8], x: &[u32; INPUT_BLOCK]) -> __m256i {
    let mut dot = _mm256_setzero_si256();
    for j in 0..8 {
        let signed = _mm256_sign_epi8(_mm256_set1_epi32(x[j].cast_signed()), quads[j]);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(quads[j]), signed);
        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    dot
}

/// A block of `Q8_0` of 8 of 16 rows: vector `j` has bytes `4j … 4j + 3` of each. And the scales.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn byte_quads(source: &Source<'_>, block: usize, half: usize) -> ([__m256i; 8], __m256) {
    let rows = source.blocks::<{ q8_0::BYTES }>(block * q8_0::BYTES);
    let [a, b, c, d] = turned::<{ q8_0::BYTES }, { q8_0::QUANTS }>(&rows, half);
    let [e, f, g, h] = turned::<{ q8_0::BYTES }, { q8_0::QUANTS + 16 }>(&rows, half);
    ([a, b, c, d, e, f, g, h], scales(&rows, half))
}

/// A block of `Q4_0` of 8 of 16 rows: vector `j` has numbers `4j … 4j + 3` of each. And the scales.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn nibble_quads(source: &Source<'_>, block: usize, half: usize) -> ([__m256i; 8], __m256) {
    let rows = source.blocks::<{ q4_0::BYTES }>(block * q4_0::BYTES);
    let both = turned::<{ q4_0::BYTES }, { q4_0::QUANTS }>(&rows, half);
    let mask = _mm256_set1_epi8(15);
    let mut quads = [mask; 8];
    for j in 0..4 {
        quads[j] = _mm256_and_si256(both[j], mask);
        quads[j + 4] = _mm256_and_si256(_mm256_srli_epi16::<4>(both[j]), mask);
    }
    (quads, scales(&rows, half))
}

/// 16 bytes from `AT` of 8 rows: vector `j` has bytes `4j … 4j + 3` of each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn turned<const BYTES: usize, const AT: usize>(rows: &Blocks<'_, BYTES>, half: usize) -> [__m256i; 4] {
    let mut pairs = [_mm256_setzero_si256(); 4];
    for (j, pair) in pairs.iter_mut().enumerate() {
        let (low, high) = (rows.get::<AT, 16>(half * 8 + j), rows.get::<AT, 16>(half * 8 + j + 4));
        *pair = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load(low)), load(high));
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

/// The `f16` that blocks of 8 rows begin with, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales<const BYTES: usize>(rows: &Blocks<'_, BYTES>, half: usize) -> __m256 {
    let mut halves = [0u8; 16];
    for (lane, to) in halves.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *to = *rows.get::<0, 2>(half * 8 + lane);
    }
    _mm256_cvtph_ps(load(&halves))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `bytes` is 16 bytes; the instruction asks for no alignment.
    unsafe {
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}
