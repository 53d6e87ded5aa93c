//! Vectors of sixteen numbers, in the registers that the processor has, functions compiled for each kind, and sums.

/// Sixteen `f32` side by side.
pub trait Vector: Copy {
    /// Whether sixteen of them fit the registers beside what is multiplied.
    const MANY: bool;
    /// The same number in all places.
    fn splat(value: f32) -> Self;
    /// The first sixteen numbers.
    fn load(from: &[f32]) -> Self;
    /// `self + a · b`.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// The numbers as an array.
    fn array(self) -> [f32; LANES];
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// Their sum, by halves.
    #[inline(always)]
    fn sum(self) -> f32 {
        total(self.array())
    }
    /// With zero for the first number.
    #[inline(always)]
    fn without_first(self) -> Self {
        let mut all = self.array();
        all[0] = 0.0;
        Self::load(&all)
    }
    /// With zero for the last number.
    #[inline(always)]
    fn without_last(self) -> Self {
        let mut all = self.array();
        all[LANES - 1] = 0.0;
        Self::load(&all)
    }
    /// The first numbers of sixteen fours, then the second, third and fourth.
    #[inline(always)]
    fn fourths(from: &[[f32; 4]]) -> [Self; 4] {
        let mut all = [[0.0; LANES]; 4];
        for (lane, four) in from[..LANES].iter().enumerate() {
            for (all, value) in all.iter_mut().zip(four) {
                all[lane] = *value;
            }
        }
        [Self::load(&all[0]), Self::load(&all[1]), Self::load(&all[2]), Self::load(&all[3])]
    }
    /// What [`fourths`](Self::fourths) takes apart.
    #[inline(always)]
    fn of_fourths(fourths: [Self; 4]) -> [f32; 4 * LANES] {
        let mut together = [0.0; 4 * LANES];
        for (index, fourth) in fourths.into_iter().enumerate() {
            for (four, value) in together.as_chunks_mut::<4>().0.iter_mut().zip(fourth.array()) {
                four[index] = value;
            }
        }
        together
    }
}

/// Numbers in a [`Vector`].
pub(crate) const LANES: usize = 16;

/// The sum of sixteen numbers, by halves.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// The dot product of two rows of one length, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn dot<V: Vector>(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = V::splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = sum.add_product(V::load(a), V::load(b));
    }
    sum.sum() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// The largest value; not a number where one is not.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &value| larger(max, value))
}

