//! The draw of a token from logits: guidance, the grammar's mask, top-k, temperature, and the race of
//! `lumina_sampling::race`. A draw gives the token that the host's `Sampler` gives, to the bit.
//!
//! The host rounds twice where a compiler here would fuse `a · b + c`, and divides by the temperature with the quotient
//! rounded correctly, which drivers do not promise. So products pass through a word that the compiler does not know to
//! be zero, and quotients come from whole numbers. Numbers are compared by their bits, as shading languages may assume
//! that there is no infinity and no NaN.
//!
//! One thing is left to the device: one that takes subnormal numbers for zero guides logits below 10⁻³¹ otherwise, and
//! may so keep another set of them.

use cubecl::prelude::*;

use crate::race::{NoiseKey, arrival, depth, noise};
use crate::{Buffer, Gpu};

/// In place of a token: no token can be drawn, as every logit is minus infinity or masked.
pub const NOTHING_LEFT: u32 = u32::MAX;
/// In place of a token: a logit is NaN.
pub const NAN_LOGIT: u32 = u32::MAX - 1;

/// What a token is drawn from, and how. It is [`Draw::WORDS`] words on the device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// The row of the conditional logits.
    pub row: u32,
    /// The row of the unconditional logits; `None` is without guidance.
    pub unconditional: Option<u32>,
    /// The guidance scale.
    pub guidance_scale: f32,
    /// Candidates kept, and all that tie with the last one. 0 counts as 1.
    pub top_k: u32,
    /// The temperature: finite, from 1e-6. 1 changes nothing.
    pub temperature: f32,
    /// The seed of the request.
    pub seed: u64,
    /// Which of several answers to the same request.
    pub branch: u64,
    /// Index in the stream of the token to be drawn.
    pub position: u32,
}

impl Draw {
    /// Words of a draw on the device.
    pub const WORDS: usize = 16;
    /// The word that is [`Draw::position`], for launches that count on.
    pub const POSITION: usize = 12;

    /// The draw as words for the device.
    pub fn words(&self) -> [u32; Self::WORDS] {
        let bits = self.temperature.to_bits();
        let mantissa = bits & 0x007f_ffff | 0x0080_0000;
        // Above 2³¹, and 2³² only for a power of two.
        let reciprocal = u32::try_from((1u64 << 55) / u64::from(mantissa)).unwrap_or(u32::MAX);
        let [seed, branch] = [self.seed, self.branch].map(|word| [word as u32, (word >> 32) as u32]);
        [
            self.row,
            self.unconditional.unwrap_or(u32::MAX),
            self.guidance_scale.to_bits(),
            self.top_k.max(1),
            mantissa,
            bits >> 23,
            reciprocal,
            0,
            seed[0],
            seed[1],
            branch[0],
            branch[1],
            self.position,
            0,
            0,
            0,
        ]
    }
}

/// Order of floats as whole numbers: a greater float has a greater key, and both zeros have one. 0 is no candidate:
/// minus infinity.
#[cube]
fn key_of(bits: u32) -> u32 {
    let positive = select(bits == 0x8000_0000u32, 0u32, bits);
    let key = select(positive >> 31u32 == 1u32, !positive, positive | 0x8000_0000u32);
    select(bits == 0xff80_0000u32, 0u32, key)
}

/// The float of a key above 0.
#[cube]
fn bits_of(key: u32) -> u32 {
    select(key >> 31u32 == 1u32, key & 0x7fff_ffffu32, !key)
}

#[cube]
fn is_nan(bits: u32) -> bool {
    (bits & 0x7fff_ffffu32) > 0x7f80_0000u32
}

/// `bits` / temperature, rounded to the nearest: that of the host, but that results below the normal numbers are zero,
/// which no depth tells apart. `mantissa` has 24 bits, and `reciprocal` is 2⁵⁵ / mantissa, rounded down.
#[cube]
fn quotient(bits: u32, mantissa: u32, exponent: u32, reciprocal: u32) -> u32 {
    let sign = bits & 0x8000_0000u32;
    let own_exponent = (bits >> 23u32) & 0xffu32;
    let own = (bits & 0x007f_ffffu32) | 0x0080_0000u32;
    // The quotient of the mantissas in 24 bits, the first of them set.
    let less = select(own < mantissa, 1u32, 0u32);
    // Right, or one too low.
    let mut q = (own << 8u32).mul_hi(reciprocal) >> (8u32 - less);
    // The low word is enough for the remainder, which is small.
    let mut rest = (own << (23u32 + less)) - q * mantissa;
    if rest >= mantissa {
        q += 1u32;
        rest -= mantissa;
    }
    // Never a tie.
    q += select(2u32 * rest > mantissa, 1u32, 0u32);
    // 127 above the exponent, so that it is not below zero.
    let raised = own_exponent + 254u32 - exponent - less;
    let finite = sign | (((raised - 127u32) << 23u32) + (q - 0x0080_0000u32));
    let normal = select(raised <= 127u32, sign, select(raised >= 382u32, sign | 0x7f80_0000u32, finite));
    select(own_exponent == 255u32, bits, select(own_exponent == 0u32, sign, normal))
}

