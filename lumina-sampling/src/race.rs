//! The rule of the draw, in whole numbers of 32 bits: a race, which the candidate that arrives first wins.
//!
//! Softmax is the law of a race of exponential clocks: if candidate `i` arrives at time `Eᵢ / wᵢ`, with independent
//! exponential `Eᵢ`, then it is first with probability `wᵢ / Σ w`. With weights `w = 2^-depth` the logarithm of the
//! time is `log2 E + depth`, and the first is the lowest sum. (`−log2 E` is Gumbel noise: this is the Gumbel-max
//! trick.)
//!
//! - [`depth`]: how far a logit lies below the highest, from two operations of `f32` that each round once.
//! - [`noise`]: 32 random bits of a seed, a branch, a position and a token, by [`philox`].
//! - [`arrival`]: `log2 E` for those bits, from whole numbers alone.
//!
//! Both terms count units of 2⁻²⁴, and the sum stays below 2³². Nothing depends on a compiler, on a library of
//! logarithms, or on the order of candidates. So a GPU computes the same token, to the bit: `lumina-cube` has these
//! functions line by line. What they return is part of the promise that a request can be replayed: it never changes.
//! Another rule is another [`DrawRule`](crate::DrawRule).

/// The factor of [`depth`]: log2 e · 2²⁴, to the nearest `f32`.
pub const DEPTH_SCALE: f32 = 24_204_406.0;
/// The greatest [`depth`]: the weight is 2⁻⁶⁴ or less. It is beyond the range of [`arrival`], so such a candidate never
/// comes before the one with the highest logit.
pub const DEPTH_LIMIT: u32 = 1 << 30;

/// The multipliers of Philox 4×32.
pub const PHILOX_MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the key of Philox 4×32 grows by from round to round.
pub const PHILOX_INCREMENTS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
/// The number of rounds of Philox.
pub const PHILOX_ROUNDS: usize = 10;
/// The bit of the counter that tells the blocks of high bytes from the others.
pub const HIGH_BYTES: u32 = 1 << 31;

/// Magnitudes of the coefficients of `r`, in units of 2⁻³², with `log2(1 + f) = f + f · (1 − f) · r(f)`; their signs
/// alternate. Minimax: the error of the logarithm is 2⁻²⁷.
pub const LOG2: [u32; 8] =
    [1_901_356_387, 1_196_621_277, 866_038_103, 662_304_630, 486_861_642, 296_738_781, 122_152_262, 23_944_237];
/// Magnitudes of the coefficients of `s`, in units of 2⁻³¹, with `log2(−log2(1 − x)) = log2 x + s(1 − 2x)` below
/// `x = ½`; their signs alternate. Minimax: the error is 2⁻²⁶.
pub const LOG2_RATIO: [u32; 9] = [
    2_147_483_624,
    1_371_537_594,
    559_600_779,
    332_619_324,
    224_593_723,
    148_969_125,
    81_971_643,
    30_350_045,
    5_343_483,
];

/// A lower bound of [`arrival`] by the high byte of its bits.
pub(crate) const EARLIEST: [u32; 256] = {
    /// The least [`arrival`], less what it may round.
    const LEAST: u32 = 8_871_200;
    let mut earliest = [LEAST; 256];
    let mut high = 1;
    while high < 256 {
        // The logarithm of 2^whole · (1 + f) is at least whole + f. The times of the later half are greater than all of
        // the earlier half.
        let n = if high < 128 { (high as u32) << 25 } else { u32::MAX };
        let whole = n.ilog2();
        earliest[high] = (whole << 24) + ((n << (31 - whole) << 1) >> 8) + LEAST;
        high += 1;
    }
    earliest
};

/// How far `logit` lies below the `highest`, in units of 2⁻²⁴ of a power of two: `(highest − logit) · log2 e · 2²⁴`,
/// with one rounding an operation, without the fraction, and at most [`DEPTH_LIMIT`].
///
/// 0 where both are equal, if they are infinite, too. Neither is NaN.
pub fn depth(highest: f32, logit: f32) -> u32 {
    let depth = (highest - logit) * DEPTH_SCALE;
    let limited = if depth < DEPTH_LIMIT as f32 { depth } else { DEPTH_LIMIT as f32 };
    // Equality, as the difference of two infinities is NaN. By `i32`, which processors convert to in one instruction.
    if logit == highest { 0 } else { (limited as i32).cast_unsigned() }
}

