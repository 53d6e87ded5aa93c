//! Mean and variance of groups of channels on slices.

use rayon::prelude::*;

use crate::simd::vector::{LANES, Vector, best_instructions, total};

/// Numbers that are summed in `f32` before they go to `f64`.
const BLOCK: usize = 1 << 12;

best_instructions!(sum = sum_body(values: &[f32]) -> f32);
best_instructions!(square_sum = square_sum_body(values: &[f32], mean: f32) -> f32);

#[inline(always)]
fn sum_body<V: Vector>(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    total(lanes) + rest.iter().sum::<f32>()
}

/// The sum of squared distances from `mean`.
#[inline(always)]
fn square_sum_body<V: Vector>(values: &[f32], mean: f32) -> f32 {
    let square = |value: f32| (value - mean) * (value - mean);
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += square(value);
        }
    }
    total(lanes) + rest.iter().map(|&value| square(value)).sum::<f32>()
}

/// Mean and variance of each run of `size` numbers, in an order that depends on `size` alone.
pub fn moments(x: &[f32], size: usize) -> (Vec<f32>, Vec<f32>) {
    let of_group = |values: &[f32]| {
        let mean = values.chunks(BLOCK).map(|block| f64::from(sum(block))).sum::<f64>() / size as f64;
        let mean = mean as f32;
        let squares = values.chunks(BLOCK).map(|block| f64::from(square_sum(block, mean))).sum::<f64>();
        (mean, (squares / size as f64) as f32)
    };
    x.par_chunks(size.max(1)).map(of_group).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    #[test]
    fn are_those_of_each_group() {
        for size in [1, 15, 48, BLOCK + 33] {
            let x: Vec<f32> = numbers(3 * size, 1).iter().map(|value| value + 5.0).collect();
            let (means, variances) = moments(&x, size);
            for (values, (mean, variance)) in x.chunks(size).zip(means.into_iter().zip(variances)) {
                let expected = values.iter().map(|&value| f64::from(value)).sum::<f64>() / size as f64;
                let squares = values.iter().map(|&value| (f64::from(value) - expected).powi(2)).sum::<f64>();
                assert!((f64::from(mean) - expected).abs() < 1e-5, "{mean} {expected}");
                assert!((f64::from(variance) - squares / size as f64).abs() < 1e-5, "{variance}");
            }
        }
        assert_eq!(moments(&[], 0), (Vec::new(), Vec::new()));
    }
}
