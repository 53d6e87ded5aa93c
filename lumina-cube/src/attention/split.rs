//! Attention of a few queries to a split of the keys.

use std::ops::Range;

use cubecl::prelude::*;

use super::combine::{self, Parts};
use super::kv::{AttentionShape, BLOCK_TOKENS, KvFormat, unpack};
use super::pass::Pass;
use crate::gpu::WORD;
use crate::matmul::{Float4, Load};
use crate::reduce::{lane_max, lane_sum};
use crate::weights::LOAD;
use crate::{Buffer, Gpu};

/// Positions of a split.
pub(super) const SPLIT: usize = 256;

/// Units of a cube. Fewer where teams would need more shared memory than every device has.
const UNITS: usize = 128;

/// Numbers that teams exchange in shared memory at most.
const MAX_SHARED: usize = 2048;

/// Queries of a cube at most: each is in registers while keys and values are read once for all.
const MAX_QUERIES: usize = 8;

/// Bytes of results of splits at most. More tokens are dealt with one part after the other.
const MAX_PART_BYTES: usize = 16 << 20;

/// Cubes that every device allows along each axis of a grid.
pub(super) const MAX_GRID: usize = 65_535;

/// The score of a key that is not seen.
pub(super) const LOWEST: f32 = -1e30;

/// What the kernel is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Config {
    pub(crate) shape: AttentionShape,
    /// Tokens of a tile.
    pub(crate) tokens: usize,
    /// Heads of queries of a tile, which share a head of keys.
    pub(crate) heads: usize,
    pub(crate) lanes: usize,
    pub(crate) is_masked: bool,
}

impl Config {
    /// Teams of lanes, each with an equal part of the split.
    pub(crate) const fn teams(&self) -> usize {
        let most = MAX_SHARED / self.shape.padded_dim();
        let (by_units, by_memory) = (UNITS / self.lanes, 1 << most.ilog2());
        if by_units < by_memory { by_units } else { by_memory }
    }

    /// Positions of a team.
    const fn span(&self) -> usize {
        SPLIT / self.teams()
    }

    /// Lanes that share a token's values.
    const fn members(&self) -> usize {
        let loads = self.shape.loads().next_power_of_two();
        if loads < self.lanes { loads } else { self.lanes }
    }

    /// Loads of a lane before the first of them is used, as memory is far away. With many queries there is enough to do
    /// meanwhile, and registers are few.
    const fn ahead(&self) -> usize {
        let is_crowded = self.tokens * self.heads > 4;
        match (self.tokens, is_crowded) {
            (1, false) => 8,
            (1, true) | (_, false) => 4,
            _ => 2,
        }
    }

    /// Loads of keys ahead, for each key of the lane: a divisor of all.
    fn key_steps(&self) -> usize {
        let most = (self.ahead() * self.lanes / self.span()).max(1);
        (1..=most).rev().find(|steps| self.shape.loads().is_multiple_of(*steps)).unwrap_or(1)
    }

    /// Tokens whose values are loaded ahead: a divisor of those of a lane.
    fn value_steps(&self) -> usize {
        let each = self.shape.loads().div_ceil(self.members());
        (self.ahead() / each).clamp(1, self.members())
    }
}

/// Scalars of a launch.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Sizes {
    table_len: u32,
    first_tile: u32,
    first_place: u32,
    mask_words: u32,
}

