//! Panels with AVX2: 16 bytes of 8 rows at a time are turned in registers, so that a row becomes a lane, and stored.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, BLOCK, PANEL_BLOCK};
use super::avx2_gemv::{byte_quads, nibble_quads, turned};
use super::kernel::{GROUP, Pack};
use super::portable_gemm;
use super::weight_rows::Source;
use crate::Format;
use crate::scratch::Lanes;

/// Rows that are turned together: half of the lanes.
const HALF: usize = Lanes::COUNT / 2;

pub(super) fn pack(arithmetic: Arithmetic, format: Format) -> Pack {
    match (arithmetic, format) {
        (Arithmetic::Bytes { .. }, Format::Q8_0) => bytes::<false>,
        (Arithmetic::Bytes { .. }, _) => bytes::<true>,
        (_, Format::F32) => floats,
        (_, Format::BF16) => widened::<false>,
        (_, Format::F16) => widened::<true>,
        _ => blocks_as_floats,
    }
}

/// What the compiler makes of the plain code with wider vectors.
#[target_feature(enable = "avx2,fma,f16c")]
fn blocks_as_floats(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    portable_gemm::float_panel(source, index, group, 0);
}

#[target_feature(enable = "avx2")]
fn floats(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / Lanes::COUNT;
    for m in 0..source.columns / Lanes::COUNT {
        let rows = source.blocks::<64>(m * 64);
        for half in 0..2 {
            let quarters = [
                turned::<64, 0>(&rows, half),
                turned::<64, 16>(&rows, half),
                turned::<64, 32>(&rows, half),
                turned::<64, 48>(&rows, half),
            ];
            for (class, vector) in quarters.as_flattened().iter().enumerate() {
                store(&mut group[(class * GROUP + index) * part + m], half, *vector);
            }
        }
    }
    portable_gemm::float_panel(source, index, group, source.columns / Lanes::COUNT);
}

/// 16-bit floats: what is turned are pairs of them.
#[target_feature(enable = "avx2,f16c")]
fn widened<const HALVES: bool>(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let part = group.len() / GROUP / Lanes::COUNT;
    for m in 0..source.columns / Lanes::COUNT {
        let rows = source.blocks::<32>(m * 32);
        for half in 0..2 {
            let pairs = [turned::<32, 0>(&rows, half), turned::<32, 16>(&rows, half)];
            for (pair, vector) in pairs.as_flattened().iter().enumerate() {
                let both = if HALVES { both_halves(*vector) } else { both_bfloats(*vector) };
                for (class, vector) in (2 * pair..).zip(both) {
                    store(&mut group[(class * GROUP + index) * part + m], half, vector);
                }
            }
        }
    }
    portable_gemm::float_panel(source, index, group, source.columns / Lanes::COUNT);
}

/// The first and the second `bf16` of each pair.
#[inline]
#[target_feature(enable = "avx2")]
fn both_bfloats(pairs: __m256i) -> [__m256i; 2] {
    let upper = _mm256_set1_epi32(0xFFFF_0000u32.cast_signed());
    [_mm256_slli_epi32::<16>(pairs), _mm256_and_si256(pairs, upper)]
}

/// The first and the second `f16` of each pair.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn both_halves(pairs: __m256i) -> [__m256i; 2] {
    let first = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF));
    let second = _mm256_srli_epi32::<16>(pairs);
    // Packed within each half of a vector, so that the quarters are put in order after it.
    let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(first, second));
    [_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)]
        .map(|h| _mm256_castps_si256(_mm256_cvtph_ps(h)))
}

/// Blocks of bytes as they are: signed, or from 0 to 15.
#[target_feature(enable = "avx2,f16c")]
fn bytes<const NIBBLES: bool>(source: &Source<'_>, index: usize, group: &mut [Lanes]) {
    let blocks = source.columns / BLOCK;
    for block in 0..blocks {
        let place = portable_gemm::block_place(block, blocks, index);
        let to = &mut group[place..place + PANEL_BLOCK];
        for half in 0..2 {
            let (quads, scales) =
                if NIBBLES { nibble_quads(source, block, half) } else { byte_quads(source, block, half) };
            for (to, quad) in to.iter_mut().zip(quads) {
                store(to, half, quad);
            }
            store(&mut to[PANEL_BLOCK - 1], half, _mm256_castps_si256(scales));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(to: &mut Lanes, half: usize, vector: __m256i) {
    let to = &mut to.0[half * HALF..][..HALF];
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `to` is 32 bytes, aligned to 32 as a `Lanes` is to 64.
    unsafe {
        _mm256_store_si256(to.as_mut_ptr().cast(), vector);
    }
}
