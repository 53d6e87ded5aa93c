//! Convolutions with 3×3 kernels by Winograd's minimal filtering, F(4×4, 3×3): 16 outputs of a channel pair take 36
//! multiplications instead of 144 (Lavin and Gray, arXiv 1509.09308).
//!
//! Input tiles of 6×6 and the 3×3 weights are transformed. At each of the 36 points of the transformed tiles the
//! convolution is a matmul, `[out_channels, in_channels] · [in_channels, tiles]`. Its results are transformed back to
//! 4×4 outputs. The interpolation points 0, ±√½, ±√2 and ∞ have less than half the rounding error of the usual 0, ±1,
//! ±2. The order of each sum depends on the shape alone.
//!
//! The lanes of a vector are tiles: neighbours in a row of the image, and where the image is narrow, those below as
//! well.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::parallel::*;

use super::conv3x3::Conv3x3Shape;
use super::output::{OutputPlanes, OutputPosition};
use crate::simd::{F32s, LANES, Simd, simd_dispatch};

/// Rows, or columns, of the outputs of a tile.
const OUTPUT_TILE: usize = 4;
/// Rows, or columns, of the inputs of a tile.
const INPUT_TILE: usize = OUTPUT_TILE + 2;
/// Points of a transformed tile.
const POINTS: usize = INPUT_TILE * INPUT_TILE;
/// Output channels whose weights are packed together.
const BLOCK: usize = 8;
/// Output channels that are multiplied before they are transformed back: enough to read transformed inputs often, few
/// enough that their sums stay in the cache.
const GROUP: usize = 4 * BLOCK;
/// Vectors of tiles that are transformed together, one below the other.
const VECTORS: usize = 2;
/// Rows of the input that they read.
const INPUT_ROWS: usize = VECTORS * OUTPUT_TILE + 2;
/// Tiles that are transformed together.
const TILES: usize = VECTORS * LANES;
/// Distance of the sums of a point from those of the next. With a power of two they would share lines of the cache;
/// also in [`point_stride`].
const SUM_STRIDE: usize = GROUP * TILES + LANES;

/// Distance of the transformed inputs of a point from those of the next.
fn point_stride(in_channels: usize) -> usize {
    in_channels * TILES + LANES
}

/// Whether the transforms cost less than they save.
pub(super) fn pays(shape: &Conv3x3Shape) -> bool {
    shape.stride == 1
        && shape.in_channels >= 16
        && shape.out_channels >= 16
        && shape.output_height() >= 4
        && shape.output_width() >= 8
}

/// Convolves `x` `[batch, in_channels, height, width]` with `weight` `[out_channels, in_channels, 3, 3]` into `output`.
pub(super) fn forward(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    shape: &Conv3x3Shape,
    output: &OutputPlanes<'_>,
) {
    let weights = transform_weights(weight, shape);
    let across = shape.output_width().div_ceil(OUTPUT_TILE).next_power_of_two().clamp(4, LANES);
    let task_rows = TILES / across * OUTPUT_TILE;
    let row_tasks = shape.output_height().div_ceil(task_rows);
    let (tasks, groups) = (shape.batch * row_tasks, shape.out_channels.div_ceil(GROUP));
    // Small images have few tasks. Threads then share the output channels as well, and each transforms the inputs by
    // itself.
    let shares = (4 * current_num_threads()).div_ceil(tasks.max(1)).clamp(1, groups.max(1));
    let share_groups = groups.div_ceil(shares).max(1);
    let shares = groups.div_ceil(share_groups);
    (0..tasks * shares).into_par_iter().for_each_init(Vec::new, |memory, task| {
        let (task, share) = (task / shares, task % shares);
        let (image, row) = (task / row_tasks, task % row_tasks * task_rows);
        let size = shape.in_channels * shape.height * shape.width;
        let x = &x[image * size..][..size];
        let groups = share * share_groups..groups.min((share + 1) * share_groups);
        let (first, end) = (groups.start * GROUP, shape.out_channels.min(groups.end * GROUP));
        for column in (0..shape.output_width()).step_by(across * OUTPUT_TILE) {
            let work = Work { x, shape, weights: &weights, bias, image, row, column, across, output };
            convolve_tiles(&work, first, end, memory);
        }
    });
}