/// Grid: (splits, groups of heads, tiles). Cube: teams of lanes.
///
/// For the scores each lane has whole keys, so that no sums are exchanged; for the weighted sums it has some numbers of
/// the values of every so many tokens.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    q: &[Float4],
    cache: &[Load],
    scales: &[f32],
    positions: &[u32],
    rows: &[u32],
    tables: &[u32],
    tiles: &[u32],
    starts: &[u32],
    mask: &[u32],
    sums: &mut [f32],
    stats: &mut [f32],
    sizes: Sizes,
    factor: f32,
    #[comptime] config: Config,
) {
    let shape = comptime!(config.shape);
    let format = comptime!(shape.format);
    let (per, loads) = comptime!((format.per_load(), shape.loads()));
    let (lanes, teams, span) = comptime!((config.lanes, config.teams(), config.span()));
    let keys = comptime!(span / lanes);
    let queries = comptime!(config.tokens * config.heads);
    let members = comptime!(config.members());
    let each = comptime!(loads.div_ceil(members));
    let sharers = comptime!(lanes / members);
    let padded = comptime!(per * loads);
    let mut shared_sums = Shared::<[f32]>::new_slice(comptime!(teams * padded));
    let mut shared_stats = Shared::<[f32]>::new_slice(comptime!(teams * 2));

    let tile = (CUBE_POS_Z + sizes.first_tile) as usize;
    let first = tiles[tile * 3];
    let last = first + tiles[tile * 3 + 1] - 1u32;
    let first_part = tiles[tile * 3 + 2] - sizes.first_place;
    // Positions that the tile's last query sees, and with it all others.
    let limit = positions[last as usize] + 1u32;
    let split = CUBE_POS_X * comptime!(SPLIT as u32);
    if split < limit {
        let team = UNIT_POS / comptime!(lanes as u32);
        let lane = UNIT_POS % comptime!(lanes as u32);
        let start = split + team * comptime!(span as u32);
        // Teams beyond the limit read nothing, and have results that weigh nothing.
        let filled = min(max(limit, start) - start, comptime!(span as u32));
        let safe_start = select(filled > 0u32, start, split);
        let block_tokens = comptime!(BLOCK_TOKENS as u32);
        let block = tables[(rows[first as usize] * sizes.table_len + safe_start / block_tokens) as usize];
        let place = (safe_start % block_tokens) as usize;
        let kv = (CUBE_POS_Y / comptime!((shape.heads / shape.kv_heads / config.heads) as u32)) as usize;
        let block_words = block as usize * comptime!(shape.block_words());
        let base = block_words / comptime!(LOAD);
        let head_loads = comptime!(BLOCK_TOKENS * loads);

        // Scores: the sums of each key in the order of its numbers.
        let mut scores = Array::<f32>::new(comptime!(queries * keys));
        #[unroll]
        for s in 0..comptime!(queries * keys) {
            scores[s] = 0.0f32;
        }
        let mut query_rows = Array::<usize>::new(queries);
        #[unroll]
        for i in 0..queries {
            let token = min(first + comptime!((i / config.heads) as u32), last);
            let head = CUBE_POS_Y * comptime!(config.heads as u32) + comptime!((i % config.heads) as u32);
            let row = token * comptime!(shape.heads as u32) + head;
            query_rows[i] = row as usize * comptime!(padded / 4);
        }
        let key_base = base + kv * head_loads + place + lane as usize;
        let steps = comptime!(config.key_steps());
        let mut load = 0usize;
        let loads_read = select(filled > 0u32, comptime!(loads as u32), 0u32) as usize;
        while load < loads_read {
            let mut loaded = Array::<Load>::new(comptime!(steps * keys));
            #[unroll]
            for s in 0..steps {
                #[unroll]
                for j in 0..keys {
                    loaded[s * keys + j] = cache[key_base + (load + s) * comptime!(BLOCK_TOKENS) + j * lanes];
                }
            }
            #[unroll]
            for s in 0..steps {
                let numbers = unpack(&loaded, s * keys, keys, format);
                #[unroll]
                for i in 0..queries {
                    // Added up load by load, which is more exact than a sum over all numbers.
                    let mut partial = Array::<f32>::new(keys);
                    #[unroll]
                    for j in 0..keys {
                        partial[j] = 0.0f32;
                    }
                    #[unroll]
                    for v in 0..comptime!(per / 4) {
                        let four = q[query_rows[i] + (load + s) * comptime!(per / 4) + v];
                        #[unroll]
                        for j in 0..keys {
                            #[unroll]
                            for c in 0..4usize {
                                partial[j] = fma(four.extract(c), numbers[j * per + v * 4 + c], partial[j]);
                            }
                        }
                    }
                    #[unroll]
                    for j in 0..keys {
                        scores[i * keys + j] += partial[j];
                    }
                }
            }
            load += steps;
        }

        // Weights: exponentials of scores less the largest of the team. Products that are added are in `fma` alone, so
        // that no compiler can fuse them for some numbers of queries only.
        let scale_base = block_words + comptime!(2 * shape.tensor_words()) + kv * comptime!(BLOCK_TOKENS) + place;
        let mut factors = Array::<f32>::new(keys);
        let mut value_scales = Array::<f32>::new(keys);
        #[unroll]
        for j in 0..keys {
            factors[j] = factor;
            value_scales[j] = 1.0f32;
            if comptime!(format == KvFormat::Q8_0) {
                let at = scale_base + j * lanes + lane as usize;
                factors[j] = factor * scales[at];
                value_scales[j] = scales[at + comptime!(shape.kv_heads * BLOCK_TOKENS)];
            }
        }
        let mut highest = Array::<f32>::new(queries);
        let mut totals = Array::<f32>::new(queries);
        #[unroll]
        for i in 0..queries {
            let token = min(first + comptime!((i / config.heads) as u32), last);
            let own = positions[token as usize];
            let mut most = f32::new(LOWEST);
            let mut seen = Array::<bool>::new(keys);
            #[unroll]
            for j in 0..keys {
                let slot = start + comptime!((j * lanes) as u32) + lane;
                let mut is_seen = slot <= own;
                if comptime!(config.is_masked) {
                    let row_start = starts[token as usize];
                    let is_of_pass = is_seen && slot >= row_start;
                    let bit = select(is_of_pass, slot, row_start) - row_start;
                    let word = mask[(token * sizes.mask_words + bit / 32u32) as usize];
                    is_seen = is_seen && (slot < row_start || (word >> (bit % 32u32)) & 1u32 == 1u32);
                }
                seen[j] = is_seen;
                most = max(most, select(is_seen, scores[i * keys + j] * factors[j], f32::new(LOWEST)));
            }
            most = lane_max(most, comptime!(lanes as u32));
            let mut total = 0.0f32;
            #[unroll]
            for j in 0..keys {
                let below = fma(scores[i * keys + j], factors[j], -most);
                let weight = select(seen[j], below.exp(), 0.0f32);
                total += weight;
                scores[i * keys + j] = select(seen[j], weight * value_scales[j], 0.0f32);
            }
            highest[i] = most;
            totals[i] = lane_sum(total, comptime!(lanes as u32));
        }

        // Weighted sums of the values.
        let mut results = Array::<f32>::new(comptime!(queries * each * per));
        #[unroll]
        for r in 0..comptime!(queries * each * per) {
            results[r] = 0.0f32;
        }
        let member = lane as usize % members;
        let sharer = lane / comptime!(members as u32);
        let value_base = base + comptime!(shape.tensor_words() / LOAD) + kv * head_loads + place * loads;
        let first_lane = UNIT_POS_PLANE / comptime!(lanes as u32) * comptime!(lanes as u32);
        let steps = comptime!(config.value_steps());
        #[unroll]
        for j in 0..keys {
            let mut turn = 0u32;
            while turn < comptime!(lanes as u32) && turn + comptime!((j * lanes) as u32) < filled {
                let of_lane = turn + sharer;
                let mut loaded = Array::<Load>::new(comptime!(steps * each));
                #[unroll]
                for s in 0..steps {
                    // Beyond what is written a weight is zero, and what is there may be NaN.
                    let token = of_lane + comptime!((s * sharers + j * lanes) as u32);
                    let token = min(token, filled - 1u32) as usize;
                    #[unroll]
                    for e in 0..each {
                        let load = min(e * members + member, comptime!(loads - 1));
                        loaded[s * each + e] = cache[value_base + token * loads + load];
                    }
                }
                #[unroll]
                for s in 0..steps {
                    let numbers = unpack(&loaded, s * each, each, format);
                    #[unroll]
                    for i in 0..queries {
                        let from = first_lane + of_lane + comptime!((s * sharers) as u32);
                        let weight = plane_shuffle(scores[i * keys + j], from);
                        #[unroll]
                        for r in 0..comptime!(each * per) {
                            results[i * comptime!(each * per) + r] =
                                fma(weight, numbers[r], results[i * comptime!(each * per) + r]);
                        }
                    }
                }
                turn += comptime!((steps * sharers) as u32);
            }
        }

        // Teams into one, query by query.
        #[unroll]
        for i in 0..queries {
            #[unroll]
            for r in 0..comptime!(each * per) {
                let mut sum = results[i * comptime!(each * per) + r];
                #[unroll]
                for step in 0..comptime!(sharers.ilog2()) {
                    sum = sum + plane_shuffle_xor(sum, comptime!((members as u32) << step));
                }
                results[i * comptime!(each * per) + r] = sum;
            }
            sync_cube();
            #[unroll]
            for e in 0..each {
                let load = e * members + member;
                if sharer == 0u32 && load < loads {
                    #[unroll]
                    for n in 0..per {
                        shared_sums[team as usize * padded + load * per + n] = results[(i * each + e) * per + n];
                    }
                }
            }
            if lane == 0u32 {
                shared_stats[team as usize * 2] = highest[i];
                shared_stats[team as usize * 2 + 1] = totals[i];
            }
            sync_cube();
            let mut most = f32::new(LOWEST);
            for t in 0..teams {
                most = max(most, shared_stats[t * 2]);
            }
            let token = first + comptime!((i / config.heads) as u32);
            let head = CUBE_POS_Y * comptime!(config.heads as u32) + comptime!((i % config.heads) as u32);
            let place = first_part + comptime!((i / config.heads) as u32);
            let part = (place * comptime!(shape.heads as u32) + head) * CUBE_COUNT_X + CUBE_POS_X;
            let mut number = UNIT_POS as usize;
            while number < padded && token <= last {
                let mut sum = 0.0f32;
                for t in 0..teams {
                    let share = (shared_stats[t * 2] - most).exp();
                    sum = fma(shared_sums[t * padded + number], share, sum);
                }
                sums[part as usize * padded + number] = sum;
                number += comptime!(teams * lanes);
            }
            if UNIT_POS == 0u32 && token <= last {
                let mut total = 0.0f32;
                for t in 0..teams {
                    total = fma(shared_stats[t * 2 + 1], (shared_stats[t * 2] - most).exp(), total);
                }
                stats[part as usize * 2] = most;
                stats[part as usize * 2 + 1] = total;
            }
        }
    }
}

