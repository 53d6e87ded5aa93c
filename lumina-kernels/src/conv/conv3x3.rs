//! Convolutions of 3×3 on the processor, as plain functions on slices.
//!
//! Images are `[batch, channels, height, width]`. Sums run over the columns of an image in vector registers, so no
//! patches are laid out in memory: what a few rows and columns see is copied once, for all outputs. The order of each sum depends on
//! the shape alone, so a result does not depend on the batch or the number of threads.

use std::ptr::NonNull;

use rayon::prelude::*;

use super::winograd;
use crate::memory::prefer_large_pages;
use crate::simd::vector::{LANES, Vector, best_instructions};

/// Rows of an image that one task computes.
const TASK_ROWS: usize = 8;
/// Columns that a task computes for all outputs before the next ones.
const COLUMNS: usize = 2 * LANES;
/// Outputs computed side by side, with two vectors of columns each.
const OUTPUTS: usize = 8;
/// Columns that are seen for them, in whole vectors.
const SEEN: usize = COLUMNS + LANES;

/// What is convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub batch: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Rows and columns of the input.
    pub height: usize,
    pub width: usize,
    /// Rows of zeros above and below. Left and right there is one column each; with stride 2 only on the right.
    pub padding: (usize, usize),
    /// 1 or 2.
    pub stride: usize,
}

impl Shape {
    /// Rows of the output.
    pub fn rows(&self) -> usize {
        (self.height + self.padding.0 + self.padding.1).saturating_sub(3 - self.stride) / self.stride
    }

    /// Columns of the output.
    pub fn columns(&self) -> usize {
        self.width / self.stride
    }

    /// Rows of the input that a task sees.
    fn seen_rows(&self, task: &Task) -> usize {
        (task.rows - 1) * self.stride + 3
    }
}

/// Weights in the order of the inner loop, those of [`OUTPUTS`] outputs side by side: `[blocks, inputs, 9, OUTPUTS]`.
fn packed(weight: &[f32], shape: &Shape) -> Vec<f32> {
    let Shape { inputs, outputs, .. } = *shape;
    let mut packed = vec![0.0; outputs.div_ceil(OUTPUTS) * inputs * 9 * OUTPUTS];
    for (output, weight) in weight.chunks_exact(inputs * 9).enumerate() {
        let block = &mut packed[output / OUTPUTS * inputs * 9 * OUTPUTS..];
        for (at, value) in weight.iter().enumerate() {
            block[at * OUTPUTS + output % OUTPUTS] = *value;
        }
    }
    packed
}

/// `x` `[batch, inputs, height, width]` convolved with `weight` `[outputs, inputs, 3, 3]`, plus `bias` `[outputs]`:
/// `[batch, outputs, rows, columns]`.
pub fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &Shape) -> Vec<f32> {
    let (rows, width) = (shape.rows(), shape.columns());
    let n = shape.batch * shape.outputs * rows * width;
    let mut y = Vec::with_capacity(n);
    prefer_large_pages(y.as_ptr(), n);
    let result = Planes { start: NonNull::from(&mut y.spare_capacity_mut()[..n]).cast(), rows, width };
    if winograd::pays(shape) {
        winograd::forward(x, weight, bias, shape, &result);
    } else {
        by_rows(x, weight, bias, shape, &result);
    }
    #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
    // SAFETY: there is room for so many, and either form writes all columns of all rows of all outputs of all images.
    unsafe {
        y.set_len(n);
    }
    y
}

/// By the definition.
fn by_rows(x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &Shape, result: &Planes) {
    let Shape { batch, inputs, outputs, height, width, stride, .. } = *shape;
    let weights = packed(weight, shape);
    // A task has some rows of one image. What it sees of them lies side by side, some columns at a time, for all outputs.
    let (rows, task_rows) = (shape.rows(), TASK_ROWS / stride);
    let tasks = (0..batch * rows.div_ceil(task_rows)).into_par_iter();
    tasks.for_each_init(Vec::new, |seen, task| {
        let (image, first) = (task / rows.div_ceil(task_rows), task % rows.div_ceil(task_rows) * task_rows);
        let x = &x[image * inputs * height * width..][..inputs * height * width];
        let task = Task { image: image * outputs, first, rows: task_rows.min(rows - first) };
        for column in (0..shape.columns()).step_by(COLUMNS) {
            see(x, shape, &task, column, seen);
            columns_of_task(&Work { seen, weights: &weights, bias, shape, task: &task, column, result });
        }
    });
}

/// Rows of one image.
struct Task {
    /// Planes of the result before those of the image.
    image: usize,
    first: usize,
    rows: usize,
}

/// Where results go.
pub struct Planes {
    start: NonNull<f32>,
    rows: usize,
    width: usize,
}

#[allow(unsafe_code, reason = "threads write disjoint rows of one result")]
// SAFETY: `put` is the only access; tasks have rows of their own, and nobody reads before all have ended.
unsafe impl Sync for Planes {}