/// Transforms the weights, those of [`BLOCK`] output channels together: `[blocks, POINTS, in_channels, BLOCK]`.
fn transform_weights(weight: &[f32], shape: &Conv3x3Shape) -> Vec<f32> {
    let Conv3x3Shape { in_channels, out_channels, .. } = *shape;
    let size = POINTS * in_channels * BLOCK;
    let mut transformed = vec![0.0; out_channels.div_ceil(BLOCK) * size];
    let blocks = transformed.par_chunks_mut(size.max(1)).zip(weight.par_chunks((BLOCK * in_channels * 9).max(1)));
    blocks.for_each(|(block, weight)| transform_block(weight, in_channels, block));
    transformed
}

simd_dispatch!(fn transform_block(weight: &[f32], in_channels: usize, block: &mut [f32]) = transform_block_body);

/// Transforms the weights of [`BLOCK`] output channels, or of the last few.
#[inline(always)]
fn transform_block_body<S: Simd>(_: S, weight: &[f32], in_channels: usize, block: &mut [f32]) {
    for input in 0..in_channels {
        let mut taps = [[0.0; BLOCK]; 9];
        for (channel, weight) in weight.chunks_exact(in_channels * 9).enumerate() {
            for (taps, weight) in taps.iter_mut().zip(&weight[input * 9..]) {
                taps[channel] = *weight;
            }
        }
        let [a, b, c, d, e, f, g, h, i] = taps;
        let (top, middle, bottom) = (transform_taps([a, b, c]), transform_taps([d, e, f]), transform_taps([g, h, i]));
        let columns = top.into_iter().zip(middle).zip(bottom);
        for (column, ((top, middle), bottom)) in columns.enumerate() {
            for (row, values) in transform_taps([top, middle, bottom]).into_iter().enumerate() {
                let at = ((row * INPUT_TILE + column) * in_channels + input) * BLOCK;
                block[at..at + BLOCK].copy_from_slice(&values);
            }
        }
    }
}

/// Three weights in one direction, at the six interpolation points.
#[inline(always)]
fn transform_taps([a, b, c]: [[f32; BLOCK]; 3]) -> [[f32; BLOCK]; INPUT_TILE] {
    let mut points = [a, a, a, a, a, c];
    for channel in 0..BLOCK {
        let (a, b, c) = (a[channel], b[channel], c[channel]);
        let (near, far) = ((a + 0.5 * c) * (-2.0 / 3.0), (a + 2.0 * c) * (1.0 / 6.0));
        let (near_odd, far_odd) = (b * (-2.0 / 3.0 * FRAC_1_SQRT_2), b * (SQRT_2 / 6.0));
        points[1][channel] = near + near_odd;
        points[2][channel] = near - near_odd;
        points[3][channel] = far + far_odd;
        points[4][channel] = far - far_odd;
    }
    points
}

/// [`TILES`] tiles of an image.
struct Work<'a> {
    /// The image, `[in_channels, height, width]`.
    x: &'a [f32],
    shape: &'a Conv3x3Shape,
    /// From [`transform_weights`].
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    image: usize,
    /// First row of the output.
    row: usize,
    /// First column of the output.
    column: usize,
    /// Tiles of a vector that are neighbours in a row.
    across: usize,
    output: &'a OutputPlanes<'a>,
}

simd_dispatch!(fn convolve_tiles(
    work: &Work<'_>, first: usize, end: usize, memory: &mut Vec<f32>
) = convolve_tiles_body);

/// Computes the output channels from `first`, the first of a group, to `end`.
#[inline(always)]
fn convolve_tiles_body<S: Simd>(simd: S, work: &Work<'_>, first: usize, end: usize, memory: &mut Vec<f32>) {
    let in_channels = work.shape.in_channels;
    // Transformed inputs [POINTS, in_channels, TILES], then sums [POINTS, GROUP, TILES], each with gaps after a point.
    let inputs_len = POINTS * point_stride(in_channels);
    if memory.len() < inputs_len + POINTS * SUM_STRIDE {
        memory.resize(inputs_len + POINTS * SUM_STRIDE, 0.0);
    }
    let (inputs, sums) = memory.split_at_mut(inputs_len);
    let mut rows = [[simd.splat(0.0); INPUT_TILE]; INPUT_ROWS];
    for input in 0..in_channels {
        transform_tiles(simd, work, input, &mut rows, inputs);
    }
    for group in (first..end).step_by(GROUP) {
        let end = end.min(group + GROUP);
        for (point, sums) in sums.chunks_exact_mut(SUM_STRIDE).enumerate() {
            let inputs = &inputs[point * point_stride(in_channels)..][..in_channels * TILES];
            let inputs = inputs.as_chunks::<TILES>().0;
            for channel in (group..end).step_by(BLOCK) {
                let weights = &work.weights[(channel / BLOCK * POINTS + point) * in_channels * BLOCK..];
                let weights = weights[..in_channels * BLOCK].as_chunks::<BLOCK>().0;
                let sums = &mut sums[(channel - group) * TILES..][..BLOCK * TILES];
                if S::WIDE_TILES {
                    multiply::<S, BLOCK, VECTORS>(simd, weights, inputs, 0, 0, sums);
                } else {
                    for tile in (0..TILES).step_by(LANES) {
                        multiply::<S, 4, 1>(simd, weights, inputs, 0, tile, sums);
                        multiply::<S, 4, 1>(simd, weights, inputs, 4, tile, sums);
                    }
                }
            }
        }
        for channel in group..end {
            store_tiles(simd, work, channel, &sums[(channel - group) * TILES..]);
        }
    }
}

