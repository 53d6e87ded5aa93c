//! Layer norm of each head of queries and keys, rotary positions, and keys and values into the cache.

use cubecl::prelude::*;

use super::kv::{AttentionShape, BLOCK_TOKENS, KvFormat, pack};
use super::pass::Pass;
use crate::reduce::lane_sum;
use crate::weights::LOAD;
use crate::{Buffer, Gpu};

/// Units of a cube. Fewer where heads would need more shared memory than every device has.
const UNITS: usize = 256;

/// Numbers of heads in shared memory at most.
const MAX_SHARED: usize = 2048;

/// Parameters of the norms of queries and keys, and the angles of the rotation.
#[derive(Debug, Clone, Copy)]
pub struct NormParams<'a> {
    /// `[parts, head_dim]`; each part serves `heads / parts` consecutive heads.
    pub q_weight: &'a Buffer,
    /// As `q_weight`.
    pub q_bias: &'a Buffer,
    /// `[parts, head_dim]`; each part serves `kv_heads / parts` consecutive heads.
    pub k_weight: &'a Buffer,
    /// As `k_weight`.
    pub k_bias: &'a Buffer,
    /// Cosines of the angles of each token of the pass, `[n, head_dim / 2]`.
    pub cos: &'a Buffer,
    /// Sines of the angles, `[n, head_dim / 2]`.
    pub sin: &'a Buffer,
    /// Added to the variance.
    pub epsilon: f32,
}

/// What the kernel is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Config {
    pub(crate) shape: AttentionShape,
    /// Heads that share a row of weights.
    pub(crate) q_group: usize,
    pub(crate) k_group: usize,
    pub(crate) lanes: usize,
}

impl Config {
    /// Teams of lanes of a cube, each with a head.
    const fn teams(&self) -> usize {
        let (by_units, by_memory) = (UNITS / self.lanes, MAX_SHARED / self.shape.padded_dim());
        if by_units < by_memory { by_units } else { by_memory }
    }
}

