//! Cross entropy and z-loss, and their gradients on slices, a row of logits at a time.

use rayon::prelude::*;

use crate::simd::exp::exp;
use crate::simd::vector::{LANES, Vector, best_instructions, largest, total};

best_instructions!(log_sum_exp = log_sum_exp_body(logits: &[f32]) -> f32);
best_instructions!(softmax_times = softmax_times_body(logits: &[f32], log_sum_exp: f32, factor: f32, to: &mut [f32]));

#[inline(always)]
fn log_sum_exp_body<V: Vector>(logits: &[f32]) -> f32 {
    let max = largest(logits);
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp(logit - max);
        }
    }
    (total(lanes) + rest.iter().map(|&logit| exp(logit - max)).sum::<f32>()).ln() + max
}

#[inline(always)]
fn softmax_times_body<V: Vector>(logits: &[f32], log_sum_exp: f32, factor: f32, to: &mut [f32]) {
    for (to, &logit) in to.iter_mut().zip(logits) {
        *to = exp(logit - log_sum_exp) * factor;
    }
}

/// Mean cross entropy, mean squared log-sum-exp, and the log-sum-exp of each row, `[n]`.
pub fn forward(logits: &[f32], targets: &[u32]) -> (f32, f32, Vec<f32>) {
    let n = targets.len();
    let vocab_size = (logits.len() / n.max(1)).max(1);
    let sums: Vec<f32> = logits.par_chunks_exact(vocab_size).map(log_sum_exp).collect();
    let (mut cross_entropy, mut squares) = (0.0, 0.0);
    for ((&sum, logits), &target) in sums.iter().zip(logits.chunks_exact(vocab_size)).zip(targets) {
        cross_entropy += f64::from(sum) - f64::from(logits[target as usize]);
        squares += f64::from(sum) * f64::from(sum);
    }
    ((cross_entropy / n as f64) as f32, (squares / n as f64) as f32, sums)
}

/// The gradient of the logits, from those of the two means.
pub fn backward(logits: &[f32], targets: &[u32], sums: &[f32], [of_entropy, of_squares]: [f32; 2]) -> Vec<f32> {
    let n = targets.len();
    let vocab_size = (logits.len() / n.max(1)).max(1);
    let mut result = vec![0.0; logits.len()];
    let rows = result.par_chunks_exact_mut(vocab_size).zip(logits.par_chunks_exact(vocab_size));
    rows.zip(sums.par_iter().zip(targets)).for_each(|((result, logits), (&sum, &target))| {
        softmax_times(logits, sum, (of_entropy + 2.0 * of_squares * sum) / n as f32, result);
        result[target as usize] -= of_entropy / n as f32;
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_slopes, numbers};

    #[test]
    fn is_the_loss_and_its_slopes() {
        for (n, vocab_size) in [(1, 1), (1, 5), (3, 16), (7, 133)] {
            let logits: Vec<f32> = numbers(n * vocab_size, 1).iter().map(|value| 8.0 * value).collect();
            let targets: Vec<u32> = (0..n).map(|row| (row * 7 % vocab_size) as u32).collect();
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let mut means = vec![0.0; 2];
                for (logits, &target) in inputs[0].chunks_exact(vocab_size).zip(&targets) {
                    let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
                    means[0] += (sum - logits[target as usize]) / n as f64;
                    means[1] += sum * sum / n as f64;
                }
                means
            };
            let (cross_entropy, squares, sums) = forward(&logits, &targets);
            assert_close(&[cross_entropy, squares], &[&logits], &plain);
            let dy = [0.7, 0.3];
            assert_slopes(&[&logits], &[&backward(&logits, &targets, &sums, dy)], &dy, &plain);
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_masked_logits_count_nothing() {
        assert!(forward(&[0.0, f32::NAN, 1.0], &[0]).0.is_nan());
        assert!(
            forward(&[0.0, f32::INFINITY], &[0]).0.is_nan() || forward(&[0.0, f32::INFINITY], &[0]).0.is_infinite()
        );
        let (masked, _, sums) = forward(&[1.0, f32::MIN, 2.0], &[2]);
        assert!((masked - forward(&[1.0, 2.0], &[1]).0).abs() < 1e-6);
        assert!(backward(&[1.0, f32::MIN, 2.0], &[2], &sums, [1.0, 0.0])[1].abs() < 1e-30);
    }
}