impl Planes {
    /// Writes columns of a row of a plane, as far as there are columns. No two tasks may have the same row.
    #[inline(always)]
    pub fn put(&self, (plane, row, column): (usize, usize, usize), values: &[f32; LANES]) {
        let n = LANES.min(self.width.saturating_sub(column));
        debug_assert!(row < self.rows, "a task's rows are rows of the result");
        #[allow(unsafe_code, reason = "threads write disjoint rows of one result")]
        // SAFETY: within what `forward` has room for, as plane, row and column are those of the result; another task has other rows.
        unsafe {
            let to = self.start.as_ptr().add((plane * self.rows + row) * self.width + column.min(self.width));
            if n == LANES {
                // Of a known length, which takes no call.
                to.cast::<[f32; LANES]>().write_unaligned(*values);
            } else {
                std::ptr::copy_nonoverlapping(values.as_ptr(), to, n);
            }
        }
    }
}

/// What a task sees in [`COLUMNS`] columns and those beside them, with zeros beyond the image: `[inputs, rows, stride, SEEN]`, where
/// with stride 2 the even columns come before the odd.
fn see(x: &[f32], shape: &Shape, task: &Task, column: usize, seen: &mut Vec<f32>) {
    let Shape { inputs, height, width, padding, stride, .. } = *shape;
    let rows = shape.seen_rows(task);
    seen.clear();
    seen.resize(inputs * rows * stride * SEEN, 0.0);
    let lines = seen.chunks_exact_mut(stride * SEEN).enumerate();
    for (index, line) in lines {
        let (plane, row) = (index / rows, task.first * stride + index % rows);
        let Some(row) = row.checked_sub(padding.0).filter(|row| *row < height) else { continue };
        let row = &x[(plane * height + row) * width..][..width];
        if stride == 1 {
            // Column `column - 1` of the image is the first that is seen.
            let (from, skip) = (column.saturating_sub(1), usize::from(column == 0));
            let n = (COLUMNS + 2 - skip).min(width - from);
            line[skip..skip + n].copy_from_slice(&row[from..][..n]);
        } else {
            let (even, odd) = line.split_at_mut(SEEN);
            for (pair, (even, odd)) in row[2 * column..].chunks(2).zip(even.iter_mut().zip(odd)).take(COLUMNS + 1) {
                *even = pair[0];
                *odd = pair.get(1).copied().unwrap_or(0.0);
            }
        }
    }
}

/// What there is to do for some columns of a task.
struct Work<'a> {
    /// What [`see`] laid out.
    seen: &'a [f32],
    /// What [`packed`] laid out.
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    shape: &'a Shape,
    task: &'a Task,
    column: usize,
    result: &'a Planes,
}

