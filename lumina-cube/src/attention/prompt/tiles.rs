//! Tiles of keys and values, from the cache to shared memory.

use cubecl::prelude::*;

use super::flash::Config;
use crate::attention::kv::{BLOCK_TOKENS, KvFormat};
use crate::matmul::Load;
use crate::weights::LOAD;

/// Numbers of 16 bits in a load.
pub(super) const PER_LOAD: usize = 8;

impl Config {
    /// Loads of a head in 16 bits.
    pub(super) const fn loads(&self) -> usize {
        self.shape.head_dim / PER_LOAD
    }

    /// Loads of keys from one of a head to the next, in shared memory. With two more than there are keys, the loads
    /// that eight lanes read at once lie in different banks.
    pub(super) const fn key_pitch(&self) -> usize {
        self.keys + 2
    }

    /// Loads of values from one token to the next.
    pub(super) const fn value_pitch(&self) -> usize {
        self.loads() + 1
    }

    /// Loads of a tile of keys.
    pub(super) const fn key_loads(&self) -> usize {
        self.loads() * self.key_pitch()
    }

    /// Loads of a tile of values.
    pub(super) const fn value_loads(&self) -> usize {
        self.keys * self.value_pitch()
    }

    /// Loads of the cache in a tile of keys, or of values.
    const fn tile_loads(&self) -> usize {
        self.keys * self.shape.loads()
    }

    /// Loads of keys that a unit brings, and of values.
    pub(super) const fn unit_loads(&self) -> usize {
        self.tile_loads().div_ceil(self.units())
    }
}

/// Which load of a tile is the unit's load `i`. Where units have too many, the last load comes more than once.
#[cube]
fn index_of(#[comptime] i: usize, #[comptime] config: Config) -> u32 {
    let index = UNIT_POS + comptime!((i * config.units()) as u32);
    if comptime!(config.tile_loads().is_multiple_of(config.units())) {
        index
    } else {
        min(index, comptime!(config.tile_loads() as u32 - 1))
    }
}

/// What a unit brings of the tile of keys from `start` on.
#[cube]
pub(super) fn fetch_keys(cache: &[Load], block: u32, kv: u32, start: u32, #[comptime] config: Config) -> Array<Load> {
    let tokens = comptime!(BLOCK_TOKENS as u32);
    let first = first_load(block, kv, config) + start % tokens;
    let mut fetched = Array::<Load>::new(comptime!(config.unit_loads()));
    #[unroll]
    for i in 0..comptime!(config.unit_loads()) {
        let index = index_of(i, config);
        let key = index / comptime!(config.keys as u32) * tokens + index % comptime!(config.keys as u32);
        fetched[i] = cache[(first + key) as usize];
    }
    fetched
}

/// What a unit brings of the tile of values from `start` on. Those of positions from `limit` on are others: their
/// weights are zero, and what is there may be NaN.
#[cube]
pub(super) fn fetch_values(
    cache: &[Load],
    block: u32,
    kv: u32,
    start: u32,
    limit: u32,
    #[comptime] config: Config,
) -> Array<Load> {
    let shape = comptime!(config.shape);
    let loads = comptime!(shape.loads() as u32);
    let last = limit - 1u32;
    let first = first_load(block, kv, config) + comptime!((shape.tensor_words() / LOAD) as u32);
    let mut fetched = Array::<Load>::new(comptime!(config.unit_loads()));
    #[unroll]
    for i in 0..comptime!(config.unit_loads()) {
        let index = index_of(i, config);
        let token = min(start + index / loads, last) % comptime!(BLOCK_TOKENS as u32);
        fetched[i] = cache[(first + token * loads + index % loads) as usize];
    }
    fetched
}

/// The first load of a head of keys in a block.
#[cube]
fn first_load(block: u32, kv: u32, #[comptime] config: Config) -> u32 {
    let shape = comptime!(config.shape);
    block * comptime!((shape.block_words() / LOAD) as u32) + kv * comptime!((BLOCK_TOKENS * shape.loads()) as u32)
}

/// Writes the keys that a unit has fetched to a tile in shared memory, `[loads, key_pitch]`.
#[cube]
pub(super) fn store_keys(fetched: &Array<Load>, tiles: &mut Shared<[Load]>, stage: usize, #[comptime] config: Config) {
    let wide = comptime!(config.loads() / config.shape.loads());
    #[unroll]
    for i in 0..comptime!(config.unit_loads()) {
        let index = index_of(i, config) as usize;
        #[unroll]
        for part in 0..wide {
            let row = index / comptime!(config.keys) * wide + part;
            let place = row * comptime!(config.key_pitch()) + index % comptime!(config.keys);
            tiles[stage * comptime!(config.key_loads()) + place] = half_words(fetched[i], part, config);
        }
    }
}

/// Writes the values that a unit has fetched to a tile in shared memory, `[keys, value_pitch]`.
#[cube]
pub(super) fn store_values(
    fetched: &Array<Load>,
    tiles: &mut Shared<[Load]>,
    stage: usize,
    #[comptime] config: Config,
) {
    let loads = comptime!(config.shape.loads());
    let wide = comptime!(config.loads() / loads);
    #[unroll]
    for i in 0..comptime!(config.unit_loads()) {
        let index = index_of(i, config) as usize;
        #[unroll]
        for part in 0..wide {
            let place = index / loads * comptime!(config.value_pitch()) + index % loads * wide + part;
            tiles[stage * comptime!(config.value_loads()) + place] = half_words(fetched[i], part, config);
        }
    }
}

/// A load of the cache in 16 bits: bytes are two of them, in `bf16`, which has whole numbers up to 256.
#[cube]
fn half_words(load: Load, #[comptime] part: usize, #[comptime] config: Config) -> Load {
    if comptime!(config.shape.format == KvFormat::Q8_0) {
        let mut words = Load::new(0u32);
        #[unroll]
        for w in 0..4usize {
            // From 0 to 255 for −128 to 127.
            let word = load.extract(comptime!(part * 2 + w / 2)) ^ 0x8080_8080u32;
            let low = byte_value((word >> comptime!(w as u32 % 2 * 16)) & 0xffu32);
            let high = byte_value((word >> comptime!(w as u32 % 2 * 16 + 8)) & 0xffu32);
            words.insert(w, (low >> 16u32) | (high & 0xffff_0000u32));
        }
        words
    } else {
        load
    }
}

/// The bits of `byte` − 128 in `f32`: of 2²³ and more, the last bit is 1.
#[cube]
fn byte_value(byte: u32) -> u32 {
    u32::reinterpret(f32::reinterpret(byte | 0x4b00_0000u32) - 8_388_736.0f32)
}
