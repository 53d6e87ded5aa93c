//! More than 32 rows of activations: tiles of weights and activations go through shared memory, which the planes of a
//! cube read together.

use cubecl::prelude::*;

use super::few::MAX_TILES as MAX_FEW_TILES;
use super::fragments::{column_scales, multiply, registers, run_factor, step_scales};
use super::{Kind, Launch, TILE_OUTPUTS, TILE_ROWS};
use crate::bits::Float2;
use crate::matmul::{Float4, Load, Part, pick};
use crate::tensor_cores::{PLANE, scratch_words, zeros};
use crate::weights::Format;

/// How a cube's tile is dealt to its planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    /// Tiles of 16 rows of weights of a plane: a divisor of half the planes along the rows of activations.
    pub(super) outputs: usize,
    /// Tiles of 8 rows of activations of a plane.
    pub(super) rows: usize,
    /// Planes along the weights: a divisor of `rows`.
    pub(super) output_planes: usize,
    /// Planes along the activations: a divisor of twice `outputs`.
    pub(super) row_planes: usize,
}

impl Tile {
    /// 128 × 128.
    pub(super) const LARGE: Self = Self { outputs: 4, rows: 4, output_planes: 2, row_planes: 4 };
    /// 64 × 128.
    pub(super) const MIDDLE: Self = Self { outputs: 2, rows: 4, output_planes: 2, row_planes: 4 };
    /// 64 × 64.
    pub(super) const SMALL: Self = Self { outputs: 2, rows: 2, output_planes: 2, row_planes: 4 };

    const fn planes(self) -> usize {
        self.output_planes * self.row_planes
    }

    /// Rows of weights.
    const fn cube_outputs(self) -> usize {
        self.outputs * self.output_planes * TILE_OUTPUTS
    }

    /// Rows of activations.
    const fn cube_rows(self) -> usize {
        self.rows * self.row_planes * TILE_ROWS
    }

    /// Loads of weights that a unit brings to shared memory, for a step.
    const fn unit_loads(self) -> usize {
        2 * self.outputs / self.row_planes
    }

    /// Loads of activations that a unit brings.
    const fn unit_x_loads(self, kind: Kind) -> usize {
        self.rows * kind.loads() / self.output_planes
    }

    /// The tile for `n` rows of activations.
    pub(crate) fn new(kind: Kind, n: usize) -> Self {
        if n <= Self::SMALL.cube_rows() {
            Self::SMALL
        } else if kind.format.has_scales() {
            // Scales take registers, too.
            Self::MIDDLE
        } else {
            Self::LARGE
        }
    }
}

