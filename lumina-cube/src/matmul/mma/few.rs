//! Up to 32 rows of activations: weights go from memory to registers, and each is read once.

use cubecl::prelude::*;

use super::fragments::{column_scales, multiply, registers, run_factor, step_scales};
use super::{Kind, Launch, TILE_OUTPUTS, TILE_ROWS};
use crate::bits::{Float2, pair_values, round_pair};
use crate::matmul::{Float4, Load, Part, pick};
use crate::tensor_cores::{PLANE, scratch_words, zeros};
use crate::weights::Format;

/// The most tiles of eight rows of activations that a plane has.
pub(super) const MAX_TILES: usize = 4;

/// Sums of a tile.
const TILE: usize = TILE_OUTPUTS * TILE_ROWS;

/// Whether activations are read as they are, and split in registers: they are as many bytes, and a launch less. Only up
/// to eight rows, of which a lane has one, beside `bf16`: beside other formats a row or block has a scale.
pub(crate) const fn takes_plain(kind: Kind, n: usize) -> bool {
    matches!(kind.format, Format::BF16) && n <= TILE_ROWS
}

/// Tiles of 16 rows of weights of a plane: activations are read again for each, which counts where they are many.
pub(crate) const fn output_tiles(tiles: usize) -> usize {
    if tiles == 1 { 1 } else { 2 }
}

/// Grid: (cubes of all parts, groups of `tiles` · 8 rows). Cube: (32, runs). A plane has a run of `len` steps of k,
/// for 16 or 32 rows of weights. `loads` are those of a row of weights.
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
    #[comptime] plain: bool,
) {
    let outputs = comptime!(output_tiles(tiles));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(runs * outputs * tiles * TILE));
    let mut scratch = Shared::<[u32]>::new_slice(comptime!(scratch_words(runs * PLANE as usize, kind.emulated)));
    let unroll = comptime!(if kind.emulated { 1 } else { kind.unroll() / outputs });
    let turn = comptime!(unroll as u32);
    let (part, cube) = pick(a, b, c);
    let lane = UNIT_POS_X;
    let plane = UNIT_POS_Y;
    let first = cube * comptime!((outputs * TILE_OUTPUTS) as u32);
    let blocks = if comptime!(kind.format == Format::Q8_0) { loads / 2 } else { loads };
    // Two rows of weights of each tile. Those that are not there are computed as the last one, and not written.
    let mut w_rows = Array::<u32>::new(comptime!(2 * outputs));
    let mut scale_rows = Array::<u32>::new(comptime!(2 * outputs));
    #[unroll]
    for i in 0..comptime!(2 * outputs) {
        let row = min(first + comptime!(i as u32 * 8) + lane / 4, part.outputs - 1u32);
        w_rows[i] = part.first_load + row * loads;
        scale_rows[i] = part.first_scale + row * blocks;
    }
    // Rows of activations that are not there are read as the last one of their group, which costs nothing.
    let steps = comptime!(runs as u32) * len;
    let groups = n.div_ceil(8u32);
    let mut x_groups = Array::<u32>::new(tiles);
    let mut x_at = Array::<u32>::new(tiles);
    let step_loads = comptime!(kind.loads() as u32 * PLANE);
    #[unroll]
    for tile in 0..tiles {
        let group = min(CUBE_POS_Y * tiles as u32 + tile as u32, groups - 1u32);
        x_groups[tile] = group;
        let x_row = min(lane / 4, n - group * 8 - 1u32);
        x_at[tile] =
            if comptime!(plain) { x_row * loads * 2u32 } else { group * steps * step_loads + x_row * 4 + lane % 4 };
    }

    let mut sums = Sequence::<Array<Float2>>::new();
    #[unroll]
    for _ in 0..comptime!(outputs * tiles) {
        sums.push(zeros());
    }

    let mut at = plane * len;
    let end = at + len;
    let mut loaded = Array::<Load>::new(comptime!(2 * outputs * unroll));
    #[unroll]
    for u in 0..unroll {
        let inside = min((at + u as u32) * 4 + lane % 4, loads - 1u32);
        #[unroll]
        for i in 0..comptime!(2 * outputs) {
            loaded[u * 2 * outputs + i] = weights[(w_rows[i] + inside) as usize];
        }
    }
    while at < end {
        // The next turn's weights are asked for before this turn's products, so that many loads are on their way. The
        // last turn asks for its own again.
        let next = select(at + turn < end, at + turn, at);
        let mut next_loaded = Array::<Load>::new(comptime!(2 * outputs * unroll));
        #[unroll]
        for u in 0..unroll {
            let inside = min((next + u as u32) * 4 + lane % 4, loads - 1u32);
            #[unroll]
            for i in 0..comptime!(2 * outputs) {
                next_loaded[u * 2 * outputs + i] = weights[(w_rows[i] + inside) as usize];
            }
        }
        #[unroll]
        for u in 0..unroll {
            let step = at + u as u32;
            #[unroll]
            for o in 0..outputs {
                let low = registers(loaded[(u * outputs + o) * 2], lane, kind);
                let high = registers(loaded[(u * outputs + o) * 2 + 1], lane, kind);
                let low_scales = step_scales(scales, scale_rows[o * 2], step, blocks, kind);
                let high_scales = step_scales(scales, scale_rows[o * 2 + 1], step, blocks, kind);
                #[unroll]
                for tile in 0..tiles {
                    let mut x_loads = Array::<Load>::new(comptime!(kind.loads()));
                    if comptime!(plain) {
                        split_plain(x, x_at[tile], step * 4 + lane % 4, loads, &mut x_loads, kind);
                    } else {
                        #[unroll]
                        for l in 0..comptime!(kind.loads()) {
                            let place = x_at[tile] + step * step_loads + comptime!(l as u32 * PLANE);
                            x_loads[l] = x[place as usize];
                        }
                    }
                    let tile_scales = column_scales(x_scales, x_groups[tile] * steps + step, lane, kind);
                    multiply(
                        &low,
                        &high,
                        &low_scales,
                        &high_scales,
                        &x_loads,
                        &tile_scales,
                        sums.index_mut(comptime!(o * tiles + tile)),
                        &mut scratch,
                        kind,
                    );
                }
            }
        }
        #[unroll]
        for i in 0..comptime!(2 * outputs * unroll) {
            loaded[i] = next_loaded[i];
        }
        at += turn;
    }

    #[unroll]
    for i in 0..comptime!(outputs * tiles) {
        let tile_sums = sums.index(i);
        let factor = run_factor(x_scales, x_groups[i % tiles], lane, kind);
        #[unroll]
        for half in 0..2usize {
            let pair = tile_sums[half] * factor;
            #[unroll]
            for j in 0..2usize {
                let row = (lane % 4) as usize * 2 + j;
                let output = (lane / 4) as usize + half * 8;
                let place = (plane as usize * comptime!(outputs * tiles) + i) * TILE;
                partial[place + row * TILE_OUTPUTS + output] = pair.extract(j);
            }
        }
    }
    sync_cube();
    let mut i = UNIT_POS as usize;
    while i < comptime!(outputs * tiles * TILE) {
        let mut sum = 0.0f32;
        #[unroll]
        for run in 0..runs {
            sum += partial[run * comptime!(outputs * tiles * TILE) + i];
        }
        let tile = i / TILE;
        let group = CUBE_POS_Y * tiles as u32 + (tile % tiles) as u32;
        let row = group * 8 + (i % TILE / TILE_OUTPUTS) as u32;
        let output = first + (tile / tiles * TILE_OUTPUTS + i % TILE_OUTPUTS) as u32;
        if row < n && output < part.outputs {
            out[(part.out + row * part.outputs + output) as usize] = sum;
        }
        i += comptime!(runs * PLANE as usize);
    }
}

