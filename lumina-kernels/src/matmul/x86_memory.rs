//! Loads, stores and changes of type of the AVX kernels, as safe functions: the references that they take are checked
//! memory.

use std::arch::x86_64::*;

use crate::scratch::Lanes;

/// 16 bytes at any alignment.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn load_16(bytes: &[u8; 16]) -> __m128i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `bytes` is 16 bytes; the instruction needs no alignment.
    unsafe {
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

/// 32 bytes at any alignment.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load_32(bytes: &[u8; 32]) -> __m256i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `bytes` is 32 bytes; the instruction needs no alignment.
    unsafe {
        _mm256_loadu_si256(bytes.as_ptr().cast())
    }
}

/// 64 bytes at any alignment.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_64(bytes: &[u8; 64]) -> __m512i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `bytes` is 64 bytes; the instruction needs no alignment.
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

/// Eight words of activations, as bits of `f32`.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load_words_256(words: &[u32; 8]) -> __m256 {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `words` is 32 bytes; the instruction needs no alignment.
    unsafe {
        _mm256_loadu_ps(words.as_ptr().cast())
    }
}

/// Sixteen words of activations, as bits of `f32`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_words_512(words: &[u32; 16]) -> __m512 {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `words` is 64 bytes; the instruction needs no alignment.
    unsafe {
        _mm512_loadu_ps(words.as_ptr().cast())
    }
}

/// Both halves of a vector in memory.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load_halves(lanes: &Lanes) -> [__m256i; 2] {
    let (low, high) = lanes.0.split_at(8);
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: each half is 32 bytes, aligned to 32 as a `Lanes` is to 64.
    unsafe {
        [_mm256_load_si256(low.as_ptr().cast()), _mm256_load_si256(high.as_ptr().cast())]
    }
}

/// Half `half` of a vector in memory.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn store_half(lanes: &mut Lanes, half: usize, vector: __m256i) {
    let lanes = &mut lanes.0[half * 8..][..8];
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: the half is 32 bytes, aligned to 32 as a `Lanes` is to 64.
    unsafe {
        _mm256_store_si256(lanes.as_mut_ptr().cast(), vector);
    }
}

/// Eight values at any alignment.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn store_floats_256(values: &mut [f32; 8], vector: __m256) {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: there is room for 32 bytes; the instruction needs no alignment.
    unsafe {
        _mm256_storeu_ps(values.as_mut_ptr(), vector);
    }
}

/// A vector in memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_lanes(lanes: &Lanes) -> __m512i {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a `Lanes` is 64 bytes, aligned to 64.
    unsafe {
        _mm512_load_si512(lanes.0.as_ptr().cast())
    }
}

/// A vector of `f32` in memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_floats(lanes: &Lanes) -> __m512 {
    _mm512_castsi512_ps(load_lanes(lanes))
}

/// A vector in memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_lanes(lanes: &mut Lanes, vector: __m512i) {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a `Lanes` is 64 bytes, aligned to 64.
    unsafe {
        _mm512_store_si512(lanes.0.as_mut_ptr().cast(), vector);
    }
}

/// A vector of `f32` in memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_floats(lanes: &mut Lanes, vector: __m512) {
    store_lanes(lanes, _mm512_castps_si512(vector));
}

/// Adds to a vector of `f32` in memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_floats(sums: &mut Lanes, vector: __m512) {
    store_floats(sums, _mm512_add_ps(load_floats(sums), vector));
}

/// The same bits as pairs of `bf16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn as_bf16(pairs: __m512i) -> __m512bh {
    #[allow(unsafe_code, reason = "there is no intrinsic that only changes the type")]
    // SAFETY: both are 64 bytes of which every pattern is valid.
    unsafe {
        std::mem::transmute(pairs)
    }
}

/// Pairs of `bf16`: rounded to nearest, ties to even, with values below the smallest normal number as zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn store_bf16_pairs(words: &mut [u32; 16], values: &[f32; 32]) {
    let (low, high) = values.split_at(16);
    #[allow(unsafe_code, reason = "the instructions take pointers")]
    // SAFETY: both halves are 64 bytes, and there is room for 64; the instructions need no alignment. The change of
    // type is one between 64 bytes of which every pattern is valid.
    unsafe {
        let pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high.as_ptr()), _mm512_loadu_ps(low.as_ptr()));
        _mm512_storeu_si512(words.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(pairs));
    }
}
