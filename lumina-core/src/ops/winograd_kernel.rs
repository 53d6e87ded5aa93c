//! Convolutions of 3×3 by Winograd's minimal filtering, F(2×2, 3×3): four results of 16 products instead of 36 (Lavin and Gray,
//! arXiv 1509.09308).
//!
//! A tile of 4×4 inputs and the 3×3 weights are transformed by sums and differences; there each of the 16 places is a product of matrices,
//! `[outputs, inputs] · [inputs, tiles]`; its results are transformed back to 2×2 outputs. Tiles side by side in a row are the lanes of a vector.
//! The order of each sum depends on the shape alone.

use rayon::prelude::*;

use super::conv_kernel::{Planes, Shape, Task, pair};
use super::vector::{LANES, Vector, best_instructions};

/// Places of a tile.
const PLACES: usize = 16;
/// Outputs computed side by side.
const OUTPUTS: usize = 8;
/// Rows of tiles of a task.
const TILE_ROWS: usize = 4;
/// Rows of an image that one task computes.
pub(super) const TASK_ROWS: usize = 2 * TILE_ROWS;
/// Tiles of a task in one go.
const TILES: usize = TILE_ROWS * LANES;
/// Columns that they are: computed for all outputs before the next ones.
pub(super) const COLUMNS: usize = 2 * LANES;
/// Even, or odd, columns that a row of tiles sees.
const HALF: usize = LANES + 1;
/// From the sums of a place to those of the next: places a power of two apart would share lines of the cache, here and in [`stride`].
const SUMS: usize = OUTPUTS * TILES + LANES;

/// From a place to the next in what is seen of so many inputs, or pairs.
fn stride(inputs: usize) -> usize {
    inputs * TILES + LANES
}

/// Whether transforming costs less than it saves.
pub(super) fn pays(shape: &Shape) -> bool {
    shape.inputs >= 16 && shape.outputs >= 16 && shape.rows() >= 4
}

/// Weights `[outputs, inputs, 3, 3]` transformed, those of [`OUTPUTS`] outputs side by side: `[blocks, PLACES, inputs, OUTPUTS]`, of single
/// inputs or of pairs.
pub(super) fn transformed(weight: &[f32], shape: &Shape, pairs: bool) -> Vec<f32> {
    let Shape { inputs, outputs, .. } = *shape;
    let of = 1 + usize::from(pairs);
    let n = inputs.div_ceil(of);
    let mut all = vec![0.0; outputs.div_ceil(OUTPUTS) * PLACES * n * OUTPUTS];
    let blocks = all.par_chunks_mut(PLACES * n * OUTPUTS).zip(weight.par_chunks(OUTPUTS * inputs * 9));
    blocks.for_each(|(block, weight)| {
        for (output, weight) in weight.chunks_exact(inputs * 9).enumerate() {
            for (input, taps) in weight.as_chunks::<9>().0.iter().enumerate() {
                let rows = [0, 1, 2].map(|row| spread([taps[row * 3], taps[row * 3 + 1], taps[row * 3 + 2]]));
                for column in 0..4 {
                    let places = spread([rows[0][column], rows[1][column], rows[2][column]]);
                    for (row, value) in places.into_iter().enumerate() {
                        let to = &mut block[((row * 4 + column) * n + input / of) * OUTPUTS + output];
                        *to = joined(*to, value, pairs, (input, inputs));
                    }
                }
            }
        }
    });
    all
}

/// What one of the inputs makes of what is there: itself, or where there are pairs its half of one. The first of a pair waits as it is for the
/// second, which the last may lack.
#[inline(always)]
fn joined(there: f32, value: f32, pairs: bool, (input, inputs): (usize, usize)) -> f32 {
    match (pairs, input % 2 == 1) {
        (true, true) => pair(there, value),
        (true, false) if input + 1 == inputs => pair(value, 0.0),
        _ => value,
    }
}

/// Three weights in one direction as those of four places.
fn spread([a, b, c]: [f32; 3]) -> [f32; 4] {
    [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c]
}