/// The sum of rows of one width, in their order: what tasks summed apart.
pub(crate) fn sum_of(parts: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for part in parts {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// The form for any processor.
impl Vector for [f32; LANES] {
    const MANY: bool = false;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        let mut all = [0.0; LANES];
        all.copy_from_slice(&from[..LANES]);
        all
    }
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        let mut sum = self;
        for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
        sum
    }
    #[inline(always)]
    fn array(self) -> [f32; LANES] {
        self
    }
    #[inline(always)]
    fn plus(mut self, other: Self) -> Self {
        for (a, b) in self.iter_mut().zip(other) {
            *a += b;
        }
        self
    }
    #[inline(always)]
    fn minus(mut self, other: Self) -> Self {
        for (a, b) in self.iter_mut().zip(other) {
            *a -= b;
        }
        self
    }
    #[inline(always)]
    fn times(mut self, other: Self) -> Self {
        for (a, b) in self.iter_mut().zip(other) {
            *a *= b;
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    #![allow(
        unsafe_code,
        reason = "instructions beyond the baseline, in functions that are inlined into callers compiled for them"
    )]

    use std::arch::x86_64::*;

    use super::{LANES, Vector};

    /// One register of AVX-512. Made only in functions that `best_instructions` compiles for AVX-512.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    impl Vector for Avx512 {
        const MANY: bool = true;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        fn load(from: &[f32]) -> Self {
            let from = &from[..LANES];
            // SAFETY: sixteen numbers were just checked; the caller is compiled for AVX-512.
            Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }
        #[inline(always)]
        fn array(self) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            // SAFETY: the array has room for the sixteen; the caller is compiled for AVX-512.
            unsafe { _mm512_storeu_ps(array.as_mut_ptr(), self.0) };
            array
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn without_first(self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            Self(unsafe { _mm512_maskz_mov_ps(0xFFFE, self.0) })
        }
        #[inline(always)]
        fn without_last(self) -> Self {
            // SAFETY: the caller is compiled for AVX-512.
            Self(unsafe { _mm512_maskz_mov_ps(0x7FFF, self.0) })
        }
        #[inline(always)]
        fn fourths(from: &[[f32; 4]]) -> [Self; 4] {
            let from = from[..LANES].as_flattened();
            // SAFETY: four times sixteen numbers were just checked; the caller is compiled for AVX-512.
            unsafe {
                let start = from.as_ptr();
                let (a, b) = (_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(LANES)));
                let (c, d) = (_mm512_loadu_ps(start.add(2 * LANES)), _mm512_loadu_ps(start.add(3 * LANES)));
                let low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
                let high = _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
                let (ab, cd) = (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(c, low, d));
                let (first, second) = (_mm512_shuffle_f32x4::<0x44>(ab, cd), _mm512_shuffle_f32x4::<0xEE>(ab, cd));
                let (ab, cd) = (_mm512_permutex2var_ps(a, high, b), _mm512_permutex2var_ps(c, high, d));
                let (third, fourth) = (_mm512_shuffle_f32x4::<0x44>(ab, cd), _mm512_shuffle_f32x4::<0xEE>(ab, cd));
                [Self(first), Self(second), Self(third), Self(fourth)]
            }
        }
        #[inline(always)]
        fn of_fourths([a, b, c, d]: [Self; 4]) -> [f32; 4 * LANES] {
            let mut together = [0.0; 4 * LANES];
            // SAFETY: there is room for four times sixteen numbers; the caller is compiled for AVX-512.
            unsafe {
                // Of each 128 bits the first two, and the last two, of four lanes; then 128 bits at a time in their order.
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
                for (to, four) in together.as_chunks_mut::<LANES>().0.iter_mut().zip(all) {
                    _mm512_storeu_ps(to.as_mut_ptr(), four);
                }
            }
            together
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: the caller is compiled for AVX-512.
            unsafe { Avx2(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) }.sum()
        }
    }

    /// Two registers of AVX2. Made only in functions that `best_instructions` compiles for AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    impl Vector for Avx2 {
        const MANY: bool = false;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: the caller is compiled for AVX2.
            let half = unsafe { _mm256_set1_ps(value) };
            Self(half, half)
        }
        #[inline(always)]
        fn load(from: &[f32]) -> Self {
            let from = &from[..LANES];
            // SAFETY: sixteen numbers were just checked; the caller is compiled for AVX2.
            unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
        }
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller is compiled for AVX2 and FMA.
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }
        #[inline(always)]
        fn array(self) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            // SAFETY: the array has room for twice eight; the caller is compiled for AVX2.
            unsafe {
                _mm256_storeu_ps(array.as_mut_ptr(), self.0);
                _mm256_storeu_ps(array.as_mut_ptr().add(8), self.1);
            }
            array
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX2.
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX2.
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: the caller is compiled for AVX2.
            unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: the caller is compiled for AVX2.
            unsafe {
                let eight = _mm256_add_ps(self.0, self.1);
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub mod aarch64 {
    #![allow(unsafe_code, reason = "instructions that AArch64 always has, in functions that are inlined anywhere")]

    use std::arch::aarch64::*;

    use super::{LANES, Vector};

    /// Four registers of NEON.
    #[derive(Clone, Copy)]
    pub struct Neon([float32x4_t; 4]);

    /// The same of all four, for an operation of two.
    macro_rules! each {
        ($operation:ident, $a:expr, $b:expr) => {{
            let (a, b) = ($a.0, $b.0);
            // SAFETY: AArch64 has NEON.
            Neon(unsafe {
                [$operation(a[0], b[0]), $operation(a[1], b[1]), $operation(a[2], b[2]), $operation(a[3], b[3])]
            })
        }};
    }

    impl Vector for Neon {
        const MANY: bool = false;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: AArch64 has NEON.
            Self([unsafe { vdupq_n_f32(value) }; 4])
        }
        #[inline(always)]
        fn load(from: &[f32]) -> Self {
            let from = from[..LANES].as_ptr();
            // SAFETY: sixteen numbers were just checked; AArch64 has NEON.
            unsafe { Self([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]) }
        }
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
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
        fn array(self) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            for (four, values) in array.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
                // SAFETY: `four` has room for four numbers; AArch64 has NEON.
                unsafe { vst1q_f32(four.as_mut_ptr(), values) };
            }
            array
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            each!(vaddq_f32, self, other)
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            each!(vsubq_f32, self, other)
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            each!(vmulq_f32, self, other)
        }
    }
}

/// Whether instructions that the processor has may be used.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(test)))]
#[inline(always)]
pub const fn may_use(_: &str) -> bool {
    true
}

/// In tests of this crate a variable of the environment says so, which `every_form_passes_the_tests` sets.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), test))]
pub(crate) fn may_use(instructions: &str) -> bool {
    static ONLY: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var(tests::ONLY).ok());
    ONLY.as_ref().is_none_or(|only| only == instructions)
}

/// Makes a function that calls the best form of `body`, which is generic over [`Vector`] and inlined.
macro_rules! best_instructions {
    ($vis:vis $name:ident = $body:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        $vis fn $name($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                use crate::simd::vector::x86::{Avx2, Avx512};
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    $body::<Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    $body::<Avx2>($($arg),*)
                }
                use crate::simd::vector::may_use;
                if may_use("avx512")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                {
                    #[allow(unsafe_code, reason = "calls a function compiled for features just detected")]
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if may_use("avx2") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    #[allow(unsafe_code, reason = "calls a function compiled for features just detected")]
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            #[cfg(target_arch = "aarch64")]
            if crate::simd::vector::may_use("neon") {
                return $body::<crate::simd::vector::aarch64::Neon>($($arg),*);
            }
            $body::<[f32; crate::simd::vector::LANES]>($($arg),*)
        }
    };
}
pub(crate) use best_instructions;

#[cfg(test)]
mod tests {
    use std::process::Command;

    pub(super) const ONLY: &str = "LUMINA_TEST_INSTRUCTIONS";

    /// Runs the tests of all kernels once more for each form that is not the best here.
    #[test]
    fn every_form_passes_the_tests() {
        for form in ["avx2", "portable"] {
            let mut tests = Command::new(std::env::current_exe().expect("a test is a program"));
            tests
                .args([
                    "attention::",
                    "norm::",
                    "elementwise::",
                    "conv::",
                    "loss::",
                    "optim::",
                    "matmul::f32_gemm",
                    "matmul::serial_gemm",
                ])
                .env(ONLY, form);
            let output = tests.output().expect("can be run");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{form}: {text}");
            assert!(!text.contains("running 0 tests"), "{form}: {text}");
        }
    }
}
