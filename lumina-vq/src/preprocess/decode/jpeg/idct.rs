//! The inverse cosine transform, with the integers of libjpeg's `jidctint.c`.

use std::num::Wrapping;

/// The place in a block, row by row, of each coefficient in the file.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Numbers of damaged files can overflow.
type Number = Wrapping<i32>;

const CONST_BITS: usize = 13;
const PASS1_BITS: usize = 2;

const fn fixed(value: f64) -> Number {
    Wrapping((value * (1 << CONST_BITS) as f64 + 0.5) as i32)
}

/// Eight frequencies to eight samples, times 2^13.
#[inline(always)]
fn transform(input: [Number; 8]) -> [Number; 8] {
    let shared = (input[2] + input[6]) * fixed(0.541_196_100);
    let even2 = shared - input[6] * fixed(1.847_759_065);
    let even3 = shared + input[2] * fixed(0.765_366_865);
    let (even0, even1) = ((input[0] + input[4]) << CONST_BITS, (input[0] - input[4]) << CONST_BITS);
    let even = [even0 + even3, even1 + even2, even1 - even2, even0 - even3];

    let [a, b, c, d] = [input[7], input[5], input[3], input[1]];
    let z5 = (a + c + b + d) * fixed(1.175_875_602);
    let z1 = -(a + d) * fixed(0.899_976_223);
    let z2 = -(b + c) * fixed(2.562_915_447);
    let z3 = z5 - (a + c) * fixed(1.961_570_560);
    let z4 = z5 - (b + d) * fixed(0.390_180_644);
    let odd = [
        d * fixed(1.501_321_110) + z1 + z4,
        c * fixed(3.072_711_026) + z2 + z3,
        b * fixed(2.053_119_869) + z2 + z4,
        a * fixed(0.298_631_336) + z1 + z3,
    ];
    std::array::from_fn(|i| if i < 4 { even[i] + odd[i] } else { even[7 - i] - odd[7 - i] })
}

#[inline(always)]
fn rounded(value: Number, bits: usize) -> Number {
    (value + Wrapping(1 << (bits - 1))) >> bits
}

#[inline(always)]
fn sample(value: Number) -> u8 {
    (value.0.saturating_add(128)).clamp(0, 255) as u8
}

/// Writes the samples of a block to a plane, of which `plane` begins at the block, with rows of `stride` samples.
pub(super) fn block(coefficients: &[i16; 64], quantization: &[u16; 64], plane: &mut [u8], stride: usize) {
    let dequantized = |i: usize| Wrapping(i32::from(coefficients[i])) * Wrapping(i32::from(quantization[i]));
    if coefficients[1..].iter().all(|&coefficient| coefficient == 0) {
        let grey = sample(rounded(dequantized(0) << PASS1_BITS, PASS1_BITS + 3));
        for y in 0..8 {
            plane[y * stride..][..8].fill(grey);
        }
        return;
    }
    let mut columns = [[Wrapping(0); 8]; 8];
    for (x, column) in columns.iter_mut().enumerate() {
        if (1..8).all(|y| coefficients[8 * y + x] == 0) {
            *column = [dequantized(x) << PASS1_BITS; 8];
        } else {
            let input = std::array::from_fn(|y| dequantized(8 * y + x));
            *column = transform(input).map(|value| rounded(value, CONST_BITS - PASS1_BITS));
        }
    }
    for y in 0..8 {
        let row = transform(std::array::from_fn(|x| columns[x][y]));
        let samples = row.map(|value| sample(rounded(value, CONST_BITS + PASS1_BITS + 3)));
        plane[y * stride..][..8].copy_from_slice(&samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_visits_each_place_once() {
        let mut places = ZIGZAG;
        places.sort_unstable();
        assert!(places.iter().zip(0..).all(|(&place, i)| place == i));
    }

    /// Held against the definition, in `f64`.
    #[test]
    fn samples_are_those_of_the_cosine_transform() {
        let mut states = 7u32;
        let mut random = || {
            states = states.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (states >> 26) as i16 - 32
        };
        let coefficients: [i16; 64] = std::array::from_fn(|_| random());
        let mut samples = [0; 64];
        block(&coefficients, &[2; 64], &mut samples, 8);
        let basis = |x: usize, u: usize| {
            let scale = if u == 0 { 0.125f64.sqrt() } else { 0.5 };
            scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos()
        };
        for (i, &found) in samples.iter().enumerate() {
            let (y, x) = (i / 8, i % 8);
            let sum: f64 = (0..64).map(|k| basis(y, k / 8) * basis(x, k % 8) * f64::from(2 * coefficients[k])).sum();
            let expected = (sum + 128.0).clamp(0.0, 255.0);
            assert!((f64::from(found) - expected).abs() < 1.0, "{i}: {found}, not {expected}");
        }
    }
}
