//! The kernel, and its launch.

use cubecl::prelude::*;

use super::queries::{Queries, load_queries};
use super::tiles::{PER_LOAD, fetch_keys, fetch_values, store_keys, store_values};
use crate::attention::kv::{AttentionShape, BLOCK_TOKENS, KvFormat};
use crate::attention::pass::Pass;
use crate::attention::split::{LOWEST, MAX_GRID};
use crate::bits::{Float2, pair_values, round_pair};
use crate::matmul::{Float4, Load, MatmulPrecision};
use crate::reduce::{lane_max, lane_sum};
use crate::tensor_cores::{PLANE, instruction, scratch_words, zeros};
use crate::weights::{Format, LOAD};
use crate::{Buffer, Gpu};

/// Planes of a cube.
const PLANES: usize = 4;

/// Queries of a plane: the rows of an instruction.
const PLANE_QUERIES: usize = 16;

/// Queries of a cube.
pub(crate) const QUERIES: usize = PLANES * PLANE_QUERIES;

/// Keys of a tile: a divisor of those of a block.
const KEYS: usize = 32;

/// Keys, or numbers of values, that are the columns of an instruction.
const COLUMNS: usize = 8;

/// What the kernel is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Config {
    pub(crate) shape: AttentionShape,
    /// Numbers of 16 bits of a query's number, and of a weight of the softmax.
    pub(crate) parts: usize,
    /// Keys of a tile: a multiple of 16.
    pub(super) keys: usize,
    /// Instructions are computed number by number instead, for tests on devices without them.
    pub(super) emulated: bool,
}

impl Config {
    pub(crate) const fn new(shape: AttentionShape, precision: MatmulPrecision) -> Self {
        let parts = match precision {
            MatmulPrecision::High => 2,
            MatmulPrecision::Fast => 1,
        };
        Self { shape, parts, keys: KEYS, emulated: false }
    }

    /// Units of a cube.
    pub(crate) const fn units(&self) -> usize {
        PLANES * PLANE as usize
    }

    /// The format of the numbers that are multiplied.
    pub(super) const fn format(&self) -> Format {
        match self.shape.format {
            KvFormat::F16 => Format::F16,
            _ => Format::BF16,
        }
    }

    /// Steps of a score: a load of each of the four lanes that have a key.
    pub(super) const fn steps(&self) -> usize {
        self.loads().div_ceil(4)
    }

    /// Tiles of values for which a lane has one load of a token.
    const fn groups(&self) -> usize {
        self.loads().div_ceil(COLUMNS)
    }
}

/// Scalars of a launch.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Sizes {
    table_len: u32,
    /// The tile after the last of the launch.
    tiles_end: u32,
}

/// The softmax up to a tile of keys, of a lane's two queries.
#[derive(CubeType)]
struct State {
    /// The largest score.
    highest: Array<f32>,
    /// Sums of weights: those of the lane's keys.
    totals: Array<f32>,
    /// Weighted sums of values. Tile 8d + i has as its column c number 64d + 8c + i of the head.
    sums: Sequence<Array<Float2>>,
}

