//! Convolutions of 3×3 by Winograd's minimal filtering, F(4×4, 3×3): sixteen results of 36 products instead of 144 (Lavin and Gray,
//! arXiv 1509.09308).
//!
//! A tile of 6×6 inputs and the 3×3 weights are transformed by sums and differences; there each of the 36 places is a product of matrices,
//! `[outputs, inputs] · [inputs, tiles]`; its results are transformed back to 4×4 outputs. The points that the transforms are made of, 0, ±√½, ±√2
//! and infinity, leave less than half of the rounding error of the usual 0, ±1, ±2. The order of each sum depends on the shape alone.
//!
//! Tiles are the lanes of vectors: those side by side in a row of the image, and where the image is narrow those below, too.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use rayon::prelude::*;

use super::conv3x3::{Planes, Shape};
use crate::simd::vector::{LANES, Vector, best_instructions};

/// Rows, or columns, of outputs of a tile.
const SIDE: usize = 4;
/// Rows, or columns, of inputs that it sees.
const SEEN: usize = SIDE + 2;
/// Places of a tile.
const PLACES: usize = SEEN * SEEN;
/// Outputs computed side by side.
const OUTPUTS: usize = 8;
/// Outputs whose sums wait to be transformed back: so many that what is seen of a place is used often, so few that they stay near.
const GROUP: usize = 4 * OUTPUTS;
/// Vectors of tiles of a task in one go.
const VECTORS: usize = 2;
/// Rows that those of one column of lanes see.
const ROWS: usize = VECTORS * SIDE + 2;
/// Tiles of a task in one go.
const TILES: usize = VECTORS * LANES;
/// From the sums of a place to those of the next: places a power of two apart would share lines of the cache, here and in [`stride`].
const SUMS: usize = GROUP * TILES + LANES;

/// From a place to the next in what is seen of so many inputs.
fn stride(inputs: usize) -> usize {
    inputs * TILES + LANES
}

/// Whether transforming costs less than it saves.
pub fn pays(shape: &Shape) -> bool {
    shape.stride == 1 && shape.inputs >= 16 && shape.outputs >= 16 && shape.rows() >= 4 && shape.columns() >= 8
}

/// `x` `[inputs, height, width]` of each image convolved into its planes of `result`.
pub fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &Shape, result: &Planes) {
    let weights = transformed(weight, shape);
    let across = shape.columns().div_ceil(SIDE).next_power_of_two().clamp(4, LANES);
    let task_rows = TILES / across * SIDE;
    let per_image = shape.rows().div_ceil(task_rows);
    let (tasks, groups) = (shape.batch * per_image, shape.outputs.div_ceil(GROUP));
    // Small images have few tasks: threads then share the outputs, too, and each transforms the inputs for itself.
    let shares = (4 * rayon::current_num_threads()).div_ceil(tasks.max(1)).clamp(1, groups.max(1));
    let groups_of_share = groups.div_ceil(shares).max(1);
    let shares = groups.div_ceil(groups_of_share);
    (0..tasks * shares).into_par_iter().for_each_init(Vec::new, |memory, task| {
        let (task, share) = (task / shares, task % shares);
        let (image, first) = (task / per_image, task % per_image * task_rows);
        let size = shape.inputs * shape.height * shape.width;
        let x = &x[image * size..][..size];
        let groups = share * groups_of_share..groups.min((share + 1) * groups_of_share);
        let outputs = groups.start * GROUP..shape.outputs.min(groups.end * GROUP);
        for column in (0..shape.columns()).step_by(across * SIDE) {
            let work = Work { x, shape, weights: &weights, bias, image, first, column, across, result };
            columns(&work, outputs.start, outputs.end, memory);
        }
    });
}

