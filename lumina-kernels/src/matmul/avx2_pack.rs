//! Packing with AVX2: 16 bytes of 8 rows at a time are transposed in registers, so that a row becomes a lane, and
//! stored.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, BLOCK};
use super::avx2_gemv::{byte_quads, nibble_quads, transposed};
use super::blocks::PanelBlock;
use super::kernel::{GROUP, Pack};
use super::portable_gemm;
use super::weight_rows::WeightRows;
use super::x86_memory::store_half;
use crate::Format;
use crate::scratch::Lanes;

pub(super) fn pack(arithmetic: Arithmetic, format: Format) -> Pack {
    match (arithmetic, format) {
        (Arithmetic::Int8 { .. }, Format::Q8_0) => integers::<false>,
        (Arithmetic::Int8 { .. }, _) => integers::<true>,
        (_, Format::F32) => floats,
        (_, Format::BF16) => half_floats::<false>,
        (_, Format::F16) => half_floats::<true>,
        _ => dequantised,
    }
}

/// The plain code, compiled for wider vectors.
#[target_feature(enable = "avx2,fma,f16c")]
fn dequantised(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    portable_gemm::pack_floats(weights, index, group, 0);
}

#[target_feature(enable = "avx2")]
fn floats(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / Lanes::COUNT;
    for m in 0..weights.columns / Lanes::COUNT {
        let rows = weights.blocks::<64>(m * 64);
        for half in 0..2 {
            let quarters = [
                transposed::<64, 0>(&rows, half),
                transposed::<64, 16>(&rows, half),
                transposed::<64, 32>(&rows, half),
                transposed::<64, 48>(&rows, half),
            ];
            for (class, vector) in quarters.as_flattened().iter().enumerate() {
                store_half(&mut group[(class * GROUP + index) * part + m], half, *vector);
            }
        }
    }
    portable_gemm::pack_floats(weights, index, group, weights.columns / Lanes::COUNT);
}

/// 16-bit floats, cast up: pairs of them are transposed.
#[target_feature(enable = "avx2,f16c")]
fn half_floats<const F16: bool>(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / Lanes::COUNT;
    for m in 0..weights.columns / Lanes::COUNT {
        let rows = weights.blocks::<32>(m * 32);
        for half in 0..2 {
            let pairs = [transposed::<32, 0>(&rows, half), transposed::<32, 16>(&rows, half)];
            for (pair, vector) in pairs.as_flattened().iter().enumerate() {
                let both = if F16 { split_f16(*vector) } else { split_bf16(*vector) };
                for (class, vector) in (2 * pair..).zip(both) {
                    store_half(&mut group[(class * GROUP + index) * part + m], half, vector);
                }
            }
        }
    }
    portable_gemm::pack_floats(weights, index, group, weights.columns / Lanes::COUNT);
}

/// The first and the second `bf16` of each pair, as `f32`.
#[inline]
#[target_feature(enable = "avx2")]
fn split_bf16(pairs: __m256i) -> [__m256i; 2] {
    let upper = _mm256_set1_epi32(0xFFFF_0000u32.cast_signed());
    [_mm256_slli_epi32::<16>(pairs), _mm256_and_si256(pairs, upper)]
}

/// The first and the second `f16` of each pair, as `f32`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn split_f16(pairs: __m256i) -> [__m256i; 2] {
    let first = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF));
    let second = _mm256_srli_epi32::<16>(pairs);
    // The instruction packs within each half of a vector, so the quarters are put in order after it.
    let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(first, second));
    [_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)]
        .map(|h| _mm256_castps_si256(_mm256_cvtph_ps(h)))
}

/// Blocks with unchanged integers: signed, or from 0 to 15.
#[target_feature(enable = "avx2,f16c")]
fn integers<const NIBBLES: bool>(weights: &WeightRows<'_>, index: usize, group: &mut [Lanes]) {
    let blocks = weights.columns / BLOCK;
    for block in 0..blocks {
        let to = PanelBlock::at(group, portable_gemm::block_place(block, blocks, index));
        for half in 0..2 {
            let (quads, scales) =
                if NIBBLES { nibble_quads(weights, block, half) } else { byte_quads(weights, block, half) };
            for (to, quad) in to.quads.iter_mut().zip(quads) {
                store_half(to, half, quad);
            }
            store_half(&mut to.scales, half, _mm256_castps_si256(scales));
        }
    }
}