/// What there is to do for [`COLUMNS`] columns of a task.
pub(super) struct Work<'a> {
    /// The image, `[inputs, height, width]`.
    pub(super) x: &'a [f32],
    pub(super) shape: &'a Shape,
    /// What [`transformed`] laid out.
    pub(super) weights: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) task: &'a Task,
    pub(super) column: usize,
    pub(super) result: &'a Planes,
}

best_instructions!(pub(super) columns = single(work: &Work<'_>, memory: &mut Vec<f32>));

#[inline(always)]
fn single<V: Vector>(work: &Work<'_>, memory: &mut Vec<f32>) {
    columns_body::<V, V>(work, memory, false);
}

/// [`columns`] with pairs of inputs in `bf16`.
///
/// # Safety
/// The processor must have what [`has_pairs`](super::conv_kernel::has_pairs) looks for.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) fn columns_of_pairs(work: &Work<'_>, memory: &mut Vec<f32>) {
    columns_body::<super::vector::x86::Avx512, super::vector::x86::Pairs>(work, memory, true);
}

/// `V` transforms, and `P` multiplies: pairs of inputs, or single ones.
#[inline(always)]
fn columns_body<V: Vector, P: Vector>(work: &Work<'_>, memory: &mut Vec<f32>, pairs: bool) {
    let inputs = work.shape.inputs.div_ceil(1 + usize::from(pairs));
    // Of each place, of each input, of each tile; then of each place, of each output of a block, of each tile.
    let seen = PLACES * stride(inputs);
    if memory.len() < seen + PLACES * SUMS {
        memory.resize(seen + PLACES * SUMS, 0.0);
    }
    let (seen, sums) = memory.split_at_mut(seen);
    for input in 0..work.shape.inputs {
        see::<V>(work, input, seen, pairs);
    }
    for (block, weights) in work.weights.chunks_exact(PLACES * inputs * OUTPUTS).enumerate() {
        let places = weights.chunks_exact(inputs * OUTPUTS).zip(seen.chunks_exact(stride(inputs)));
        for ((weights, seen), sums) in places.zip(sums.chunks_exact_mut(SUMS)) {
            let (weights, seen) = (weights.as_chunks::<OUTPUTS>().0, seen.as_chunks::<TILES>().0);
            if V::MANY {
                for tile in (0..TILES).step_by(2 * LANES) {
                    product::<P, OUTPUTS, 2>(weights, seen, (0, tile), sums);
                }
            } else {
                for tile in (0..TILES).step_by(LANES) {
                    product::<P, 4, 1>(weights, seen, (0, tile), sums);
                    product::<P, 4, 1>(weights, seen, (4, tile), sums);
                }
            }
        }
        for output in block * OUTPUTS..work.shape.outputs.min((block + 1) * OUTPUTS) {
            give::<V>(work, output, sums);
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

#[inline(always)]
fn plus<V: Vector>(a: V, b: V) -> V {
    a.add_product(V::splat(1.0), b)
}

#[inline(always)]
fn minus<V: Vector>(a: V, b: V) -> V {
    a.add_product(V::splat(-1.0), b)
}

/// The sums and differences of four inputs that meet the weights of four places.
#[inline(always)]
fn differences<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 4] {
    [minus(a, c), plus(b, c), minus(c, b), minus(b, d)]
}

/// The two outputs of four places.
#[inline(always)]
fn outputs<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    [plus(plus(a, b), c), minus(minus(b, c), d)]
}

// No closures below, nor functions that take them: they would not be compiled for the instructions of their caller.

/// A row of an input that tiles see, transformed in its direction.
#[inline(always)]
fn see_row<V: Vector>(work: &Work<'_>, plane: &[f32], row: usize) -> [V; 4] {
    let Shape { height, width, padding, .. } = *work.shape;
    let row = work.task.first + row;
    if row < padding.0 || row - padding.0 >= height {
        return [V::splat(0.0); 4];
    }
    let row = &plane[(row - padding.0) * width..][..width];
    // Column `column - 1` of the image is the first that is seen.
    let (from, skip) = (work.column.saturating_sub(1), usize::from(work.column == 0));
    let mut columns = [0.0; 2 * HALF];
    if from + 2 * HALF - skip <= width {
        // Of a known length, which takes no call.
        if skip == 0 {
            columns.copy_from_slice(&row[from..from + 2 * HALF]);
        } else {
            columns[1..].copy_from_slice(&row[..2 * HALF - 1]);
        }
    } else {
        let n = width - from;
        columns[skip..skip + n].copy_from_slice(&row[from..]);
    }
    let (mut even, mut odd) = ([0.0; HALF], [0.0; HALF]);
    for (pair, (even, odd)) in columns.as_chunks::<2>().0.iter().zip(even.iter_mut().zip(&mut odd)) {
        (*even, *odd) = (pair[0], pair[1]);
    }
    differences([V::load(&even), V::load(&odd), V::load(&even[1..]), V::load(&odd[1..])])
}

/// Transforms an input's tiles.
#[inline(always)]
fn see<V: Vector>(work: &Work<'_>, input: usize, seen: &mut [f32], pairs: bool) {
    let Shape { inputs, height, width, .. } = *work.shape;
    let of = 1 + usize::from(pairs);
    let n = inputs.div_ceil(of);
    let plane = &work.x[input * height * width..][..height * width];
    let mut rows = [see_row(work, plane, 0), see_row(work, plane, 1), [V::splat(0.0); 4], [V::splat(0.0); 4]];
    for tile_row in 0..TILE_ROWS {
        rows[2] = see_row(work, plane, 2 * tile_row + 2);
        rows[3] = see_row(work, plane, 2 * tile_row + 3);
        let [first, second, third, fourth] = rows;
        let columns = first.into_iter().zip(second).zip(third.into_iter().zip(fourth));
        for (column, ((first, second), (third, fourth))) in columns.enumerate() {
            for (row, value) in differences([first, second, third, fourth]).into_iter().enumerate() {
                let to = (row * 4 + column) * stride(n) + input / of * TILES + tile_row * LANES;
                for (to, value) in seen[to..to + LANES].iter_mut().zip(value.array()) {
                    *to = joined(*to, value, pairs, (input, inputs));
                }
            }
        }
        (rows[0], rows[1]) = (rows[2], rows[3]);
    }
}

/// Transforms the sums of an output back, and writes it.
#[inline(always)]
fn give<V: Vector>(work: &Work<'_>, output: usize, sums: &[f32]) {
    let bias = match work.bias {
        Some(bias) => V::splat(bias[output]),
        None => V::splat(0.0),
    };
    let rows = work.task.rows;
    for tile_row in 0..TILE_ROWS.min(rows.div_ceil(2)) {
        let [mut above, mut below] = [[V::splat(0.0); 4]; 2];
        for (column, (above, below)) in above.iter_mut().zip(&mut below).enumerate() {
            let mut places = [V::splat(0.0); 4];
            for (row, place) in places.iter_mut().enumerate() {
                let at = (row * 4 + column) * SUMS + output % OUTPUTS * TILES + tile_row * LANES;
                *place = V::load(&sums[at..at + LANES]);
            }
            [*above, *below] = outputs(places);
        }
        for (row, columns) in [above, below].into_iter().enumerate().take(rows - 2 * tile_row) {
            let [even, odd] = outputs(columns);
            let (even, odd) = (plus(even, bias).array(), plus(odd, bias).array());
            let mut values = [[0.0; LANES]; 2];
            for lane in 0..LANES {
                values[lane / (LANES / 2)][2 * lane % LANES] = even[lane];
                values[lane / (LANES / 2)][2 * lane % LANES + 1] = odd[lane];
            }
            let (plane, row) = (work.task.image + output, work.task.first + 2 * tile_row + row);
            work.result.put((plane, row, work.column), &values[0]);
            work.result.put((plane, row, work.column + LANES), &values[1]);
        }
    }
}
