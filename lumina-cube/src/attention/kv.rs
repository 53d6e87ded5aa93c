//! How keys and values are stored.

use cubecl::prelude::*;

use crate::bits::{half_pair, native_f16, round_byte, round_f16};
use crate::matmul::Load;
use crate::weights::LOAD;

/// Tokens of a block.
pub const BLOCK_TOKENS: usize = 64;

/// The largest head.
const MAX_HEAD_DIM: usize = 256;

/// The format of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754. Numbers beyond ±65,504 become those.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// Signed bytes with a scale in `f32` for each token and head: the largest magnitude becomes 127.
    #[allow(non_camel_case_types, reason = "the name that GGUF's users know")]
    Q8_0,
}

impl KvFormat {
    /// Numbers in a load of 16 bytes.
    pub(super) const fn per_load(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 8,
            Self::Q8_0 => 16,
        }
    }
}

/// Sizes of attention, and the format of its cache.
///
/// A block of the cache is, in 32-bit words of which a load has four:
///
/// - keys, `[kv_heads, loads, 64 tokens]` loads: so that lanes, each with a token, read consecutive ones;
/// - values, `[kv_heads, 64 tokens, loads]` loads: so that lanes, each with a part of the head, do;
/// - with [`KvFormat::Q8_0`] the scales of keys, `[kv_heads, 64 tokens]`, and those of values.
///
/// Numbers of a load are in their order, the first in the lowest bits. Heads are padded with zeros to whole loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, each of which serves `heads / kv_heads` consecutive heads of queries.
    pub kv_heads: usize,
    /// Numbers of a head: even, up to 256.
    pub head_dim: usize,
    /// The format of the cache.
    pub format: KvFormat,
}

impl AttentionShape {
    /// 32-bit words that a block takes in one layer.
    pub fn block_words(&self) -> usize {
        let scales = if self.format == KvFormat::Q8_0 { 1 } else { 0 };
        2 * self.kv_heads * BLOCK_TOKENS * (self.loads() * LOAD + scales)
    }

    /// Loads of a head.
    pub(super) const fn loads(&self) -> usize {
        self.head_dim.div_ceil(self.format.per_load())
    }

    /// Numbers of a head with its padding.
    pub(super) const fn padded_dim(&self) -> usize {
        self.loads() * self.format.per_load()
    }

    /// Words of keys in a block, and of values.
    pub(super) const fn tensor_words(&self) -> usize {
        self.kv_heads * BLOCK_TOKENS * self.loads() * LOAD
    }

    pub(super) fn check(&self) {
        let &Self { heads, kv_heads, head_dim, .. } = self;
        let is_dim = head_dim > 0 && head_dim <= MAX_HEAD_DIM && head_dim.is_multiple_of(2);
        assert!(is_dim, "heads have an even number of numbers up to {MAX_HEAD_DIM}, not {head_dim}");
        assert!(
            kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads),
            "{heads} heads do not share {kv_heads} heads of keys evenly"
        );
    }
}

/// The numbers of the loads `first .. first + n`, before their scales.
#[cube]
pub(super) fn unpack(
    loads: &Array<Load>,
    #[comptime] first: usize,
    #[comptime] n: usize,
    #[comptime] format: KvFormat,
) -> Array<f32> {
    let mut values = Array::<f32>::new(comptime!(n * format.per_load()));
    #[unroll]
    for i in 0..comptime!(n * LOAD) {
        let word = loads[comptime!(first + i / LOAD)].extract(comptime!(i % LOAD));
        if comptime!(format == KvFormat::F32) {
            values[i] = f32::reinterpret(word);
        } else if comptime!(format == KvFormat::BF16) {
            values[i * 2] = f32::reinterpret(word << 16u32);
            values[i * 2 + 1] = f32::reinterpret(word & 0xffff_0000u32);
        } else if comptime!(format == KvFormat::F16) {
            let pair = half_pair(word);
            values[i * 2] = visible_nan(pair.extract(0usize), word);
            values[i * 2 + 1] = visible_nan(pair.extract(1usize), word >> 16u32);
        } else {
            #[unroll]
            for b in 0..4usize {
                values[i * 4 + b] = f32::cast_from(i32::reinterpret(word << comptime!(24 - 8 * b as u32)) >> 24i32);
            }
        }
    }
    values
}

/// NaN where the `f16` in the lower bits is: [`half_pair`] in whole numbers makes a large number of it.
#[cube]
fn visible_nan(value: f32, half: u32) -> f32 {
    let native = native_f16();
    if comptime!(native) {
        value
    } else {
        // All bits of the exponent, and some of the fraction: only NaN is written so.
        let is_nan = (half & 0x7c00u32) == 0x7c00u32;
        f32::reinterpret(select(is_nan, u32::reinterpret(value) | 0x7fc0_0000u32, u32::reinterpret(value)))
    }
}

/// Bits of a number rounded to the nearest `f16`, ties to even. What is too large becomes the largest `f16`.
#[cube]
fn half_bits(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    let magnitude = bits & 0x7fff_ffffu32;
    let finite = round_f16(f32::reinterpret(min(magnitude, 0x477f_e000u32)));
    let rounded = select(magnitude > 0x7f80_0000u32, 0x7e00u32, finite);
    rounded | ((bits >> 16u32) & 0x8000u32)
}

/// Bits of a number rounded to the nearest upper half of an `f32`, ties to even.
#[cube]
fn bf16_bits(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    let is_nan = (bits & 0x7fff_ffffu32) > 0x7f80_0000u32;
    select(is_nan, bits | 0x40_0000u32, bits + 0x7fffu32 + ((bits >> 16u32) & 1u32)) >> 16u32
}

/// Word `w` of the load of these values. Bytes are `values · inverse`, rounded. `zero` is that of [`round_byte`].
#[cube]
pub(super) fn pack(
    values: &Array<f32>,
    inverse: f32,
    zero: u32,
    #[comptime] w: usize,
    #[comptime] format: KvFormat,
) -> u32 {
    if comptime!(format == KvFormat::F32) {
        u32::reinterpret(values[w])
    } else if comptime!(format == KvFormat::F16) {
        let low = half_bits(values[comptime!(2 * w)]);
        low | (half_bits(values[comptime!(2 * w + 1)]) << 16u32)
    } else if comptime!(format == KvFormat::BF16) {
        let low = bf16_bits(values[comptime!(2 * w)]);
        low | (bf16_bits(values[comptime!(2 * w + 1)]) << 16u32)
    } else {
        let mut word = 0u32;
        #[unroll]
        for b in 0..4usize {
            word |= round_byte(values[comptime!(4 * w + b)] * inverse, zero) << comptime!(8 * b as u32);
        }
        word
    }
}
