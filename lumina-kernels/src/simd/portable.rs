//! Vectors for any processor: arrays, which the compiler puts into the registers of the baseline.

use std::ops::{Add, Mul, Sub};

use super::{F32s, LANES, Simd};

/// The token of plain code, which any processor runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// An array of sixteen `f32`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Array([f32; LANES]);

impl Simd for Portable {
    type F32s = Array;

    const WIDE_TILES: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Array {
        Array([value; LANES])
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> Array {
        let mut all = [0.0; LANES];
        all.copy_from_slice(&values[..LANES]);
        Array(all)
    }
}

impl F32s for Array {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        let mut sum = self.0;
        for ((sum, a), b) in sum.iter_mut().zip(a.0).zip(b.0) {
            *sum += a * b;
        }
        Self(sum)
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        self.0
    }

    #[inline(always)]
    fn replace(self, values: &[f32; LANES]) -> Self {
        Self(*values)
    }
}

impl Add for Array {
    type Output = Self;

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a += b;
        }
        self
    }
}

impl Sub for Array {
    type Output = Self;

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a -= b;
        }
        self
    }
}

impl Mul for Array {
    type Output = Self;

    #[inline(always)]
    fn mul(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a *= b;
        }
        self
    }
}
