//! A few rows of activations with NEON, weights straight from where they lie.
//!
//! Words: the lanes of a sum, in four vectors, are columns; some rows go side by side.
//! Bytes: a block of 16 rows at a time is turned in registers, so that rows are lanes.

use std::arch::aarch64::*;

use super::arithmetic::{BLOCK_RUN, INPUT_BLOCK};
use super::gemv::{add_lanes, words_by_twos};
use super::kernel::{FEW, by_rows};
use super::neon_gemm::{Floats, dot, dot_of_pairs, store};
use super::prefetch::{LINE, fetch};
use super::weight_rows::{Blocks, Source};
use crate::format::{q4_0, q8_0};
use crate::scratch::Lanes;

/// What 64 or 32 bytes of weights become.
pub(super) const FLOATS: u8 = 0;
pub(super) const BFLOATS: u8 = 1;
pub(super) const HALVES: u8 = 2;

words_by_twos!("neon");

/// `R` rows of weights from `lane` on with `X` rows of activations.
#[inline]
#[target_feature(enable = "neon")]
fn tile<const R: usize, const X: usize, const KIND: u8>(
    source: &Source<'_>,
    lane: usize,
    x: [&[u32]; X],
) -> [[Floats; X]; R] {
    let vector = if KIND == FLOATS { 64 } else { 32 };
    let row_bytes = source.lane(0).len();
    let ahead = source.address(lane + R);
    let mut acc = [[[vdupq_n_f32(0.0); 4]; X]; R];
    let whole = row_bytes / vector;
    let mut xs: [&[[u32; Lanes::COUNT]]; X] = [&[]; X];
    for i in 0..X {
        xs[i] = x[i].as_chunks().0;
    }
    for m in 0..whole {
        for at in (0..R * vector).step_by(LINE) {
            fetch(ahead, m * R * vector + at);
        }
        let mut w = [[vdupq_n_f32(0.0); 4]; R];
        for (r, w) in w.iter_mut().enumerate() {
            *w = if KIND == FLOATS {
                floats(source.blocks::<64>(m * 64).get::<0, 64>(lane + r))
            } else {
                widen::<KIND>(source.blocks::<32>(m * 32).get::<0, 32>(lane + r))
            };
        }
        multiply_add(&mut acc, &w, &xs, m);
    }
    if whole * vector < row_bytes {
        let mut w = [[vdupq_n_f32(0.0); 4]; R];
        for (r, w) in w.iter_mut().enumerate() {
            let rest = &source.lane(lane + r)[whole * vector..];
            let mut last = [0u8; 64];
            last[..rest.len()].copy_from_slice(rest);
            *w = if KIND == FLOATS { floats(&last) } else { widen::<KIND>(&last.as_chunks::<32>().0[0]) };
        }
        multiply_add(&mut acc, &w, &xs, whole);
    }
    acc
}