/// The random bits of a token at a position: the high byte is that of [`high_bytes`], and the rest the high 24 bits of
/// word `token % 4` of [`philox`] with the key `seed` and the counter `[token / 4, position, branch]`, low words first.
///
/// So one block of Philox has the high bytes of 16 tokens, which are enough to see that most of them do not win.
pub fn noise(seed: u64, branch: u64, position: u32, token: u32) -> u32 {
    let high = high_byte(&high_bytes(seed, branch, position, [token / 16]), token / 16, token);
    let low = philox(counters(branch, position, [token / 4]), key(seed));
    high << 24 | low[token as usize % 4][0] >> 8
}

/// The high bytes of the [`noise`] of `N` blocks of 16 tokens, those with `token / 16 == block`: byte `token % 4` of
/// word `[token / 4 % 4][n]`, low byte first. `N` at once is for vector code.
///
/// They are [`philox`] with the key `seed` and the counter `[block + 2³¹, position, branch]`.
pub fn high_bytes<const N: usize>(seed: u64, branch: u64, position: u32, blocks: [u32; N]) -> [[u32; N]; 4] {
    philox(counters(branch, position, blocks.map(|block| block | HIGH_BYTES)), key(seed))
}

/// The byte of a token of [`high_bytes`] whose first block is `first_block`.
pub(crate) fn high_byte<const N: usize>(high_bytes: &[[u32; N]; 4], first_block: u32, token: u32) -> u32 {
    let word = high_bytes[token as usize / 4 % 4][(token / 16 - first_block) as usize];
    word >> (8 * (token % 4)) & 0xff
}

fn counters<const N: usize>(branch: u64, position: u32, blocks: [u32; N]) -> [[u32; N]; 4] {
    [blocks, [position; N], [branch as u32; N], [(branch >> 32) as u32; N]]
}

fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// Philox 4×32 with 10 rounds, a generator that computes the numbers of any counter independently of others. Salmon,
/// Moraes, Dror, Shaw: *Parallel random numbers: as easy as 1, 2, 3* (SC 2011).
pub fn philox<const N: usize>(counters: [[u32; N]; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counters, key);
    for _ in 0..PHILOX_ROUNDS {
        for n in 0..N {
            let [m0, m1] = PHILOX_MULTIPLIERS;
            let (high0, low0) = (mul_high(c0[n], m0), c0[n].wrapping_mul(m0));
            let (high1, low1) = (mul_high(c2[n], m1), c2[n].wrapping_mul(m1));
            (c0[n], c1[n], c2[n], c3[n]) = (high1 ^ c1[n] ^ k0, low1, high0 ^ c3[n] ^ k1, low0);
        }
        k0 = k0.wrapping_add(PHILOX_INCREMENTS[0]);
        k1 = k1.wrapping_add(PHILOX_INCREMENTS[1]);
    }
    [c0, c1, c2, c3]
}

/// The logarithm of an exponential time, `33 + log2(−log2(1 − x))` with `x = (bits + ½) / 2³²`, in units of 2⁻²⁴.
///
/// From 8,871,227 to 638,279,017, for the logarithms −32.47 to 5.04. The error is below 2 units.
pub fn arrival(bits: u32) -> u32 {
    // 2³³ times the distance of x from the nearer of 0 and 1.
    let distance = 2 * bits.min(!bits) + 1;
    let log = log2(distance);
    let time = if bits >> 31 == 0 {
        log + (alternating(&LOG2_RATIO, !distance) >> 5)
    } else {
        // −log2(1 − x) = 33 − log is 1 or more, and needs a logarithm itself: log2(2²⁶ · …) − 26 + 33.
        log2((33 << 26) - log) + (7 << 26)
    };
    time >> 2
}

/// The logarithm of `n`, which is at least 1, in units of 2⁻²⁶.
fn log2(n: u32) -> u32 {
    let zeros = n.leading_zeros();
    // n = 2^(31 − zeros) · (1 + f), with f in units of 2⁻³².
    let f = n << zeros << 1;
    let fraction = f + mul_high(mul_high(f, !f), alternating(&LOG2, f));
    ((31 - zeros) << 26) + (fraction >> 6)
}

/// The polynomial `c₀ − c₁ x + c₂ x² − …`, with `x` in units of 2⁻³². No step is below zero.
fn alternating<const N: usize>(coefficients: &[u32; N], x: u32) -> u32 {
    coefficients.iter().rev().fold(0, |rest, &coefficient| coefficient - mul_high(rest, x))
}