/// Attention of the tokens of a pass that are not those of prompts: their rows of `out` `[n, heads · head_dim]`.
pub(super) fn launch(gpu: &Gpu, q: &Buffer, shape: &AttentionShape, cache: &Buffer, pass: &Pass, out: &Buffer) {
    let &AttentionShape { heads, .. } = shape;
    let group = heads / shape.kv_heads;
    let shared = (1..=group.min(MAX_QUERIES)).rev().find(|heads| group.is_multiple_of(*heads)).unwrap_or(1);
    let Some(tiles) = pass.tiles_of(MAX_QUERIES / shared) else { return };
    let config = Config {
        shape: *shape,
        tokens: tiles.size,
        heads: shared,
        lanes: gpu.lanes() as usize,
        is_masked: pass.mask.is_some(),
    };
    let splits = pass.max_len.div_ceil(SPLIT);
    let padded = shape.padded_dim();
    let token_bytes = heads * splits * (padded + 2) * WORD;
    let most = (MAX_PART_BYTES / token_bytes).clamp(MAX_QUERIES, MAX_GRID);
    let mut first_tile = 0;
    while let Some(first) = tiles.tiles.get(first_tile) {
        let first_place = first.place;
        let rest = &tiles.tiles[first_tile..];
        let own = &rest[..rest.partition_point(|tile| tile.place + tile.len - first_place <= most)];
        let tokens = own.iter().map(|tile| tile.len).sum();
        let parts = Parts {
            sums: gpu.empty(tokens * heads * splits * padded),
            stats: gpu.empty(tokens * heads * splits * 2),
            first_place,
            tokens,
            splits,
        };
        launch_tiles(
            gpu,
            q,
            cache,
            pass,
            tiles.before + first_tile..tiles.before + first_tile + own.len(),
            &parts,
            config,
        );
        combine::launch(gpu, shape, pass, &parts, out);
        first_tile += own.len();
    }
}