/// Grid: (heads, tiles of queries), the last tile first, as it has the most keys. Cube: planes of 16 queries.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    q: &[Float4],
    cache: &[Load],
    scales: &[f32],
    positions: &[u32],
    rows: &[u32],
    tables: &[u32],
    tiles: &[u32],
    out: &mut [Float4],
    sizes: Sizes,
    factor: f32,
    #[comptime] config: Config,
) {
    let shape = comptime!(config.shape);
    let mut key_tiles = Shared::<[Load]>::new_slice(comptime!(2 * config.key_loads()));
    let mut value_tiles = Shared::<[Load]>::new_slice(comptime!(2 * config.value_loads()));
    let mut scratch = Shared::<[u32]>::new_slice(comptime!(scratch_words(config.units(), config.emulated)));
    let keys = comptime!(config.keys as u32);

    let tile = (sizes.tiles_end - 1u32 - CUBE_POS_Y) as usize;
    let tile_first = tiles[tile * 3];
    let last = tile_first + tiles[tile * 3 + 1] - 1u32;
    let limit = positions[last as usize] + 1u32;
    let head = CUBE_POS_X;
    let kv = head / comptime!((shape.heads / shape.kv_heads) as u32);
    let lane = UNIT_POS % PLANE;
    let first = tile_first + UNIT_POS / PLANE * comptime!(PLANE_QUERIES as u32);
    // Positions that the plane's queries see; none where it has no queries.
    let plane_last = min(first + comptime!(PLANE_QUERIES as u32 - 1), last);
    let plane_limit = select(first <= last, positions[plane_last as usize] + 1u32, 0u32);

    let queries = load_queries(q, positions, first, last, head, lane, factor, config);
    let mut state = State {
        highest: Array::<f32>::new(2usize),
        totals: Array::<f32>::new(2usize),
        sums: Sequence::<Array<Float2>>::new(),
    };
    #[unroll]
    for half in 0..2usize {
        state.highest[half] = f32::new(LOWEST);
        state.totals[half] = 0.0f32;
    }
    #[unroll]
    for _ in 0..comptime!(config.groups() * COLUMNS) {
        state.sums.push(zeros());
    }

    let table = rows[tile_first as usize] * sizes.table_len;
    let mut block = tables[table as usize];
    let fetched = fetch_keys(cache, block, kv, 0u32, config);
    store_keys(&fetched, &mut key_tiles, 0usize, config);
    let fetched = fetch_values(cache, block, kv, 0u32, limit, config);
    store_values(&fetched, &mut value_tiles, 0usize, config);
    sync_cube();
    let mut start = 0u32;
    let mut stage = 0usize;
    while start < limit {
        // The next tiles are on their way while these are multiplied; the last ones come again.
        let next = select(start + keys < limit, start + keys, start);
        let next_block = tables[(table + next / comptime!(BLOCK_TOKENS as u32)) as usize];
        // All units of a cube take part in the barriers of emulated instructions.
        let is_seen = comptime!(config.emulated) || start < plane_limit;
        let mut scores = Sequence::<Array<Float2>>::new();
        #[unroll]
        for _ in 0..comptime!(config.keys / COLUMNS) {
            scores.push(zeros());
        }
        let fetched = fetch_keys(cache, next_block, kv, next, config);
        if is_seen {
            score(&queries, &key_tiles, stage, &mut scores, &mut scratch, config);
        }
        store_keys(&fetched, &mut key_tiles, 1 - stage, config);
        let fetched = fetch_values(cache, next_block, kv, next, limit, config);
        if is_seen {
            soften(&queries, scales, block, kv, start, &mut scores, &mut state, config);
            weigh(&scores, &value_tiles, stage, &mut state, &mut scratch, config);
        }
        store_values(&fetched, &mut value_tiles, 1 - stage, config);
        sync_cube();
        stage = 1 - stage;
        block = next_block;
        start += keys;
    }
    write(&state, out, first, last, head, lane, config);
}

/// Adds the products of queries and a tile of keys to scores, a tile of eight keys each.
#[cube]
fn score(
    queries: &Queries,
    key_tiles: &Shared<[Load]>,
    stage: usize,
    scores: &mut Sequence<Array<Float2>>,
    scratch: &mut Shared<[u32]>,
    #[comptime] config: Config,
) {
    let lane = UNIT_POS % PLANE;
    let (column, quarter) = ((lane / 4) as usize, (lane % 4) as usize);
    let tiles = comptime!(config.keys / COLUMNS);
    let (steps, parts, loads) = comptime!((config.steps(), config.parts, config.loads()));
    let key_pitch = comptime!(config.key_pitch());
    let key_base = stage * comptime!(config.key_loads()) + column;
    #[unroll(!config.emulated)]
    for s in 0..steps {
        let mut words = Array::<u32>::new(comptime!(tiles * 4));
        // Numbers beyond the head are zeros of the queries.
        let load = min(s * 4 + quarter, loads - 1);
        #[unroll]
        for j in 0..tiles {
            let four = key_tiles[key_base + load * key_pitch + comptime!(j * COLUMNS)];
            #[unroll]
            for w in 0..4usize {
                words[j * 4 + w] = four.extract(w);
            }
        }
        #[unroll(!config.emulated)]
        for i in 0..comptime!(2 * parts) {
            let (part, pair) = (i / 2, i % 2);
            let mut a = Array::<u32>::new(4usize);
            #[unroll]
            for w in 0..4usize {
                // Both queries' first words of the pair, then their second ones.
                a[w] = queries.words[part * comptime!(steps * 8) + s * 8 + w % 2 * 4 + pair * 2 + w / 2];
            }
            #[unroll]
            for j in 0..tiles {
                let mut b = Array::<u32>::new(2usize);
                b[0] = words[j * 4 + pair * 2];
                b[1] = words[j * 4 + pair * 2 + 1];
                instruction(&a, &b, scores.index_mut(j), scratch, config.format(), config.emulated);
            }
        }
    }
}

