//! Products with AVX-512: one vector is 16 rows of the weights.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, INPUT_BLOCK, PANEL_BLOCK};
use super::kernel::{GROUP, Multiply, by_rows};
use super::prefetch::{fetch_near, fetch_share};
use super::weight_rows::Rows;
use crate::scratch::Lanes;

/// Activation rows of a tile: 24 sums of the 32 registers.
pub(super) const TILE: usize = 12;

pub(super) fn multiply(arithmetic: Arithmetic) -> Multiply {
    match arithmetic {
        Arithmetic::Float => floats,
        Arithmetic::Bfloat | Arithmetic::Tiles => bfloats,
        Arithmetic::Bytes { .. } | Arithmetic::TileBytes => bytes,
    }
}

#[target_feature(enable = "avx512f")]
fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    fetch_share(next);
    by_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], TILE, X => float_tile::<X>(group, x, sums, next.tile));
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bfloats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    fetch_share(next);
    by_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], TILE, X => bfloat_tile::<X>(group, x, sums, next.tile));
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn bytes(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    fetch_share(next);
    by_rows!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], TILE, X => byte_tile::<X>(group, x, sums, next.tile));
}

#[target_feature(enable = "avx512f")]
fn float_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    let (first, second) = group.split_at(group.len() / GROUP);
    let mut acc = [[_mm512_setzero_ps(); GROUP]; X];
    for (step, ((first, second), x)) in first.iter().zip(second).zip(x.as_chunks::<X>().0).enumerate() {
        fetch_near(next, step * X);
        let w = [load_ps(first), load_ps(second)];
        for i in 0..X {
            let x = _mm512_set1_ps(f32::from_bits(x[i]));
            acc[i][0] = _mm512_fmadd_ps(w[0], x, acc[i][0]);
            acc[i][1] = _mm512_fmadd_ps(w[1], x, acc[i][1]);
        }
    }
    add_tile(sums, &acc);
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bfloat_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    let (first, second) = group.split_at(group.len() / GROUP);
    let mut acc = [[_mm512_setzero_ps(); GROUP]; X];
    for (step, ((first, second), x)) in first.iter().zip(second).zip(x.as_chunks::<X>().0).enumerate() {
        fetch_near(next, step * X);
        let w = [bfloat(load(first)), bfloat(load(second))];
        for i in 0..X {
            let x = bfloat(_mm512_set1_epi32(x[i].cast_signed()));
            acc[i][0] = _mm512_dpbf16_ps(acc[i][0], w[0], x);
            acc[i][1] = _mm512_dpbf16_ps(acc[i][1], w[1], x);
        }
    }
    add_tile(sums, &acc);
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn byte_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    let x = x.as_chunks::<INPUT_BLOCK>().0;
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [_mm512_setzero_ps(); X];
        let blocks = panel.as_chunks::<PANEL_BLOCK>().0.iter().zip(x.as_chunks::<X>().0);
        for (number, (block, x)) in blocks.enumerate() {
            let next = next.wrapping_add(number * X * INPUT_BLOCK);
            let mut w = [_mm512_setzero_si512(); PANEL_BLOCK - 1];
            for j in 0..PANEL_BLOCK - 1 {
                w[j] = load(&block[j]);
            }
            let scale = load_ps(&block[PANEL_BLOCK - 1]);
            for i in 0..X {
                fetch_near(next, i * INPUT_BLOCK);
                acc[i] = add_block(acc[i], &w, scale, &x[i]);
            }
        }
        for i in 0..X {
            add(&mut sums[i * GROUP + index], acc[i]);
        }
    }
}

/// Adds to the sums of 16 rows what a block of theirs, and its scales, give with one of an activation row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn add_block(acc: __m512, w: &[__m512i; 8], scale: __m512, x: &[u32; INPUT_BLOCK]) -> __m512 {
    // Two chains, which are half as long.
    let mut dots = [_mm512_set1_epi32(x[9].cast_signed()), _mm512_setzero_si512()];
    for j in 0..4 {
        dots[0] = _mm512_dpbusd_epi32(dots[0], w[j], _mm512_set1_epi32(x[j].cast_signed()));
        dots[1] = _mm512_dpbusd_epi32(dots[1], w[j + 4], _mm512_set1_epi32(x[j + 4].cast_signed()));
    }
    let dot = _mm512_add_epi32(dots[0], dots[1]);
    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(f32::from_bits(x[8])));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc)
}

/// Adds the sums of a tile to those there are: by number, so that they stay in registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_tile<const X: usize>(sums: &mut [Lanes], acc: &[[__m512; GROUP]; X]) {
    let sums = &mut sums.as_chunks_mut::<GROUP>().0[..X];
    for i in 0..X {
        add(&mut sums[i][0], acc[i][0]);
        add(&mut sums[i][1], acc[i][1]);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &Lanes) -> __m512i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a `Lanes` is 64 bytes, aligned to 64.
    unsafe {
        _mm512_load_si512(lanes.0.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_ps(lanes: &Lanes) -> __m512 {
    _mm512_castsi512_ps(load(lanes))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add(sums: &mut Lanes, acc: __m512) {
    let sum = _mm512_add_ps(load_ps(sums), acc);
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a `Lanes` is 64 bytes, aligned to 64.
    unsafe {
        _mm512_store_ps(sums.0.as_mut_ptr().cast(), sum);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bfloat(pairs: __m512i) -> __m512bh {
    #[allow(unsafe_code, reason = "there is no intrinsic that only changes the type")]
    // SAFETY: both are 64 bytes for which every pattern is valid.
    unsafe {
        std::mem::transmute(pairs)
    }
}