/// Weights `[outputs, inputs, 3, 3]` transformed, those of [`OUTPUTS`] outputs side by side: `[blocks, PLACES, inputs, OUTPUTS]`.
fn transformed(weight: &[f32], shape: &Shape) -> Vec<f32> {
    let Shape { inputs, outputs, .. } = *shape;
    let size = PLACES * inputs * OUTPUTS;
    let mut all = vec![0.0; outputs.div_ceil(OUTPUTS) * size];
    let blocks = all.par_chunks_mut(size.max(1)).zip(weight.par_chunks((OUTPUTS * inputs * 9).max(1)));
    blocks.for_each(|(block, weight)| transform(weight, inputs, block));
    all
}

best_instructions!(transform = transform_body(weight: &[f32], inputs: usize, block: &mut [f32]));

/// The weights of [`OUTPUTS`] outputs, or of the last few, at all places.
#[inline(always)]
fn transform_body<V: Vector>(weight: &[f32], inputs: usize, block: &mut [f32]) {
    for input in 0..inputs {
        let mut taps = [[0.0; OUTPUTS]; 9];
        for (output, weight) in weight.chunks_exact(inputs * 9).enumerate() {
            for (taps, weight) in taps.iter_mut().zip(&weight[input * 9..]) {
                taps[output] = *weight;
            }
        }
        let [a, b, c, d, e, f, g, h, i] = taps;
        let columns = spread([a, b, c]).into_iter().zip(spread([d, e, f])).zip(spread([g, h, i]));
        for (column, ((top, middle), bottom)) in columns.enumerate() {
            for (row, values) in spread([top, middle, bottom]).into_iter().enumerate() {
                let at = ((row * SEEN + column) * inputs + input) * OUTPUTS;
                block[at..at + OUTPUTS].copy_from_slice(&values);
            }
        }
    }
}

/// Three weights in one direction as those of six places.
#[inline(always)]
fn spread([a, b, c]: [[f32; OUTPUTS]; 3]) -> [[f32; OUTPUTS]; SEEN] {
    let mut all = [a, a, a, a, a, c];
    for output in 0..OUTPUTS {
        let (a, b, c) = (a[output], b[output], c[output]);
        let (near, far) = ((a + 0.5 * c) * (-2.0 / 3.0), (a + 2.0 * c) * (1.0 / 6.0));
        let (near_odd, far_odd) = (b * (-2.0 / 3.0 * FRAC_1_SQRT_2), b * (SQRT_2 / 6.0));
        all[1][output] = near + near_odd;
        all[2][output] = near - near_odd;
        all[3][output] = far + far_odd;
        all[4][output] = far - far_odd;
    }
    all
}

/// What there is to do for the columns that a vector of tiles has.
struct Work<'a> {
    /// The image, `[inputs, height, width]`.
    x: &'a [f32],
    shape: &'a Shape,
    /// What [`transformed`] laid out.
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    image: usize,
    /// Of the rows and columns of the result.
    first: usize,
    column: usize,
    /// Tiles of a vector that are side by side.
    across: usize,
    result: &'a Planes,
}

