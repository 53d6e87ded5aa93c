//! GEMM with AVX-512: one vector is 16 rows of the weights.

use std::arch::x86_64::*;

use super::arithmetic::Arithmetic;
use super::blocks::{ActivationBlock, PanelBlock};
use super::kernel::{GROUP, Gemm, with_constant_rows};
use super::weight_rows::PrefetchRows;
use super::x86_memory::{add_floats, as_bf16, load_floats, load_lanes};
use crate::scratch::Lanes;
use crate::simd::prefetch::prefetch_tile;

/// Activation rows of a tile: 24 sums of the 32 registers.
pub(super) const TILE: usize = 12;

pub(super) fn gemm(arithmetic: Arithmetic) -> Gemm {
    match arithmetic {
        Arithmetic::F32 => floats,
        Arithmetic::Bf16 | Arithmetic::AmxBf16 => bf16,
        Arithmetic::Int8 { .. } | Arithmetic::AmxInt8 => integers,
    }
}

#[target_feature(enable = "avx512f")]
fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows) {
    next.prefetch();
    with_constant_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], TILE, X => {
        float_tile::<X>(group, x, sums, next.tile);
    });
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows) {
    next.prefetch();
    with_constant_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], TILE, X => {
        bf16_tile::<X>(group, x, sums, next.tile);
    });
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn integers(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: PrefetchRows) {
    next.prefetch();
    with_constant_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], TILE, X => {
        integer_tile::<X>(group, x, sums, next.tile);
    });
}

#[target_feature(enable = "avx512f")]
fn float_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    let (first, second) = group.split_at(group.len() / GROUP);
    let mut acc = [[_mm512_setzero_ps(); GROUP]; X];
    for (step, ((first, second), x)) in first.iter().zip(second).zip(x.as_chunks::<X>().0).enumerate() {
        prefetch_tile(next, step * X);
        let w = [load_floats(first), load_floats(second)];
        for i in 0..X {
            let x = _mm512_set1_ps(f32::from_bits(x[i]));
            acc[i][0] = _mm512_fmadd_ps(w[0], x, acc[i][0]);
            acc[i][1] = _mm512_fmadd_ps(w[1], x, acc[i][1]);
        }
    }
    add_tile(sums, &acc);
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    let (first, second) = group.split_at(group.len() / GROUP);
    let mut acc = [[_mm512_setzero_ps(); GROUP]; X];
    for (step, ((first, second), x)) in first.iter().zip(second).zip(x.as_chunks::<X>().0).enumerate() {
        prefetch_tile(next, step * X);
        let w = [as_bf16(load_lanes(first)), as_bf16(load_lanes(second))];
        for i in 0..X {
            let x = as_bf16(_mm512_set1_epi32(x[i].cast_signed()));
            acc[i][0] = _mm512_dpbf16_ps(acc[i][0], w[0], x);
            acc[i][1] = _mm512_dpbf16_ps(acc[i][1], w[1], x);
        }
    }
    add_tile(sums, &acc);
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn integer_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    let x = ActivationBlock::slice(x);
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [_mm512_setzero_ps(); X];
        let blocks = PanelBlock::slice(panel).iter().zip(x.as_chunks::<X>().0);
        for (number, (block, x)) in blocks.enumerate() {
            let next = next.wrapping_add(number * X * ActivationBlock::WORDS);
            let mut w = [_mm512_setzero_si512(); 8];
            for (w, quad) in w.iter_mut().zip(&block.quads) {
                *w = load_lanes(quad);
            }
            let scales = load_floats(&block.scales);
            for i in 0..X {
                prefetch_tile(next, i * ActivationBlock::WORDS);
                acc[i] = add_block(acc[i], &w, scales, &x[i]);
            }
        }
        for i in 0..X {
            add_floats(&mut sums[i * GROUP + index], acc[i]);
        }
    }
}

/// Adds to the sums of 16 rows the products of a block of theirs with a block of an activation row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn add_block(acc: __m512, w: &[__m512i; 8], scales: __m512, x: &ActivationBlock) -> __m512 {
    // Two chains, each half as long.
    let mut dots = [_mm512_set1_epi32(x.start), _mm512_setzero_si512()];
    for j in 0..4 {
        dots[0] = _mm512_dpbusd_epi32(dots[0], w[j], _mm512_set1_epi32(x.quads[j]));
        dots[1] = _mm512_dpbusd_epi32(dots[1], w[j + 4], _mm512_set1_epi32(x.quads[j + 4]));
    }
    let dot = _mm512_add_epi32(dots[0], dots[1]);
    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x.scale));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc)
}

/// Adds the sums of a tile to those in memory, by index, so that they stay in registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_tile<const X: usize>(sums: &mut [Lanes], acc: &[[__m512; GROUP]; X]) {
    let sums = &mut sums.as_chunks_mut::<GROUP>().0[..X];
    for i in 0..X {
        add_floats(&mut sums[i][0], acc[i][0]);
        add_floats(&mut sums[i][1], acc[i][1]);
    }
}
