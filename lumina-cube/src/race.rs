//! The rule of the draw in whole numbers, line by line that of `lumina_sampling::race`, which explains it. The tests
//! hold constants and results to be equal.

use cubecl::prelude::*;

const DEPTH_SCALE: f32 = 24_204_406.0;
const DEPTH_LIMIT: f32 = 1_073_741_824.0;
const PHILOX_MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const PHILOX_INCREMENTS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const PHILOX_ROUNDS: u32 = 10;
const HIGH_BYTES: u32 = 1 << 31;
const LOG2: [u32; 8] =
    [1_901_356_387, 1_196_621_277, 866_038_103, 662_304_630, 486_861_642, 296_738_781, 122_152_262, 23_944_237];
const LOG2_RATIO: [u32; 9] = [
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

/// What the noise depends on, but for the token.
#[derive(CubeType)]
pub(crate) struct NoiseKey {
    pub seed_low: u32,
    pub seed_high: u32,
    pub branch_low: u32,
    pub branch_high: u32,
    pub position: u32,
}

/// `highest` and `logit` are the bits of numbers that are not NaN.
#[cube]
pub(crate) fn depth(highest: u32, logit: u32) -> u32 {
    // One rounding each, and no sum of a product: nothing that a compiler may fuse.
    let depth = (f32::reinterpret(highest) - f32::reinterpret(logit)) * DEPTH_SCALE;
    let limited = select(depth < DEPTH_LIMIT, depth, DEPTH_LIMIT);
    select(logit == highest, 0u32, u32::cast_from(limited))
}

/// The noise of the four tokens with `token / 4 == block`.
#[cube]
pub(crate) fn noise(key: &NoiseKey, block: u32) -> Array<u32> {
    let high = philox(key, (block / 4u32) | HIGH_BYTES);
    let low = philox(key, block);
    let word = block % 4u32;
    let bytes = select(word < 2u32, select(word == 0u32, high[0], high[1]), select(word == 2u32, high[2], high[3]));
    let mut noise = Array::<u32>::new(4usize);
    #[unroll]
    for n in 0..4usize {
        let byte = (bytes >> comptime!(8 * n as u32)) & 0xffu32;
        noise[n] = (byte << 24u32) | (low[n] >> 8u32);
    }
    noise
}

#[cube]
fn philox(key: &NoiseKey, block: u32) -> Array<u32> {
    let mut c0 = block;
    let mut c1 = key.position;
    let mut c2 = key.branch_low;
    let mut c3 = key.branch_high;
    let mut k0 = key.seed_low;
    let mut k1 = key.seed_high;
    for _ in 0..PHILOX_ROUNDS {
        let high0 = c0.mul_hi(comptime!(PHILOX_MULTIPLIERS[0]).runtime());
        let low0 = c0 * comptime!(PHILOX_MULTIPLIERS[0]);
        let high1 = c2.mul_hi(comptime!(PHILOX_MULTIPLIERS[1]).runtime());
        let low1 = c2 * comptime!(PHILOX_MULTIPLIERS[1]);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += comptime!(PHILOX_INCREMENTS[0]);
        k1 += comptime!(PHILOX_INCREMENTS[1]);
    }
    let mut words = Array::<u32>::new(4usize);
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
    words
}

#[cube]
pub(crate) fn arrival(bits: u32) -> u32 {
    let distance = 2u32 * min(bits, !bits) + 1u32;
    let log = log2(distance);
    let mut time = log + (alternating(!distance, comptime!(LOG2_RATIO.to_vec())) >> 5u32);
    if bits >> 31u32 == 1u32 {
        time = log2(comptime!(33u32 << 26) - log) + comptime!(7u32 << 26);
    }
    time >> 2u32
}

#[cube]
fn log2(n: u32) -> u32 {
    let zeros = u32::leading_zeros(n);
    let f = (n << zeros) << 1u32;
    let fraction = f + f.mul_hi(!f).mul_hi(alternating(f, comptime!(LOG2.to_vec())));
    ((31u32 - zeros) << 26u32) + (fraction >> 6u32)
}

#[cube]
fn alternating(x: u32, #[comptime] coefficients: Vec<u32>) -> u32 {
    let last = comptime!(coefficients.len() - 1);
    let mut sum = comptime!(coefficients[last]).runtime();
    #[unroll]
    for n in 0..last {
        sum = comptime!(coefficients[last - 1 - n]) - sum.mul_hi(x);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumina_sampling::race;

    #[test]
    fn constants_are_those_of_the_host() {
        assert_eq!((DEPTH_SCALE, DEPTH_LIMIT), (race::DEPTH_SCALE, race::DEPTH_LIMIT as f32));
        assert_eq!((PHILOX_MULTIPLIERS, PHILOX_INCREMENTS), (race::PHILOX_MULTIPLIERS, race::PHILOX_INCREMENTS));
        assert_eq!((PHILOX_ROUNDS as usize, HIGH_BYTES), (race::PHILOX_ROUNDS, race::HIGH_BYTES));
        assert_eq!((LOG2, LOG2_RATIO), (race::LOG2, race::LOG2_RATIO));
    }
}
