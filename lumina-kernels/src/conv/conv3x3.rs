//! Convolutions with 3×3 kernels.
//!
//! `y[o, r, c] = bias[o] + Σ x[i, r·stride + dy − top, c·stride + dx − left] · weight[o, i, dy, dx]`, with zeros
//! outside `x`.
//!
//! Sums over columns of an image stay in vector registers, so there is no im2col: a window of a few rows and columns is
//! packed once, for all output channels. With 16 channels or more and stride 1 the work goes to `winograd`. The order
//! of each sum depends on the shape alone, so a result depends neither on the batch nor on the number of threads.

use crate::parallel::*;

use super::output::{OutputPlanes, OutputPosition};
use super::winograd;
use crate::memory::{SharedOutput, prefer_large_pages};
use crate::simd::{F32s, LANES, Simd, simd_dispatch};

/// The fewest columns of an input that the kernel suits: narrower ones would leave most of a vector empty.
pub const MIN_WIDTH: usize = 12;

/// Rows of the input that a task steps over: half as many rows of the output with stride 2.
const TASK_ROWS: usize = 8;
/// Columns that a task computes for all output channels before the next columns.
const COLUMNS: usize = 2 * LANES;
/// Output channels of a block, with two vectors of columns each.
const BLOCK: usize = 8;
/// Columns of the packed window, in whole vectors.
const WINDOW: usize = COLUMNS + LANES;

/// Rows of zeros around the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPadding {
    /// Above the input: 2 at most.
    pub top: usize,
    /// Below the input: 2 at most.
    pub bottom: usize,
}

/// Sizes of a convolution.
///
/// Left and right there is one column of zeros each; with stride 2 only on the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv3x3Shape {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Rows of zeros above and below the input.
    pub padding: RowPadding,
    /// 1 or 2.
    pub stride: usize,
}

impl Conv3x3Shape {
    /// Rows of the output.
    pub fn output_height(&self) -> usize {
        (self.height + self.padding.top + self.padding.bottom).saturating_sub(3 - self.stride) / self.stride
    }

    /// Columns of the output.
    pub fn output_width(&self) -> usize {
        self.width / self.stride
    }

    /// Rows of the input that a task reads.
    fn window_rows(&self, task: &Task) -> usize {
        (task.rows - 1) * self.stride + 3
    }
}

/// Packs the weights in the order of the inner loop, those of [`BLOCK`] output channels together:
/// `[blocks, in_channels, 9, BLOCK]`.
fn pack_weights(weight: &[f32], shape: &Conv3x3Shape) -> Vec<f32> {
    let Conv3x3Shape { in_channels, out_channels, .. } = *shape;
    let mut packed = vec![0.0; out_channels.div_ceil(BLOCK) * in_channels * 9 * BLOCK];
    for (channel, weight) in weight.chunks_exact(in_channels * 9).enumerate() {
        let block = &mut packed[channel / BLOCK * in_channels * 9 * BLOCK..];
        for (at, value) in weight.iter().enumerate() {
            block[at * BLOCK + channel % BLOCK] = *value;
        }
    }
    packed
}

/// Convolves `x` `[batch, in_channels, height, width]` with `weight` `[out_channels, in_channels, 3, 3]` and adds
/// `bias` `[out_channels]`: `[batch, out_channels, output_height, output_width]`.
pub fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &Conv3x3Shape) -> Vec<f32> {
    let (rows, width) = (shape.output_height(), shape.output_width());
    let n = shape.batch * shape.out_channels * rows * width;
    let mut y = Vec::with_capacity(n);
    prefer_large_pages(y.as_ptr(), n);
    let output = OutputPlanes::new(SharedOutput::new(&mut y.spare_capacity_mut()[..n]), rows, width);
    if winograd::pays(shape) {
        winograd::forward(x, weight, bias, shape, &output);
    } else {
        direct(x, weight, bias, shape, &output);
    }
    #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
    // SAFETY: the capacity is at least `n`, and either form stores all columns of all rows of all channels of all
    // images.
    unsafe {
        y.set_len(n);
    }
    y
}

/// The convolution by its definition.
fn direct(x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &Conv3x3Shape, output: &OutputPlanes<'_>) {
    let Conv3x3Shape { batch, in_channels, out_channels, height, width, stride, .. } = *shape;
    let weights = pack_weights(weight, shape);
    // A task has some rows of one image, for all output channels.
    let (rows, task_rows) = (shape.output_height(), TASK_ROWS / stride);
    let tasks = (0..batch * rows.div_ceil(task_rows)).into_par_iter();
    tasks.for_each_init(Vec::new, |window, task| {
        let (image, first) = (task / rows.div_ceil(task_rows), task % rows.div_ceil(task_rows) * task_rows);
        let x = &x[image * in_channels * height * width..][..in_channels * height * width];
        let task = Task { first_plane: image * out_channels, first_row: first, rows: task_rows.min(rows - first) };
        for column in (0..shape.output_width()).step_by(COLUMNS) {
            pack_window(x, shape, &task, column, window);
            convolve_columns(&Work { window, weights: &weights, bias, shape, task: &task, column, output });
        }
    });
}

