//! GEMM with AVX2, FMA and F16C: two vectors are 16 rows of the weights.

use std::arch::x86_64::*;

use super::arithmetic::Arithmetic;
use super::blocks::{ActivationBlock, PanelBlock};
use super::kernel::{GROUP, Gemm, with_constant_rows};
use super::weight_rows::PrefetchRows;
use super::x86_memory::{load_halves, store_half};
use crate::scratch::Lanes;
use crate::simd::prefetch::prefetch_tile;

/// Activation rows of a tile: 12 sums of the 16 registers.
pub(super) const TILE: usize = 6;

pub(super) fn gemm(arithmetic: Arithmetic) -> Gemm {
    match arithmetic {
        Arithmetic::F32 | Arithmetic::Bf16 | Arithmetic::AmxBf16 => floats,
        Arithmetic::Int8 { .. } | Arithmetic::AmxInt8 => integers,
    }
}

#[target_feature(enable = "avx2,fma")]
fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows) {
    next.prefetch();
    with_constant_rows!(rows, [1, 2, 3, 4, 5], TILE, X => float_tile::<X>(group, x, sums, next.tile));
}

#[target_feature(enable = "avx2,fma")]
fn float_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [[_mm256_setzero_ps(); 2]; X];
        for (step, (w, x)) in panel.iter().zip(x.as_chunks::<X>().0).enumerate() {
            prefetch_tile(next, step * X);
            let w = load_halves(w).map(|w| _mm256_castsi256_ps(w));
            for i in 0..X {
                let x = _mm256_set1_ps(f32::from_bits(x[i]));
                acc[i][0] = _mm256_fmadd_ps(w[0], x, acc[i][0]);
                acc[i][1] = _mm256_fmadd_ps(w[1], x, acc[i][1]);
            }
        }
        for i in 0..X {
            add(&mut sums[i * GROUP + index], acc[i]);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn integers(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: PrefetchRows) {
    with_constant_rows!(rows, [1, 2, 3, 4, 5], TILE, X => integer_tile::<X>(group, x, sums));
}

/// The instruction multiplies unsigned by signed integers, so the weight's sign moves to the activation. Pairs of
/// products fit 16 bits, as 2 · 128 · 127 does.
#[target_feature(enable = "avx2,fma")]
fn integer_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes]) {
    let ones = _mm256_set1_epi16(1);
    let x = ActivationBlock::slice(x);
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [[_mm256_setzero_ps(); X]; 2];
        for (block, x) in PanelBlock::slice(panel).iter().zip(x.as_chunks::<X>().0) {
            for (half, acc) in acc.iter_mut().enumerate() {
                let scales = _mm256_castsi256_ps(load_halves(&block.scales)[half]);
                for i in 0..X {
                    let x = &x[i];
                    let mut dot = _mm256_set1_epi32(x.start);
                    for j in 0..8 {
                        let w = load_halves(&block.quads[j])[half];
                        let signed = _mm256_sign_epi8(_mm256_set1_epi32(x.quads[j]), w);
                        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), signed);
                        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones));
                    }
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x.scale));
                    acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc[i]);
                }
            }
        }
        for i in 0..X {
            add(&mut sums[i * GROUP + index], [acc[0][i], acc[1][i]]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: &mut Lanes, acc: [__m256; 2]) {
    let [low, high] = load_halves(sums);
    store_half(sums, 0, _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(low), acc[0])));
    store_half(sums, 1, _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(high), acc[1])));
}
