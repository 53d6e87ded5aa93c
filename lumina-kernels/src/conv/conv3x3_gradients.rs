//! The gradients of convolutions of 3×3 with stride 1, as plain functions on slices.

use rayon::prelude::*;

use super::conv3x3::{Shape, forward};
use crate::simd::vector::{LANES, Vector, best_instructions};

/// Outputs whose weight gradients are summed side by side, with three columns of the kernel each.
const GRADIENTS: usize = 4;

impl Shape {
    fn padded_width(&self) -> usize {
        self.width.next_multiple_of(LANES) + LANES
    }

    fn padded_plane(&self) -> usize {
        (self.height + self.padding.0 + self.padding.1) * self.padded_width()
    }

    /// The images with zeros around them, `[batch, inputs, rows + 2, padded_width]`.
    fn padded(&self, x: &[f32]) -> Vec<f32> {
        let (plane, width) = (self.padded_plane(), self.padded_width());
        let mut padded = vec![0.0; self.batch * self.inputs * plane];
        padded.par_chunks_mut(plane).zip(x.par_chunks_exact(self.height * self.width)).for_each(|(padded, x)| {
            let rows = padded.chunks_exact_mut(width).skip(self.padding.0);
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

/// The gradient of the input, from that of the output.
pub fn input_gradient(dy: &[f32], weight: &[f32], shape: &Shape) -> Vec<f32> {
    let Shape { inputs, outputs, .. } = *shape;
    let mut turned = vec![0.0; weight.len()];
    for output in 0..outputs {
        for input in 0..inputs {
            for tap in 0..9 {
                turned[(input * outputs + output) * 9 + 8 - tap] = weight[(output * inputs + input) * 9 + tap];
            }
        }
    }
    forward(dy, &turned, None, &shape.reversed())
}

/// The gradient of the weight, `[outputs, inputs, 3, 3]`.
pub fn weight_gradient(x: &[f32], dy: &[f32], shape: &Shape) -> Vec<f32> {
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

best_instructions!(gradient_of_pair = gradient_body(
    padded: &[f32], dy: &[f32], shape: &Shape, output: usize, input: usize
) -> [[f32; 9]; GRADIENTS]);

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
    let (rows, wide) = (shape.rows(), width.next_multiple_of(LANES));
    let (line, plane) = (shape.padded_width(), shape.padded_plane());
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
                let window = &x[(row + tap_row) * line..][..wide + LANES];
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
    use super::super::conv3x3::tests::{SHAPES, values};
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn gradients_are_the_transposes() {
        // y is linear in x and in the weight, so ⟨dy, y(v)⟩ = ⟨gradient, v⟩ for any v in their place.
        for shape in SHAPES.into_iter().filter(|shape| shape.stride == 1) {
            let n_x = shape.batch * shape.inputs * shape.height * shape.width;
            let (x, weight) = (values(n_x, 1), values(shape.outputs * shape.inputs * 9, 2));
            let dy = values(shape.batch * shape.outputs * shape.rows() * shape.width, 4);
            for seed in 5..9 {
                let v = values(n_x, seed);
                let (left, right) =
                    (dot(&dy, &forward(&v, &weight, None, &shape)), dot(&input_gradient(&dy, &weight, &shape), &v));
                assert!((left - right).abs() < 1e-3, "{shape:?}: {left} {right}");
                let v = values(weight.len(), seed);
                let (left, right) =
                    (dot(&dy, &forward(&x, &v, None, &shape)), dot(&weight_gradient(&x, &dy, &shape), &v));
                assert!((left - right).abs() < 1e-3, "{shape:?}: {left} {right}");
            }
        }
    }
}
