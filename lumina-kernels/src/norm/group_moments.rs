//! Mean and variance of groups of channels: the statistics of a group norm.
//!
//! `variance = mean((x − mean)²)`, in two passes, which loses no digits where the mean is large. Blocks of `BLOCK`
//! values are summed in `f32` vectors, and the blocks in `f64`.

use crate::parallel::*;

use crate::simd::reduce::total;
use crate::simd::{LANES, Simd, simd_dispatch};

/// Values that are summed in `f32` before the sum is cast up to `f64`.
const BLOCK: usize = 1 << 12;

/// The result of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct GroupMoments {
    /// The mean of each group.
    pub means: Vec<f32>,
    /// The (biased) variance of each group.
    pub variances: Vec<f32>,
}

simd_dispatch!(fn sum(values: &[f32]) -> f32 = sum_body);
simd_dispatch!(fn squared_distance(values: &[f32], mean: f32) -> f32 = squared_distance_body);

#[inline(always)]
fn sum_body<S: Simd>(_: S, values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    total(lanes) + rest.iter().sum::<f32>()
}

/// `Σ (value − mean)²`.
#[inline(always)]
fn squared_distance_body<S: Simd>(_: S, values: &[f32], mean: f32) -> f32 {
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

/// Mean and variance of each `group_len` consecutive values of `x`. The order of the sums depends on `group_len` alone.
pub fn forward(x: &[f32], group_len: usize) -> GroupMoments {
    let moments = |values: &[f32]| {
        let mean = values.chunks(BLOCK).map(|block| f64::from(sum(block))).sum::<f64>() / group_len as f64;
        let mean = mean as f32;
        let squares = values.chunks(BLOCK).map(|block| f64::from(squared_distance(block, mean))).sum::<f64>();
        (mean, (squares / group_len as f64) as f32)
    };
    let (means, variances) = x.par_chunks(group_len.max(1)).map(moments).unzip();
    GroupMoments { means, variances }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    #[test]
    fn match_the_definition_for_each_group() {
        for group_len in [1, 15, 48, BLOCK + 33] {
            let x: Vec<f32> = numbers(3 * group_len, 1).iter().map(|value| value + 5.0).collect();
            let GroupMoments { means, variances } = forward(&x, group_len);
            for (values, (mean, variance)) in x.chunks(group_len).zip(means.into_iter().zip(variances)) {
                let expected = values.iter().map(|&value| f64::from(value)).sum::<f64>() / group_len as f64;
                let squares = values.iter().map(|&value| (f64::from(value) - expected).powi(2)).sum::<f64>();
                assert!((f64::from(mean) - expected).abs() < 1e-5, "{mean} {expected}");
                assert!((f64::from(variance) - squares / group_len as f64).abs() < 1e-5, "{variance}");
            }
        }
        assert_eq!(forward(&[], 0), GroupMoments { means: Vec::new(), variances: Vec::new() });
    }
}