/// Rows of the output of one image. No two tasks have a row in common.
struct Task {
    /// The output plane of the image's first channel.
    first_plane: usize,
    first_row: usize,
    rows: usize,
}

/// Packs what a task reads for [`COLUMNS`] columns of the output, with zeros outside the image:
/// `[in_channels, window_rows, stride, WINDOW]`, where with stride 2 the even columns come before the odd ones.
fn pack_window(x: &[f32], shape: &Conv3x3Shape, task: &Task, column: usize, window: &mut Vec<f32>) {
    let Conv3x3Shape { in_channels, height, width, padding, stride, .. } = *shape;
    let rows = shape.window_rows(task);
    window.clear();
    window.resize(in_channels * rows * stride * WINDOW, 0.0);
    for (index, line) in window.chunks_exact_mut(stride * WINDOW).enumerate() {
        let (plane, row) = (index / rows, task.first_row * stride + index % rows);
        let Some(row) = row.checked_sub(padding.top).filter(|row| *row < height) else { continue };
        let row = &x[(plane * height + row) * width..][..width];
        if stride == 1 {
            // The window begins at column `column - 1` of the image.
            let (from, skip) = (column.saturating_sub(1), usize::from(column == 0));
            let n = (COLUMNS + 2 - skip).min(width - from);
            line[skip..skip + n].copy_from_slice(&row[from..][..n]);
        } else {
            let (even, odd) = line.split_at_mut(WINDOW);
            for (pair, (even, odd)) in row[2 * column..].chunks(2).zip(even.iter_mut().zip(odd)).take(COLUMNS + 1) {
                *even = pair[0];
                *odd = pair.get(1).copied().unwrap_or(0.0);
            }
        }
    }
}

/// Some columns of a task.
struct Work<'a> {
    /// From [`pack_window`].
    window: &'a [f32],
    /// From [`pack_weights`].
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    shape: &'a Conv3x3Shape,
    task: &'a Task,
    column: usize,
    output: &'a OutputPlanes<'a>,
}