/// Grid: teams of lanes, each with a head of q, k or v of a token. A lane has some pairs of the rotation, and then, of
/// what goes to the cache, some whole loads.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    q_weight: &[f32],
    q_bias: &[f32],
    k_weight: &[f32],
    k_bias: &[f32],
    cos: &[f32],
    sin: &[f32],
    positions: &[u32],
    rows: &[u32],
    tables: &[u32],
    rotated: &mut [f32],
    cache: &mut [u32],
    n: u32,
    table_len: u32,
    epsilon: f32,
    zero: u32,
    #[comptime] config: Config,
) {
    let shape = comptime!(config.shape);
    let (heads, kv_heads, dim) = comptime!((shape.heads as u32, shape.kv_heads as u32, shape.head_dim as u32));
    let lanes = comptime!(config.lanes as u32);
    let format = comptime!(shape.format);
    let (per, loads, padded) = comptime!((format.per_load(), shape.loads(), shape.padded_dim()));
    let of_token = comptime!(heads + 2 * kv_heads);
    let half = comptime!(dim / 2);
    let pairs = comptime!((half as usize).div_ceil(config.lanes));
    let mut shared = Shared::<[f32]>::new_slice(comptime!(config.teams() * padded));

    // Teams beyond the last head do its work and write nothing, as all lanes of a plane must exchange numbers.
    let team = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_Y + UNIT_POS_Y;
    let is_inside = team < n * of_token;
    let job = min(team, n * of_token - 1u32);
    let token = job / of_token;
    let index = job % of_token;
    let is_q = index < heads;
    let is_v = index >= comptime!(heads + kv_heads);
    let head = select(is_q, index, select(is_v, index - comptime!(heads + kv_heads), index - heads));
    let first = (token * select(is_q, heads, kv_heads) + head) * dim;
    let lane = UNIT_POS_X;

    // Number i of each pair (i, i + half) of the head, and the other one.
    let mut low = Array::<f32>::new(pairs);
    let mut high = Array::<f32>::new(pairs);
    let mut sum = 0.0f32;
    #[unroll]
    for p in 0..pairs {
        let i = comptime!(p as u32) * lanes + lane;
        low[p] = 0.0f32;
        high[p] = 0.0f32;
        if i < half {
            low[p] = read(q, k, v, first + i, is_q, is_v);
            high[p] = read(q, k, v, first + i + half, is_q, is_v);
            sum = sum + low[p] + high[p];
        }
    }
    let mean = lane_sum(sum, lanes) / f32::cast_from(dim);
    let mut squares = 0.0f32;
    #[unroll]
    for p in 0..pairs {
        if comptime!(p as u32) * lanes + lane < half {
            let (a, b) = (low[p] - mean, high[p] - mean);
            squares = fma(b, b, fma(a, a, squares));
        }
    }
    let variance = lane_sum(squares, lanes) / f32::cast_from(dim);
    let inverse_deviation = 1.0f32 / (variance + epsilon).sqrt();

    let group = select(is_q, head / comptime!(config.q_group as u32), head / comptime!(config.k_group as u32));
    let parameters = group * dim;
    let place = UNIT_POS_Y as usize * padded;
    let mut largest = 0u32;
    #[unroll]
    for p in 0..pairs {
        let i = comptime!(p as u32) * lanes + lane;
        if i < half {
            if !is_v {
                let a = (low[p] - mean) * inverse_deviation;
                let b = (high[p] - mean) * inverse_deviation;
                let a = scale_shift(a, q_weight, q_bias, k_weight, k_bias, parameters + i, is_q);
                let b = scale_shift(b, q_weight, q_bias, k_weight, k_bias, parameters + i + half, is_q);
                let angle = (token * half + i) as usize;
                low[p] = fma(a, cos[angle], -(b * sin[angle]));
                high[p] = fma(b, cos[angle], a * sin[angle]);
            }
            shared[place + i as usize] = low[p];
            shared[place + (i + half) as usize] = high[p];
            // As whole numbers magnitudes are ordered like the values, and what is not finite comes last.
            largest = max(largest, u32::reinterpret(low[p]) & 0x7fff_ffffu32);
            largest = max(largest, u32::reinterpret(high[p]) & 0x7fff_ffffu32);
        }
    }
    let mut padding = dim + lane;
    while padding < comptime!(padded as u32) {
        shared[place + padding as usize] = 0.0f32;
        padding += lanes;
    }
    sync_cube();

    let mut inverse = 1.0f32;
    let mut scale = 1.0f32;
    if comptime!(format == KvFormat::Q8_0) {
        #[unroll]
        for step in 0..comptime!(lanes.ilog2()) {
            largest = max(largest, plane_shuffle_xor(largest, comptime!(1u32 << step)));
        }
        let finite = largest < 0x7f80_0000u32;
        let magnitude = f32::reinterpret(select(finite, largest, 0u32));
        inverse = select(magnitude > 4.0e-37f32, 127.0f32 / magnitude, 0.0f32);
        scale = select(finite, magnitude / 127.0f32, f32::reinterpret(0x7fc0_0000u32 ^ zero));
    }
    if is_inside && is_q {
        let to = (token * heads + head) as usize * padded;
        let mut i = lane as usize;
        while i < padded {
            rotated[to + i] = shared[place + i];
            i += comptime!(config.lanes);
        }
    } else if is_inside {
        let tokens = comptime!(BLOCK_TOKENS as u32);
        let tensor = comptime!(shape.tensor_words() as u32);
        let position = positions[token as usize];
        let block = tables[(rows[token as usize] * table_len + position / tokens) as usize];
        let slot = position % tokens;
        let base = block * comptime!(shape.block_words() as u32);
        let mut load = lane;
        while load < comptime!(loads as u32) {
            let mut values = Array::<f32>::new(per);
            #[unroll]
            for i in 0..per {
                values[i] = shared[place + load as usize * per + i];
            }
            let key = (head * comptime!(loads as u32) + load) * tokens + slot;
            let value = (head * tokens + slot) * comptime!(loads as u32) + load;
            let words = comptime!(LOAD as u32);
            let to = (base + select(is_v, tensor + value * words, key * words)) as usize;
            #[unroll]
            for w in 0..4usize {
                cache[to + w] = pack(&values, inverse, zero, w, format);
            }
            load += lanes;
        }
        if comptime!(format == KvFormat::Q8_0) {
            let scales = base + comptime!(2 * tensor) + select(is_v, comptime!(kv_heads * tokens), 0u32);
            if lane == 0u32 {
                cache[(scales + head * tokens + slot) as usize] = u32::reinterpret(scale);
            }
        }
    }
}

