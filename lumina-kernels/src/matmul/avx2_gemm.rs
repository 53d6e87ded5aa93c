//! Matmul with AVX2, FMA and F16C: two vectors are 16 rows of the weights.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, INPUT_BLOCK, PANEL_BLOCK};
use super::avx2_gemv;
use super::kernel::{Few, GROUP, Multiply, by_rows};
use super::prefetch::{fetch_near, fetch_share};
use super::weight_rows::Rows;
use crate::Format;
use crate::scratch::Lanes;

/// Activation rows of a tile: 12 sums of the 16 registers.
pub(super) const TILE: usize = 6;

pub(super) fn multiply(arithmetic: Arithmetic) -> Multiply {
    match arithmetic {
        Arithmetic::Float | Arithmetic::Bfloat | Arithmetic::Tiles => floats,
        Arithmetic::Bytes { .. } | Arithmetic::TileBytes => bytes,
    }
}

pub(super) fn few(arithmetic: Arithmetic, format: Format) -> Option<Few> {
    match (arithmetic, format) {
        (Arithmetic::Float, Format::F32) => Some(avx2_gemv::words::<{ avx2_gemv::FLOATS }>),
        (Arithmetic::Float, Format::F16) => Some(avx2_gemv::words::<{ avx2_gemv::HALVES }>),
        (Arithmetic::Float, Format::BF16) => Some(avx2_gemv::words::<{ avx2_gemv::BFLOATS }>),
        (Arithmetic::Bytes { .. }, Format::Q8_0) => Some(avx2_gemv::bytes::<false>),
        (Arithmetic::Bytes { .. }, Format::Q4_0) => Some(avx2_gemv::bytes::<true>),
        _ => None,
    }
}

#[target_feature(enable = "avx2,fma")]
fn floats(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], next: Rows) {
    fetch_share(next);
    by_rows!(rows, [1, 2, 3, 4, 5], TILE, X => float_tile::<X>(group, x, sums, next.tile));
}

#[target_feature(enable = "avx2,fma")]
fn float_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes], next: *const u32) {
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [[_mm256_setzero_ps(); 2]; X];
        for (step, (w, x)) in panel.iter().zip(x.as_chunks::<X>().0).enumerate() {
            fetch_near(next, step * X);
            let w = load(w).map(|w| _mm256_castsi256_ps(w));
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
fn bytes(group: &[Lanes], x: &[u32], rows: usize, sums: &mut [Lanes], _: Rows) {
    by_rows!(rows, [1, 2, 3, 4, 5], TILE, X => byte_tile::<X>(group, x, sums));
}

/// Signed bytes: the instruction wants one factor unsigned, so the weight's sign goes to the activation. Pairs of products fit 16 bits,
/// as 2 · 128 · 127 does.
#[target_feature(enable = "avx2,fma")]
fn byte_tile<const X: usize>(group: &[Lanes], x: &[u32], sums: &mut [Lanes]) {
    let ones = _mm256_set1_epi16(1);
    let x = x.as_chunks::<INPUT_BLOCK>().0;
    for (index, panel) in group.chunks_exact(group.len() / GROUP).enumerate() {
        let mut acc = [[_mm256_setzero_ps(); X]; 2];
        for (block, x) in panel.as_chunks::<PANEL_BLOCK>().0.iter().zip(x.as_chunks::<X>().0) {
            for (half, acc) in acc.iter_mut().enumerate() {
                let scale = _mm256_castsi256_ps(load(&block[PANEL_BLOCK - 1])[half]);
                for i in 0..X {
                    let x = &x[i];
                    let mut dot = _mm256_set1_epi32(x[9].cast_signed());
                    for j in 0..PANEL_BLOCK - 1 {
                        let w = load(&block[j])[half];
                        let signed = _mm256_sign_epi8(_mm256_set1_epi32(x[j].cast_signed()), w);
                        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), signed);
                        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones));
                    }
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(f32::from_bits(x[8])));
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
fn load(lanes: &Lanes) -> [__m256i; 2] {
    let (low, high) = lanes.0.split_at(8);
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: each half is 32 bytes, aligned to 32 as a `Lanes` is to 64.
    unsafe {
        [_mm256_load_si256(low.as_ptr().cast()), _mm256_load_si256(high.as_ptr().cast())]
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: &mut Lanes, acc: [__m256; 2]) {
    let [low, high] = load(sums);
    let low = _mm256_add_ps(_mm256_castsi256_ps(low), acc[0]);
    let high = _mm256_add_ps(_mm256_castsi256_ps(high), acc[1]);
    let (to_low, to_high) = sums.0.split_at_mut(8);
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: each half is 32 bytes, aligned to 32 as a `Lanes` is to 64.
    unsafe {
        _mm256_store_ps(to_low.as_mut_ptr().cast(), low);
        _mm256_store_ps(to_high.as_mut_ptr().cast(), high);
    }
}