best_instructions!(columns = columns_body(work: &Work<'_>, first: usize, end: usize, memory: &mut Vec<f32>));

/// The outputs from `first`, the first of a group, to `end`.
#[inline(always)]
fn columns_body<V: Vector>(work: &Work<'_>, first: usize, end: usize, memory: &mut Vec<f32>) {
    let inputs = work.shape.inputs;
    // Of each place, of each input, of each tile; then of each place, of each output of a group, of each tile.
    let seen = PLACES * stride(inputs);
    if memory.len() < seen + PLACES * SUMS {
        memory.resize(seen + PLACES * SUMS, 0.0);
    }
    let (seen, sums) = memory.split_at_mut(seen);
    // Written whole for each input.
    let mut rows = [[V::splat(0.0); SEEN]; ROWS];
    for input in 0..inputs {
        see::<V>(work, input, &mut rows, seen);
    }
    for group in (first..end).step_by(GROUP) {
        let end = end.min(group + GROUP);
        for (place, sums) in sums.chunks_exact_mut(SUMS).enumerate() {
            let seen = seen[place * stride(inputs)..][..inputs * TILES].as_chunks::<TILES>().0;
            for output in (group..end).step_by(OUTPUTS) {
                let weights = &work.weights[(output / OUTPUTS * PLACES + place) * inputs * OUTPUTS..];
                let weights = weights[..inputs * OUTPUTS].as_chunks::<OUTPUTS>().0;
                let sums = &mut sums[(output - group) * TILES..][..OUTPUTS * TILES];
                if V::MANY {
                    product::<V, OUTPUTS, VECTORS>(weights, seen, (0, 0), sums);
                } else {
                    for tile in (0..TILES).step_by(LANES) {
                        product::<V, 4, 1>(weights, seen, (0, tile), sums);
                        product::<V, 4, 1>(weights, seen, (4, tile), sums);
                    }
                }
            }
        }
        for output in group..end {
            give::<V>(work, output, &sums[(output - group) * TILES..]);
        }
    }
}

/// `R` outputs and `N` vectors of tiles, from `output` and `tile` on.
#[inline(always)]
fn product<V: Vector, const R: usize, const N: usize>(
    weights: &[[f32; OUTPUTS]],
    seen: &[[f32; TILES]],
    (output, tile): (usize, usize),
    to: &mut [f32],
) {
    let mut sums = [[V::splat(0.0); N]; R];
    for (weights, seen) in weights.iter().zip(seen) {
        let mut x = [V::splat(0.0); N];
        for (vector, x) in x.iter_mut().enumerate() {
            *x = V::load(&seen[tile + vector * LANES..]);
        }
        for (sums, weight) in sums.iter_mut().zip(&weights[output..output + R]) {
            let weight = V::splat(*weight);
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = sum.add_product(weight, x);
            }
        }
    }
    for (index, sums) in sums.into_iter().enumerate() {
        for (vector, sum) in sums.into_iter().enumerate() {
            let to = &mut to[(output + index) * TILES + tile + vector * LANES..][..LANES];
            to.copy_from_slice(&sum.array());
        }
    }
}

/// Six inputs as the six values that meet the weights of [`spread`].
#[inline(always)]
fn differences<V: Vector>([a, b, c, d, e, f]: [V; SEEN]) -> [V; SEEN] {
    let times = [V::splat(-2.5), V::splat(-2.0), V::splat(-0.5), V::splat(FRAC_1_SQRT_2), V::splat(SQRT_2)];
    let near = (e.add_product(times[1], c), d.add_product(times[1], b).times(times[3]));
    let far = (e.add_product(times[2], c), d.add_product(times[2], b).times(times[4]));
    [
        a.plus(e).add_product(times[0], c),
        near.0.plus(near.1),
        near.0.minus(near.1),
        far.0.plus(far.1),
        far.0.minus(far.1),
        b.plus(f).add_product(times[0], d),
    ]
}

/// The four outputs of six places.
#[inline(always)]
fn outputs<V: Vector>([a, b, c, d, e, f]: [V; SEEN]) -> [V; SIDE] {
    let (near, far) = ((b.plus(c), b.minus(c)), (d.plus(e), d.minus(e)));
    let (near_odd, far_odd) = (near.1.times(V::splat(FRAC_1_SQRT_2)), far.1.times(V::splat(SQRT_2)));
    let (half, two) = (V::splat(0.5), V::splat(2.0));
    [
        a.plus(near.0).plus(far.0),
        near_odd.plus(far_odd),
        near.0.times(half).add_product(two, far.0),
        f.add_product(half, near_odd).add_product(two, far_odd),
    ]
}

// No closures below, nor functions that take them: they would not be compiled for the instructions of their caller.

/// A row of each line of lanes, `row` of what it sees, transformed in its direction.
#[inline(always)]
fn see_row<V: Vector>(work: &Work<'_>, input: usize, row: usize) -> [V; SEEN] {
    let Work { x, shape, first, column, across, .. } = *work;
    let Shape { height, width, padding, .. } = *shape;
    let (above, row) = (input * height, first + row);
    // Of each tile the first four columns, and those after them.
    if across == LANES && column + SIDE * LANES <= width && row >= padding.0 && row - padding.0 < height {
        let start = ((above + row - padding.0) * width + column).wrapping_sub(1);
        // At the image's edges this sees what is beside it in memory, if anything is.
        if let Some(seen) = x.get(start..start.saturating_add(SIDE * (LANES + 1))) {
            let seen = seen.as_chunks::<SIDE>().0;
            let ([mut a, b, c, d], [e, mut f, ..]) = (V::fourths(seen), V::fourths(&seen[1..]));
            if column == 0 {
                a = a.without_first();
            }
            if column + SIDE * LANES == width {
                f = f.without_last();
            }
            return differences([a, b, c, d, e, f]);
        }
    }
    let (mut near, mut far) = ([[0.0; SIDE]; LANES], [[0.0; SIDE]; LANES]);
    for line in 0..LANES / across {
        let row = row + line * VECTORS * SIDE;
        if row >= padding.0 && row - padding.0 < height {
            let row = &x[(above + row - padding.0) * width..][..width];
            let lanes = line * across..(line + 1) * across;
            copy_columns(row, column, near[lanes.clone()].as_flattened_mut());
            copy_columns(row, column + SIDE, far[lanes].as_flattened_mut());
        }
    }
    let ([a, b, c, d], [e, f, ..]) = (V::fourths(&near), V::fourths(&far));
    differences([a, b, c, d, e, f])
}

/// Columns of a row from that before `column` on, as far as there are.
#[inline(always)]
fn copy_columns(row: &[f32], column: usize, to: &mut [f32]) {
    let (from, skip) = (column.saturating_sub(1).min(row.len()), usize::from(column == 0));
    let n = (to.len() - skip).min(row.len() - from);
    to[skip..skip + n].copy_from_slice(&row[from..from + n]);
}

/// Transforms an input's tiles.
#[inline(always)]
fn see<V: Vector>(work: &Work<'_>, input: usize, rows: &mut [[V; SEEN]; ROWS], seen: &mut [f32]) {
    let inputs = work.shape.inputs;
    for (index, row) in rows.iter_mut().enumerate() {
        *row = see_row(work, input, index);
    }
    for vector in 0..VECTORS {
        for column in 0..SEEN {
            let mut six = [V::splat(0.0); SEEN];
            for (six, row) in six.iter_mut().zip(&rows[vector * SIDE..]) {
                *six = row[column];
            }
            for (row, values) in differences(six).into_iter().enumerate() {
                let at = (row * SEEN + column) * stride(inputs) + input * TILES + vector * LANES;
                seen[at..at + LANES].copy_from_slice(&values.array());
            }
        }
    }
}

/// Transforms the sums of an output back, and writes it.
#[inline(always)]
fn give<V: Vector>(work: &Work<'_>, output: usize, sums: &[f32]) {
    let Work { shape, image, first, column, across, result, .. } = *work;
    let bias = match work.bias {
        Some(bias) => V::splat(bias[output]),
        None => V::splat(0.0),
    };
    let plane = image * shape.outputs + output;
    for vector in 0..VECTORS {
        let mut rows = [[V::splat(0.0); SEEN]; SIDE];
        for column in 0..SEEN {
            let mut places = [V::splat(0.0); SEEN];
            for (row, place) in places.iter_mut().enumerate() {
                *place = V::load(&sums[(row * SEEN + column) * SUMS + vector * LANES..]);
            }
            for (row, value) in rows.iter_mut().zip(outputs(places)) {
                row[column] = value;
            }
        }
        for (row, columns) in rows.into_iter().enumerate() {
            let mut values = outputs(columns);
            for value in &mut values {
                *value = value.plus(bias);
            }
            for (index, values) in V::of_fourths(values).as_chunks::<LANES>().0.iter().enumerate() {
                // A chunk is four tiles.
                let (line, tile) = (4 * index / across, 4 * index % across);
                let row = first + (line * VECTORS + vector) * SIDE + row;
                if row < shape.rows() {
                    result.put((plane, row, column + tile * SIDE), values);
                }
            }
        }
    }
}