best_instructions!(columns_of_task = columns_body(work: &Work<'_>));
/// [`COLUMNS`] columns of all outputs in a task's rows.
#[inline(always)]
fn columns_body<V: Vector>(work: &Work<'_>) {
    let Shape { inputs, outputs, .. } = *work.shape;
    for (block, weights) in work.weights.chunks_exact(inputs * 9 * OUTPUTS).enumerate() {
        let weights = weights.as_chunks::<OUTPUTS>().0.as_chunks::<9>().0;
        let first_output = block * OUTPUTS;
        let mut start = [0.0; OUTPUTS];
        if let Some(bias) = work.bias {
            let n = OUTPUTS.min(outputs - first_output);
            start[..n].copy_from_slice(&bias[first_output..first_output + n]);
        }
        for row in 0..work.task.rows {
            let block = Block { weights, start: &start, first_output, row };
            if V::MANY {
                tile::<V, OUTPUTS, 2>(work, &block, (0, 0));
            } else {
                for output in (0..OUTPUTS).step_by(4) {
                    tile::<V, 4, 1>(work, &block, (output, 0));
                    tile::<V, 4, 1>(work, &block, (output, LANES));
                }
            }
        }
    }
}

/// [`OUTPUTS`] outputs in one row of a task.
struct Block<'a> {
    /// For each input.
    weights: &'a [[[f32; OUTPUTS]; 9]],
    start: &'a [f32; OUTPUTS],
    first_output: usize,
    row: usize,
}

/// `R` outputs and `N` vectors of columns, from `output` on in the block and from `column` on in what is seen.
#[inline(always)]
fn tile<V: Vector, const R: usize, const N: usize>(
    work: &Work<'_>,
    block: &Block<'_>,
    (output, column): (usize, usize),
) {
    let mut sums = [[V::splat(0.0); N]; R];
    for (index, sums) in sums.iter_mut().enumerate() {
        *sums = [V::splat(block.start[output + index]); N];
    }
    let stride = work.shape.stride;
    let (line, plane) = (stride * SEEN, work.shape.seen_rows(work.task) * stride * SEEN);
    // Where the three columns are that the first output sees.
    let columns = if stride == 1 { [0, 1, 2] } else { [0, SEEN, 1] };
    for (channel, weights) in work.seen.chunks_exact(plane).zip(block.weights) {
        for dy in 0..3 {
            let window = &channel[(block.row * stride + dy) * line..][..line];
            for dx in 0..3 {
                let mut x = [V::splat(0.0); N];
                for (vector, x) in x.iter_mut().enumerate() {
                    *x = V::load(&window[columns[dx] + column + vector * LANES..]);
                }
                for index in 0..R {
                    let weight = V::splat(weights[dy * 3 + dx][output + index]);
                    for vector in 0..N {
                        sums[index][vector] = sums[index][vector].add_product(weight, x[vector]);
                    }
                }
            }
        }
    }
    for (index, sums) in sums.iter().enumerate() {
        let at = block.first_output + output + index;
        if at < work.shape.outputs {
            for (vector, sum) in sums.iter().enumerate() {
                let column = work.column + column + vector * LANES;
                work.result.put((work.task.image + at, work.task.first + block.row, column), &sum.array());
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Values around zero from a small generator.
    pub fn values(n: usize, seed: u32) -> Vec<f32> {
        lumina_testing::lcg(seed).take(n).map(|state| (state >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// The definition, in `f64`.
    fn plain(x: &[f32], weight: &[f32], bias: &[f32], shape: &Shape) -> Vec<f64> {
        let Shape { batch, inputs, outputs, height, width, padding, stride } = *shape;
        let mut y = Vec::new();
        for image in 0..batch {
            for output in 0..outputs {
                for row in 0..shape.rows() {
                    for column in 0..shape.columns() {
                        let mut sum = f64::from(bias[output]);
                        for input in 0..inputs {
                            for (dy, dx) in (0..9).map(|tap| (tap / 3, tap % 3)) {
                                let (Some(r), Some(c)) = (
                                    (row * stride + dy).checked_sub(padding.0),
                                    (column * stride + dx).checked_sub(2 - stride),
                                ) else {
                                    continue;
                                };
                                if r < height && c < width {
                                    let x = x[((image * inputs + input) * height + r) * width + c];
                                    let w = weight[((output * inputs + input) * 3 + dy) * 3 + dx];
                                    sum += f64::from(x) * f64::from(w);
                                }
                            }
                        }
                        y.push(sum);
                    }
                }
            }
        }
        y
    }

    pub const SHAPES: [Shape; 13] = {
        let shape = Shape { batch: 1, inputs: 1, outputs: 1, height: 1, width: 1, padding: (1, 1), stride: 1 };
        [
            shape,
            Shape { batch: 2, inputs: 3, outputs: 5, height: 7, width: 19, ..shape },
            Shape { inputs: 4, outputs: 9, height: 12, width: 48, padding: (0, 1), ..shape },
            Shape { batch: 3, inputs: 2, outputs: 8, height: 9, width: 33, padding: (1, 0), ..shape },
            Shape { inputs: 2, outputs: 3, height: 20, width: 16, padding: (0, 0), ..shape },
            // By tiles: of all widths of lines of lanes, with rows and columns left over, and inside an image wider than a vector.
            Shape { batch: 2, inputs: 17, outputs: 19, height: 13, width: 45, ..shape },
            Shape { inputs: 16, outputs: 16, height: 8, width: 32, padding: (0, 1), ..shape },
            Shape { inputs: 20, outputs: 24, height: 9, width: 13, padding: (1, 0), ..shape },
            Shape { inputs: 16, outputs: 40, height: 40, width: 10, ..shape },
            Shape { inputs: 16, outputs: 17, height: 5, width: 200, ..shape },
            // Of stride 2.
            Shape { batch: 2, inputs: 3, outputs: 9, height: 24, width: 70, padding: (0, 1), stride: 2 },
            Shape { inputs: 17, outputs: 16, height: 11, width: 13, padding: (0, 1), stride: 2, ..shape },
            Shape { inputs: 2, outputs: 2, height: 2, width: 2, padding: (0, 1), stride: 2, ..shape },
        ]
    };

    #[test]
    fn is_the_convolution() {
        for shape in SHAPES {
            let x = values(shape.batch * shape.inputs * shape.height * shape.width, 1);
            let weight = values(shape.outputs * shape.inputs * 9, 2);
            let bias = values(shape.outputs, 3);
            let expected = plain(&x, &weight, &bias, &shape);
            let found = forward(&x, &weight, Some(&bias), &shape);
            assert_eq!(found.len(), expected.len(), "{shape:?}");
            // Tiles round more than a sum does: `rounding_of_tiles_is_small` holds them to their root mean square.
            let bound = if winograd::pays(&shape) { 3e-5 } else { 1e-5 };
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < bound, "{shape:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn rounding_of_tiles_is_small() {
        let shape = Shape { batch: 1, inputs: 128, outputs: 16, height: 16, width: 64, padding: (1, 1), stride: 1 };
        let x = values(shape.inputs * shape.height * shape.width, 1);
        let (weight, bias) = (values(shape.outputs * shape.inputs * 9, 2), vec![0.0; shape.outputs]);
        let (found, expected) = (forward(&x, &weight, None, &shape), plain(&x, &weight, &bias, &shape));
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
        let mut errors = found.iter().zip(&expected).map(|(found, expected)| f64::from(*found) - expected);
        let share = (squares(&mut errors) / squares(&mut expected.iter().copied())).sqrt();
        assert!(share < 2e-6, "off by {share} of the root mean square");
    }
}