/// Makes weights of the scores of a tile of keys, of which the first is at the position `start`: exponentials of scores
/// less the largest so far. What was added up before is multiplied accordingly.
#[cube]
fn soften(
    queries: &Queries,
    scales: &[f32],
    block: u32,
    kv: u32,
    start: u32,
    scores: &mut Sequence<Array<Float2>>,
    state: &mut State,
    #[comptime] config: Config,
) {
    let tiles = comptime!(config.keys / COLUMNS);
    let quarter = UNIT_POS % 4u32;
    let first_key = start + quarter * 2u32;
    let mut key_factors = Array::<Float2>::new(tiles);
    let mut value_factors = Array::<Float2>::new(tiles);
    #[unroll]
    for j in 0..tiles {
        key_factors[j] = Float2::new(1.0f32);
        value_factors[j] = Float2::new(1.0f32);
        if comptime!(config.shape.format == KvFormat::Q8_0) {
            let shape = comptime!(config.shape);
            let of_block = block * comptime!(shape.block_words() as u32) + comptime!(2 * shape.tensor_words() as u32);
            let of_head = of_block + (kv * comptime!(BLOCK_TOKENS as u32) + start % comptime!(BLOCK_TOKENS as u32));
            let at = (of_head + quarter * 2u32 + comptime!((j * COLUMNS) as u32)) as usize;
            let mut of_keys = Float2::new(0.0f32);
            let mut of_values = Float2::new(0.0f32);
            #[unroll]
            for c in 0..2usize {
                of_keys.insert(c, scales[at + c]);
                of_values.insert(c, scales[at + comptime!(shape.kv_heads * BLOCK_TOKENS) + c]);
            }
            key_factors[j] = of_keys;
            value_factors[j] = of_values;
        }
    }
    let mut decays = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let mut most = state.highest[half];
        #[unroll]
        for j in 0..tiles {
            let scaled = scores.index(j)[half] * (key_factors[j] * Float2::new(queries.factors[half]));
            let mut seen = Float2::new(f32::new(LOWEST));
            #[unroll]
            for c in 0..2usize {
                let is_seen = first_key + comptime!((j * COLUMNS + c) as u32) <= queries.positions[half];
                let score = select(is_seen, scaled.extract(c), f32::new(LOWEST));
                seen.insert(c, score);
                most = max(most, score);
            }
            scores.index_mut(j)[half] = seen;
        }
        most = lane_max(most, 4u32);
        let decay = (state.highest[half] - most).exp();
        let mut total = 0.0f32;
        #[unroll]
        for j in 0..tiles {
            let scored = scores.index(j)[half];
            let mut weights = Float2::new(0.0f32);
            #[unroll]
            for c in 0..2usize {
                let weight = (scored.extract(c) - most).exp();
                total += weight;
                if comptime!(config.shape.format == KvFormat::Q8_0) {
                    // Scales of keys after the query may be NaN.
                    let is_seen = first_key + comptime!((j * COLUMNS + c) as u32) <= queries.positions[half];
                    weights.insert(c, select(is_seen, weight * value_factors[j].extract(c), 0.0f32));
                } else {
                    weights.insert(c, weight);
                }
            }
            scores.index_mut(j)[half] = weights;
        }
        state.highest[half] = most;
        state.totals[half] = fma(state.totals[half], decay, total);
        decays[half] = decay;
    }
    #[unroll]
    for i in 0..comptime!(config.groups() * COLUMNS) {
        let sums = state.sums.index_mut(i);
        #[unroll]
        for half in 0..2usize {
            sums[half] *= Float2::new(decays[half]);
        }
    }
}

