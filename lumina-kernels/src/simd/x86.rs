//! Vectors of AVX2 and AVX-512.

#![allow(unsafe_code, reason = "instructions beyond the baseline, behind tokens that prove their detection")]

use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

use super::isa::Isa;
use super::{F32s, LANES, Simd};

/// The token of [`Isa::Avx512`]: the processor has AVX-512 F, BW, VL and DQ, AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The token, if the processor has the instruction set.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        Isa::Avx512.is_enabled().then_some(Self(()))
    }
}

/// The token of [`Isa::Avx2`]: the processor has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, if the processor has the instruction set.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        Isa::Avx2.is_enabled().then_some(Self(()))
    }
}

/// The token of [`Isa::Avx512Bf16`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// The token, if the processor has the instruction set.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        Isa::Avx512Bf16.is_available().then_some(Self(()))
    }
}

/// One register of AVX-512. As only [`Avx512`] makes it, the processor has AVX-512.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512F32s(__m512);

impl Simd for Avx512 {
    type F32s = Avx512F32s;

    const WIDE_TILES: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> Avx512F32s {
        // SAFETY: the token proves AVX-512.
        Avx512F32s(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> Avx512F32s {
        let values = &values[..LANES];
        // SAFETY: the line above checks that there are sixteen values; the token proves AVX-512.
        Avx512F32s(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn load_deinterleaved(self, groups: &[[f32; 4]]) -> [Avx512F32s; 4] {
        let values = groups[..LANES].as_flattened();
        // SAFETY: the line above checks that there are four times sixteen values; the token proves AVX-512.
        unsafe {
            let start = values.as_ptr();
            let (a, b) = (_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(LANES)));
            let (c, d) = (_mm512_loadu_ps(start.add(2 * LANES)), _mm512_loadu_ps(start.add(3 * LANES)));
            let low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
            let high = _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
            let (ab, cd) = (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(c, low, d));
            let (first, second) = (_mm512_shuffle_f32x4::<0x44>(ab, cd), _mm512_shuffle_f32x4::<0xEE>(ab, cd));
            let (ab, cd) = (_mm512_permutex2var_ps(a, high, b), _mm512_permutex2var_ps(c, high, d));
            let (third, fourth) = (_mm512_shuffle_f32x4::<0x44>(ab, cd), _mm512_shuffle_f32x4::<0xEE>(ab, cd));
            [Avx512F32s(first), Avx512F32s(second), Avx512F32s(third), Avx512F32s(fourth)]
        }
    }
}

impl F32s for Avx512F32s {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the vectors prove AVX-512.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: the array has room for the sixteen; the vector proves AVX-512.
        unsafe { _mm512_storeu_ps(array.as_mut_ptr(), self.0) };
        array
    }

    #[inline(always)]
    fn replace(self, values: &[f32; LANES]) -> Self {
        // SAFETY: there are sixteen values; the vector proves AVX-512.
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: the vector proves AVX-512.
        let halves = unsafe { [_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)] };
        Avx2F32s(halves[0], halves[1]).sum()
    }

    #[inline(always)]
    fn zero_first(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        Self(unsafe { _mm512_maskz_mov_ps(0xFFFE, self.0) })
    }

    #[inline(always)]
    fn zero_last(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        Self(unsafe { _mm512_maskz_mov_ps(0x7FFF, self.0) })
    }

    #[inline(always)]
    fn interleave([a, b, c, d]: [Self; 4]) -> [f32; 4 * LANES] {
        let mut groups = [0.0; 4 * LANES];
        // SAFETY: there is room for four times sixteen values; the vectors prove AVX-512.
        unsafe {
            // Within each 128 bits transpose 4 × 4; then put the 128 bits into their order.
            let (ab, cd) = (_mm512_unpacklo_ps(a.0, b.0), _mm512_unpacklo_ps(c.0, d.0));
            let lane0 = _mm512_shuffle_ps::<0x44>(ab, cd);
            let lane1 = _mm512_shuffle_ps::<0xEE>(ab, cd);
            let (ab, cd) = (_mm512_unpackhi_ps(a.0, b.0), _mm512_unpackhi_ps(c.0, d.0));
            let lane2 = _mm512_shuffle_ps::<0x44>(ab, cd);
            let lane3 = _mm512_shuffle_ps::<0xEE>(ab, cd);
            let (low01, low23) =
                (_mm512_shuffle_f32x4::<0x44>(lane0, lane1), _mm512_shuffle_f32x4::<0x44>(lane2, lane3));
            let (high01, high23) =
                (_mm512_shuffle_f32x4::<0xEE>(lane0, lane1), _mm512_shuffle_f32x4::<0xEE>(lane2, lane3));
            let all = [
                _mm512_shuffle_f32x4::<0x88>(low01, low23),
                _mm512_shuffle_f32x4::<0xDD>(low01, low23),
                _mm512_shuffle_f32x4::<0x88>(high01, high23),
                _mm512_shuffle_f32x4::<0xDD>(high01, high23),
            ];
            for (to, vector) in groups.as_chunks_mut::<LANES>().0.iter_mut().zip(all) {
                _mm512_storeu_ps(to.as_mut_ptr(), vector);
            }
        }
        groups
    }
}

/// Two registers of AVX2. As only [`Avx2`] and [`Avx512F32s`] make it, the processor has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2F32s(__m256, __m256);

impl Simd for Avx2 {
    type F32s = Avx2F32s;

    const WIDE_TILES: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Avx2F32s {
        // SAFETY: the token proves AVX2.
        let half = unsafe { _mm256_set1_ps(value) };
        Avx2F32s(half, half)
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> Avx2F32s {
        let values = &values[..LANES];
        // SAFETY: the line above checks that there are sixteen values; the token proves AVX2.
        unsafe { Avx2F32s(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) }
    }
}

impl F32s for Avx2F32s {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the vectors prove AVX2 and FMA.
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: the array has room for twice eight; the vector proves AVX2.
        unsafe {
            _mm256_storeu_ps(array.as_mut_ptr(), self.0);
            _mm256_storeu_ps(array.as_mut_ptr().add(8), self.1);
        }
        array
    }

    #[inline(always)]
    fn replace(self, values: &[f32; LANES]) -> Self {
        // SAFETY: there are twice eight values; the vector proves AVX2.
        unsafe { Self(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: the vector proves AVX2.
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

/// An operator of a vector type, register by register.
macro_rules! operator {
    ($trait:ident, $method:ident, $wide:ident, $half:ident) => {
        impl $trait for Avx512F32s {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: the vectors prove AVX-512.
                Self(unsafe { $wide(self.0, other.0) })
            }
        }

        impl $trait for Avx2F32s {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: the vectors prove AVX2.
                unsafe { Self($half(self.0, other.0), $half(self.1, other.1)) }
            }
        }
    };
}

operator!(Add, add, _mm512_add_ps, _mm256_add_ps);
operator!(Sub, sub, _mm512_sub_ps, _mm256_sub_ps);
operator!(Mul, mul, _mm512_mul_ps, _mm256_mul_ps);