/// Grid: (cubes of all parts, tiles of rows, runs if they are split). Cube: (32, planes). `loads` are those of a row of
/// weights, `len` steps of a run, `runs` their number. If they are split, a cube has one, and its sums go to the run's
/// `stride` numbers of `out`.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    weights: &[Load],
    scales: &[u32],
    x: &[Load],
    x_scales: &[Float4],
    out: &mut [f32],
    loads: u32,
    len: u32,
    runs: u32,
    stride: u32,
    n: u32,
    a: Part,
    b: Part,
    c: Part,
    #[comptime] kind: Kind,
    #[comptime] tile: Tile,
    #[comptime] split: bool,
) {
    let w_stage = comptime!(tile.cube_outputs() * 4);
    let x_stage = comptime!(tile.rows * tile.row_planes * kind.loads() * PLANE as usize);
    let mut w_shared = Shared::<[Load]>::new_slice(comptime!(2 * w_stage));
    let mut x_shared = Shared::<[Load]>::new_slice(comptime!(2 * x_stage));
    let units = comptime!(tile.planes() * PLANE as usize);
    let mut scratch = Shared::<[u32]>::new_slice(comptime!(scratch_words(units, kind.emulated)));
    let tiles = comptime!(tile.outputs * tile.rows);

    let (part, cube) = pick(a, b, c);
    let unit = UNIT_POS;
    let lane = UNIT_POS_X;
    let first = cube * comptime!(tile.cube_outputs() as u32);
    let first_group = CUBE_POS_Y * comptime!((tile.rows * tile.row_planes) as u32);
    let last_group = n.div_ceil(8u32) - 1u32;
    let steps = runs * len;
    let blocks = if comptime!(kind.format == Format::Q8_0) { loads / 2 } else { loads };

    // What a unit brings: loads `unit`, `unit + units` … of a step, in the order of tiles, halves and lanes. Rows and
    // groups that are not there are those of the last one.
    let mut w_rows = Array::<u32>::new(comptime!(tile.unit_loads()));
    #[unroll]
    for i in 0..comptime!(tile.unit_loads()) {
        let index = unit + (i * units) as u32;
        let row = first + index / 64 * 16 + index / 32 % 2 * 8 + index % 32 / 4;
        w_rows[i] = part.first_load + min(row, part.outputs - 1u32) * loads;
    }
    let group_loads = comptime!(kind.loads() as u32 * PLANE);
    let mut x_rows = Array::<u32>::new(comptime!(tile.unit_x_loads(kind)));
    #[unroll]
    for i in 0..comptime!(tile.unit_x_loads(kind)) {
        let index = unit + (i * units) as u32;
        let group = min(first_group + index / group_loads, last_group);
        x_rows[i] = group * steps * group_loads + index % group_loads;
    }

    // The plane's tiles.
    let w_tile = UNIT_POS_Y / comptime!(tile.row_planes as u32) * comptime!(tile.outputs as u32);
    let x_tile = UNIT_POS_Y % comptime!(tile.row_planes as u32) * comptime!(tile.rows as u32);
    let mut scale_rows = Array::<u32>::new(comptime!(2 * tile.outputs));
    #[unroll]
    for i in 0..comptime!(2 * tile.outputs) {
        let row = first + (w_tile + comptime!(i as u32 / 2)) * 16 + comptime!(i as u32 % 2 * 8) + lane / 4;
        scale_rows[i] = part.first_scale + min(row, part.outputs - 1u32) * blocks;
    }
    let mut x_groups = Array::<u32>::new(comptime!(tile.rows));
    #[unroll]
    for i in 0..comptime!(tile.rows) {
        x_groups[i] = min(first_group + x_tile + i as u32, last_group);
    }

    // Sums of the run, and of those before it.
    let mut sums = Sequence::<Array<Float2>>::new();
    let mut totals = Sequence::<Array<Float2>>::new();
    #[unroll]
    for _ in 0..tiles {
        sums.push(zeros());
        totals.push(zeros());
    }

    // Without a split the grid has one layer.
    let start = CUBE_POS_Z * len;
    let end = if comptime!(split) { start + len } else { steps };
    #[unroll]
    for i in 0..comptime!(tile.unit_loads()) {
        let inside = min(start * 4 + lane % 4, loads - 1u32);
        w_shared[unit as usize + i * units] = weights[(w_rows[i] + inside) as usize];
    }
    #[unroll]
    for i in 0..comptime!(tile.unit_x_loads(kind)) {
        x_shared[unit as usize + i * units] = x[(x_rows[i] + start * group_loads) as usize];
    }
    sync_cube();

    let mut step = start;
    let mut run_end = start + len;
    let mut stage = 0usize;
    while step < end {
        // The next step is on its way while this one is multiplied; the last one comes again.
        let next = min(step + 1u32, end - 1u32);
        let mut w_next = Array::<Load>::new(comptime!(tile.unit_loads()));
        #[unroll]
        for i in 0..comptime!(tile.unit_loads()) {
            let inside = min(next * 4 + lane % 4, loads - 1u32);
            w_next[i] = weights[(w_rows[i] + inside) as usize];
        }
        let mut x_next = Array::<Load>::new(comptime!(tile.unit_x_loads(kind)));
        #[unroll]
        for i in 0..comptime!(tile.unit_x_loads(kind)) {
            x_next[i] = x[(x_rows[i] + next * group_loads) as usize];
        }

        #[unroll]
        for i in 0..comptime!(tile.outputs) {
            let place = stage * w_stage + (w_tile as usize + i) * 64 + lane as usize;
            let low = registers(w_shared[place], lane, kind);
            let high = registers(w_shared[place + 32], lane, kind);
            let low_scales = step_scales(scales, scale_rows[i * 2], step, blocks, kind);
            let high_scales = step_scales(scales, scale_rows[i * 2 + 1], step, blocks, kind);
            #[unroll]
            for j in 0..comptime!(tile.rows) {
                let place = stage * x_stage + (x_tile as usize + j) * group_loads as usize + lane as usize;
                let mut x_loads = Array::<Load>::new(comptime!(kind.loads()));
                #[unroll]
                for l in 0..comptime!(kind.loads()) {
                    x_loads[l] = x_shared[place + l * 32];
                }
                let place = x_groups[j] * steps + step;
                let tile_scales = column_scales(x_scales, place, lane, kind);
                multiply(
                    &low,
                    &high,
                    &low_scales,
                    &high_scales,
                    &x_loads,
                    &tile_scales,
                    sums.index_mut(comptime!(i * tile.rows + j)),
                    &mut scratch,
                    kind,
                );
            }
        }

        stage = 1 - stage;
        #[unroll]
        for i in 0..comptime!(tile.unit_loads()) {
            w_shared[stage * w_stage + unit as usize + i * units] = w_next[i];
        }
        #[unroll]
        for i in 0..comptime!(tile.unit_x_loads(kind)) {
            x_shared[stage * x_stage + unit as usize + i * units] = x_next[i];
        }
        step += 1u32;
        #[allow(clippy::collapsible_if, reason = "one is decided when the kernel is compiled")]
        if comptime!(!split) {
            if step == run_end {
                run_end += len;
                #[unroll]
                for i in 0..tiles {
                    let factor = run_factor(x_scales, x_groups[i % tile.rows], lane, kind);
                    add_run(sums.index_mut(i), totals.index_mut(i), factor);
                }
            }
        }
        sync_cube();
    }

    let base = part.out + CUBE_POS_Z * stride;
    #[unroll]
    for i in 0..tiles {
        if comptime!(split) {
            let factor = run_factor(x_scales, x_groups[i % tile.rows], lane, kind);
            add_run(sums.index_mut(i), totals.index_mut(i), factor);
        }
        let total = totals.index(i);
        #[unroll]
        for half in 0..2usize {
            let pair = total[half];
            let output = first + (w_tile + comptime!((i / tile.rows) as u32)) * 16 + half as u32 * 8 + lane / 4;
            #[unroll]
            for j in 0..2usize {
                let group = first_group + x_tile + comptime!((i % tile.rows) as u32);
                let row = group * 8 + lane % 4 * 2 + j as u32;
                if row < n && output < part.outputs {
                    out[(base + row * part.outputs + output) as usize] = pair.extract(j);
                }
            }
        }
    }
}