/// Grid: a cube a draw. A unit has every `units`-th block of four tokens that begin at a multiple of 4; `keys` has four
/// numbers for each, those of tokens outside of the row as well.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    logits: &[f32],
    allowed: &[u32],
    draws: &[u32],
    keys: &mut [u32],
    tokens: &mut [u32],
    rows: u32,
    width: u32,
    first_id: u32,
    blocks: u32,
    #[comptime] masked: bool,
    #[comptime] units: usize,
) {
    let histogram = Shared::<[Atomic<u32>]>::new_slice(256usize);
    // Candidates, and logits that are NaN.
    let counts = Shared::<[Atomic<u32>]>::new_slice(2usize);
    let mut sums = Shared::<[u32]>::new_slice(16usize);
    let mut digit = Shared::<[u32]>::new_slice(2usize);
    let mut times = Shared::<[u32]>::new_slice(units);
    let mut ids = Shared::<[u32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    let words = CUBE_POS_X as usize * 16usize;
    let conditional = min(draws[words], rows - 1u32) * width;
    let guided = draws[words + 1] != 0xffff_ffffu32;
    let unconditional = min(draws[words + 1], rows - 1u32) * width;
    let scale = f32::reinterpret(draws[words + 2]);
    let top_k = draws[words + 3];
    let zero = draws[words + 7];
    let first_block = first_id / 4u32;
    let base = CUBE_POS_X * blocks * 4u32;

    if unit < 2usize {
        counts[unit].store(0u32);
    }
    sync_cube();

    // Guided logits of what the grammar allows, as keys; and the greatest.
    let mut greatest = 0u32;
    let mut candidates = 0u32;
    let mut nans = 0u32;
    let mut block = UNIT_POS;
    while block < blocks {
        #[unroll]
        for n in 0..4u32 {
            // Below 0 it wraps, and is beyond the row, too.
            let at = (first_block + block) * 4u32 + n - first_id;
            let mut key = 0u32;
            if at < width {
                let mut is_allowed = true.runtime();
                if comptime!(masked) {
                    is_allowed = (allowed[(at / 32u32) as usize] >> (at % 32u32)) & 1u32 == 1u32;
                }
                let logit = logits[(conditional + at) as usize];
                let mut bits = u32::reinterpret(logit);
                if guided && bits != 0xff80_0000u32 {
                    let other = logits[(unconditional + at) as usize];
                    let product = scale * (logit - other);
                    bits = u32::reinterpret(f32::reinterpret(u32::reinterpret(product) ^ zero) + other);
                }
                if is_allowed {
                    nans += select(is_nan(bits), 1u32, 0u32);
                    key = key_of(bits);
                }
            }
            candidates += select(key > 0u32, 1u32, 0u32);
            greatest = max(greatest, key);
            keys[(base + block * 4u32 + n) as usize] = key;
        }
        block += comptime!(units as u32);
    }
    counts[0].fetch_add(candidates);
    counts[1].fetch_add(nans);
    times[unit] = greatest;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0usize {
        if unit < half {
            times[unit] = max(times[unit], times[unit + half]);
        }
        sync_cube();
        half = half / 2usize;
    }
    let greatest = times[0];
    let candidates = counts[0].load();
    let nans = counts[1].load();

    // The k-th greatest key, eight bits at a time.
    let mut prefix = 0u32;
    let mut left = min(top_k, candidates);
    let mut pass = 0u32;
    while pass < 4u32 {
        let shift = 24u32 - 8u32 * pass;
        if unit < 256usize {
            histogram[unit].store(0u32);
        }
        if unit < 2usize {
            digit[unit] = 0u32;
        }
        sync_cube();
        let mut block = UNIT_POS;
        while block < blocks {
            #[unroll]
            for n in 0..4u32 {
                let key = keys[(base + block * 4u32 + n) as usize];
                // What lies above the digit, in two steps: a shift by 32 is not defined.
                let is_same = ((key ^ prefix) >> shift) >> 8u32 == 0u32;
                if is_same && key > 0u32 {
                    histogram[((key >> shift) & 0xffu32) as usize].fetch_add(1u32);
                }
            }
            block += comptime!(units as u32);
        }
        sync_cube();
        if unit < 16usize {
            let mut sum = 0u32;
            for n in 0..16usize {
                sum += histogram[unit * 16usize + n].load();
            }
            sums[unit] = sum;
        }
        sync_cube();
        if unit < 256usize {
            // How many have a greater digit than the unit's.
            let mut above = 0u32;
            for n in unit / 16usize + 1usize..16usize {
                above += sums[n];
            }
            for n in unit % 16usize + 1usize..16usize {
                above += histogram[unit / 16usize * 16usize + n].load();
            }
            let own = histogram[unit].load();
            if above < left && left <= above + own {
                digit[0] = UNIT_POS;
                digit[1] = above;
            }
        }
        sync_cube();
        prefix = prefix | (digit[0] << shift);
        left -= digit[1];
        pass += 1u32;
        sync_cube();
    }

    // The race of those that are left.
    let mantissa = draws[words + 4];
    let exponent = draws[words + 5];
    let reciprocal = draws[words + 6];
    let noise_key = NoiseKey {
        seed_low: draws[words + 8],
        seed_high: draws[words + 9],
        branch_low: draws[words + 10],
        branch_high: draws[words + 11],
        position: draws[words + 12],
    };
    let highest = quotient(bits_of(greatest), mantissa, exponent, reciprocal);
    let mut first = 0xffff_ffffu32;
    let mut winner = 0xffff_ffffu32;
    let mut block = UNIT_POS;
    while block < blocks {
        let at = (base + block * 4u32) as usize;
        let most = max(max(keys[at], keys[at + 1]), max(keys[at + 2], keys[at + 3]));
        if most > 0u32 && most >= prefix {
            let bits = noise(&noise_key, first_block + block);
            #[unroll]
            for n in 0..4usize {
                let key = keys[at + n];
                if key > 0u32 && key >= prefix {
                    let logit = quotient(bits_of(key), mantissa, exponent, reciprocal);
                    let time = depth(highest, logit) + arrival(bits[n]);
                    // A unit's tokens ascend.
                    if time < first {
                        first = time;
                        winner = (first_block + block) * 4u32 + n as u32;
                    }
                }
            }
        }
        block += comptime!(units as u32);
    }
    times[unit] = first;
    ids[unit] = winner;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0usize {
        if unit < half {
            let is_first =
                times[unit + half] < times[unit] || (times[unit + half] == times[unit] && ids[unit + half] < ids[unit]);
            if is_first {
                times[unit] = times[unit + half];
                ids[unit] = ids[unit + half];
            }
        }
        sync_cube();
        half = half / 2usize;
    }
    if unit == 0usize {
        let is_nothing = candidates == 0u32 || highest == 0xff80_0000u32;
        let token = select(is_nothing, NOTHING_LEFT, ids[0]);
        tokens[CUBE_POS_X as usize] = select(nans > 0u32, NAN_LOGIT, token);
    }
}

/// Draws a token for each of `draws` `[n, Draw::WORDS]` into `tokens` `[n]`; [`NAN_LOGIT`] or [`NOTHING_LEFT`] where
/// there is none to draw.
///
/// `logits` `[rows, width]` are those of the ids from `first_id` on. `allowed` has a bit for each of them, from the
/// lowest of the first word on, that is 1 where the token can be drawn: `[width / 32]`, rounded up. A row that `draws`
/// names beyond the last is the last.
///
/// The launch can be recorded: what changes from token to token is in buffers.
///
/// # Panics
/// If the sizes do not fit together, or an id is beyond 32 bits.
pub fn draw(
    gpu: &Gpu,
    logits: &Buffer,
    first_id: u32,
    width: usize,
    allowed: Option<&Buffer>,
    draws: &Buffer,
    tokens: &Buffer,
) {
    let keys = gpu.empty(tokens.len() * n_blocks(first_id, width) as usize * 4);
    launch(gpu, logits, first_id, width, allowed, draws, [&keys, tokens]);
}

/// Blocks of four tokens that a row of `width` logits has tokens of.
fn n_blocks(first_id: u32, width: usize) -> u32 {
    assert!(u64::from(first_id) + width as u64 <= u64::from(NAN_LOGIT), "ids are of 32 bits");
    (first_id + width as u32).div_ceil(4) - first_id / 4
}

/// [`draw`], with a place for the keys.
fn launch(
    gpu: &Gpu,
    logits: &Buffer,
    first_id: u32,
    width: usize,
    allowed: Option<&Buffer>,
    draws: &Buffer,
    [keys, tokens]: [&Buffer; 2],
) {
    let (n, blocks) = (tokens.len(), n_blocks(first_id, width));
    let rows = logits.len().checked_div(width).unwrap_or(0);
    assert!(rows > 0 && logits.len() == rows * width, "{} logits are no rows of {width}", logits.len());
    assert_eq!(draws.len(), n * Draw::WORDS, "draws are for {n} tokens");
    assert!(allowed.is_none_or(|allowed| allowed.len() == width.div_ceil(32)), "a bit of the mask a logit");
    assert_eq!(keys.len(), n * blocks as usize * 4, "a key for each token of each block");
    if n == 0 {
        return;
    }
    // A wide cube where there is work for it.
    let is_wide = blocks >= 1024 && gpu.client().properties().hardware.max_units_per_cube >= 1024;
    let units = if is_wide { 1024 } else { 256 };
    // SAFETY: rows are limited to those that are there, tokens to the row, and `keys` and `tokens` have what each cube
    // writes.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(n as u32, 1, 1),
            CubeDim::new_1d(units),
            logits.arg(1),
            allowed.unwrap_or(draws).arg(1),
            draws.arg(1),
            keys.arg(1),
            tokens.arg(1),
            rows as u32,
            width as u32,
            first_id,
            blocks,
            allowed.is_some(),
            units as usize,
        );
    }
}

#[cfg(all(test, any(feature = "wgpu", feature = "cuda")))]
mod tests;
