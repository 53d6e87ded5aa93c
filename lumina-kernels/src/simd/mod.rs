//! Instruction sets: which of them the processor has, vectors in its registers, and functions compiled for each.
//!
//! A *token* ([`Simd`]) is a zero-sized proof that the processor has an instruction set. Only detection makes tokens,
//! and only tokens make vectors ([`F32s`]), so code with a vector in its hands may use the instructions for it, and no
//! unsafe code is needed in kernels. A kernel is a function that is generic over the token:
//!
//! ```ignore
//! simd_dispatch!(pub(crate) fn scale(x: &mut [f32], factor: f32) = scale_body);
//!
//! #[inline(always)]
//! fn scale_body<S: Simd>(simd: S, x: &mut [f32], factor: f32) {
//!     for chunk in x.as_chunks_mut::<LANES>().0 {
//!         *chunk = (simd.load(chunk) * simd.splat(factor)).to_array();
//!     }
//! }
//! ```
//!
//! [`simd_dispatch`] compiles the body for each instruction set and calls the best. All functions in a body have to be
//! `#[inline(always)]`: what the compiler leaves out of line lacks the instruction set of its caller, and is slow. For
//! the same reason a body has no closures that take or return vectors. Loops over arrays of [`LANES`] values without
//! vectors are vectorised by the compiler, with the instruction set of the body.

pub(crate) mod exp;
pub(crate) mod isa;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;
pub(crate) mod prefetch;
pub(crate) mod reduce;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use std::ops::{Add, Mul, Sub};

/// Values of a vector.
pub(crate) const LANES: usize = 16;

/// A token: proof that the processor has an instruction set, which makes vectors of it.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Sixteen `f32` in registers.
    type F32s: F32s;

    /// Whether the sums of a tile of 8 × 2 vectors fit the registers. Otherwise tiles have 4 × 1.
    const WIDE_TILES: bool;

    /// The same value in all lanes.
    fn splat(self, value: f32) -> Self::F32s;

    /// The first sixteen values.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    fn load(self, values: &[f32]) -> Self::F32s;

    /// The first values of sixteen groups of four, the second, the third, and the fourth.
    ///
    /// # Panics
    ///
    /// If there are fewer groups.
    #[inline(always)]
    fn load_deinterleaved(self, groups: &[[f32; 4]]) -> [Self::F32s; 4] {
        let mut lanes = [[0.0; LANES]; 4];
        for (lane, group) in groups[..LANES].iter().enumerate() {
            for (lanes, value) in lanes.iter_mut().zip(group) {
                lanes[lane] = *value;
            }
        }
        [self.load(&lanes[0]), self.load(&lanes[1]), self.load(&lanes[2]), self.load(&lanes[3])]
    }
}

/// Sixteen `f32` in registers. As only a [`Simd`] token makes them, the processor has the instructions for them.
pub(crate) trait F32s: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    /// `self + a · b`: rounded once where the processor has the instruction, otherwise twice.
    fn multiply_add(self, a: Self, b: Self) -> Self;

    /// The values as an array.
    fn to_array(self) -> [f32; LANES];

    /// Other values in a vector of the same kind.
    fn replace(self, values: &[f32; LANES]) -> Self;

    /// The sum of all lanes, in the order of [`reduce::total`].
    #[inline(always)]
    fn sum(self) -> f32 {
        reduce::total(self.to_array())
    }

    /// With zero in the first lane.
    #[inline(always)]
    fn zero_first(self) -> Self {
        let mut values = self.to_array();
        values[0] = 0.0;
        self.replace(&values)
    }

    /// With zero in the last lane.
    #[inline(always)]
    fn zero_last(self) -> Self {
        let mut values = self.to_array();
        values[LANES - 1] = 0.0;
        self.replace(&values)
    }

    /// The inverse of [`Simd::load_deinterleaved`]: sixteen groups of four.
    #[inline(always)]
    fn interleave(vectors: [Self; 4]) -> [f32; 4 * LANES] {
        let mut groups = [0.0; 4 * LANES];
        for (index, vector) in vectors.into_iter().enumerate() {
            for (group, value) in groups.as_chunks_mut::<4>().0.iter_mut().zip(vector.to_array()) {
                group[index] = value;
            }
        }
        groups
    }
}

/// Defines a function that calls `body`, compiled for the best instruction set that the processor has. `body` is
/// generic over [`Simd`], takes the token before the other arguments, and is `#[inline(always)]`.
macro_rules! simd_dispatch {
    ($vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $vis fn $name($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                use crate::simd::x86::{Avx2, Avx512};
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
                fn avx512(simd: Avx512, $($arg: $type),*) $(-> $result)? {
                    $body(simd, $($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2(simd: Avx2, $($arg: $type),*) $(-> $result)? {
                    $body(simd, $($arg),*)
                }
                if let Some(simd) = Avx512::detect() {
                    #[allow(unsafe_code, reason = "calls a function that is compiled for an instruction set")]
                    // SAFETY: the token proves that the processor has the instruction set.
                    return unsafe { avx512(simd, $($arg),*) };
                }
                if let Some(simd) = Avx2::detect() {
                    #[allow(unsafe_code, reason = "calls a function that is compiled for an instruction set")]
                    // SAFETY: the token proves that the processor has the instruction set.
                    return unsafe { avx2(simd, $($arg),*) };
                }
            }
            #[cfg(target_arch = "aarch64")]
            if let Some(simd) = crate::simd::neon::Neon::detect() {
                return $body(simd, $($arg),*);
            }
            $body(crate::simd::portable::Portable, $($arg),*)
        }
    };
}
pub(crate) use simd_dispatch;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::isa::ONLY;

    /// Runs the tests of all kernels that are generic over the token again, with each token that is not the best here.
    #[test]
    fn each_token_passes_the_tests() {
        for isa in ["avx2", "portable"] {
            let mut tests = Command::new(std::env::current_exe().expect("a test is a program"));
            tests
                .args([
                    "attention::",
                    "conv::",
                    "elementwise::",
                    "loss::",
                    "matmul::f32_gemm",
                    "matmul::serial_gemm",
                    "norm::",
                    "optim::",
                    "simd::reduce",
                ])
                .env(ONLY, isa);
            let output = tests.output().expect("can be run");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{isa}: {text}");
            assert!(!text.contains("running 0 tests"), "{isa}: {text}");
        }
    }
}