/// Adds the sums of a run to those of the runs before it, and begins the next one.
#[cube]
fn add_run(sums: &mut Array<Float2>, totals: &mut Array<Float2>, factor: Float2) {
    #[unroll]
    for half in 0..2usize {
        totals[half] += sums[half] * factor;
        sums[half] = Float2::new(0.0f32);
    }
}

/// Adds the runs' sums in their order. A unit has a number.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn add_runs_kernel(partial: &[f32], out: &mut [f32], first: u32, len: u32, runs: u32) {
    let at = ABSOLUTE_POS;
    if (at as u32) < len {
        let mut sum = 0.0f32;
        let mut from = at;
        for _ in 0..runs {
            sum += partial[from];
            from += len as usize;
        }
        out[first as usize + at] = sum;
    }
}

pub(super) fn launch(launch: &Launch<'_>) {
    let &Launch { gpu, kind, n, .. } = launch;
    let tile = Tile::new(kind, n);
    let cubes = launch.places(tile.cube_outputs())[2].end as usize * n.div_ceil(tile.cube_rows());
    // Too few cubes leave part of the device idle: each then has a run, and the sums take a second kernel.
    let processors = gpu.client().properties().hardware.num_streaming_multiprocessors.unwrap_or(64);
    launch_with(launch, tile, cubes < processors as usize);
}

pub(super) fn launch_with(launch: &Launch<'_>, tile: Tile, split: bool) {
    let &Launch { gpu, kind, matrix, n, x, out, .. } = launch;
    let runs = launch.runs();
    let split = split && runs.count > 1;
    let mut places = launch.places(tile.cube_outputs());
    let used = places.iter().filter(|place| place.outputs > 0);
    let first = used.clone().map(|place| place.out).min().unwrap_or(0);
    let last = used.map(|place: &Part| place.out + n as u32 * place.outputs).max().unwrap_or(0);
    let stride = last - first;
    let partial = split.then(|| gpu.empty(runs.count * stride as usize));
    if split {
        places = places.map(|place| Part { out: place.out.saturating_sub(first), ..place });
    }
    let count = if split { runs.count } else { 1 };
    let [a, b, c] = places;
    // SAFETY: parts are rows of the matrix, `x` has the groups of `n` rows with all steps, and results have their
    // places, in each run's part of `partial` if there is one.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(c.end, n.div_ceil(tile.cube_rows()) as u32, count as u32),
            CubeDim::new_2d(PLANE, tile.planes() as u32),
            matrix.words().arg(4),
            matrix.scales().arg(1),
            x.words.arg(4),
            x.scales.arg(4),
            partial.as_ref().unwrap_or(out).arg(1),
            launch.loads(),
            runs.len as u32,
            runs.count as u32,
            stride,
            n as u32,
            a.arg(),
            b.arg(),
            c.arg(),
            kind,
            tile,
            split,
        );
        if let Some(partial) = partial {
            add_runs_kernel::launch_unchecked(
                gpu.client(),
                gpu.cubes_for(stride as usize),
                CubeDim::new_1d(256),
                partial.arg(1),
                out.arg(1),
                first,
                stride,
                runs.count as u32,
            );
        }
    }
}

const _: () = assert!(MAX_FEW_TILES * TILE_ROWS < Tile::SMALL.cube_rows());