/// The high word of a product.
fn mul_high(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers that the authors' library, Random123, is tested with.
    #[test]
    fn philox_is_that_of_its_authors() {
        let pi = [[0x243f_6a88], [0x85a3_08d3], [0x1319_8a2e], [0x0370_7344]];
        for (counter, key, expected) in [
            ([[0]; 4], [0; 2], [[0x6627_e8d5], [0xe169_c58d], [0xbc57_ac4c], [0x9b00_dbd8]]),
            ([[!0]; 4], [!0; 2], [[0x408f_276d], [0x41c8_3b0e], [0xa20b_c7c6], [0x6d54_51fd]]),
            (pi, [0xa409_3822, 0x299f_31d0], [[0xd16c_fe09], [0x94fd_cceb], [0x5001_e420], [0x2412_6ea1]]),
        ] {
            assert_eq!(philox(counter, key), expected);
            assert_eq!(philox(counter.map(|[word]| [word; 3]), key), expected.map(|[word]| [word; 3]));
        }
    }

    /// They are part of the promise that a request can be replayed. Computed apart from this crate.
    #[test]
    fn noise_stays_the_same() {
        assert_eq!(noise(0, 0, 0, 0), 0x9b66_27e8);
        assert_eq!(noise(7, 3, 5, 8195), 0xf149_9c6a);
        assert_eq!(noise(u64::MAX, u64::MAX, u32::MAX, u32::MAX), 0x78b3_4a0d);
        assert_eq!(noise((1 << 40) | 9, 5 << 33, 1000, 65_535), 0x2fe3_2c9e);
    }

    /// Both ends, the middle, all powers of two with their surroundings, and 3 million between them. For all 2³² the
    /// error is from −1.564 to 0.427 units, and two neighbours are out of order by 1 unit at most.
    #[test]
    fn arrival_is_that_of_f64() {
        let around = |centre: u32| (0..2000).map(move |distance: u32| centre.wrapping_sub(1000).wrapping_add(distance));
        let powers = (0..32).map(|power| 1 << power);
        let tested = powers.clone().chain(powers.map(|power: u32| !power)).flat_map(around);
        let (mut lowest, mut highest) = (0f64, 0f64);
        for bits in tested.chain((0..u32::MAX).step_by(1433)).chain([0, u32::MAX]) {
            let x = (f64::from(bits) + 0.5) / 2f64.powi(32);
            let exact = 33.0 + (-(-x).ln_1p() / std::f64::consts::LN_2).log2();
            let error = f64::from(arrival(bits)) - exact * 2f64.powi(24);
            (lowest, highest) = (lowest.min(error), highest.max(error));
            assert!(EARLIEST[(bits >> 24) as usize] <= arrival(bits), "{bits}");
        }
        assert!(lowest > -1.6 && highest < 0.5, "{lowest} to {highest}");
        assert_eq!((arrival(0), arrival(u32::MAX)), (8_871_227, 638_279_017));
        // The candidate with the highest logit comes before any of the greatest depth, and no sum overflows.
        assert!(arrival(u32::MAX) < DEPTH_LIMIT + arrival(0));
        assert!(DEPTH_LIMIT.checked_add(arrival(u32::MAX)).is_some());
    }

    #[test]
    fn depths_of_any_logits() {
        let (infinity, unit) = (f32::INFINITY, 1 << 24);
        for (highest, logit, expected) in [
            (1.5, 1.5, 0),
            (0.0, -0.0, 0),
            (infinity, infinity, 0),
            (infinity, f32::MAX, DEPTH_LIMIT),
            (0.0, -infinity, DEPTH_LIMIT),
            (f32::MAX, f32::MIN, DEPTH_LIMIT),
            (1e-40, -1e-40, 0),
            (3e-8, -3e-8, 1),
            // The factor is log2 e · 2²⁴ to 24 bits.
            (1.0, 0.0, 24_204_406),
            (f32::MIN_POSITIVE, -10.0, 242_044_064),
            (0.0, -44.0, 1_064_993_856),
            (0.0, -45.0, DEPTH_LIMIT),
        ] {
            assert_eq!(depth(highest, logit), expected, "{highest} {logit}");
        }
        let halved = f64::from(depth(0.0, -std::f32::consts::LN_2)) / f64::from(unit);
        assert!((halved - 1.0).abs() < 1e-7, "{halved}");
    }
}