/// The matmul of a point for `R` output channels from `channel` on, and `N` vectors of tiles from `tile` on.
#[inline(always)]
fn multiply<S: Simd, const R: usize, const N: usize>(
    simd: S,
    weights: &[[f32; BLOCK]],
    inputs: &[[f32; TILES]],
    channel: usize,
    tile: usize,
    result: &mut [f32],
) {
    let mut sums = [[simd.splat(0.0); N]; R];
    for (weights, inputs) in weights.iter().zip(inputs) {
        let mut x = [simd.splat(0.0); N];
        for (vector, x) in x.iter_mut().enumerate() {
            *x = simd.load(&inputs[tile + vector * LANES..]);
        }
        for (sums, weight) in sums.iter_mut().zip(&weights[channel..channel + R]) {
            let weight = simd.splat(*weight);
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = sum.multiply_add(weight, x);
            }
        }
    }
    for (index, sums) in sums.into_iter().enumerate() {
        for (vector, sum) in sums.into_iter().enumerate() {
            let result = &mut result[(channel + index) * TILES + tile + vector * LANES..][..LANES];
            result.copy_from_slice(&sum.to_array());
        }
    }
}

/// Six inputs in one direction, at the points of [`transform_taps`].
#[inline(always)]
fn transform_inputs<S: Simd>(simd: S, [a, b, c, d, e, f]: [S::F32s; INPUT_TILE]) -> [S::F32s; INPUT_TILE] {
    let factors = [simd.splat(-2.5), simd.splat(-2.0), simd.splat(-0.5), simd.splat(FRAC_1_SQRT_2), simd.splat(SQRT_2)];
    let near = (e.multiply_add(factors[1], c), d.multiply_add(factors[1], b) * factors[3]);
    let far = (e.multiply_add(factors[2], c), d.multiply_add(factors[2], b) * factors[4]);
    [
        (a + e).multiply_add(factors[0], c),
        near.0 + near.1,
        near.0 - near.1,
        far.0 + far.1,
        far.0 - far.1,
        (b + f).multiply_add(factors[0], d),
    ]
}

/// The four outputs in one direction of sums at the six points.
#[inline(always)]
fn transform_sums<S: Simd>(simd: S, [a, b, c, d, e, f]: [S::F32s; INPUT_TILE]) -> [S::F32s; OUTPUT_TILE] {
    let (near, far) = ((b + c, b - c), (d + e, d - e));
    let (near_odd, far_odd) = (near.1 * simd.splat(FRAC_1_SQRT_2), far.1 * simd.splat(SQRT_2));
    let (half, two) = (simd.splat(0.5), simd.splat(2.0));
    [
        a + near.0 + far.0,
        near_odd + far_odd,
        (near.0 * half).multiply_add(two, far.0),
        f.multiply_add(half, near_odd).multiply_add(two, far_odd),
    ]
}

// No closures below, nor functions that take them: the compiler may leave them out of line, without the instruction set
// of their caller.

