//! Convolutions of 3×3 with stride 1 on the processor, and their gradients, as plain functions on slices.
//!
//! Images are `[batch, channels, height, width]`. Sums run over the columns of an image in vector registers, so no
//! patches are laid out in memory: what a few rows and columns see is copied once, for all outputs. The order of each sum depends on
//! the shape alone, so a result does not depend on the batch or the number of threads.

use std::ptr::NonNull;

use lumina_kernels::Activations;
use rayon::prelude::*;

use super::memory::prefer_large_pages;
use super::vector::{LANES, Vector, best_instructions};
use super::winograd_kernel::{self, COLUMNS, TASK_ROWS, pays, transformed};

/// Outputs computed side by side, with two vectors of columns each.
const OUTPUTS: usize = 8;
/// Outputs whose weight gradients are summed side by side, with three columns of the kernel each.
const GRADIENTS: usize = 4;
/// Columns that are seen for them, in whole vectors.
const SEEN: usize = COLUMNS + LANES;

/// What is convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Rows and columns of the input.
    pub(super) height: usize,
    pub(super) width: usize,
    /// Rows of zeros above and below; left and right there is one column each.
    pub(super) padding: (usize, usize),
}

impl Shape {
    /// Rows of the output.
    pub(super) fn rows(&self) -> usize {
        (self.height + self.padding.0 + self.padding.1).saturating_sub(2)
    }

    fn stride(&self) -> usize {
        self.width.next_multiple_of(LANES) + LANES
    }

    fn plane(&self) -> usize {
        (self.height + self.padding.0 + self.padding.1) * self.stride()
    }

    /// The images with zeros around them, `[batch, inputs, rows + 2, stride]`.
    fn padded(&self, x: &[f32]) -> Vec<f32> {
        let (plane, stride) = (self.plane(), self.stride());
        let mut padded = vec![0.0; self.batch * self.inputs * plane];
        padded.par_chunks_mut(plane).zip(x.par_chunks_exact(self.height * self.width)).for_each(|(padded, x)| {
            let rows = padded.chunks_exact_mut(stride).skip(self.padding.0);
            for (padded, row) in rows.zip(x.chunks_exact(self.width)) {
                padded[1..=self.width].copy_from_slice(row);
            }
        });
        padded
    }

    /// The shape of the convolution that takes gradients of the output back to the input.
    fn reversed(&self) -> Self {
        let (inputs, outputs) = (self.outputs, self.inputs);
        let padding = (2 - self.padding.0, 2 - self.padding.1);
        Self { inputs, outputs, height: self.rows(), padding, ..*self }
    }
}

/// Two numbers as `bf16` in the bits of one.
#[inline(always)]
pub(super) fn pair(low: f32, high: f32) -> f32 {
    f32::from_bits(rounded(low) | rounded(high) << 16)
}

/// The nearest `bf16`, ties to even; no number stays no number.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { 0x7FC0 } else { nearest }
}

/// Whether the processor multiplies pairs of `bf16`.
pub(super) fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    #[cfg(not(target_arch = "x86_64"))]
    false
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
/// `[batch, outputs, rows, width]`. With [`Activations::Compact`] many channels are multiplied in `bf16`, where the processor does that:
/// what [`winograd_kernel`] makes of both is rounded, and sums are `f32`. Results are then off by about 2⁻⁸ of their root mean square.
pub(super) fn forward(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    shape: &Shape,
    activations: Activations,
) -> Vec<f32> {
    let Shape { batch, inputs, outputs, height, width, .. } = *shape;
    let by_tiles = pays(shape);
    let pairs = by_tiles && activations == Activations::Compact && has_pairs();
    let weights = if by_tiles { transformed(weight, shape, pairs) } else { packed(weight, shape) };
    let rows = shape.rows();
    let per_image = outputs * rows * width;
    let mut y = Vec::with_capacity(batch * per_image);
    prefer_large_pages(y.as_ptr(), batch * per_image);
    let result = Planes { start: NonNull::from(&mut y.spare_capacity_mut()[..batch * per_image]).cast(), rows, width };
    // A task has some rows of one image. What it sees of them lies side by side, some columns at a time, for all outputs.
    let tasks = (0..batch * rows.div_ceil(TASK_ROWS)).into_par_iter();
    tasks.for_each_init(Vec::new, |seen, task| {
        let (image, first) = (task / rows.div_ceil(TASK_ROWS), task % rows.div_ceil(TASK_ROWS) * TASK_ROWS);
        let x = &x[image * inputs * height * width..][..inputs * height * width];
        let task = Task { image: image * outputs, first, rows: TASK_ROWS.min(rows - first) };
        for column in (0..width).step_by(COLUMNS) {
            if by_tiles {
                let (weights, task, result) = (&weights, &task, &result);
                let work = winograd_kernel::Work { x, shape, weights, bias, task, column, result };
                #[cfg(target_arch = "x86_64")]
                if pairs {
                    #[allow(unsafe_code, reason = "calls a function compiled for features that were detected")]
                    // SAFETY: `pairs` is true only where `has_pairs` is.
                    unsafe {
                        winograd_kernel::columns_of_pairs(&work, seen);
                    }
                    continue;
                }
                winograd_kernel::columns(&work, seen);
                continue;
            }
            see(x, shape, &task, column, seen);
            columns_of_task(&Work { seen, weights: &weights, bias, outputs, task: &task, column, result: &result });
        }
    });
    #[allow(unsafe_code, reason = "a result that is written once need not be cleared before")]
    // SAFETY: there is room for so many. The tasks have all rows of all images, and write all columns of all outputs.
    unsafe {
        y.set_len(batch * per_image);
    }
    y
}