#[inline]
#[target_feature(enable = "neon")]
fn multiply_add<const R: usize, const X: usize>(
    acc: &mut [[Floats; X]; R],
    w: &[Floats; R],
    x: &[&[[u32; Lanes::COUNT]]; X],
    m: usize,
) {
    for i in 0..X {
        let mut sixteen = [0u8; 64];
        for (to, word) in sixteen.as_chunks_mut::<4>().0.iter_mut().zip(x[i][m]) {
            *to = word.to_ne_bytes();
        }
        let x = floats(&sixteen);
        for r in 0..R {
            for q in 0..4 {
                acc[r][i][q] = vfmaq_f32(acc[r][i][q], w[r][q], x[q]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn put<const R: usize, const X: usize>(acc: [[Floats; X]; R], lane: usize, totals: &mut [[[f32; 16]; 16]]) {
    for (r, acc) in acc.iter().enumerate() {
        for (acc, totals) in acc.iter().zip(totals.iter_mut()) {
            for (to, four) in totals[lane + r].as_chunks_mut::<4>().0.iter_mut().zip(acc) {
                #[allow(unsafe_code, reason = "the instruction takes a pointer")]
                // SAFETY: `to` is 16 bytes.
                unsafe {
                    vst1q_f32(to.as_mut_ptr(), *four);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn floats(bytes: &[u8; 64]) -> Floats {
    let mut all = [vdupq_n_f32(0.0); 4];
    for (all, four) in all.iter_mut().zip(bytes.as_chunks::<16>().0) {
        *all = vreinterpretq_f32_u8(load(four));
    }
    all
}

/// 16 `bf16` or `f16`.
#[inline]
#[target_feature(enable = "neon")]
fn widen<const KIND: u8>(bytes: &[u8; 32]) -> Floats {
    let mut all = [vdupq_n_f32(0.0); 4];
    for (all, eight) in all.as_chunks_mut::<2>().0.iter_mut().zip(bytes.as_chunks::<16>().0) {
        let eight = vreinterpretq_u16_u8(load(eight));
        *all = if KIND == HALVES {
            [half(vget_low_u16(eight)), half(vget_high_u16(eight))]
        } else {
            let zero = vdupq_n_u16(0);
            [vreinterpretq_f32_u16(vzip1q_u16(zero, eight)), vreinterpretq_f32_u16(vzip2q_u16(zero, eight))]
        };
    }
    all
}

#[inline]
#[target_feature(enable = "neon")]
fn half(four: uint16x4_t) -> float32x4_t {
    vcvt_f32_f16(vreinterpret_f16_u16(four))
}

/// The loop over blocks of 16 rows, for either way to multiply bytes.
macro_rules! byte_rows {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            /// Calls the loop compiled for the number of rows of activations.
            #[target_feature(enable = $features)]
            pub(in super::super) fn bytes<const NIBBLES: bool>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
                by_rows!(sums.len(), [1, 2, 3, 4, 5, 6, 7], FEW, X => rows::<X, NIBBLES>(source, x, sums));
            }

            #[target_feature(enable = $features)]
            fn rows<const X: usize, const NIBBLES: bool>(source: &Source<'_>, x: &[u32], sums: &mut [Lanes]) {
                let ahead = source.address(Lanes::COUNT);
                let bytes = Lanes::COUNT * if NIBBLES { q4_0::BYTES } else { q8_0::BYTES };
                let mut totals = [[vdupq_n_f32(0.0); 4]; X];
                let mut block = 0;
                for records in x.as_chunks::<INPUT_BLOCK>().0.as_chunks::<X>().0.chunks(BLOCK_RUN) {
                    let mut acc = [[vdupq_n_f32(0.0); 4]; X];
                    for x in records {
                        for at in (0..bytes).step_by(LINE) {
                            fetch(ahead, block * bytes + at);
                        }
                        for q in 0..4 {
                            let (quads, scales) =
                                if NIBBLES { nibble_quads(source, block, q) } else { byte_quads(source, block, q) };
                            for i in 0..X {
                                let mut sum = vdupq_n_s32(x[i][9].cast_signed());
                                for j in 0..8 {
                                    sum = $dot(sum, quads[j], vreinterpretq_s8_u32(vdupq_n_u32(x[i][j])));
                                }
                                let scale = vmulq_n_f32(scales, f32::from_bits(x[i][8]));
                                acc[i][q] = vfmaq_f32(acc[i][q], vcvtq_f32_s32(sum), scale);
                            }
                        }
                        block += 1;
                    }
                    for (totals, acc) in totals.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
                        *totals = vaddq_f32(*totals, *acc);
                    }
                }
                for (sums, totals) in sums.iter_mut().zip(totals) {
                    store(sums, totals);
                }
            }
        }
    };
}

byte_rows!(by_pairs, "neon", dot_of_pairs);
byte_rows!(by_dots, "neon,dotprod", dot);

/// A block of `Q8_0` of four of 16 rows: vector `j` has bytes `4j … 4j + 3` of each. And the scales.
#[inline]
#[target_feature(enable = "neon")]
fn byte_quads(source: &Source<'_>, block: usize, q: usize) -> ([int8x16_t; 8], float32x4_t) {
    let rows = source.blocks::<{ q8_0::BYTES }>(block * q8_0::BYTES);
    let [a, b, c, d] = turned::<{ q8_0::BYTES }, { q8_0::QUANTS }>(&rows, q);
    let [e, f, g, h] = turned::<{ q8_0::BYTES }, { q8_0::QUANTS + 16 }>(&rows, q);
    ([a, b, c, d, e, f, g, h], scales(&rows, q))
}

/// A block of `Q4_0` of four of 16 rows: vector `j` has numbers `4j … 4j + 3` of each. And the scales.
#[inline]
#[target_feature(enable = "neon")]
fn nibble_quads(source: &Source<'_>, block: usize, q: usize) -> ([int8x16_t; 8], float32x4_t) {
    let rows = source.blocks::<{ q4_0::BYTES }>(block * q4_0::BYTES);
    let both = turned::<{ q4_0::BYTES }, { q4_0::QUANTS }>(&rows, q);
    let mut quads = [vdupq_n_s8(15); 8];
    for j in 0..4 {
        quads[j] = vandq_s8(both[j], vdupq_n_s8(15));
        quads[j + 4] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(both[j])));
    }
    (quads, scales(&rows, q))
}

/// 16 bytes from `AT` of four rows: vector `j` has bytes `4j … 4j + 3` of each.
#[inline]
#[target_feature(enable = "neon")]
fn turned<const BYTES: usize, const AT: usize>(rows: &Blocks<'_, BYTES>, q: usize) -> [int8x16_t; 4] {
    let mut four = [vdupq_n_u32(0); 4];
    for (j, row) in four.iter_mut().enumerate() {
        *row = vreinterpretq_u32_u8(load(rows.get::<AT, 16>(q * 4 + j)));
    }
    let [a, b, c, d] = four;
    let wide = |low: uint32x4_t, high: uint32x4_t| {
        let (low, high) = (vreinterpretq_u64_u32(low), vreinterpretq_u64_u32(high));
        [vreinterpretq_s8_u64(vtrn1q_u64(low, high)), vreinterpretq_s8_u64(vtrn2q_u64(low, high))]
    };
    let [first, third] = wide(vtrn1q_u32(a, b), vtrn1q_u32(c, d));
    let [second, fourth] = wide(vtrn2q_u32(a, b), vtrn2q_u32(c, d));
    [first, second, third, fourth]
}

/// The `f16` that blocks of four rows begin with, widened.
#[inline]
#[target_feature(enable = "neon")]
fn scales<const BYTES: usize>(rows: &Blocks<'_, BYTES>, q: usize) -> float32x4_t {
    let mut halves = 0u64;
    for lane in 0..4 {
        halves |= u64::from(u16::from_le_bytes(*rows.get::<0, 2>(q * 4 + lane))) << (16 * lane);
    }
    half(vcreate_u16(halves))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `bytes` is 16 bytes; the instruction asks for no alignment.
    unsafe {
        vld1q_u8(bytes.as_ptr())
    }
}
