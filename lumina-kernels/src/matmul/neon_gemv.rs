//! GEMV with NEON.
//!
//! Floats: the lanes of a sum, in four vectors, are columns; some rows are multiplied together. Integers: a block of 16
//! rows at a time is transposed in registers, so that rows are lanes.

use std::arch::aarch64::*;
use std::mem::offset_of;

use super::arithmetic::{Arithmetic, BLOCK_PART};
use super::blocks::ActivationBlock;
use super::gemv::{RowLanes, add_lanes, float_gemv};
use super::kernel::{Gemv, MAX_GEMV_ROWS, with_constant_rows};
use super::neon_gemm::{Floats, dot, dot_pairs, store};
use super::weight_rows::{RowBlocks, WeightRows};
use crate::format::{q4_0::BlockQ4_0, q8_0::BlockQ8_0};
use crate::scratch::Lanes;
use crate::simd::prefetch::{LINE, prefetch};
use crate::{Format, Isa};

/// The kind of weights in 64 or 32 bytes.
const F32: u8 = 0;
const BF16: u8 = 1;
const F16: u8 = 2;

pub(super) fn gemv(arithmetic: Arithmetic, format: Format, isa: Isa) -> Option<Gemv> {
    Some(match (arithmetic, format, isa >= Isa::NeonDot) {
        (Arithmetic::F32, Format::F32, _) => floats::<F32>,
        (Arithmetic::F32, Format::F16, _) => floats::<F16>,
        (Arithmetic::F32, Format::BF16, _) => floats::<BF16>,
        (Arithmetic::Int8 { .. }, Format::Q8_0, true) => by_dots::integers::<false>,
        (Arithmetic::Int8 { .. }, Format::Q4_0, true) => by_dots::integers::<true>,
        (Arithmetic::Int8 { .. }, Format::Q8_0, false) => by_pairs::integers::<false>,
        (Arithmetic::Int8 { .. }, Format::Q4_0, false) => by_pairs::integers::<true>,
        _ => return None,
    })
}

float_gemv!("neon");

