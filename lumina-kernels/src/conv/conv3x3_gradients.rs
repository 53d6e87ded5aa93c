//! Gradients of 3×3 convolutions with stride 1.
//!
//! The gradient of the input is a convolution of `dy` with the flipped and transposed weights. The gradient of a weight
//! is the dot product of an output plane with a shifted input plane, whose columns are the lanes of vectors.

use crate::parallel::*;

use super::conv3x3::{Conv3x3Shape, RowPadding, forward};
use crate::simd::{F32s, LANES, Simd, simd_dispatch};

/// Output channels whose weight gradients are summed together, for three columns of the kernel each.
const CHANNELS: usize = 4;

impl Conv3x3Shape {
    fn padded_width(&self) -> usize {
        self.width.next_multiple_of(LANES) + LANES
    }

    fn padded_plane(&self) -> usize {
        (self.height + self.padding.top + self.padding.bottom) * self.padded_width()
    }

    /// The images with zeros around them, `[batch, in_channels, padded height, padded_width]`.
    fn pad(&self, x: &[f32]) -> Vec<f32> {
        let (plane, width) = (self.padded_plane(), self.padded_width());
        let mut padded = vec![0.0; self.batch * self.in_channels * plane];
        padded.par_chunks_mut(plane).zip(x.par_chunks_exact(self.height * self.width)).for_each(|(padded, x)| {
            let rows = padded.chunks_exact_mut(width).skip(self.padding.top);
            for (padded, row) in rows.zip(x.chunks_exact(self.width)) {
                padded[1..=self.width].copy_from_slice(row);
            }
        });
        padded
    }

    /// The shape of the convolution that maps the gradient of the output to that of the input.
    fn transposed(&self) -> Self {
        let padding = RowPadding { top: 2 - self.padding.top, bottom: 2 - self.padding.bottom };
        let (in_channels, out_channels) = (self.out_channels, self.in_channels);
        Self { in_channels, out_channels, height: self.output_height(), padding, ..*self }
    }
}

/// The gradient of the input, as the input, from `dy` `[batch, out_channels, output_height, output_width]`.
pub fn input_gradient(dy: &[f32], weight: &[f32], shape: &Conv3x3Shape) -> Vec<f32> {
    let Conv3x3Shape { in_channels, out_channels, .. } = *shape;
    let mut flipped = vec![0.0; weight.len()];
    for output in 0..out_channels {
        for input in 0..in_channels {
            for tap in 0..9 {
                flipped[(input * out_channels + output) * 9 + 8 - tap] =
                    weight[(output * in_channels + input) * 9 + tap];
            }
        }
    }
    forward(dy, &flipped, None, &shape.transposed())
}

/// The gradient of the weight, `[out_channels, in_channels, 3, 3]`, from the input and `dy`.
pub fn weight_gradient(x: &[f32], dy: &[f32], shape: &Conv3x3Shape) -> Vec<f32> {
    let Conv3x3Shape { batch, in_channels, out_channels, width, .. } = *shape;
    let (padded, rows) = (shape.pad(x), shape.output_height());
    // Columns beyond the image are zero, so they add nothing.
    let padded_width = width.next_multiple_of(LANES);
    let mut padded_dy = vec![0.0; batch * out_channels * rows * padded_width];
    padded_dy
        .par_chunks_mut(padded_width)
        .zip(dy.par_chunks_exact(width))
        .for_each(|(padded, row)| padded[..width].copy_from_slice(row));

    let blocks = out_channels.div_ceil(CHANNELS);
    let tasks: Vec<[[f32; 9]; CHANNELS]> = (0..blocks * in_channels)
        .into_par_iter()
        .map(|task| block_gradient(&padded, &padded_dy, shape, task / in_channels * CHANNELS, task % in_channels))
        .collect();
    let mut gradient = vec![0.0; out_channels * in_channels * 9];
    for (task, values) in tasks.into_iter().enumerate() {
        let (block, input) = (task / in_channels, task % in_channels);
        for (index, values) in values.into_iter().enumerate() {
            let output = block * CHANNELS + index;
            if output < out_channels {
                gradient[(output * in_channels + input) * 9..][..9].copy_from_slice(&values);
            }
        }
    }
    gradient
}

simd_dispatch!(fn block_gradient(
    padded: &[f32], dy: &[f32], shape: &Conv3x3Shape, output: usize, input: usize
) -> [[f32; 9]; CHANNELS] = block_gradient_body);

/// The gradients of the weights between [`CHANNELS`] output channels, from `output` on, and one input channel.
#[inline(always)]
fn block_gradient_body<S: Simd>(
    simd: S,
    padded: &[f32],
    dy: &[f32],
    shape: &Conv3x3Shape,
    output: usize,
    input: usize,
) -> [[f32; 9]; CHANNELS] {
    let Conv3x3Shape { batch, in_channels, out_channels, width, .. } = *shape;
    let (rows, padded_width) = (shape.output_height(), width.next_multiple_of(LANES));
    let (line, plane) = (shape.padded_width(), shape.padded_plane());
    let mut result = [[0.0; 9]; CHANNELS];
    for tap_row in 0..3 {
        let mut sums = [[simd.splat(0.0); 3]; CHANNELS];
        for image in 0..batch {
            let x = &padded[(image * in_channels + input) * plane..][..plane];
            // Channels beyond the last repeat it; their sums are not used.
            let mut planes = [&dy[..0]; CHANNELS];
            for (index, plane) in planes.iter_mut().enumerate() {
                let output = (output + index).min(out_channels - 1);
                *plane = &dy[(image * out_channels + output) * rows * padded_width..][..rows * padded_width];
            }
            for row in 0..rows {
                let window = &x[(row + tap_row) * line..][..padded_width + LANES];
                for column in (0..padded_width).step_by(LANES) {
                    let window = &window[column..column + LANES + 2];
                    let taps = [simd.load(window), simd.load(&window[1..]), simd.load(&window[2..])];
                    for index in 0..CHANNELS {
                        let dy = simd.load(&planes[index][row * padded_width + column..]);
                        for dx in 0..3 {
                            sums[index][dx] = sums[index][dx].multiply_add(dy, taps[dx]);
                        }
                    }
                }
            }
        }
        for (result, sums) in result.iter_mut().zip(&sums) {
            for (dx, sums) in sums.iter().enumerate() {
                result[tap_row * 3 + dx] = sums.to_array().iter().sum();
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use lumina_testing::numbers;

    use super::super::conv3x3::tests::SHAPES;
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn gradients_are_the_transposes() {
        // y is linear in x and in the weight, so ⟨dy, y(v)⟩ = ⟨gradient, v⟩ for any v of their size.
        for shape in SHAPES.into_iter().filter(|shape| shape.stride == 1) {
            let n_x = shape.batch * shape.in_channels * shape.height * shape.width;
            let (x, weight) = (numbers(n_x, 1), numbers(shape.out_channels * shape.in_channels * 9, 2));
            let dy = numbers(shape.batch * shape.out_channels * shape.output_height() * shape.width, 4);
            for seed in 5..9 {
                let v = numbers(n_x, seed);
                let (left, right) =
                    (dot(&dy, &forward(&v, &weight, None, &shape)), dot(&input_gradient(&dy, &weight, &shape), &v));
                assert!((left - right).abs() < 1e-3, "{shape:?}: {left} {right}");
                let v = numbers(weight.len(), seed);
                let (left, right) =
                    (dot(&dy, &forward(&x, &v, None, &shape)), dot(&weight_gradient(&x, &dy, &shape), &v));
                assert!((left - right).abs() < 1e-3, "{shape:?}: {left} {right}");
            }
        }
    }
}
