//! Up to 32 rows of activations: weights go from memory to registers, and each is read once.

use cubecl::prelude::*;

use super::fragments::{EMULATED_WORDS, Float2, column_scales, multiply, registers, run_factor, step_scales};
use super::{Kind, Launch, PLANE, TILE_OUTPUTS, TILE_ROWS};
use crate::matmul::{Float4, Load, Part, pick};
use crate::weights::Format;

/// The most tiles of eight rows of activations that a plane has.
pub(super) const MAX_TILES: usize = 4;

/// Sums of a tile.
const TILE: usize = TILE_OUTPUTS * TILE_ROWS;

/// Grid: (cubes of all parts, groups of `tiles` · 8 rows). Cube: (32, runs). A plane has a run of `len` steps of k, for 16
/// rows of weights. `loads` are those of a row of weights.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    weights: &[Load],
    scales: &[u32],
    x: &[Load],
    x_scales: &[Float4],
    out: &mut [f32],
    loads: u32,
    len: u32,
    n: u32,
    a: Part,
    b: Part,
    c: Part,
    #[comptime] kind: Kind,
    #[comptime] tiles: usize,
    #[comptime] runs: usize,
) {
    let mut partial = Shared::<[f32]>::new_slice(comptime!(runs * tiles * TILE));
    let scratch_words = comptime!(if kind.emulated { runs * PLANE as usize * EMULATED_WORDS } else { 1 });
    let mut scratch = Shared::<[u32]>::new_slice(scratch_words);
    let unroll = comptime!(if kind.emulated { 1 } else { kind.unroll() });
    let turn = comptime!(unroll as u32);
    let (part, cube) = pick(a, b, c);
    let lane = UNIT_POS_X;
    let plane = UNIT_POS_Y;
    let first = cube * comptime!(TILE_OUTPUTS as u32);
    // Rows that are not there are computed as the last one, and not written.
    let low_row = min(first + lane / 4, part.outputs - 1u32);
    let high_row = min(first + lane / 4 + 8u32, part.outputs - 1u32);
    let (low_at, high_at) = (part.first_load + low_row * loads, part.first_load + high_row * loads);
    let blocks = if comptime!(kind.format == Format::Q8_0) { loads / 2 } else { loads };
    let (low_scale, high_scale) = (part.first_scale + low_row * blocks, part.first_scale + high_row * blocks);
    let steps = comptime!(runs as u32) * len;
    let groups = n.div_ceil(8u32);
    let mut x_groups = Array::<u32>::new(tiles);
    #[unroll]
    for tile in 0..tiles {
        x_groups[tile] = min(CUBE_POS_Y * tiles as u32 + tile as u32, groups - 1u32);
    }

    let mut sums = Sequence::<Array<Float2>>::new();
    #[unroll]
    for _ in 0..tiles {
        let mut tile_sums = Array::<Float2>::new(2usize);
        tile_sums[0] = Float2::new(0.0f32);
        tile_sums[1] = Float2::new(0.0f32);
        sums.push(tile_sums);
    }

    let mut at = plane * len;
    let end = at + len;
    let mut low = Array::<Load>::new(unroll);
    let mut high = Array::<Load>::new(unroll);
    #[unroll]
    for u in 0..unroll {
        let inside = min((at + u as u32) * 4 + lane % 4, loads - 1u32);
        low[u] = weights[(low_at + inside) as usize];
        high[u] = weights[(high_at + inside) as usize];
    }
    while at < end {
        // The next turn's weights are asked for before this turn's products, so that many loads are on their way. The
        // last turn asks for its own again.
        let next = select(at + turn < end, at + turn, at);
        let mut next_low = Array::<Load>::new(unroll);
        let mut next_high = Array::<Load>::new(unroll);
        #[unroll]
        for u in 0..unroll {
            let inside = min((next + u as u32) * 4 + lane % 4, loads - 1u32);
            next_low[u] = weights[(low_at + inside) as usize];
            next_high[u] = weights[(high_at + inside) as usize];
        }
        #[unroll]
        for u in 0..unroll {
            let step = at + u as u32;
            let low_words = registers(low[u], lane, kind);
            let high_words = registers(high[u], lane, kind);
            let low_scales = step_scales(scales, low_scale, step, blocks, kind);
            let high_scales = step_scales(scales, high_scale, step, blocks, kind);
            #[unroll]
            for tile in 0..tiles {
                let place = x_groups[tile] * steps + step;
                let mut x_loads = Array::<Load>::new(comptime!(kind.loads()));
                #[unroll]
                for l in 0..comptime!(kind.loads()) {
                    let load = place * comptime!(kind.loads() as u32) + l as u32;
                    x_loads[l] = x[(load * 32 + lane) as usize];
                }
                let tile_scales = column_scales(x_scales, place, lane, kind);
                multiply(
                    &low_words,
                    &high_words,
                    &low_scales,
                    &high_scales,
                    &x_loads,
                    &tile_scales,
                    sums.index_mut(tile),
                    &mut scratch,
                    kind,
                );
            }
        }
        #[unroll]
        for u in 0..unroll {
            low[u] = next_low[u];
            high[u] = next_high[u];
        }
        at += turn;
    }

    #[unroll]
    for tile in 0..tiles {
        let tile_sums = sums.index(tile);
        let factor = run_factor(x_scales, x_groups[tile], lane, kind);
        #[unroll]
        for half in 0..2usize {
            let pair = tile_sums[half] * factor;
            #[unroll]
            for j in 0..2usize {
                let row = (lane % 4) as usize * 2 + j;
                let output = (lane / 4) as usize + half * 8;
                partial[(plane as usize * tiles + tile) * TILE + row * TILE_OUTPUTS + output] = pair.extract(j);
            }
        }
    }
    sync_cube();
    let mut i = UNIT_POS as usize;
    while i < comptime!(tiles * TILE) {
        let mut sum = 0.0f32;
        #[unroll]
        for run in 0..runs {
            sum = sum + partial[run * comptime!(tiles * TILE) + i];
        }
        let row = CUBE_POS_Y * comptime!((tiles * TILE_ROWS) as u32) + (i / TILE_OUTPUTS) as u32;
        let output = first + (i % TILE_OUTPUTS) as u32;
        if row < n && output < part.outputs {
            out[(part.out + row * part.outputs + output) as usize] = sum;
        }
        i += comptime!(runs * PLANE as usize);
    }
}

pub(super) fn launch(launch: &Launch<'_>) {
    let &Launch { gpu, kind, matrix, n, x, out, .. } = launch;
    let runs = launch.runs();
    let tiles = n.div_ceil(TILE_ROWS).next_power_of_two().min(MAX_TILES);
    let [a, b, c] = launch.places(TILE_OUTPUTS);
    // SAFETY: parts are rows of the matrix, `x` has the groups of `n` rows with all steps, and results have their places.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(c.end, n.div_ceil(tiles * TILE_ROWS) as u32, 1),
            CubeDim::new_2d(PLANE, runs.count as u32),
            matrix.words().arg(4),
            matrix.scales().arg(1),
            x.words.arg(4),
            x.scales.arg(4),
            out.arg(1),
            launch.loads(),
            runs.len as u32,
            n as u32,
            a.arg(),
            b.arg(),
            c.arg(),
            kind,
            tiles,
            runs.count,
        );
    }
}