simd_dispatch!(fn convolve_columns(work: &Work<'_>) = convolve_columns_body);

/// [`COLUMNS`] columns of all output channels in a task's rows.
#[inline(always)]
fn convolve_columns_body<S: Simd>(simd: S, work: &Work<'_>) {
    let Conv3x3Shape { in_channels, out_channels, .. } = *work.shape;
    for (block, weights) in work.weights.chunks_exact(in_channels * 9 * BLOCK).enumerate() {
        let weights = weights.as_chunks::<BLOCK>().0.as_chunks::<9>().0;
        let first_channel = block * BLOCK;
        let mut start = [0.0; BLOCK];
        if let Some(bias) = work.bias {
            let n = BLOCK.min(out_channels - first_channel);
            start[..n].copy_from_slice(&bias[first_channel..first_channel + n]);
        }
        for row in 0..work.task.rows {
            let block = ChannelBlock { weights, start: &start, first_channel, row };
            if S::WIDE_TILES {
                convolve_tile::<S, BLOCK, 2>(simd, work, &block, 0, 0);
            } else {
                for channel in (0..BLOCK).step_by(4) {
                    convolve_tile::<S, 4, 1>(simd, work, &block, channel, 0);
                    convolve_tile::<S, 4, 1>(simd, work, &block, channel, LANES);
                }
            }
        }
    }
}

/// [`BLOCK`] output channels in one row of a task.
struct ChannelBlock<'a> {
    /// For each input channel.
    weights: &'a [[[f32; BLOCK]; 9]],
    /// What the sums start with.
    start: &'a [f32; BLOCK],
    first_channel: usize,
    row: usize,
}

/// `R` output channels from `channel` of the block on, and `N` vectors of columns from `column` of the window on.
#[inline(always)]
fn convolve_tile<S: Simd, const R: usize, const N: usize>(
    simd: S,
    work: &Work<'_>,
    block: &ChannelBlock<'_>,
    channel: usize,
    column: usize,
) {
    let mut sums = [[simd.splat(0.0); N]; R];
    for (index, sums) in sums.iter_mut().enumerate() {
        *sums = [simd.splat(block.start[channel + index]); N];
    }
    let stride = work.shape.stride;
    let (line, plane) = (stride * WINDOW, work.shape.window_rows(work.task) * stride * WINDOW);
    // The columns of the window that the kernel's three columns begin at.
    let columns = if stride == 1 { [0, 1, 2] } else { [0, WINDOW, 1] };
    for (window, weights) in work.window.chunks_exact(plane).zip(block.weights) {
        for dy in 0..3 {
            let window = &window[(block.row * stride + dy) * line..][..line];
            for dx in 0..3 {
                let mut x = [simd.splat(0.0); N];
                for (vector, x) in x.iter_mut().enumerate() {
                    *x = simd.load(&window[columns[dx] + column + vector * LANES..]);
                }
                for index in 0..R {
                    let weight = simd.splat(weights[dy * 3 + dx][channel + index]);
                    for vector in 0..N {
                        sums[index][vector] = sums[index][vector].multiply_add(weight, x[vector]);
                    }
                }
            }
        }
    }
    for (index, sums) in sums.iter().enumerate() {
        let channel = block.first_channel + channel + index;
        if channel < work.shape.out_channels {
            for (vector, sum) in sums.iter().enumerate() {
                let position = OutputPosition {
                    plane: work.task.first_plane + channel,
                    row: work.task.first_row + block.row,
                    column: work.column + column + vector * LANES,
                };
                #[allow(unsafe_code, reason = "threads write disjoint rows of one result")]
                // SAFETY: the row is one of the task's, which no other task has.
                unsafe {
                    work.output.store(position, &sum.to_array());
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use lumina_testing::numbers;

    use super::*;

    /// The definition, in `f64`.
    fn reference(x: &[f32], weight: &[f32], bias: &[f32], shape: &Conv3x3Shape) -> Vec<f64> {
        let Conv3x3Shape { batch, in_channels, out_channels, height, width, padding, stride } = *shape;
        let mut y = Vec::new();
        for image in 0..batch {
            for output in 0..out_channels {
                for row in 0..shape.output_height() {
                    for column in 0..shape.output_width() {
                        let mut sum = f64::from(bias[output]);
                        for input in 0..in_channels {
                            for (dy, dx) in (0..9).map(|tap| (tap / 3, tap % 3)) {
                                let (Some(r), Some(c)) = (
                                    (row * stride + dy).checked_sub(padding.top),
                                    (column * stride + dx).checked_sub(2 - stride),
                                ) else {
                                    continue;
                                };
                                if r < height && c < width {
                                    let x = x[((image * in_channels + input) * height + r) * width + c];
                                    let w = weight[((output * in_channels + input) * 3 + dy) * 3 + dx];
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

    const NONE: RowPadding = RowPadding { top: 0, bottom: 0 };
    const TOP: RowPadding = RowPadding { top: 1, bottom: 0 };
    const BOTTOM: RowPadding = RowPadding { top: 0, bottom: 1 };
    const BOTH: RowPadding = RowPadding { top: 1, bottom: 1 };

    /// One image.
    const fn shape(
        in_channels: usize,
        out_channels: usize,
        height: usize,
        width: usize,
        padding: RowPadding,
    ) -> Conv3x3Shape {
        Conv3x3Shape { batch: 1, in_channels, out_channels, height, width, padding, stride: 1 }
    }

    pub(crate) const SHAPES: [Conv3x3Shape; 13] = [
        shape(1, 1, 1, 1, BOTH),
        Conv3x3Shape { batch: 2, ..shape(3, 5, 7, 19, BOTH) },
        shape(4, 9, 12, 48, BOTTOM),
        Conv3x3Shape { batch: 3, ..shape(2, 8, 9, 33, TOP) },
        shape(2, 3, 20, 16, NONE),
        // By Winograd: of each number of tiles in a row, with partial tiles, and in an image wider than a vector.
        Conv3x3Shape { batch: 2, ..shape(17, 19, 13, 45, BOTH) },
        shape(16, 16, 8, 32, BOTTOM),
        shape(20, 24, 9, 13, TOP),
        shape(16, 40, 40, 10, BOTH),
        shape(16, 17, 5, 200, BOTH),
        // With stride 2.
        Conv3x3Shape { batch: 2, stride: 2, ..shape(3, 9, 24, 70, BOTTOM) },
        Conv3x3Shape { stride: 2, ..shape(17, 16, 11, 13, BOTTOM) },
        Conv3x3Shape { stride: 2, ..shape(2, 2, 2, 2, BOTTOM) },
    ];

    #[test]
    fn matches_the_definition() {
        for shape in SHAPES {
            let x = numbers(shape.batch * shape.in_channels * shape.height * shape.width, 1);
            let weight = numbers(shape.out_channels * shape.in_channels * 9, 2);
            let bias = numbers(shape.out_channels, 3);
            let expected = reference(&x, &weight, &bias, &shape);
            let found = forward(&x, &weight, Some(&bias), &shape);
            assert_eq!(found.len(), expected.len(), "{shape:?}");
            // Winograd rounds more than a plain sum: `winograd_rounds_little` tests it against the root mean square.
            let bound = if winograd::pays(&shape) { 3e-5 } else { 1e-5 };
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < bound, "{shape:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn winograd_rounds_little() {
        let shape = shape(128, 16, 16, 64, BOTH);
        let x = numbers(shape.in_channels * shape.height * shape.width, 1);
        let (weight, bias) = (numbers(shape.out_channels * shape.in_channels * 9, 2), vec![0.0; shape.out_channels]);
        let (found, expected) = (forward(&x, &weight, None, &shape), reference(&x, &weight, &bias, &shape));
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
        let mut errors = found.iter().zip(&expected).map(|(found, expected)| f64::from(*found) - expected);
        let relative = (squares(&mut errors) / squares(&mut expected.iter().copied())).sqrt();
        assert!(relative < 2e-6, "off by {relative} of the root mean square");
    }
}