fn launch_tiles(
    gpu: &Gpu,
    q: &Buffer,
    cache: &Buffer,
    pass: &Pass,
    tiles: Range<usize>,
    parts: &Parts,
    config: Config,
) {
    // Without a mask nothing is read of these.
    let (starts, bits, mask_words) = match &pass.mask {
        Some(mask) => (&mask.starts, &mask.bits, mask.words),
        None => (&pass.positions, &pass.positions, 0),
    };
    let groups = config.shape.heads / config.heads;
    let sizes =
        SizesLaunch::new(pass.table_len as u32, tiles.start as u32, parts.first_place as u32, mask_words as u32);
    // SAFETY: tiles are of tokens of the pass, whose positions have blocks, which are in the cache; results have a
    // place for each token, head and split.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(parts.splits as u32, groups as u32, tiles.len() as u32),
            CubeDim::new_1d((config.lanes * config.teams()) as u32),
            q.arg(LOAD),
            cache.arg(LOAD),
            cache.arg(1),
            pass.positions.arg(1),
            pass.rows.arg(1),
            pass.tables.arg(1),
            pass.tiles.arg(1),
            starts.arg(1),
            bits.arg(1),
            parts.sums.arg(1),
            parts.stats.arg(1),
            sizes,
            (config.shape.head_dim as f32).sqrt().recip(),
            config,
        );
    }
}
