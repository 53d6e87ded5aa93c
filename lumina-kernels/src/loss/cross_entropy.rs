//! Cross entropy and z-loss of rows of logits `[n, vocab_size]`, with their gradient.
//!
//! `cross_entropy = mean(lse − logit[target])` and `z_loss = mean(lse²)`, where `lse = log Σ exp(logit)` of a row. The
//! forward pass returns `lse` `[n]`, from which the backward pass gets the softmax without another sum.

use crate::parallel::*;

use crate::simd::exp::exp;
use crate::simd::reduce::{largest, total};
use crate::simd::{LANES, Simd, simd_dispatch};

/// The result of [`forward`].
#[derive(Debug, Clone)]
pub struct CrossEntropyOutput {
    /// Mean cross entropy of the rows.
    pub cross_entropy: f32,
    /// Mean squared log-sum-exp of the rows.
    pub z_loss: f32,
    /// Log-sum-exp of each row, `[n]`.
    pub log_sum_exp: Vec<f32>,
}

/// Gradients of the two means, from which [`backward`] starts.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyGradients {
    /// Gradient of [`CrossEntropyOutput::cross_entropy`].
    pub dcross_entropy: f32,
    /// Gradient of [`CrossEntropyOutput::z_loss`].
    pub dz_loss: f32,
}

simd_dispatch!(fn log_sum_exp(logits: &[f32]) -> f32 = log_sum_exp_body);
simd_dispatch!(fn scaled_softmax(
    logits: &[f32], log_sum_exp: f32, scale: f32, result: &mut [f32]
) = scaled_softmax_body);

#[inline(always)]
fn log_sum_exp_body<S: Simd>(_: S, logits: &[f32]) -> f32 {
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
fn scaled_softmax_body<S: Simd>(_: S, logits: &[f32], log_sum_exp: f32, scale: f32, result: &mut [f32]) {
    for (result, &logit) in result.iter_mut().zip(logits) {
        *result = exp(logit - log_sum_exp) * scale;
    }
}

/// The losses of `logits` `[n, vocab_size]` for `targets` `[n]`, each below `vocab_size`.
pub fn forward(logits: &[f32], targets: &[u32]) -> CrossEntropyOutput {
    let n = targets.len();
    let vocab_size = (logits.len() / n.max(1)).max(1);
    let log_sum_exp: Vec<f32> = logits.par_chunks_exact(vocab_size).map(log_sum_exp).collect();
    let (mut cross_entropy, mut squares) = (0.0, 0.0);
    for ((&lse, logits), &target) in log_sum_exp.iter().zip(logits.chunks_exact(vocab_size)).zip(targets) {
        cross_entropy += f64::from(lse) - f64::from(logits[target as usize]);
        squares += f64::from(lse) * f64::from(lse);
    }
    CrossEntropyOutput {
        cross_entropy: (cross_entropy / n as f64) as f32,
        z_loss: (squares / n as f64) as f32,
        log_sum_exp,
    }
}

/// The gradient of the logits `[n, vocab_size]`, with `log_sum_exp` `[n]` from the forward pass.
pub fn backward(
    logits: &[f32],
    targets: &[u32],
    log_sum_exp: &[f32],
    CrossEntropyGradients { dcross_entropy, dz_loss }: CrossEntropyGradients,
) -> Vec<f32> {
    let n = targets.len();
    let vocab_size = (logits.len() / n.max(1)).max(1);
    let mut result = vec![0.0; logits.len()];
    let rows = result.par_chunks_exact_mut(vocab_size).zip(logits.par_chunks_exact(vocab_size));
    rows.zip(log_sum_exp.par_iter().zip(targets)).for_each(|((result, logits), (&lse, &target))| {
        scaled_softmax(logits, lse, (dcross_entropy + 2.0 * dz_loss * lse) / n as f32, result);
        result[target as usize] -= dcross_entropy / n as f32;
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_gradients, numbers};

    #[test]
    fn matches_the_definition_and_its_numerical_gradients() {
        for (n, vocab_size) in [(1, 1), (1, 5), (3, 16), (7, 133)] {
            let logits: Vec<f32> = numbers(n * vocab_size, 1).iter().map(|value| 8.0 * value).collect();
            let targets: Vec<u32> = (0..n).map(|row| (row * 7 % vocab_size) as u32).collect();
            let reference = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let mut means = vec![0.0; 2];
                for (logits, &target) in inputs[0].chunks_exact(vocab_size).zip(&targets) {
                    let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
                    means[0] += (sum - logits[target as usize]) / n as f64;
                    means[1] += sum * sum / n as f64;
                }
                means
            };
            let CrossEntropyOutput { cross_entropy, z_loss, log_sum_exp } = forward(&logits, &targets);
            assert_close(&[cross_entropy, z_loss], &[&logits], &reference);
            let gradients = CrossEntropyGradients { dcross_entropy: 0.7, dz_loss: 0.3 };
            let dlogits = backward(&logits, &targets, &log_sum_exp, gradients);
            assert_gradients(&[&logits], &[&dlogits], &[0.7, 0.3], &reference);
        }
    }

    #[test]
    fn nan_stays_nan_and_masked_logits_count_nothing() {
        assert!(forward(&[0.0, f32::NAN, 1.0], &[0]).cross_entropy.is_nan());
        let infinite = forward(&[0.0, f32::INFINITY], &[0]).cross_entropy;
        assert!(infinite.is_nan() || infinite.is_infinite());
        let masked = forward(&[1.0, f32::MIN, 2.0], &[2]);
        assert!((masked.cross_entropy - forward(&[1.0, 2.0], &[1]).cross_entropy).abs() < 1e-6);
        let gradients = CrossEntropyGradients { dcross_entropy: 1.0, dz_loss: 0.0 };
        assert!(backward(&[1.0, f32::MIN, 2.0], &[2], &masked.log_sum_exp, gradients)[1].abs() < 1e-30);
    }
}
