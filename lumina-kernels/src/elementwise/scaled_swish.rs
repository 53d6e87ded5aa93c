//! `swish(x · scale + shift)` and its gradients on slices, a plane of an image at a time.

use rayon::prelude::*;

use crate::memory::written;
use crate::simd::exp::sigmoid;
use crate::simd::vector::{LANES, Vector, best_instructions};

best_instructions!(plane = plane_body(x: &[f32], scale: f32, shift: f32, y: &mut [f32]));
best_instructions!(plane_gradient = plane_gradient_body(
    x: &[f32], scale: f32, shift: f32, dy: &[f32], dx: &mut [f32]
) -> (f32, f32));

#[inline(always)]
fn plane_body<V: Vector>(x: &[f32], scale: f32, shift: f32, y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        let u = x * scale + shift;
        *y = u * sigmoid(u);
    }
}

/// Fills `dx` and sums the gradients of scale and shift.
#[inline(always)]
fn plane_gradient_body<V: Vector>(x: &[f32], scale: f32, shift: f32, dy: &[f32], dx: &mut [f32]) -> (f32, f32) {
    let slope = |x: f32, dy: f32| {
        let u = x * scale + shift;
        let s = sigmoid(u);
        dy * s * (1.0 + u * (1.0 - s))
    };
    let (mut of_scale, mut of_shift) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (dx, dx_rest) = dx.as_chunks_mut::<LANES>();
    for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
        let mut du = [0.0; LANES];
        for lane in 0..LANES {
            du[lane] = slope(x[lane], dy[lane]);
        }
        for lane in 0..LANES {
            dx[lane] = du[lane] * scale;
            of_scale[lane] += du[lane] * x[lane];
            of_shift[lane] += du[lane];
        }
    }
    for (lane, ((&x, &dy), dx)) in x_rest.iter().zip(dy_rest).zip(dx_rest).enumerate() {
        let du = slope(x, dy);
        *dx = du * scale;
        of_scale[lane] += du * x;
        of_shift[lane] += du;
    }
    (of_scale.iter().sum(), of_shift.iter().sum())
}

/// `x` as planes of `scale.len()` channels of images.
pub fn forward(x: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let size = (x.len() / scale.len().max(1)).max(1);
    written(x.len(), size, |index, start, y| {
        plane(&x[index * size + start..][..y.len()], scale[index], shift[index], y);
    })
}

/// The gradients of `x`, scale and shift.
pub fn backward(x: &[f32], scale: &[f32], shift: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut dx = vec![0.0; x.len()];
    let size = (x.len() / scale.len().max(1)).max(1);
    let planes =
        dx.par_chunks_mut(size).zip(x.par_chunks(size)).zip(dy.par_chunks(size)).zip(scale.par_iter().zip(shift));
    let (of_scale, of_shift) =
        planes.map(|(((dx, x), dy), (&scale, &shift))| plane_gradient(x, scale, shift, dy, dx)).unzip();
    (dx, of_scale, of_shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_the_slopes() {
        let x: Vec<f32> = (0..42).map(|i| (i as f32 - 20.0) * 0.17).collect();
        let (scale, shift) = ([0.7, -1.3], [0.1, 0.4]);
        let dy: Vec<f32> = (0..42).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.2).collect();
        let (dx, of_scale, of_shift) = backward(&x, &scale, &shift, &dy);
        let total = |x: &[f32], scale: &[f32], shift: &[f32]| -> f64 {
            forward(x, scale, shift).iter().zip(&dy).map(|(&y, &dy)| f64::from(y) * f64::from(dy)).sum()
        };
        const STEP: f32 = 1e-2;
        let close = |found: f32, up: f64, down: f64| {
            let slope = (up - down) / f64::from(2.0 * STEP);
            assert!((f64::from(found) - slope).abs() < 2e-3, "{found} {slope}");
        };
        let moved = |values: &[f32], at: usize, by: f32| -> Vec<f32> {
            values.iter().enumerate().map(|(index, &value)| if index == at { value + by } else { value }).collect()
        };
        for at in [0, 5, 20, 21, 41] {
            close(dx[at], total(&moved(&x, at, STEP), &scale, &shift), total(&moved(&x, at, -STEP), &scale, &shift));
        }
        for at in 0..2 {
            close(
                of_scale[at],
                total(&x, &moved(&scale, at, STEP), &shift),
                total(&x, &moved(&scale, at, -STEP), &shift),
            );
            close(
                of_shift[at],
                total(&x, &scale, &moved(&shift, at, STEP)),
                total(&x, &scale, &moved(&shift, at, -STEP)),
            );
        }
    }
}
