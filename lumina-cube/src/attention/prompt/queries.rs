//! Queries in the registers of matrix instructions.

use cubecl::prelude::*;

use super::flash::Config;
use crate::bits::{Float2, pair_values, round_pair};
use crate::matmul::Float4;
use crate::weights::Format;

/// The two queries of a lane, `lane / 4` and that + 8 of its plane.
#[derive(CubeType)]
pub(super) struct Queries {
    /// For each part, step and query a load of 8 numbers.
    pub(super) words: Array<u32>,
    pub(super) positions: Array<u32>,
    /// What the sums of products are multiplied with.
    pub(super) factors: Array<f32>,
}

/// Loads the queries of a lane, and rounds them. Beside `f16`, which ends at 65,504, a query is multiplied with a power
/// of two first, so that its largest number lies from 2¹⁴ to 2¹⁵. Queries after the last are those of the last.
#[cube]
pub(super) fn load_queries(
    q: &[Float4],
    positions: &[u32],
    first: u32,
    last: u32,
    head: u32,
    lane: u32,
    factor: f32,
    #[comptime] config: Config,
) -> Queries {
    let steps = comptime!(config.steps());
    let loads = comptime!(config.loads() as u32);
    let mut words = Array::<u32>::new(comptime!(config.parts * steps * 8));
    let mut own = Array::<u32>::new(2usize);
    let mut factors = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let token = min(first + lane / 4 + comptime!(half as u32 * 8), last);
        own[half] = positions[token as usize];
        let row = (token * comptime!(config.shape.heads as u32) + head) * comptime!(loads * 2);
        let mut pairs = Array::<Float2>::new(comptime!(steps * 4));
        let mut largest = 0u32;
        #[unroll]
        for s in 0..steps {
            let load = comptime!(s as u32 * 4) + lane % 4;
            let is_inside = load < loads;
            let from = row + min(load, loads - 1u32) * 2u32;
            #[unroll]
            for w in 0..4usize {
                let four = q[(from + comptime!(w as u32 / 2)) as usize];
                let mut pair = Float2::new(0.0f32);
                #[unroll]
                for c in 0..2usize {
                    let value = select(is_inside, four.extract(comptime!(w % 2 * 2 + c)), 0.0f32);
                    pair.insert(c, value);
                    largest = max(largest, u32::reinterpret(value) & 0x7fff_ffffu32);
                }
                pairs[s * 4 + w] = pair;
            }
        }
        let mut power = 1.0f32;
        factors[half] = factor;
        if comptime!(config.format() == Format::F16) {
            #[unroll]
            for step in 0..2u32 {
                largest = max(largest, plane_shuffle_xor(largest, comptime!(1u32 << step)));
            }
            let exponent = clamp(largest >> 23u32, 15u32, 254u32);
            power = f32::reinterpret((268u32 - exponent) << 23u32);
            factors[half] = factor * f32::reinterpret((exponent - 14u32) << 23u32);
        }
        #[unroll]
        for i in 0..comptime!(steps * 4) {
            let pair = pairs[i] * Float2::new(power);
            let word = round_pair(pair, config.format(), config.emulated);
            let place = comptime!(i / 4 * 8 + i % 4);
            words[half * 4 + place] = word;
            if comptime!(config.parts == 2) {
                let rest = pair - pair_values(word, config.format());
                words[comptime!(steps * 8) + half * 4 + place] = round_pair(rest, config.format(), config.emulated);
            }
        }
    }
    Queries { words, positions: own, factors }
}
