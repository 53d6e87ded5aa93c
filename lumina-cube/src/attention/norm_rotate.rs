//! Layer norm of each head of queries and keys, rotary positions, and keys and values into the cache.

use cubecl::prelude::*;

use super::kv::{AttentionShape, BLOCK_TOKENS, KvFormat, pack};
use super::pass::Pass;
use crate::matmul::Float4;
use crate::reduce::lane_sum;
use crate::weights::LOAD;
use crate::{Buffer, Gpu};

/// Units of a cube.
const UNITS: u32 = 256;

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
struct Config {
    shape: AttentionShape,
    /// Heads that share a row of weights.
    q_group: usize,
    k_group: usize,
    lanes: u32,
}

/// Grid: teams of lanes, each with a head of q, k or v of a token. A lane has whole loads of the head.
#[cube(launch_unchecked)]
fn kernel(
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
    rotated: &mut [Float4],
    cache: &mut [u32],
    n: u32,
    table_len: u32,
    epsilon: f32,
    zero: u32,
    #[comptime] config: Config,
) {
    let shape = comptime!(config.shape);
    let (heads, kv_heads, dim) = comptime!((shape.heads as u32, shape.kv_heads as u32, shape.head_dim as u32));
    let lanes = comptime!(config.lanes);
    let format = comptime!(shape.format);
    let (per, loads) = comptime!((format.per_load(), shape.loads()));
    let each = comptime!(loads.div_ceil(lanes as usize));
    let of_token = comptime!(heads + 2 * kv_heads);

    // Teams beyond the last head do its work and write nothing, as all lanes of a plane must exchange numbers.
    let team = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_Y + UNIT_POS_Y;
    let job = min(team, n * of_token - 1u32);
    let token = job / of_token;
    let index = job % of_token;
    let is_q = index < heads;
    let is_v = index >= comptime!(heads + kv_heads);
    let head = select(is_q, index, select(is_v, index - comptime!(heads + kv_heads), index - heads));
    let first = (token * select(is_q, heads, kv_heads) + head) * dim;
    let lane = UNIT_POS_X;

    let mut sum = 0.0f32;
    let mut at = lane;
    while at < dim {
        sum = sum + read(q, k, v, first + at, is_q, is_v);
        at += lanes;
    }
    let mean = lane_sum(sum, lanes) / f32::cast_from(dim);
    let mut squares = 0.0f32;
    let mut at = lane;
    while at < dim {
        let centred = read(q, k, v, first + at, is_q, is_v) - mean;
        squares = fma(centred, centred, squares);
        at += lanes;
    }
    let variance = lane_sum(squares, lanes) / f32::cast_from(dim);
    let inverse_deviation = 1.0f32 / (variance + epsilon).sqrt();

    let half = comptime!(dim / 2);
    let parameters =
        select(is_q, head / comptime!(config.q_group as u32), head / comptime!(config.k_group as u32)) * dim;
    let mut values = Array::<f32>::new(comptime!(each * per));
    #[unroll]
    for e in 0..each {
        #[unroll]
        for i in 0..per {
            let d = (comptime!(e as u32) * lanes + lane) * comptime!(per as u32) + comptime!(i as u32);
            let mut value = 0.0f32;
            if d < dim {
                let own = read(q, k, v, first + d, is_q, is_v);
                if is_v {
                    value = own;
                } else {
                    let is_first = d < half;
                    let other_d = select(is_first, d + half, d - half);
                    let other = read(q, k, v, first + other_d, is_q, is_v);
                    let a = (own - mean) * inverse_deviation;
                    let b = (other - mean) * inverse_deviation;
                    let normed = scale_shift(a, q_weight, q_bias, k_weight, k_bias, parameters + d, is_q);
                    let partner = scale_shift(b, q_weight, q_bias, k_weight, k_bias, parameters + other_d, is_q);
                    let angle = (token * half + select(is_first, d, other_d)) as usize;
                    let sine = select(is_first, -sin[angle], sin[angle]);
                    value = fma(normed, cos[angle], partner * sine);
                }
            }
            values[comptime!(e * per + i)] = value;
        }
    }

    let mut inverse = 1.0f32;
    let mut scale = 1.0f32;
    if comptime!(format == KvFormat::Q8_0) {
        // As whole numbers magnitudes are ordered like the values, and what is not finite comes last.
        let mut largest = 0u32;
        #[unroll]
        for i in 0..comptime!(each * per) {
            largest = max(largest, u32::reinterpret(values[i]) & 0x7fff_ffffu32);
        }
        #[unroll]
        for step in 0..comptime!(lanes.ilog2()) {
            largest = max(largest, plane_shuffle_xor(largest, comptime!(1u32 << step)));
        }
        let finite = largest < 0x7f80_0000u32;
        let magnitude = f32::reinterpret(select(finite, largest, 0u32));
        inverse = select(magnitude > 4.0e-37f32, 127.0f32 / magnitude, 0.0f32);
        scale = select(finite, magnitude / 127.0f32, f32::reinterpret(0x7fc0_0000u32 ^ zero));
    }

    if team < n * of_token {
        if is_q {
            #[unroll]
            for e in 0..each {
                let load = comptime!(e as u32) * lanes + lane;
                if load < comptime!(loads as u32) {
                    let to = ((token * heads + head) * comptime!(loads as u32) + load) as usize * comptime!(per / 4);
                    #[unroll]
                    for f in 0..comptime!(per / 4) {
                        let mut four = Float4::new(0.0f32);
                        #[unroll]
                        for i in 0..4usize {
                            four.insert(i, values[comptime!(e * per + f * 4 + i)]);
                        }
                        rotated[to + f] = four;
                    }
                }
            }
        } else {
            let tokens = comptime!(BLOCK_TOKENS as u32);
            let tensor = comptime!(shape.tensor_words() as u32);
            let position = positions[token as usize];
            let block = tables[(rows[token as usize] * table_len + position / tokens) as usize];
            let place = position % tokens;
            let base = block * comptime!(shape.block_words() as u32);
            #[unroll]
            for e in 0..each {
                let load = comptime!(e as u32) * lanes + lane;
                if load < comptime!(loads as u32) {
                    let key = (head * comptime!(loads as u32) + load) * tokens + place;
                    let value = (head * tokens + place) * comptime!(loads as u32) + load;
                    let words = comptime!(LOAD as u32);
                    let to = (base + select(is_v, tensor + value * words, key * words)) as usize;
                    #[unroll]
                    for w in 0..4usize {
                        cache[to + w] = pack(&values, inverse, zero, comptime!(e * per), w, format);
                    }
                }
            }
            if comptime!(format == KvFormat::Q8_0) {
                if lane == 0u32 {
                    let scales = base + comptime!(2 * tensor) + select(is_v, comptime!(kv_heads * tokens), 0u32);
                    cache[(scales + head * tokens + place) as usize] = u32::reinterpret(scale);
                }
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
    let lanes = gpu.lanes();
    let config = Config {
        shape: *shape,
        q_group: group(params.q_weight, params.q_bias, heads),
        k_group: group(params.k_weight, params.k_bias, kv_heads),
        lanes,
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
            gpu.cubes_for(jobs * lanes as usize),
            CubeDim::new_2d(lanes, UNITS / lanes),
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
            rotated.arg(LOAD),
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