/// A number of q, k or v.
#[cube]
fn read(q: &[f32], k: &[f32], v: &[f32], at: u32, is_q: bool, is_v: bool) -> f32 {
    if is_q {
        q[at as usize]
    } else if is_v {
        v[at as usize]
    } else {
        k[at as usize]
    }
}

/// `x · weight + bias` of the norm of queries or keys.
#[cube]
fn scale_shift(x: f32, q_weight: &[f32], q_bias: &[f32], k_weight: &[f32], k_bias: &[f32], at: u32, is_q: bool) -> f32 {
    if is_q {
        fma(x, q_weight[at as usize], q_bias[at as usize])
    } else {
        fma(x, k_weight[at as usize], k_bias[at as usize])
    }
}

/// Norms each head of `q` `[n, heads · head_dim]` and `k` `[n, kv_heads · head_dim]`, rotates the pairs `(i, i +
/// head_dim / 2)`, and writes `k` and `v`, of one shape, to the cache of a layer. For each head, `z = (x − mean) /
/// √(variance + ε) · weight + bias`.
///
/// Returns the queries for [`attention`](super::attention()): `[n, heads, head_dim]`, with each head padded to whole
/// loads of the format.
///
/// # Panics
/// If a buffer is of another size, or the cache has fewer blocks than the pass uses.
pub fn norm_rotate_write(
    gpu: &Gpu,
    [q, k, v]: [&Buffer; 3],
    params: &NormParams<'_>,
    shape: &AttentionShape,
    cache: &Buffer,
    pass: &Pass,
) -> Buffer {
    shape.check();
    let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let n = pass.n;
    assert_eq!(q.len(), n * heads * head_dim, "queries are [{n}, {heads}, {head_dim}]");
    for kv in [k, v] {
        assert_eq!(kv.len(), n * kv_heads * head_dim, "keys and values are [{n}, {kv_heads}, {head_dim}]");
    }
    for angles in [params.cos, params.sin] {
        assert_eq!(angles.len(), n * head_dim / 2, "angles are [{n}, {}]", head_dim / 2);
    }
    let group = |weight: &Buffer, bias: &Buffer, heads: usize| {
        let parts = weight.len() / head_dim;
        let fits = parts > 0 && weight.len() == parts * head_dim && heads.is_multiple_of(parts);
        assert!(fits && bias.len() == weight.len(), "{} weights are no parts of {heads} heads", weight.len());
        heads / parts
    };
    pass.check_cache(shape, cache);
    let config = Config {
        shape: *shape,
        q_group: group(params.q_weight, params.q_bias, heads),
        k_group: group(params.k_weight, params.k_bias, kv_heads),
        lanes: gpu.lanes() as usize,
    };
    let rotated = gpu.empty(n * heads * shape.padded_dim());
    let jobs = n * (heads + 2 * kv_heads);
    if jobs == 0 {
        return rotated;
    }
    // SAFETY: sizes are checked above; the pass has rows, positions and blocks that are in its tables and the cache.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(256 * jobs.div_ceil(config.teams())),
            CubeDim::new_2d(config.lanes as u32, config.teams() as u32),
            q.arg(1),
            k.arg(1),
            v.arg(1),
            params.q_weight.arg(1),
            params.q_bias.arg(1),
            params.k_weight.arg(1),
            params.k_bias.arg(1),
            params.cos.arg(1),
            params.sin.arg(1),
            pass.positions.arg(1),
            pass.rows.arg(1),
            pass.tables.arg(1),
            rotated.arg(1),
            cache.arg(1),
            n as u32,
            pass.table_len as u32,
            params.epsilon,
            0,
            config,
        );
    }
    rotated
}