/// Eight numbers of a row of activations that begins at the load `row`, in one load for each part: those beside the
/// load `at` of the weights, or zeros beyond their end.
#[cube]
fn split_plain(x: &[Load], row: u32, at: u32, loads: u32, parts: &mut Array<Load>, #[comptime] kind: Kind) {
    let is_inside = at < loads;
    let from = (row + min(at, loads - 1u32) * 2u32) as usize;
    let mut high = Load::new(0u32);
    let mut low = Load::new(0u32);
    #[unroll]
    for w in 0..4usize {
        let four = x[from + w / 2];
        let mut pair = Float2::new(0.0f32);
        #[unroll]
        for c in 0..2usize {
            pair.insert(c, f32::reinterpret(select(is_inside, four.extract(comptime!(w % 2 * 2 + c)), 0u32)));
        }
        let word = round_pair(pair, kind.format, kind.emulated);
        high.insert(w, word);
        low.insert(w, round_pair(pair - pair_values(word, kind.format), kind.format, kind.emulated));
    }
    parts[0] = high;
    if comptime!(kind.parts == 2) {
        parts[1] = low;
    }
}

pub(super) fn launch(launch: &Launch<'_>) {
    let &Launch { gpu, kind, matrix, n, x, out, .. } = launch;
    let runs = launch.runs();
    let tiles = n.div_ceil(TILE_ROWS).next_power_of_two().min(MAX_TILES);
    let [a, b, c] = launch.places(output_tiles(tiles) * TILE_OUTPUTS);
    // SAFETY: parts are rows of the matrix, `x` has the groups of `n` rows with all steps, or these rows as they are,
    // and results have their places.
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
            takes_plain(kind, n),
        );
    }
}
