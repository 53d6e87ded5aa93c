//! Attention of one head over all positions of an image, whose channels come first.

use crate::parallel::*;

use super::causal::exp_and_sum;
use crate::matmul::f32_gemm::{GemmShape, Operand, gemm};
use crate::simd::reduce::largest;
use crate::simd::{Simd, simd_dispatch};

simd_dispatch!(fn scaled_softmax(scores: &mut [f32], scale: f32) = scaled_softmax_body);

#[inline(always)]
fn scaled_softmax_body<S: Simd>(_: S, scores: &mut [f32], scale: f32) {
    scores.iter_mut().for_each(|score| *score *= scale);
    let max = largest(scores);
    let inverse = exp_and_sum(scores, max).recip();
    scores.iter_mut().for_each(|score| *score *= inverse);
}

/// `softmax(q · kᵀ / √channels) · v`, all `[channels, positions]`. Besides the result it takes a table of the scores of
/// all positions for each other.
///
/// # Panics
/// If the slices differ in length, or are no multiple of `channels`.
pub fn forward(q: &[f32], k: &[f32], v: &[f32], channels: usize) -> Vec<f32> {
    let positions = q.len() / channels.max(1);
    let shape = GemmShape { m: positions, n: positions, k: channels };
    let mut scores = gemm(Operand::Transposed(q), Operand::Normal(k), shape);
    let scale = (channels as f32).sqrt().recip();
    scores.par_chunks_mut(positions.max(1)).for_each(|scores| scaled_softmax(scores, scale));
    let shape = GemmShape { m: channels, n: positions, k: positions };
    gemm(Operand::Normal(v), Operand::Transposed(&scores), shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;
    use crate::precise;

    #[test]
    fn matches_the_same_in_double_precision() {
        for [channels, positions] in [[1, 1], [3, 7], [40, 70], [64, 300]] {
            let all: [Vec<f32>; 3] = [1, 2, 3].map(|seed| numbers(channels * positions, seed));
            let [q, k, v] = &all;
            let wide = all.each_ref().map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let expected = precise::attention(&wide[0], &wide[1], &wide[2], channels);
            let found = forward(q, k, v, channels);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{channels} {positions}: {found} {expected}");
            }
        }
        assert!(forward(&[], &[], &[], 0).is_empty());
    }
}