/// Rows of one image.
pub(super) struct Task {
    /// Planes of the result before those of the image.
    pub(super) image: usize,
    pub(super) first: usize,
    pub(super) rows: usize,
}

/// Where results go.
pub(super) struct Planes {
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
    pub(super) fn put(&self, (plane, row, column): (usize, usize, usize), values: &[f32; LANES]) {
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

/// What a task sees in [`COLUMNS`] columns and those beside them: `[inputs, rows + 2, SEEN]`, with zeros beyond the image.
fn see(x: &[f32], shape: &Shape, task: &Task, column: usize, seen: &mut Vec<f32>) {
    let Shape { inputs, height, width, padding, .. } = *shape;
    let rows = task.rows + 2;
    seen.clear();
    seen.resize(inputs * rows * SEEN, 0.0);
    // Column `column - 1` of the image is the first that is seen.
    let (from, skip) = (column.saturating_sub(1), usize::from(column == 0));
    let n = (COLUMNS + 2 - skip).min(width - from);
    for (plane, seen) in x.chunks_exact(height * width).zip(seen.chunks_exact_mut(rows * SEEN)) {
        for (row, seen) in seen.chunks_exact_mut(SEEN).enumerate() {
            if let Some(row) = (task.first + row).checked_sub(padding.0).filter(|row| *row < height) {
                seen[skip..skip + n].copy_from_slice(&plane[row * width + from..][..n]);
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
    /// Outputs that there are; the last block of weights may have more.
    outputs: usize,
    task: &'a Task,
    column: usize,
    result: &'a Planes,
}

/// The gradient of the input, from that of the output.
pub(super) fn input_gradient(dy: &[f32], weight: &[f32], shape: &Shape) -> Vec<f32> {
    let Shape { inputs, outputs, .. } = *shape;
    let mut turned = vec![0.0; weight.len()];
    for output in 0..outputs {
        for input in 0..inputs {
            for tap in 0..9 {
                turned[(input * outputs + output) * 9 + 8 - tap] = weight[(output * inputs + input) * 9 + tap];
            }
        }
    }
    forward(dy, &turned, None, &shape.reversed(), Activations::Full)
}

/// The gradient of the weight, `[outputs, inputs, 3, 3]`.
pub(super) fn weight_gradient(x: &[f32], dy: &[f32], shape: &Shape) -> Vec<f32> {
    let Shape { batch, inputs, outputs, width, .. } = *shape;
    let (padded, rows) = (shape.padded(x), shape.rows());
    // Columns beyond the image are zero, and so add nothing.
    let wide = width.next_multiple_of(LANES);
    let mut dy_wide = vec![0.0; batch * outputs * rows * wide];
    dy_wide
        .par_chunks_mut(wide)
        .zip(dy.par_chunks_exact(width))
        .for_each(|(to, from)| to[..width].copy_from_slice(from));

    let blocks = outputs.div_ceil(GRADIENTS);
    let tasks: Vec<[[f32; 9]; GRADIENTS]> = (0..blocks * inputs)
        .into_par_iter()
        .map(|task| gradient_of_pair(&padded, &dy_wide, shape, task / inputs * GRADIENTS, task % inputs))
        .collect();
    let mut gradient = vec![0.0; outputs * inputs * 9];
    for (task, values) in tasks.into_iter().enumerate() {
        let (block, input) = (task / inputs, task % inputs);
        for (index, values) in values.into_iter().enumerate() {
            let output = block * GRADIENTS + index;
            if output < outputs {
                gradient[(output * inputs + input) * 9..][..9].copy_from_slice(&values);
            }
        }
    }
    gradient
}

best_instructions!(columns_of_task = columns_body(work: &Work<'_>));
best_instructions!(gradient_of_pair = gradient_body(
    padded: &[f32], dy: &[f32], shape: &Shape, output: usize, input: usize
) -> [[f32; 9]; GRADIENTS]);

/// [`COLUMNS`] columns of all outputs in a task's rows.
#[inline(always)]
fn columns_body<V: Vector>(work: &Work<'_>) {
    let inputs = work.seen.len() / work.plane();
    for (block, weights) in work.weights.chunks_exact(inputs * 9 * OUTPUTS).enumerate() {
        let weights = weights.as_chunks::<OUTPUTS>().0.as_chunks::<9>().0;
        let first_output = block * OUTPUTS;
        let mut start = [0.0; OUTPUTS];
        if let Some(bias) = work.bias {
            let n = OUTPUTS.min(work.outputs - first_output);
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

impl Work<'_> {
    /// Numbers of a channel in what is seen.
    fn plane(&self) -> usize {
        (self.task.rows + 2) * SEEN
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
    for (channel, weights) in work.seen.chunks_exact(work.plane()).zip(block.weights) {
        for dy in 0..3 {
            let window = &channel[(block.row + dy) * SEEN + column..][..N * LANES + 2];
            for dx in 0..3 {
                let mut x = [V::splat(0.0); N];
                for (vector, x) in x.iter_mut().enumerate() {
                    *x = V::load(&window[dx + vector * LANES..]);
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
        if at < work.outputs {
            for (vector, sum) in sums.iter().enumerate() {
                let column = work.column + column + vector * LANES;
                work.result.put((work.task.image + at, work.task.first + block.row, column), &sum.array());
            }
        }
    }
}

/// The weight gradients of GRADIENTS outputs from `output` on, with one input.
#[inline(always)]
fn gradient_body<V: Vector>(
    padded: &[f32],
    dy: &[f32],
    shape: &Shape,
    output: usize,
    input: usize,
) -> [[f32; 9]; GRADIENTS] {
    let Shape { batch, inputs, outputs, width, .. } = *shape;
    let (rows, stride, plane, wide) = (shape.rows(), shape.stride(), shape.plane(), width.next_multiple_of(LANES));
    let mut result = [[0.0; 9]; GRADIENTS];
    for tap_row in 0..3 {
        let mut sums = [[V::splat(0.0); 3]; GRADIENTS];
        for image in 0..batch {
            let x = &padded[(image * inputs + input) * plane..][..plane];
            // Outputs beyond the last repeat it; what they sum is not used.
            let mut planes = [&dy[..0]; GRADIENTS];
            for (index, plane) in planes.iter_mut().enumerate() {
                let output = (output + index).min(outputs - 1);
                *plane = &dy[(image * outputs + output) * rows * wide..][..rows * wide];
            }
            for row in 0..rows {
                let window = &x[(row + tap_row) * stride..][..wide + LANES];
                for column in (0..wide).step_by(LANES) {
                    let at = &window[column..column + LANES + 2];
                    let taps = [V::load(at), V::load(&at[1..]), V::load(&at[2..])];
                    for index in 0..GRADIENTS {
                        let dy = V::load(&planes[index][row * wide + column..]);
                        for dx in 0..3 {
                            sums[index][dx] = sums[index][dx].add_product(dy, taps[dx]);
                        }
                    }
                }
            }
        }
        for (result, sums) in result.iter_mut().zip(&sums) {
            for (dx, sums) in sums.iter().enumerate() {
                result[tap_row * 3 + dx] = sums.array().iter().sum();
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around zero from a small generator.
    fn values(n: usize, seed: u32) -> Vec<f32> {
        lumina_testing::lcg(seed).take(n).map(|state| (state >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// The definition, in `f64`.
    fn plain(x: &[f32], weight: &[f32], bias: &[f32], shape: &Shape) -> Vec<f64> {
        let Shape { batch, inputs, outputs, height, width, padding } = *shape;
        let mut y = Vec::new();
        for image in 0..batch {
            for output in 0..outputs {
                for row in 0..shape.rows() {
                    for column in 0..width {
                        let mut sum = f64::from(bias[output]);
                        for input in 0..inputs {
                            for (dy, dx) in (0..9).map(|tap| (tap / 3, tap % 3)) {
                                let (Some(r), Some(c)) =
                                    ((row + dy).checked_sub(padding.0), (column + dx).checked_sub(1))
                                else {
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

    const SHAPES: [Shape; 8] = [
        Shape { batch: 2, inputs: 3, outputs: 5, height: 7, width: 19, padding: (1, 1) },
        Shape { batch: 1, inputs: 1, outputs: 1, height: 1, width: 1, padding: (1, 1) },
        Shape { batch: 1, inputs: 4, outputs: 9, height: 12, width: 48, padding: (0, 1) },
        Shape { batch: 3, inputs: 2, outputs: 8, height: 9, width: 33, padding: (1, 0) },
        Shape { batch: 1, inputs: 2, outputs: 3, height: 20, width: 16, padding: (0, 0) },
        // By tiles.
        Shape { batch: 2, inputs: 17, outputs: 19, height: 13, width: 45, padding: (1, 1) },
        Shape { batch: 1, inputs: 16, outputs: 16, height: 8, width: 32, padding: (0, 1) },
        Shape { batch: 1, inputs: 20, outputs: 24, height: 9, width: 13, padding: (1, 0) },
    ];

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn is_the_convolution() {
        for shape in SHAPES {
            let x = values(shape.batch * shape.inputs * shape.height * shape.width, 1);
            let weight = values(shape.outputs * shape.inputs * 9, 2);
            let bias = values(shape.outputs, 3);
            let expected = plain(&x, &weight, &bias, &shape);
            let found = forward(&x, &weight, Some(&bias), &shape, Activations::Full);
            assert_eq!(found.len(), expected.len(), "{shape:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{shape:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn compact_is_the_convolution_within_its_bound() {
        let root_mean_square = |values: &mut dyn Iterator<Item = f64>| {
            let (n, squares) = values.fold((0.0, 0.0), |(n, squares), value| (n + 1.0, squares + value * value));
            f64::sqrt(squares / n)
        };
        for shape in SHAPES {
            let x = values(shape.batch * shape.inputs * shape.height * shape.width, 1);
            let (weight, bias) = (values(shape.outputs * shape.inputs * 9, 2), values(shape.outputs, 3));
            let found = forward(&x, &weight, Some(&bias), &shape, Activations::Compact);
            let expected = plain(&x, &weight, &bias, &shape);
            assert_eq!(found.len(), expected.len(), "{shape:?}");
            let mut errors = found.iter().zip(&expected).map(|(found, expected)| f64::from(*found) - expected);
            let share = root_mean_square(&mut errors) / root_mean_square(&mut expected.iter().copied());
            let bound = if pays(&shape) && has_pairs() { 4.5e-3 } else { 1e-6 };
            assert!(share < bound, "{shape:?}: off by {share}");
        }
        let widened = |value: f32| f32::from_bits(rounded(value) << 16);
        assert_eq!([1.0, -0.0, f32::INFINITY].map(widened), [1.0, -0.0, f32::INFINITY]);
        assert_eq!(widened(1.0 + 1.0 / 256.0), 1.0, "ties to even");
        assert!(widened(f32::NAN).is_nan() && widened(f32::from_bits(0x7F80_0001)).is_nan());
    }

    #[test]
    fn gradients_are_the_transposes() {
        // y is linear in x and in the weight, so ⟨dy, y(v)⟩ = ⟨gradient, v⟩ for any v in their place.
        for shape in SHAPES {
            let n_x = shape.batch * shape.inputs * shape.height * shape.width;
            let (x, weight) = (values(n_x, 1), values(shape.outputs * shape.inputs * 9, 2));
            let dy = values(shape.batch * shape.outputs * shape.rows() * shape.width, 4);
            for seed in 5..9 {
                let v = values(n_x, seed);
                let (left, right) = (
                    dot(&dy, &forward(&v, &weight, None, &shape, Activations::Full)),
                    dot(&input_gradient(&dy, &weight, &shape), &v),
                );
                assert!((left - right).abs() < 1e-3, "{shape:?}: {left} {right}");
                let v = values(weight.len(), seed);
                let (left, right) = (
                    dot(&dy, &forward(&x, &v, None, &shape, Activations::Full)),
                    dot(&weight_gradient(&x, &dy, &shape), &v),
                );
                assert!((left - right).abs() < 1e-3, "{shape:?}: {left} {right}");
            }
        }
    }
}
