//! `swish(x · scale + shift)` with `swish(u) = u · sigmoid(u)`, and a scale and a shift for each plane of an image.
//!
//! A group norm's normalisation and affine part are such a scale and shift, so norm and activation take one pass over
//! memory.

use crate::parallel::*;

use crate::memory::fill_in_parallel;
use crate::simd::exp::sigmoid;
use crate::simd::{LANES, Simd, simd_dispatch};

/// The result of [`backward`].
#[derive(Debug, Clone)]
pub struct ScaledSwishGradients {
    /// Gradient of `x`.
    pub dx: Vec<f32>,
    /// Gradient of the scale, `[planes]`.
    pub dscale: Vec<f32>,
    /// Gradient of the shift, `[planes]`.
    pub dshift: Vec<f32>,
}

simd_dispatch!(fn plane(x: &[f32], scale: f32, shift: f32, y: &mut [f32]) = plane_body);
simd_dispatch!(fn plane_gradient(
    x: &[f32], scale: f32, shift: f32, dy: &[f32], dx: &mut [f32]
) -> (f32, f32) = plane_gradient_body);

#[inline(always)]
fn plane_body<S: Simd>(_: S, x: &[f32], scale: f32, shift: f32, y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        let u = x * scale + shift;
        *y = u * sigmoid(u);
    }
}

/// Stores the gradient of `x`; returns those of scale and shift.
#[inline(always)]
fn plane_gradient_body<S: Simd>(_: S, x: &[f32], scale: f32, shift: f32, dy: &[f32], dx: &mut [f32]) -> (f32, f32) {
    let gradient = |x: f32, dy: f32| {
        let u = x * scale + shift;
        let s = sigmoid(u);
        dy * s * (1.0 + u * (1.0 - s))
    };
    let (mut dscale, mut dshift) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (dx, dx_rest) = dx.as_chunks_mut::<LANES>();
    for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
        let mut du = [0.0; LANES];
        for lane in 0..LANES {
            du[lane] = gradient(x[lane], dy[lane]);
        }
        for lane in 0..LANES {
            dx[lane] = du[lane] * scale;
            dscale[lane] += du[lane] * x[lane];
            dshift[lane] += du[lane];
        }
    }
    for (lane, ((&x, &dy), dx)) in x_rest.iter().zip(dy_rest).zip(dx_rest).enumerate() {
        let du = gradient(x, dy);
        *dx = du * scale;
        dscale[lane] += du * x;
        dshift[lane] += du;
    }
    (dscale.iter().sum(), dshift.iter().sum())
}

/// `x` `[planes, plane]` with `scale` and `shift` `[planes]`: as `x`.
pub fn forward(x: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let size = (x.len() / scale.len().max(1)).max(1);
    fill_in_parallel(x.len(), size, |index, start, y| {
        plane(&x[index * size + start..][..y.len()], scale[index], shift[index], y);
    })
}

/// The gradients of `x`, `scale` and `shift`, from `dy`, of the size of `x`.
pub fn backward(x: &[f32], scale: &[f32], shift: &[f32], dy: &[f32]) -> ScaledSwishGradients {
    let mut dx = vec![0.0; x.len()];
    let size = (x.len() / scale.len().max(1)).max(1);
    let planes =
        dx.par_chunks_mut(size).zip(x.par_chunks(size)).zip(dy.par_chunks(size)).zip(scale.par_iter().zip(shift));
    let (dscale, dshift) =
        planes.map(|(((dx, x), dy), (&scale, &shift))| plane_gradient(x, scale, shift, dy, dx)).unzip();
    ScaledSwishGradients { dx, dscale, dshift }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_match_numerical_ones() {
        let x: Vec<f32> = (0..42).map(|i| (i as f32 - 20.0) * 0.17).collect();
        let (scale, shift) = ([0.7, -1.3], [0.1, 0.4]);
        let dy: Vec<f32> = (0..42).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.2).collect();
        let ScaledSwishGradients { dx, dscale, dshift } = backward(&x, &scale, &shift, &dy);
        let total = |x: &[f32], scale: &[f32], shift: &[f32]| -> f64 {
            forward(x, scale, shift).iter().zip(&dy).map(|(&y, &dy)| f64::from(y) * f64::from(dy)).sum()
        };
        const STEP: f32 = 1e-2;
        let close = |found: f32, up: f64, down: f64| {
            let expected = (up - down) / f64::from(2.0 * STEP);
            assert!((f64::from(found) - expected).abs() < 2e-3, "{found} {expected}");
        };
        let shifted = |values: &[f32], at: usize, by: f32| -> Vec<f32> {
            values.iter().enumerate().map(|(index, &value)| if index == at { value + by } else { value }).collect()
        };
        for at in [0, 5, 20, 21, 41] {
            let [up, down] = [STEP, -STEP].map(|by| total(&shifted(&x, at, by), &scale, &shift));
            close(dx[at], up, down);
        }
        for at in 0..2 {
            let [up, down] = [STEP, -STEP].map(|by| total(&x, &shifted(&scale, at, by), &shift));
            close(dscale[at], up, down);
            let [up, down] = [STEP, -STEP].map(|by| total(&x, &scale, &shifted(&shift, at, by)));
            close(dshift[at], up, down);
        }
    }
}
