//! Vectors of NEON, which AArch64 always has.

#![allow(unsafe_code, reason = "instructions that AArch64 always has")]

use std::arch::aarch64::*;
use std::ops::{Add, Mul, Sub};

use super::isa::Isa;
use super::{F32s, LANES, Simd};

/// The token of [`Isa::Neon`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// The token, except in tests of other instruction sets.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        Isa::Neon.is_enabled().then_some(Self(()))
    }
}

/// Four registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonF32s([float32x4_t; 4]);

/// An operation of two vectors, register by register.
macro_rules! each {
    ($operation:ident, $a:expr, $b:expr) => {{
        let (a, b) = ($a.0, $b.0);
        // SAFETY: AArch64 has NEON.
        NeonF32s(unsafe {
            [$operation(a[0], b[0]), $operation(a[1], b[1]), $operation(a[2], b[2]), $operation(a[3], b[3])]
        })
    }};
}

impl Simd for Neon {
    type F32s = NeonF32s;

    const WIDE_TILES: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> NeonF32s {
        // SAFETY: AArch64 has NEON.
        NeonF32s([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> NeonF32s {
        let values = values[..LANES].as_ptr();
        // SAFETY: the line above checks that there are sixteen values; AArch64 has NEON.
        unsafe {
            NeonF32s([vld1q_f32(values), vld1q_f32(values.add(4)), vld1q_f32(values.add(8)), vld1q_f32(values.add(12))])
        }
    }
}

impl F32s for NeonF32s {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        let (sum, a, b) = (self.0, a.0, b.0);
        // SAFETY: AArch64 has NEON.
        Self(unsafe {
            [
                vfmaq_f32(sum[0], a[0], b[0]),
                vfmaq_f32(sum[1], a[1], b[1]),
                vfmaq_f32(sum[2], a[2], b[2]),
                vfmaq_f32(sum[3], a[3], b[3]),
            ]
        })
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        for (four, values) in array.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            // SAFETY: `four` has room for four values; AArch64 has NEON.
            unsafe { vst1q_f32(four.as_mut_ptr(), values) };
        }
        array
    }

    #[inline(always)]
    fn replace(self, values: &[f32; LANES]) -> Self {
        Neon(()).load(values)
    }
}

impl Add for NeonF32s {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(vaddq_f32, self, other)
    }
}

impl Sub for NeonF32s {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(vsubq_f32, self, other)
    }
}

impl Mul for NeonF32s {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each!(vmulq_f32, self, other)
    }
}