/// Row `row` of each line of tiles, of one input channel, transformed along the row.
#[inline(always)]
fn transform_row<S: Simd>(simd: S, work: &Work<'_>, input: usize, row: usize) -> [S::F32s; INPUT_TILE] {
    let Work { x, shape, column, across, .. } = *work;
    let Conv3x3Shape { height, width, padding, .. } = *shape;
    let (plane, row) = (input * height, work.row + row);
    // For each tile, the first four columns, and those after them.
    if across == LANES && column + OUTPUT_TILE * LANES <= width && row >= padding.top && row - padding.top < height {
        let start = ((plane + row - padding.top) * width + column).wrapping_sub(1);
        // At the left and right edge of the image this reads the end of another row, which is then replaced by zero.
        if let Some(tiles) = x.get(start..start.saturating_add(OUTPUT_TILE * (LANES + 1))) {
            let tiles = tiles.as_chunks::<OUTPUT_TILE>().0;
            let ([mut a, b, c, d], [e, mut f, ..]) =
                (simd.load_deinterleaved(tiles), simd.load_deinterleaved(&tiles[1..]));
            if column == 0 {
                a = a.zero_first();
            }
            if column + OUTPUT_TILE * LANES == width {
                f = f.zero_last();
            }
            return transform_inputs(simd, [a, b, c, d, e, f]);
        }
    }
    let (mut near, mut far) = ([[0.0; OUTPUT_TILE]; LANES], [[0.0; OUTPUT_TILE]; LANES]);
    for line in 0..LANES / across {
        let row = row + line * VECTORS * OUTPUT_TILE;
        if row >= padding.top && row - padding.top < height {
            let row = &x[(plane + row - padding.top) * width..][..width];
            let lanes = line * across..(line + 1) * across;
            copy_columns(row, column, near[lanes.clone()].as_flattened_mut());
            copy_columns(row, column + OUTPUT_TILE, far[lanes].as_flattened_mut());
        }
    }
    let ([a, b, c, d], [e, f, ..]) = (simd.load_deinterleaved(&near), simd.load_deinterleaved(&far));
    transform_inputs(simd, [a, b, c, d, e, f])
}

/// Copies the columns of a row from `column - 1` on, as far as the row has them.
#[inline(always)]
fn copy_columns(row: &[f32], column: usize, to: &mut [f32]) {
    let (from, skip) = (column.saturating_sub(1).min(row.len()), usize::from(column == 0));
    let n = (to.len() - skip).min(row.len() - from);
    to[skip..skip + n].copy_from_slice(&row[from..from + n]);
}

/// Transforms the tiles of an input channel. `rows` is overwritten.
#[inline(always)]
fn transform_tiles<S: Simd>(
    simd: S,
    work: &Work<'_>,
    input: usize,
    rows: &mut [[S::F32s; INPUT_TILE]; INPUT_ROWS],
    inputs: &mut [f32],
) {
    let in_channels = work.shape.in_channels;
    for (index, row) in rows.iter_mut().enumerate() {
        *row = transform_row(simd, work, input, index);
    }
    for vector in 0..VECTORS {
        for column in 0..INPUT_TILE {
            let mut tile = [simd.splat(0.0); INPUT_TILE];
            for (value, row) in tile.iter_mut().zip(&rows[vector * OUTPUT_TILE..]) {
                *value = row[column];
            }
            for (row, values) in transform_inputs(simd, tile).into_iter().enumerate() {
                let point = row * INPUT_TILE + column;
                let at = point * point_stride(in_channels) + input * TILES + vector * LANES;
                inputs[at..at + LANES].copy_from_slice(&values.to_array());
            }
        }
    }
}

/// Transforms the sums of an output channel back, adds the bias, and stores the outputs.
#[inline(always)]
fn store_tiles<S: Simd>(simd: S, work: &Work<'_>, channel: usize, sums: &[f32]) {
    let Work { shape, image, row: first_row, column, across, output, .. } = *work;
    let bias = match work.bias {
        Some(bias) => simd.splat(bias[channel]),
        None => simd.splat(0.0),
    };
    let plane = image * shape.out_channels + channel;
    for vector in 0..VECTORS {
        let mut rows = [[simd.splat(0.0); INPUT_TILE]; OUTPUT_TILE];
        for column in 0..INPUT_TILE {
            let mut points = [simd.splat(0.0); INPUT_TILE];
            for (row, point) in points.iter_mut().enumerate() {
                *point = simd.load(&sums[(row * INPUT_TILE + column) * SUM_STRIDE + vector * LANES..]);
            }
            for (row, value) in rows.iter_mut().zip(transform_sums(simd, points)) {
                row[column] = value;
            }
        }
        for (row, columns) in rows.into_iter().enumerate() {
            let mut values = transform_sums(simd, columns);
            for value in &mut values {
                *value = *value + bias;
            }
            for (index, values) in S::F32s::interleave(values).as_chunks::<LANES>().0.iter().enumerate() {
                // A chunk is four tiles.
                let (line, tile) = (4 * index / across, 4 * index % across);
                let row = first_row + (line * VECTORS + vector) * OUTPUT_TILE + row;
                if row < shape.output_height() {
                    let position = OutputPosition { plane, row, column: column + tile * OUTPUT_TILE };
                    #[allow(unsafe_code, reason = "threads write disjoint rows of one result")]
                    // SAFETY: tasks have rows, or output channels, of their own.
                    unsafe {
                        output.store(position, values);
                    }
                }
            }
        }
    }
}