/// `R` rows of weights from `row` on with `X` rows of activations.
#[inline]
#[target_feature(enable = "neon")]
fn multiply_rows<const R: usize, const X: usize, const KIND: u8>(
    weights: &WeightRows<'_>,
    row: usize,
    x: [&[u32]; X],
) -> [[Floats; X]; R] {
    let vector = if KIND == F32 { 64 } else { 32 };
    let row_bytes = weights.row(0).len();
    let ahead = weights.address(row + R);
    let mut acc = [[[vdupq_n_f32(0.0); 4]; X]; R];
    let whole = row_bytes / vector;
    let mut xs: [&[[u32; Lanes::COUNT]]; X] = [&[]; X];
    for i in 0..X {
        xs[i] = x[i].as_chunks().0;
    }
    for m in 0..whole {
        for at in (0..R * vector).step_by(LINE) {
            prefetch(ahead, m * R * vector + at);
        }
        let mut w = [[vdupq_n_f32(0.0); 4]; R];
        for (r, w) in w.iter_mut().enumerate() {
            *w = if KIND == F32 {
                as_floats(weights.blocks::<64>(m * 64).get::<0, 64>(row + r))
            } else {
                to_f32::<KIND>(weights.blocks::<32>(m * 32).get::<0, 32>(row + r))
            };
        }
        multiply_add(&mut acc, &w, &xs, m);
    }
    if whole * vector < row_bytes {
        let mut w = [[vdupq_n_f32(0.0); 4]; R];
        for (r, w) in w.iter_mut().enumerate() {
            let rest = &weights.row(row + r)[whole * vector..];
            let mut last = [0u8; 64];
            last[..rest.len()].copy_from_slice(rest);
            *w = if KIND == F32 { as_floats(&last) } else { to_f32::<KIND>(&last.as_chunks::<32>().0[0]) };
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
        let mut bytes = [0u8; 64];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(x[i][m]) {
            *to = word.to_ne_bytes();
        }
        let x = as_floats(&bytes);
        for r in 0..R {
            for q in 0..4 {
                acc[r][i][q] = vfmaq_f32(acc[r][i][q], w[r][q], x[q]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_rows<const R: usize, const X: usize>(acc: [[Floats; X]; R], row: usize, totals: &mut [[[f32; 16]; 16]]) {
    for (r, acc) in acc.iter().enumerate() {
        for (acc, totals) in acc.iter().zip(totals.iter_mut()) {
            for (to, four) in totals[row + r].as_chunks_mut::<4>().0.iter_mut().zip(acc) {
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
fn as_floats(bytes: &[u8; 64]) -> Floats {
    let mut all = [vdupq_n_f32(0.0); 4];
    for (all, four) in all.iter_mut().zip(bytes.as_chunks::<16>().0) {
        *all = vreinterpretq_f32_u8(load(four));
    }
    all
}

/// 16 `bf16` or `f16`, cast up.
#[inline]
#[target_feature(enable = "neon")]
fn to_f32<const KIND: u8>(bytes: &[u8; 32]) -> Floats {
    let mut all = [vdupq_n_f32(0.0); 4];
    for (all, eight) in all.as_chunks_mut::<2>().0.iter_mut().zip(bytes.as_chunks::<16>().0) {
        let eight = vreinterpretq_u16_u8(load(eight));
        *all = if KIND == F16 {
            [f16_to_f32(vget_low_u16(eight)), f16_to_f32(vget_high_u16(eight))]
        } else {
            let zero = vdupq_n_u16(0);
            [vreinterpretq_f32_u16(vzip1q_u16(zero, eight)), vreinterpretq_f32_u16(vzip2q_u16(zero, eight))]
        };
    }
    all
}

#[inline]
#[target_feature(enable = "neon")]
fn f16_to_f32(four: uint16x4_t) -> float32x4_t {
    vcvt_f32_f16(vreinterpret_f16_u16(four))
}

/// The loop over blocks of 16 rows, for either way to multiply integers.
macro_rules! integer_gemv {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(in super::super) fn integers<const NIBBLES: bool>(
                weights: &WeightRows<'_>,
                x: &[u32],
                sums: &mut [Lanes],
            ) {
                with_constant_rows!(sums.len(), [1, 2, 3, 4, 5, 6, 7], MAX_GEMV_ROWS, X => {
                    tile::<X, NIBBLES>(weights, x, sums);
                });
            }

            #[target_feature(enable = $features)]
            fn tile<const X: usize, const NIBBLES: bool>(weights: &WeightRows<'_>, x: &[u32], sums: &mut [Lanes]) {
                let ahead = weights.address(Lanes::COUNT);
                let bytes = Lanes::COUNT * if NIBBLES { size_of::<BlockQ4_0>() } else { size_of::<BlockQ8_0>() };
                let mut totals = [[vdupq_n_f32(0.0); 4]; X];
                let mut block = 0;
                for part in ActivationBlock::slice(x).as_chunks::<X>().0.chunks(BLOCK_PART) {
                    let mut acc = [[vdupq_n_f32(0.0); 4]; X];
                    for x in part {
                        for at in (0..bytes).step_by(LINE) {
                            prefetch(ahead, block * bytes + at);
                        }
                        for q in 0..4 {
                            let (quads, scales) =
                                if NIBBLES { nibble_quads(weights, block, q) } else { byte_quads(weights, block, q) };
                            for i in 0..X {
                                let mut sum = vdupq_n_s32(x[i].start);
                                for j in 0..8 {
                                    sum = $dot(sum, quads[j], vreinterpretq_s8_s32(vdupq_n_s32(x[i].quads[j])));
                                }
                                let scale = vmulq_n_f32(scales, x[i].scale);
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

integer_gemv!(by_pairs, "neon", dot_pairs);
integer_gemv!(by_dots, "neon,dotprod", dot);

/// A block of `Q8_0` of four of 16 rows: quad j of each. And the scales.
#[inline]
#[target_feature(enable = "neon")]
fn byte_quads(weights: &WeightRows<'_>, block: usize, q: usize) -> ([int8x16_t; 8], float32x4_t) {
    const BYTES: usize = size_of::<BlockQ8_0>();
    const QUANTS: usize = offset_of!(BlockQ8_0, quants);
    let rows = weights.blocks::<BYTES>(block * BYTES);
    let [a, b, c, d] = transposed::<BYTES, QUANTS>(&rows, q);
    let [e, f, g, h] = transposed::<BYTES, { QUANTS + 16 }>(&rows, q);
    ([a, b, c, d, e, f, g, h], scales(&rows, q))
}

/// A block of `Q4_0` of four of 16 rows: quad j of each, from 0 to 15. And the scales.
#[inline]
#[target_feature(enable = "neon")]
fn nibble_quads(weights: &WeightRows<'_>, block: usize, q: usize) -> ([int8x16_t; 8], float32x4_t) {
    const BYTES: usize = size_of::<BlockQ4_0>();
    const NIBBLES: usize = offset_of!(BlockQ4_0, nibbles);
    let rows = weights.blocks::<BYTES>(block * BYTES);
    let both = transposed::<BYTES, NIBBLES>(&rows, q);
    let mut quads = [vdupq_n_s8(15); 8];
    for j in 0..4 {
        quads[j] = vandq_s8(both[j], vdupq_n_s8(15));
        quads[j + 4] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(both[j])));
    }
    (quads, scales(&rows, q))
}

/// 16 bytes from `AT` of four rows: vector j has word j of each.
#[inline]
#[target_feature(enable = "neon")]
fn transposed<const BYTES: usize, const AT: usize>(rows: &RowBlocks<'_, BYTES>, q: usize) -> [int8x16_t; 4] {
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

/// The `f16` scales that blocks of four rows begin with, cast up.
#[inline]
#[target_feature(enable = "neon")]
fn scales<const BYTES: usize>(rows: &RowBlocks<'_, BYTES>, q: usize) -> float32x4_t {
    let mut halves = 0u64;
    for row in 0..4 {
        halves |= u64::from(u16::from_le_bytes(*rows.get::<0, 2>(q * 4 + row))) << (16 * row);
    }
    f16_to_f32(vcreate_u16(halves))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `bytes` is 16 bytes; the instruction needs no alignment.
    unsafe {
        vld1q_u8(bytes.as_ptr())
    }
}