/// Adds the values of a tile, weighted, to the sums. Of each 16 keys, lane t of a column has 2t, 2t + 1 and those + 8.
#[cube]
fn weigh(
    scores: &Sequence<Array<Float2>>,
    value_tiles: &Shared<[Load]>,
    stage: usize,
    state: &mut State,
    scratch: &mut Shared<[u32]>,
    #[comptime] config: Config,
) {
    let lane = UNIT_POS % PLANE;
    let (column, quarter) = ((lane / 4) as usize, (lane % 4) as usize);
    let (parts, loads, value_pitch) = comptime!((config.parts, config.loads(), config.value_pitch()));
    let value_base = stage * comptime!(config.value_loads()) + quarter * comptime!(2 * value_pitch);
    #[unroll]
    for k in 0..comptime!(config.keys / 16) {
        let mut weights = Array::<u32>::new(comptime!(parts * 4));
        #[unroll]
        for w in 0..4usize {
            let pair = scores.index(comptime!(k * 2 + w / 2))[w % 2];
            let word = round_pair(pair, config.format(), config.emulated);
            weights[w] = word;
            if comptime!(parts == 2) {
                let rest = pair - pair_values(word, config.format());
                weights[4 + w] = round_pair(rest, config.format(), config.emulated);
            }
        }
        #[unroll]
        for d in 0..comptime!(config.groups()) {
            let load = min(comptime!(d * COLUMNS) + column, loads - 1);
            let at = value_base + comptime!(k * 16 * value_pitch) + load;
            let mut tokens = Array::<Load>::new(4usize);
            #[unroll]
            for n in 0..4usize {
                tokens[n] = value_tiles[at + comptime!((n / 2 * 8 + n % 2) * value_pitch)];
            }
            #[unroll(!config.emulated)]
            for part in 0..parts {
                let mut a = Array::<u32>::new(4usize);
                #[unroll]
                for w in 0..4usize {
                    a[w] = weights[part * 4 + w];
                }
                #[unroll]
                for i in 0..COLUMNS {
                    let mut b = Array::<u32>::new(2usize);
                    #[unroll]
                    for half in 0..2usize {
                        let even = tokens[half * 2].extract(comptime!(i / 2));
                        let odd = tokens[half * 2 + 1].extract(comptime!(i / 2));
                        // Number i of two tokens, the first in the lower bits.
                        b[half] = if comptime!(i % 2 == 0) {
                            (even & 0xffffu32) | (odd << 16u32)
                        } else {
                            (even >> 16u32) | (odd & 0xffff_0000u32)
                        };
                    }
                    let sums = state.sums.index_mut(comptime!(d * COLUMNS + i));
                    instruction(&a, &b, sums, scratch, config.format(), config.emulated);
                }
            }
        }
    }
}

/// Writes the results of a plane's queries, a lane 16 numbers of each 64 of a head.
#[cube]
fn write(state: &State, out: &mut [Float4], first: u32, last: u32, head: u32, lane: u32, #[comptime] config: Config) {
    let loads = comptime!(config.loads() as u32);
    #[unroll]
    for half in 0..2usize {
        let inverse = 1.0f32 / lane_sum(state.totals[half], 4u32);
        let token = first + lane / 4 + comptime!(half as u32 * 8);
        let row = (token * comptime!(config.shape.heads as u32) + head) * comptime!(loads * 2);
        #[unroll]
        for i in 0..comptime!(config.groups() * 2) {
            let (d, c) = comptime!((i / 2, i % 2));
            let load = comptime!((d * COLUMNS + c) as u32) + lane % 4 * 2;
            if token <= last && load < loads {
                #[unroll]
                for part in 0..2usize {
                    let mut four = Float4::new(0.0f32);
                    #[unroll]
                    for n in 0..4usize {
                        let sums = state.sums.index(comptime!(d * COLUMNS + part * 4 + n));
                        four.insert(n, sums[half].extract(c) * inverse);
                    }
                    out[(row + load * 2 + comptime!(part as u32)) as usize] = four;
                }
            }
        }
    }
}

/// Attention of the tokens of prompts in a pass: their rows of `out` `[n, heads · head_dim]`.
pub(crate) fn launch(gpu: &Gpu, q: &Buffer, cache: &Buffer, pass: &Pass, config: Config, out: &Buffer) {
    let tiles = &pass.prompts;
    let mut end = tiles.before;
    for own in tiles.tiles.chunks(MAX_GRID) {
        end += own.len();
        // SAFETY: tiles are of tokens of the pass, whose positions have blocks, which are in the cache; `out` has a row
        // for each token. Heads are whole loads, in the queries and in `out`.
        unsafe {
            kernel::launch_unchecked(
                gpu.client(),
                CubeCount::Static(config.shape.heads as u32, own.len() as u32, 1),
                CubeDim::new_1d(config.units() as u32),
                q.arg(LOAD),
                cache.arg(LOAD),
                cache.arg(1),
                pass.positions.arg(1),
                pass.rows.arg(1),
                pass.tables.arg(1),
                pass.tiles.arg(1),
                out.arg(LOAD),
                SizesLaunch::new(pass.table_len as u32, end as u32),
                (config.shape.head_dim as f32).sqrt().recip(),
                config,
            );
        }
    }
}

const _: () = assert!(PER_LOAD == COLUMNS && KEYS.is_multiple_of(16) && BLOCK_TOKENS.is_multiple_of(KEYS));
